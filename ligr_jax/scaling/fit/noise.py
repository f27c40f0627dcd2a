"""The noise floor: what seeds alone do to a metric, and what difference shows above it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array
from ligr_jax.scaling.fit.law import checked, names_of, plain

UNEQUAL = 0.01  # of Bartlett's test: a smaller p says that the scales do not share one noise


class Scale(NamedTuple):
    """Runs of one group (one shape, several seeds): standard deviation and its interval."""

    group: str
    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """Standard deviation between seeds, in metric units.

    scales: one per group of two seeds or more. pooled: (sd, low, high) over them, with `freedom`
    degrees of freedom. Intervals are chi-square's, for normal noise.
    """

    scales: tuple[Scale, ...]
    pooled: tuple[float, float, float]
    freedom: int
    confidence: float
    power: float
    warnings: tuple[str, ...]

    def detectable(self, seeds: int) -> float:
        """The least true difference between two means of `seeds` runs each that a test would show.

        Student's two-sided test at level 1 - confidence on the pooled sd and its degrees of freedom
        finds a difference this large with probability `power` (noncentral t; with a noise study of
        two groups of `seeds` runs it is the usual power analysis of the two-sample t test).
        """
        if seeds < 1:
            raise BadInput(f"seeds={seeds}: a mean needs one run or more")
        edge = stats.t.ppf(0.5 * (1.0 + self.confidence), self.freedom)

        def short(shift: float) -> float:
            found = stats.nct.sf(edge, self.freedom, shift)
            found += stats.nct.cdf(-edge, self.freedom, shift)
            return float(found) - self.power

        most = edge
        while short(most) < 0:
            most *= 1.5
        shift = optimize.brentq(short, 0.0, most)
        return float(shift * self.pooled[0] * np.sqrt(2.0 / seeds))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return plain(vars(self) | {"scales": [s._asdict() for s in self.scales]})


def noise_floor(
    metric: ArrayLike,
    groups: Sequence[Any],
    *,
    confidence: float = CONFIDENCE,
    power: float = 0.8,
) -> Noise:
    """The noise of seeds at every scale, and pooled.

    metric: one per run. groups: a label per run, equal for runs that differ in their seed alone.
    power: wanted probability to detect, between 1 - confidence and 1.
    Raises BadInput where no group has two runs, or they are equal to the last digit.
    """
    (y,) = checked(names_of((), metric), metric)
    labels = np.array([str(g) for g in groups])
    if len(labels) != len(y):
        raise BadInput(f"{len(labels)} groups for {len(y)} runs: one each per run")
    if not 1.0 - confidence < power < 1.0:
        raise BadInput(f"power={power:g} is outside ({1.0 - confidence:g}, 1)")
    parts = {g: y[labels == g] for g in dict.fromkeys(labels.tolist())}
    seeded = {g: part for g, part in parts.items() if len(part) > 1}
    if not seeded:
        raise BadInput(f"none of {len(parts)} groups has two runs: train a second seed of some")
    freedom = sum(len(part) - 1 for part in seeded.values())
    squares = {g: float(((part - part.mean()) ** 2).sum()) for g, part in seeded.items()}
    square = sum(squares.values())
    if square == 0:
        raise BadInput("seeds give equal metrics: is the seed used, or one run listed twice?")
    notes = []
    if len(seeded) < len(parts):
        notes.append(f"{len(parts) - len(seeded)} groups of one run say nothing of noise")
    varying = [part for part in seeded.values() if np.ptp(part) > 0]
    if len(varying) > 1 and stats.bartlett(*varying).pvalue < UNEQUAL:
        notes.append("the scales differ in noise (Bartlett): read them singly, not pooled")
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
    """Standard deviation of a sum of squares, with its chi-square interval."""
    tail = 0.5 * (1.0 - confidence)
    over: Array = stats.chi2.ppf([1.0 - tail, tail], freedom)
    low, high = np.sqrt(square / over)
    return float(np.sqrt(square / freedom)), float(low), float(high)
