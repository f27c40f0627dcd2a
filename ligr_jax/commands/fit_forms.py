"""The forms of laws that `ligr fit` knows: their options, columns and fits."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.commands.arguments import count, positive_float
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import (
    FORMS,
    Form,
    FormLaw,
    fit_factors,
    fit_form,
    fit_isoflop,
    fit_line,
    fit_loglog,
    fit_power,
    fit_saturating,
    fit_surface,
)
from ligr_jax.scaling.rows import text_column

FORMULAS = {
    "power": "E + A C^-alpha",
    "line": "level + slope log10 C",
    "saturating": "ceiling - A C^-alpha",
    "chinchilla": "E + A N^-alpha + B D^-beta",
    "isoflop": "a parabola in log N at each C, best at N = coefficient C^exponent",
    "tied": "E + A N^-alpha + B D^-alpha",
    "repeated": "E + A N'^-alpha + B D'^-beta, with the worth of N and D at --unique data",
    "overfitted": "E + A N^-alpha + B D^-beta + C (N repeats / unique)^gamma",
    "loglog": "coefficient C^exponent, through optima",
    "factors": "level + sum of slope log2 of each factor",
}
# Formulas of laws that follow from other options than --form.
DERIVED = {
    "rising": "ceiling - A N^-alpha - B D^-beta",
    "families": "a floor E or a factor per family, and common exponents",
    "surface": "a floor E or a factor per family, and common exponents",
}
IN_N_AND_D = ("chinchilla", "tied", "repeated", "overfitted")
IN_C = ("power", "line", "saturating")
CURVES = ("power", "chinchilla")


def add_forms(parser: argparse.ArgumentParser) -> None:
    """Add the options of single forms."""
    parser.add_argument(
        "--family",
        metavar="COL",
        help="power, chinchilla: column of families that share exponents; factors: own levels",
    )
    parser.add_argument(
        "--differ",
        choices=("floor", "factor"),
        default="floor",
        help="what each --family has of its own (%(default)s)",
    )
    parser.add_argument(
        "--factors", metavar="COL,COL", help="columns of the factors of --form factors"
    )
    parser.add_argument(
        "--frontier", action="store_true", help="fit the best run of each budget only"
    )
    parser.add_argument(
        "--budget-tolerance",
        type=positive_float,
        metavar="SHARE",
        help="isoflop, --frontier: difference in compute within a budget (default: from the data)",
    )
    parser.add_argument(
        "--minimum",
        choices=("parabola", "window", "akima"),
        default="parabola",
        help="isoflop: how the minimum of a budget is found (%(default)s)",
    )
    parser.add_argument(
        "--window", type=positive_float, metavar="DECADES", help="half-width of --minimum window"
    )
    parser.add_argument(
        "--weight", metavar="COL", help="isoflop, line, loglog: column of weights (1 / variance)"
    )
    parser.add_argument(
        "--weighted",
        action="store_true",
        help="isoflop: weigh each minimum by its inverse variance",
    )
    parser.add_argument(
        "--noise",
        type=positive_float,
        metavar="SD",
        help="isoflop: standard deviation of the metric between seeds, if it is known",
    )
    parser.add_argument(
        "--confidence", type=positive_float, default=0.9, help="of the intervals (%(default)s)"
    )
    parser.add_argument("--seed", type=count, default=0, help="of the bootstrap (%(default)s)")


def refuse_unused(form: str, args: argparse.Namespace) -> None:
    """Raise BadInput for an option that the fit of this form would ignore, or for one it lacks."""
    budgeted = ("isoflop", *(IN_C if args.frontier else ()))
    for option, value, default, forms in (
        ("--floor", args.floor, "free", ("power",)),
        ("--unique", args.unique, None, ("chinchilla", "repeated", "overfitted")),
        ("--family", args.family, None, (*CURVES, "factors")),
        ("--factors", args.factors, None, ("factors",)),
        ("--frontier", args.frontier, False, IN_C),
        ("--budget-tolerance", args.budget_tolerance, None, budgeted),
        ("--minimum", args.minimum, "parabola", ("isoflop",)),
        ("--window", args.window, None, ("isoflop",)),
        ("--weight", args.weight, None, ("isoflop", "line", "loglog")),
        ("--weighted", args.weighted, False, ("isoflop",)),
        ("--noise", args.noise, None, ("isoflop",)),
    ):
        if value != default and form not in forms:
            given = option if value is True else f"{option} {value}"
            applies = ", ".join(forms)
            raise BadInput(f"{given} applies to --form {applies} only, and the form is {form}")
    if form in ("repeated", "overfitted") and not args.unique:
        raise BadInput(f"--form {form} needs --unique COL, the column of unique data")
    if form == "factors" and not args.factors:
        raise BadInput("--form factors needs --factors COL,COL, the columns of the factors")
    if args.family and (args.floor != "free" or args.frontier or args.unique):
        raise BadInput("--family goes with neither --floor nor --frontier nor --unique")
    if form == "factors" and args.leave_out is not None:
        raise BadInput("--leave-out leaves out the largest budgets, and --form factors has none")
    if args.window and args.minimum != "window":
        raise BadInput(f"--window {args.window:g} applies to --minimum window only")
    if args.confidence >= 1:
        raise BadInput(f"--confidence {args.confidence:g}: give a share below 1, e.g. 0.9")


def scale_columns(form: str, args: argparse.Namespace) -> list[str]:
    """Return the columns of the scales of a form."""
    if form == "factors":
        names = [name.strip() for name in args.factors.split(",")]
        if len(set(names)) < len(names) or not all(names):
            raise BadInput(f"--factors {args.factors}: give each column once, e.g. width,depth")
        return names
    if form in IN_N_AND_D:
        return [name for name in (args.n, args.d, args.unique) if name]
    return [args.axis, args.n] if form == "isoflop" else [args.axis]


def fit_of(form: str, lower: bool, args: argparse.Namespace) -> Callable[..., Any]:
    """Return the fit of a form: a function of scales, metric and options."""
    rises = form == "saturating" or not lower
    if form in CURVES and args.family:
        shape = FORMS["families" if form == "power" else "surface"]
        return _fit_of_shape(replace(shape, differ=args.differ, rises=rises))
    if form == "chinchilla" and rises and not args.unique:
        return _fit_of_shape(FORMS["rising"])
    if form in IN_N_AND_D[1:] or (form == "chinchilla" and rises):
        shape = FORMS.get(form, replace(FORMS["rising"], decays=("R_D",)))
        return _fit_of_shape(replace(shape, rises=rises))
    if form == "factors":
        return _fit_of_factors(scale_columns(form, args))
    fits: dict[str, Callable[..., Any]] = {
        "power": fit_power,
        "line": fit_line,
        "saturating": fit_saturating,
        "chinchilla": fit_surface,
        "isoflop": fit_isoflop,
        "loglog": fit_loglog,
    }
    return fits[form]


def options_of(form: str, lower: bool, table: RunTable, args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the fit of a form that are not common to all forms."""
    options: dict[str, Any] = {"confidence": args.confidence, "seed": args.seed}
    if form in ("line", "isoflop"):
        options["higher_is_better"] = not lower
    if args.family:
        options["family"] = text_column(table.frame, args.family)
    if args.unique:
        options["unique"] = table.numbers(args.unique)
    if args.weight:
        options["weights"] = table.numbers(args.weight)
    if args.frontier:
        options["frontier"] = True
    if args.budget_tolerance is not None:
        options["tolerance"] = args.budget_tolerance
    if form == "isoflop":
        options |= {"minimum": args.minimum, "width": args.window}
        options |= {"weighted": args.weighted, "noise": args.noise}
    return options


def _fit_of_shape(shape: Form) -> Callable[..., FormLaw]:
    """Return a fit with positional scales, (C) or (N, D), for `leave_out_largest`."""

    def fit(*arrays: ArrayLike, unique: ArrayLike | None = None, **options: Any) -> FormLaw:
        *scales, metric = arrays
        named = dict(zip(("n", "d") if len(scales) == 2 else ("compute",), scales))
        if unique is not None:
            named["unique"] = unique
        return fit_form(shape, named, metric, **options)

    return fit


def _fit_of_factors(names: list[str]) -> Callable[..., Any]:
    def fit(*arrays: ArrayLike, **options: Any) -> Any:
        return fit_factors(dict(zip(names, arrays)), np.asarray(arrays[-1]), **options)

    return fit
