"""Noise floor: the variation of a metric between seeds, and the smallest detectable difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array
from ligr_jax.scaling.fit.checks import checked, names_of
from ligr_jax.strict_json import nan_to_null

UNEQUAL = 0.01  # p of Bartlett's test below which the scales are said to differ in noise


class Scale(NamedTuple):
    """Standard deviation of one group of runs (one shape, several seeds), with its interval.

    `n` is the number of runs, `mean` the mean metric, `low` and `high` the interval of `sd`.
    """

    group: str
    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a metric between seeds, in metric units.

    Intervals are chi-square intervals of the standard deviation and assume normal noise.

    Attributes:
        scales: one entry per group with two seeds or more.
        pooled: (sd, low, high) pooled over the groups.
        freedom: degrees of freedom of the pooled standard deviation.
        confidence: coverage of the intervals, and 1 - level of the test in `detectable`.
        power: power of the test in `detectable`.
        warnings: reasons not to use the pooled value.
    """

    scales: tuple[Scale, ...]
    pooled: tuple[float, float, float]
    freedom: int
    confidence: float
    power: float
    warnings: tuple[str, ...]

    def detectable(self, seeds: int) -> float:
        """Return the smallest detectable true difference between two means of `seeds` runs each.

        A two-sided t test at level 1 - confidence, with the pooled standard deviation and its
        degrees of freedom, detects this difference with probability `power` (noncentral t). For a
        noise study of two groups of `seeds` runs this is the usual power analysis of the two-sample
        t test.

        Args:
            seeds: runs per mean, at least 1.

        Returns:
            The difference, in metric units.
        """
        if seeds < 1:
            raise BadInput(f"seeds={seeds}: a mean needs one run or more")
        shift = detectable_shift(self.freedom, self.confidence, self.power)
        return float(shift * self.pooled[0] * np.sqrt(2.0 / seeds))

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        result: dict[str, Any] = nan_to_null(
            vars(self) | {"scales": [s._asdict() for s in self.scales]}
        )
        return result


def detectable_shift(freedom: int, confidence: float, power: float) -> float:
    """Return the true mean, in standard errors, that a two-sided t test detects.

    Args:
        freedom: degrees of freedom of the standard error.
        confidence: 1 - level of the test.
        power: probability of detection, in (1 - confidence, 1).
    """
    critical = float(stats.t.ppf(0.5 * (1.0 + confidence), freedom))

    def excess_power(shift: float) -> float:
        detected = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
        return float(detected) - power

    upper = critical
    while excess_power(upper) < 0:
        upper *= 1.5
    return float(optimize.brentq(excess_power, 0.0, upper))


def noise_floor(
    metric: ArrayLike,
    groups: Sequence[Any],
    *,
    confidence: float = CONFIDENCE,
    power: float = 0.8,
) -> Noise:
    """Estimate the standard deviation between seeds, per group and pooled.

    Args:
        metric: metric of each run, (n,).
        groups: n labels, equal for runs that differ only in their seed.
        confidence: coverage of the intervals.
        power: probability of detection that `Noise.detectable` uses, in (1 - confidence, 1).

    Returns:
        The noise of each group with two runs or more, and the pooled noise.

    Raises:
        BadInput: no group has two runs, all groups have equal metrics, or an argument is invalid.
    """
    (y,) = checked(names_of((), metric), metric)
    labels = np.array([str(g) for g in groups])
    if len(labels) != len(y):
        raise BadInput(f"{len(labels)} groups for {len(y)} runs: give one group label per run")
    if not 1.0 - confidence < power < 1.0:
        raise BadInput(f"power={power:g} is outside ({1.0 - confidence:g}, 1)")
    parts = {g: y[labels == g] for g in dict.fromkeys(labels.tolist())}
    seeded = {g: part for g, part in parts.items() if len(part) > 1}
    if not seeded:
        raise BadInput(
            f"none of {len(parts)} groups has two runs: train a second seed of at least one"
        )
    freedom = sum(len(part) - 1 for part in seeded.values())
    squares = {g: float(((part - part.mean()) ** 2).sum()) for g, part in seeded.items()}
    square = sum(squares.values())
    if square == 0:
        raise BadInput(
            "seeds give equal metrics: check that the seed is used and no run is listed twice"
        )
    notes = []
    if len(seeded) < len(parts):
        notes.append(f"{len(parts) - len(seeded)} groups have one run and are ignored")
    varying = [part for part in seeded.values() if np.ptp(part) > 0]
    if len(varying) > 1 and stats.bartlett(*varying).pvalue < UNEQUAL:
        notes.append(
            "the scales differ in noise (Bartlett's test): use each one's, not the pooled value"
        )
    return Noise(
        scales=tuple(
            Scale(g, len(p), float(p.mean()), *_sd(squares[g], len(p) - 1, confidence))
            for g, p in seeded.items()
        ),
        pooled=_sd(square, freedom, confidence),
        freedom=freedom,
        confidence=confidence,
        power=power,
        warnings=tuple(notes),
    )


def _sd(square: float, freedom: int, confidence: float) -> tuple[float, float, float]:
    """Return the standard deviation from a sum of squares, and its chi-square interval."""
    tail = 0.5 * (1.0 - confidence)
    quantiles: Array = stats.chi2.ppf([1.0 - tail, tail], freedom)
    low, high = np.sqrt(square / quantiles)
    return float(np.sqrt(square / freedom)), float(low), float(high)
