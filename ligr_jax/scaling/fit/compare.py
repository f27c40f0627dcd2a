"""Comparison of architectures: paired runs, and fitted laws at equal FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, SAME_BUDGET, Array
from ligr_jax.scaling.fit.checks import checked, names_of
from ligr_jax.scaling.fit.curves import CURVES
from ligr_jax.scaling.fit.intervals import band
from ligr_jax.scaling.fit.law import Law
from ligr_jax.scaling.fit.line import fit_line
from ligr_jax.scaling.fit.power import fit_power

NEVER = 700.0  # log multiplier that represents infinity (exp(700) is near the largest float64)


@dataclass(frozen=True)
class Comparison:
    """Difference `arm - baseline` in metric units, with its interval.

    Attributes:
        arm: label of the architecture compared.
        baseline: label of the baseline.
        kind: "paired" is the mean difference over pairs of runs that differ only in the arm;
            "law" is the difference between the two fitted laws at `at` FLOPs.
        at: FLOPs of the comparison of laws: the largest compute both arms have. None if paired.
        difference: the estimate.
        low: lower end of the interval: Student's t for pairs; bootstrap of both laws, each
            resampled independently, for laws.
        high: upper end of the interval.
        multiplier: factor on the baseline's compute at which the baseline's law reaches the metric
            of this arm at `at`, with low and high. Infinite if it never does. None if paired.
        pairs: number of pairs; 0 for laws.
        warnings: what limits the comparison.
    """

    arm: str
    baseline: str
    kind: Literal["paired", "law"]
    at: float | None
    difference: float
    low: float
    high: float
    multiplier: tuple[float, float, float] | None
    pairs: int
    warnings: tuple[str, ...]


def compare(
    compute: ArrayLike,
    metric: ArrayLike,
    arms: Sequence[Any],
    *,
    pairs: Sequence[Any] | None = None,
    baseline: Any = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every arm with the baseline by pairs (if there are two or more) and by laws.

    The laws are `fit_power` if the baseline's metric falls with compute, else `fit_line`.

    Args:
        compute: FLOPs of each run, shape (n,), on one axis for all arms.
        metric: metric of each run, shape (n,).
        arms: architecture of each run, n labels.
        pairs: n labels, equal for two runs that differ only in the arm (same rung and seed). None
            compares laws only.
        baseline: label of the baseline; default: the first arm.
        resamples: bootstrap resamples of each law; 0 gives no intervals of laws.
        confidence: coverage of the intervals.
        seed: seed of the bootstrap.

    Returns:
        For each arm except the baseline, up to two comparisons: paired, then by laws.

    Raises:
        BadInput: fewer than two arms, an unknown baseline, a pair label used twice in one arm, or
            an arm with neither two pairs nor a law.
    """
    y, c = checked(names_of((), compute), metric, compute=compute)
    arm_of_run = np.array([str(a) for a in arms])
    labels = np.array([""] * len(y) if pairs is None else [str(p) for p in pairs])
    if not len(arm_of_run) == len(labels) == len(y):
        raise BadInput(
            f"{len(arm_of_run)} arms, {len(labels)} pairs, {len(y)} runs: "
            "give one arm and one pair label per run"
        )
    names = list(dict.fromkeys(arm_of_run.tolist()))
    base = names[0] if baseline is None else str(baseline)
    if base not in names or len(names) < 2:
        raise BadInput(
            f"baseline {base!r}, arms {names}: there must be two arms or more, and the baseline "
            "must be one of them"
        )
    # A power law needs a metric that falls with compute; the baseline decides for all arms, because
    # only laws of the same form can be inverted against each other.
    is_baseline = arm_of_run == base
    falls = np.cov(np.log(c[is_baseline]), y[is_baseline])[0, 1] < 0
    fit = fit_power if falls else fit_line
    laws: dict[str, Law] = {}
    no_law: dict[str, str] = {}
    for k, arm in enumerate(names):
        in_arm = arm_of_run == arm
        # Each arm gets its own seed, so that the draws of two arms are independent.
        try:
            laws[arm] = fit(
                c[in_arm], y[in_arm], resamples=resamples, confidence=confidence, seed=seed + k
            )
        except BadInput as e:
            no_law[arm] = f"{arm} has no law ({e})"
    # An arm without a law is still compared by its pairs; only an arm with neither is an error.
    comparisons: list[Comparison] = []
    for arm in (n for n in names if n != base):
        masks = (arm_of_run == arm), is_baseline
        paired = None if pairs is None else _paired(arm, base, masks, c, y, labels, confidence)
        if paired:
            comparisons.append(paired)
        reasons = [no_law[a] for a in (arm, base) if a in no_law]
        if not reasons:
            comparisons.append(_by_law(arm, base, laws[arm], laws[base], confidence))
        elif not paired:
            raise BadInput(f"{arm} and {base} share fewer than two pairs, and {reasons[0]}")
    return comparisons


def _paired(
    arm: str,
    base: str,
    masks: tuple[Array, Array],
    c: Array,
    y: Array,
    labels: Array,
    confidence: float,
) -> Comparison | None:
    """Compare pairs of runs; None if the arms share fewer than two pairs.

    Args:
        arm: label of the arm.
        base: label of the baseline.
        masks: runs of the arm, and runs of the baseline, each bool (n,).
        c: FLOPs of each run, (n,).
        y: metric of each run, (n,).
        labels: pair label of each run, (n,).
        confidence: coverage of the interval.
    """
    in_arm, in_base = ({p: i for i, p in zip(np.flatnonzero(m), labels[m])} for m in masks)
    for by_label, mask in zip((in_arm, in_base), masks):
        if len(by_label) < mask.sum():
            twice = [p for p in by_label if (labels[mask] == p).sum() > 1]
            raise BadInput(
                f"pair {twice[0]!r} names two runs of one arm; add the seed to the label"
            )
    shared = [p for p in in_arm if p in in_base]
    if len(shared) < 2:
        return None
    i = [in_arm[p] for p in shared]
    j = [in_base[p] for p in shared]
    off = y[i] - y[j]
    half = stats.t.ppf(0.5 * (1.0 + confidence), len(off) - 1) * off.std(ddof=1) / len(off) ** 0.5
    notes = []
    apart = float(np.abs(np.log(c[i] / c[j])).max())
    if apart > SAME_BUDGET:
        notes.append(
            f"paired runs differ in compute by up to {np.expm1(apart):.0%}: "
            "use the comparison of laws"
        )
    mean = float(off.mean())
    return Comparison(
        arm=arm,
        baseline=base,
        kind="paired",
        at=None,
        difference=mean,
        low=mean - half,
        high=mean + half,
        multiplier=None,
        pairs=len(off),
        warnings=tuple(notes),
    )


def _by_law(arm: str, base: str, arm_law: Law, base_law: Law, confidence: float) -> Comparison:
    """Compare two laws at the largest compute that both have."""
    compute = min(arm_law.compute[1], base_law.compute[1])
    count = min(len(arm_law.draws), len(base_law.draws))
    value = _against(arm_law, base_law, arm_law.theta[None], base_law.theta[None], compute)[0]
    draws = _against(arm_law, base_law, arm_law.draws[:count], base_law.draws[:count], compute)
    low, high = band(value, draws, confidence)
    laws = ((arm, arm_law), (base, base_law))
    notes = [f"{name}: {w}" for name, law in laws for w in law.warnings]
    if compute < max(arm_law.compute[0], base_law.compute[0]):
        notes.append(
            f"the arms have no range of compute in common: one law is extrapolated to "
            f"{compute:.3g} FLOPs"
        )
    times, least, most = (
        np.inf if v >= NEVER else float(np.exp(v)) for v in (value[1], low[1], high[1])
    )
    return Comparison(
        arm=arm,
        baseline=base,
        kind="law",
        at=compute,
        difference=float(value[0]),
        low=float(low[0]),
        high=float(high[0]),
        multiplier=(times, least, most),
        pairs=0,
        warnings=tuple(notes),
    )


def _against(
    arm_law: Law, base_law: Law, arm_draws: Array, base_draws: Array, compute: float
) -> Array:
    """Return the difference at `compute` FLOPs and the log multiplier of each draw, (R, 2).

    The log multiplier is NEVER if the baseline's law never reaches the arm's metric.
    """
    curve = CURVES[arm_law.form].value
    x = np.log(compute)
    value = curve(arm_draws, np.array([x - arm_law.centre]))[:, 0]
    other = curve(base_draws, np.array([x - base_law.centre]))[:, 0]
    # Invert the baseline's law at the arm's metric.
    with np.errstate(divide="ignore", invalid="ignore"):
        if base_law.form == "power":
            a, log_alpha, e = base_draws.T
            reached = (a - np.log(value - np.exp(e))) / np.exp(log_alpha)  # NaN below the floor
        else:
            level, slope = base_draws.T
            reached = np.where(slope > 0, (value - level) / slope, np.nan)
            reached = reached * np.log(10.0)
    log_multiplier = np.nan_to_num(reached + base_law.centre - x, nan=NEVER, posinf=NEVER)
    return np.stack([value - other, np.clip(log_multiplier, -NEVER, NEVER)], 1)
