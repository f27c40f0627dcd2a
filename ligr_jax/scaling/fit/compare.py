"""Architectures compared: run against run where they are paired, law against law at equal FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, SAME_BUDGET, Array
from ligr_jax.scaling.fit.law import CURVES, Law, checked, interval, names_of
from ligr_jax.scaling.fit.line import fit_line
from ligr_jax.scaling.fit.power import fit_power

FAR = 700.0  # log of a multiplier that stands for: never


@dataclass(frozen=True)
class Comparison:
    """One arm less the baseline, in metric units, with its interval.

    kind: paired: the mean over runs that differ in the arm alone, Student's interval; law: what the
        two arms' laws say `at` so many FLOPs, the most that both have seen.
    multiplier: times the baseline's compute for the metric that this arm has at `at`, with its
        interval; infinite where the baseline's law never gets there. None where paired.
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
    """Every arm against the baseline: paired where two pairs or more are shared, and by laws.

    compute, metric: of each run, on one axis for all. arms: a label per run (the architecture).
    pairs: a label per run, equal for runs of two arms that differ in the arm alone (same rung and
        seed). baseline: an arm; the first one where it is not given.
    The laws are `fit_power` where the baseline's metric falls with compute, else `fit_line`.
    Raises BadInput for an unknown baseline, one arm, and where an arm can be compared in neither
    way.
    """
    y, c = checked(names_of((), compute), metric, compute=compute)
    of = np.array([str(a) for a in arms])
    labels = np.array([""] * len(y) if pairs is None else [str(p) for p in pairs])
    if not len(of) == len(labels) == len(y):
        raise BadInput(f"{len(of)} arms, {len(labels)} pairs, {len(y)} runs: one each per run")
    names = list(dict.fromkeys(of.tolist()))
    base = names[0] if baseline is None else str(baseline)
    if base not in names or len(names) < 2:
        raise BadInput(f"baseline {base!r} among arms {names}: give one of two arms or more")
    falls = np.cov(np.log(c[of == base]), y[of == base])[0, 1] < 0
    fit = fit_power if falls else fit_line
    laws: dict[str, Law] = {}
    lawless: dict[str, str] = {}
    for k, arm in enumerate(names):  # a seed each: two arms' draws are independent
        mine = of == arm
        try:
            laws[arm] = fit(
                c[mine], y[mine], resamples=resamples, confidence=confidence, seed=seed + k
            )
        except BadInput as e:
            lawless[arm] = f"{arm} has no law ({e})"
    found: list[Comparison] = []
    for arm in (n for n in names if n != base):
        both = (of == arm), (of == base)
        one = None if pairs is None else _paired(arm, base, both, c, y, labels, confidence)
        if one:
            found.append(one)
        reasons = [lawless[a] for a in (arm, base) if a in lawless]
        if not reasons:
            found.append(_by_law(arm, base, laws[arm], laws[base], confidence))
        elif not one:
            raise BadInput(f"{arm} and {base} share fewer than two pairs, and {reasons[0]}")
    return found


def _paired(
    arm: str,
    base: str,
    both: tuple[Array, Array],
    c: Array,
    y: Array,
    labels: Array,
    confidence: float,
) -> Comparison | None:
    first, second = ({p: i for i, p in zip(np.flatnonzero(m), labels[m])} for m in both)
    for kept, mine in zip((first, second), both):
        if len(kept) < mine.sum():
            twice = [p for p in kept if (labels[mine] == p).sum() > 1]
            raise BadInput(
                f"pair {twice[0]!r} names two runs of one arm; add the seed to the label"
            )
    shared = [p for p in first if p in second]
    if len(shared) < 2:
        return None
    i, j = [first[p] for p in shared], [second[p] for p in shared]
    off = y[i] - y[j]
    half = stats.t.ppf(0.5 * (1.0 + confidence), len(off) - 1) * off.std(ddof=1) / len(off) ** 0.5
    apart, notes = float(np.abs(np.log(c[i] / c[j])).max()), []
    if apart > SAME_BUDGET:
        notes.append(f"paired runs differ in compute by up to {np.expm1(apart):.0%}: see the laws")
    mean = float(off.mean())
    return Comparison(
        arm, base, "paired", None, mean, mean - half, mean + half, None, len(off), tuple(notes)
    )


def _by_law(arm: str, base: str, mine: Law, theirs: Law, confidence: float) -> Comparison:
    at = min(mine.compute[1], theirs.compute[1])
    count = min(len(mine.draws), len(theirs.draws))
    value = _against(mine, theirs, mine.theta[None], theirs.theta[None], at)[0]
    draws = _against(mine, theirs, mine.draws[:count], theirs.draws[:count], at)
    low, high = interval(draws, confidence)
    notes = [f"{name}: {w}" for name, law in ((arm, mine), (base, theirs)) for w in law.warnings]
    if at < max(mine.compute[0], theirs.compute[0]):
        notes.append(f"the arms share no range of compute: one law is extended to {at:.3g} FLOPs")
    times, least, most = (
        float(np.exp(v)) if v < FAR else np.inf for v in (value[1], low[1], high[1])
    )
    return Comparison(
        arm, base, "law", at, float(value[0]), float(low[0]), float(high[0]),
        (times, least, most), 0, tuple(notes),
    )  # fmt: skip


def _against(mine: Law, theirs: Law, draws: Array, others: Array, at: float) -> Array:
    """Difference at `at` FLOPs, and log of the multiplier (FAR: never), of each draw (R, 2)."""
    curve, x = CURVES[mine.form].value, np.log(at)
    value = curve(draws, np.array([x - mine.centre]))[:, 0]
    other = curve(others, np.array([x - theirs.centre]))[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        if theirs.form == "power":
            a, u, e = others.T
            reached = (a - np.log(value - np.exp(e))) / np.exp(u)  # NaN below the floor
        else:
            reached = np.where(others[:, 1] > 0, (value - others[:, 0]) / others[:, 1], np.nan)
            reached = reached * np.log(10.0)
    far = np.nan_to_num(reached + theirs.centre - x, nan=FAR, posinf=FAR)
    return np.stack([value - other, np.clip(far, -FAR, FAR)], 1)
