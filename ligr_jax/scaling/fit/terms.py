"""Sums of terms in logs, with derivatives: the language in which forms of laws are written.

A law is log L = log sum_k exp(t_k). A term knows t_k and its derivative in every coordinate of
theta that it depends on, so a form is a list of terms and needs no algebra of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligr_jax.scaling.fit.powers import Array


class Term(NamedTuple):
    """A term of a sum, or a log scale, that depends on theta.

    Attributes:
        log: its log, (B, n).
        slopes: pairs (coordinate of theta, derivative of `log`, which broadcasts to (B, n)).
    """

    log: Array
    slopes: Sequence[tuple[int, Array]] = ()


def log_of_sum(terms: Sequence[Term], coordinates: int) -> tuple[Array, Array]:
    """Return log sum_k exp(t_k), (B, n), and its derivatives, (B, coordinates, n)."""
    largest = np.maximum.reduce([t.log for t in terms])
    parts = [np.exp(t.log - largest) for t in terms]
    total = sum(parts[1:], parts[0])
    jac = np.zeros((total.shape[0], coordinates, total.shape[1]))
    for term, part in zip(terms, parts):
        share = part / total
        for k, slope in term.slopes:
            jac[:, k] += share * slope
    return largest + np.log(total), jac


def power(theta: Array, coefficient: int, exponent: int, scale: Term, sign: float) -> Term:
    """Return the term A X^(sign alpha).

    Args:
        theta: parameters, (B, p).
        coefficient: coordinate of log A.
        exponent: coordinate of log alpha.
        scale: log X.
        sign: -1 for a term that falls, 1 for one that rises.
    """
    alpha = sign * np.exp(theta[:, exponent, None])
    rise = slope = alpha * scale.log
    absent = scale.log == -np.inf
    if absent.any():  # a run with X = 0 has no such term: its log is -inf and its derivatives are 0
        rise = np.where(absent, -np.inf, rise)
        slope = np.where(absent, 0.0, slope)
    inner = [(k, alpha * d) for k, d in scale.slopes]
    return Term(
        theta[:, coefficient, None] + rise,
        [(coefficient, np.ones(1)), (exponent, slope), *inner],
    )


def constant(theta: Array, coordinates: NDArray[np.int64]) -> Term:
    """Return a term that is one coordinate of theta per run, e.g. the floor of the run's family.

    Args:
        theta: parameters, (B, p).
        coordinates: coordinate of each run, (n,).
    """
    slopes = [(int(k), (coordinates == k).astype(float)) for k in np.unique(coordinates)]
    return Term(theta[:, coordinates], slopes)


def fading(theta: Array, decay: int, unique: Term, repeats: Array) -> Term:
    """Return the log of U + U R (1 - exp(-r / R)), what r repeats of U are worth.

    Args:
        theta: parameters, (B, p).
        decay: coordinate of log R.
        unique: log U.
        repeats: r, (n,) or (B, n).
    """
    scale = np.exp(theta[:, decay, None])
    faded = np.exp(-repeats / scale)
    extra = scale * (1.0 - faded)
    slope = (extra - repeats * faded) / (1.0 + extra)
    return Term(unique.log + np.log1p(extra), [*unique.slopes, (decay, slope)])
