"""Slopes of architectures: gain per decade of compute, compared seed by seed.

Each seed of an architecture has runs of several sizes, and so a line of its own,

    metric = level + slope log10(C / C_0)

with C_0 the geometric middle of the compute that all architectures have in common. The difference
of two architectures in slope, or in level at C_0, is a mean over seeds of paired differences: runs
of one seed see the same data in the same order. Its interval is Student's t over seeds. It covers
what a new seed would change, and not the curvature of the laws: that shows in each architecture's
own interval (`fit_line`), which resamples sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array
from ligr_jax.scaling.fit.checks import checked, names_of
from ligr_jax.scaling.fit.noise import detectable_shift

_SIZES = 3  # a line through two sizes has no residual
_POWER = 0.8


@dataclass(frozen=True)
class PairedDifference:
    """Mean over seeds of a paired difference.

    Attributes:
        value: the mean.
        low, high: its interval; NaN with one seed.
        detectable: smallest true difference that this number of seeds shows with 80 % probability,
            from the deviation of the differences; NaN with fewer than three seeds.
    """

    value: float
    low: float
    high: float
    detectable: float


@dataclass(frozen=True)
class SlopeComparison:
    """Slope and level of an architecture, less those of the baseline.

    Attributes:
        arm: label of the architecture.
        baseline: label of the baseline.
        seeds: number of seeds that both have.
        at: FLOPs of the levels.
        slope: difference in slope, metric units per decade.
        level: difference in level at `at`, metric units.
        warnings: what limits the comparison.
    """

    arm: str
    baseline: str
    seeds: int
    at: float
    slope: PairedDifference
    level: PairedDifference
    warnings: tuple[str, ...]


def compare_slopes(
    compute: ArrayLike,
    metric: ArrayLike,
    arms: Sequence[Any],
    seeds: Sequence[Any],
    *,
    baseline: Any = None,
    confidence: float = CONFIDENCE,
) -> list[SlopeComparison]:
    """Compare the slope and the level of every architecture with those of the baseline.

    Args:
        compute: FLOPs of each run, shape (n,), on one axis for all architectures.
        metric: metric of each run, shape (n,).
        arms: architecture of each run, n labels.
        seeds: seed of each run, n labels.
        baseline: label of the baseline; default: the first architecture.
        confidence: coverage of the intervals.

    Returns:
        A comparison for each architecture except the baseline that shares a seed with the baseline,
        in which both have three sizes or more.

    Raises:
        BadInput: the baseline is unknown, or there are fewer than two architectures.
    """
    y, c = checked(names_of((), compute), metric, compute=compute)
    arm_of_run = np.array([str(a) for a in arms])
    seed_of_run = np.array([str(s) for s in seeds])
    if not len(arm_of_run) == len(seed_of_run) == len(y):
        raise BadInput(
            f"{len(arm_of_run)} arms, {len(seed_of_run)} seeds, {len(y)} runs: give one arm and "
            "one seed per run"
        )
    names = list(dict.fromkeys(arm_of_run.tolist()))
    base = names[0] if baseline is None else str(baseline)
    if base not in names or len(names) < 2:
        raise BadInput(
            f"baseline {base!r}, arms {names}: there must be two arms or more, and the baseline "
            "must be one of them"
        )
    lines = {arm: _lines(c, y, seed_of_run, arm_of_run == arm) for arm in names}
    comparisons = []
    for arm in (n for n in names if n != base):
        shared = [s for s in lines[arm] if s in lines[base]]
        if not shared:
            continue
        spans = [c[arm_of_run == name] for name in (arm, base)]
        least, most = max(x.min() for x in spans), min(x.max() for x in spans)
        notes = []
        if least >= most:
            notes.append(f"{arm} and {base} have no range of compute in common")
        at = float(np.sqrt(least * most))
        own, other = (np.array([lines[name][s] for s in shared]) for name in (arm, base))
        x = np.log10(at)
        level = own @ [1.0, x] - other @ [1.0, x]
        if len(shared) == 1:
            notes.append("one seed: no interval")
        comparisons.append(
            SlopeComparison(
                arm=arm,
                baseline=base,
                seeds=len(shared),
                at=at,
                slope=_paired(own[:, 1] - other[:, 1], confidence),
                level=_paired(level, confidence),
                warnings=tuple(notes),
            )
        )
    return comparisons


def _lines(c: Array, y: Array, seeds: Array, in_arm: Array) -> dict[str, tuple[float, float]]:
    """Return the intercept and the slope in log10 C of each seed with enough sizes."""
    lines = {}
    for seed in dict.fromkeys(seeds[in_arm].tolist()):
        runs = in_arm & (seeds == seed)
        if len(np.unique(c[runs])) >= _SIZES:
            slope, intercept = np.polyfit(np.log10(c[runs]), y[runs], 1)
            lines[seed] = (float(intercept), float(slope))
    return lines


def _paired(difference: Array, confidence: float) -> PairedDifference:
    mean, n = float(difference.mean()), len(difference)
    if n == 1:
        return PairedDifference(mean, float("nan"), float("nan"), float("nan"))
    error = float(difference.std(ddof=1)) / n**0.5
    half = float(stats.t.ppf(0.5 * (1.0 + confidence), n - 1)) * error
    shift = detectable_shift(n - 1, confidence, _POWER) if n > 2 else float("nan")
    return PairedDifference(mean, mean - half, mean + half, shift * error)
