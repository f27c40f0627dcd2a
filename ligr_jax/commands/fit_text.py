"""What `ligr fit` prints of a law."""

import argparse

from ligr_jax.commands.fit_forms import DERIVED, FORMULAS, IN_N_AND_D
from ligr_jax.scaling.fit import FactorLaw, FormLaw, IsoFlop, Law, LeftOut, SurfaceLaw

OPPOSITE = "the other marks of the runs give the opposite sign:"
FittedLaw = Law | SurfaceLaw | FormLaw | FactorLaw | IsoFlop


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
            f"   {law.confidence:.0%} interval {span[0]:.5g} to {span[1]:.5g}" if span else ""
        )
        lines.append(f"  {name:16} {value:.5g}{interval}")
    if isinstance(law, IsoFlop):
        lines += [
            f"  best N at {b.compute:.4g} FLOPs {b.optimum:.4g} ({b.low:.4g} to {b.high:.4g}), "
            f"interpolated {b.interpolated:.4g}"
            for b in law.budgets
            if not b.at_edge
        ]
    return [*lines, *(f"note: {w}" for w in law.warnings)]


def text_of_left_out(row: LeftOut) -> str:
    """Return the line of a run that was left out of the fit."""
    return (
        f"left out {row.run}: {row.observed:.5g} observed, {row.predicted:.5g} predicted "
        f"({row.low:.5g} to {row.high:.5g}: {'covered' if row.covered else 'missed'})"
    )
