"""The forms of a law that a report compares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligr_jax.scaling.fit import (
    FORMS,
    Form,
    fit_form,
    fit_line,
    fit_power,
    fit_saturating,
    fit_surface,
)

N, D = "params_dense", "tokens"  # columns of parameters and of data seen
Array = NDArray[np.float64]


class Candidate(NamedTuple):
    """A form.

    Attributes:
        name: words for the page.
        formula: its formula.
        free: number of parameters; with `families`, those of one family.
        scales: columns of its scales; empty: the compute axis.
        fit: fit of scales, metric and options.
        families: the form shares its exponent between architectures.
    """

    name: str
    formula: str
    free: int
    scales: tuple[str, ...]
    fit: Callable[..., Any]
    families: bool = False


def candidates(lower: bool, oracle: float | None, several: bool) -> list[Candidate]:
    """Return the forms of a metric, the default one first.

    Args:
        lower: lower is better.
        oracle: the oracle's metric, if it is known and lower is better.
        several: there are several architectures.
    """
    if not lower:
        rising = _in_n_and_d(FORMS["rising"])
        return [
            Candidate("straight line", "level + slope log10 C", 2, (), fit_line),
            Candidate("curve with a ceiling", "ceiling - A C^-alpha", 3, (), fit_saturating),
            Candidate("surface", "ceiling - A N^-alpha - B D^-beta", 5, (N, D), rising),
        ]
    found = [
        Candidate("power law", "E + A C^-alpha", 3, (), fit_power),
        Candidate("power law without a floor", "A C^-alpha", 2, (), _with_floor(0.0)),
        Candidate("straight line", "level + slope log10 C", 2, (), _falling_line),
        Candidate("surface", "E + A N^-alpha + B D^-beta", 5, (N, D), fit_surface),
        Candidate(
            "surface with one exponent", "E + A N^-alpha + B D^-alpha", 4, (N, D),
            _in_n_and_d(FORMS["tied"]),
        ),
    ]  # fmt: skip
    if oracle is not None:
        found.append(
            Candidate(
                "power law above the oracle", "oracle + A C^-alpha", 2, (), _with_floor(oracle)
            )
        )
    if several:
        found.append(
            Candidate(
                "power law with a common exponent", "E_architecture + A C^-alpha", 3, (),
                _families, families=True,
            )
        )  # fmt: skip
    return found


def _with_floor(floor: float) -> Callable[..., Any]:
    def fit(compute: Array, metric: Array, **options: Any) -> Any:
        return fit_power(compute, metric, floor=floor, **options)

    return fit


def _falling_line(compute: Array, metric: Array, **options: Any) -> Any:
    return fit_line(compute, metric, higher_is_better=False, **options)


def _in_n_and_d(shape: Form) -> Callable[..., Any]:
    def fit(n: Array, d: Array, metric: Array, **options: Any) -> Any:
        return fit_form(shape, {"n": n, "d": d}, metric, **options)

    return fit


def _families(compute: Array, metric: Array, **options: Any) -> Any:
    return fit_form(FORMS["families"], {"compute": compute}, metric, **options)
