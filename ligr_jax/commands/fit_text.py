"""What `ligr fit` prints of a law."""

import argparse
import math
from typing import Any

from ligr_jax.commands.fit_forms import DERIVED, FORMULAS, IN_N_AND_D
from ligr_jax.scaling.fit import Budget, FactorLaw, FormLaw, IsoFlop, Law, LeftOut

OPPOSITE = "the other marks of the runs give the opposite sign:"
FittedLaw = Law | FormLaw | FactorLaw | IsoFlop


def percent(confidence: float) -> str:
    """Return a nominal coverage as text, e.g. "90%" or "99.95%"."""
    return f"{100 * confidence:.10g}%"


def text_of(law: FittedLaw, args: argparse.Namespace) -> list[str]:
    """Return the lines of a law: its formula, its parameters with intervals, and its notes."""
    where = dict.fromkeys((*IN_N_AND_D, "rising", "surface"), f"N = {args.n}, D = {args.d}")
    where |= {"isoflop": f"N = {args.n}, C = {args.axis}", "factors": f"factors {args.factors}"}
    scales = where.get(law.form, f"C = {args.axis}")
    formula = (FORMULAS | DERIVED)[law.form]
    lines = [f"{args.metric} = {formula}, {scales}, {law.points} runs"]
    for name, value in law.params.items():
        span = law.intervals.get(name)
        interval = (
            f"   {percent(law.confidence)} interval {span[0]:.5g} to {span[1]:.5g}" if span else ""
        )
        lines.append(f"  {name:16} {value:.5g}{interval}")
    if isinstance(law, IsoFlop):
        lines += [_text_of_budget(b) for b in law.budgets if not b.at_edge]
    return [*lines, *(f"note: {w}" for w in law.warnings)]


def _text_of_budget(budget: Budget) -> str:
    text = f"  best N at {budget.compute:.4g} FLOPs {budget.optimum:.4g}"
    if math.isfinite(budget.low):
        text += f" ({budget.low:.4g} to {budget.high:.4g})"
    if math.isfinite(budget.interpolated):
        text += f", interpolated {budget.interpolated:.4g}"
    return text


def json_of_left_out(row: LeftOut) -> dict[str, Any]:
    """Return a run that was left out of the fit; `covered` is null without an interval."""
    covered = None if math.isnan(row.low) else row.covered
    return vars(row) | {"error": row.error, "covered": covered}


def text_of_left_out(row: LeftOut) -> str:
    """Return the line of a run that was left out of the fit."""
    span = "no interval"
    if math.isfinite(row.low):
        covered = "covered" if row.covered else "missed"
        span = f"{row.low:.5g} to {row.high:.5g}: {covered}"
    return (
        f"left out {row.run}: {row.observed:.5g} observed, {row.predicted:.5g} predicted ({span})"
    )
