"""What a study found, in plain sentences for the terminal and the top of the page."""

import numpy as np

from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report.dimensions import Gains
from ligr_jax.scaling.report.drawn import arm_words, metric_words
from ligr_jax.scaling.report.html import engineering
from ligr_jax.scaling.report.laws import FEWEST
from ligr_jax.scaling.report.study import Study
from ligr_jax.scaling.runs import column

UNITS = {"device_seconds": "seconds"}  # of a compute axis; all others are FLOPs


def summary_lines(found: Study) -> tuple[str, ...]:
    """What to scale next, whether the axis changes that, the law, the best run, architectures."""
    lines = [_next(found), _axes(found), _law(found), _best(found), _architectures(found)]
    return tuple(line for line in lines if line)


def chosen(found: Study, axis: str) -> tuple[str, Gains]:
    """The architecture whose gains are told: the leader, or the first that has any."""
    gains = found.gains[axis]
    told = [a for a in (found.leader, *gains) if a in gains and gains[a].answer]
    arm = told[0] if told else found.leader
    return arm, gains.get(arm, Gains(reason="no usable run"))


def _next(found: Study) -> str:
    arm, gains = chosen(found, found.axis)
    of = f" of {arm}" if arm else ""
    ne = metric_words(found.metric)
    if gains.free:
        told = ", ".join(f"{g.dimension} ({g.per_doubling:+.4f} per doubling)" for g in gains.free)
        first = f"grow {told}{of} first: nearly free in {found.axis}, and it lowers {ne}"
        return f"{first}; then {_best_dimension(found, gains)}" if gains.best else first
    if not gains.best:
        if not gains.inseparable:
            return f"nothing can be said about what to scale: {gains.reason}"
        if len(gains.inseparable) == 1:
            return f"only {gains.inseparable[0]} varies; to compare it, run sweeps of the others"
        return (
            f"{', '.join(gains.inseparable)} grow together, so these runs cannot separate them; "
            "run the sweeps seq_len, depth and embed_dim, which vary one at a time"
        )
    return _best_dimension(found, gains, of)


def _best_dimension(found: Study, gains: Gains, of: str = "") -> str:
    best = next(row for row in gains.rows if row.dimension == gains.best)
    assert best.per_decade is not None  # the best is one of those that cost compute
    if best.per_decade <= 0:
        return "no dimension lowers the metric for its compute here; look at data and training"
    if not gains.share >= CONFIDENCE:
        return (
            f"{gains.best}{of} leads but is not told apart from the rest (best in "
            f"{gains.share:.0%} of resamples): add seeds or a wider range before scaling it"
        )
    low, high = best.per_decade_interval or (np.nan, np.nan)
    least = min(row.runs for row in gains.rows)
    few = f"; a hint, no more: {least} runs vary one of the dimensions" if least < FEWEST else ""
    return (
        f"scale {gains.best}{of}: {metric_words(found.metric)} falls by {best.per_decade:.4f} "
        f"per tenfold of {found.axis} spent on it ({CONFIDENCE:.0%} interval {low:.4f} to "
        f"{high:.4f}; tried from {best.span[0]:g} to {best.span[1]:g}; best in "
        f"{gains.share:.0%} of resamples){few}"
    )


def _axes(found: Study) -> str:
    """Whether the winning dimension changes with the compute axis."""
    gains = {a: chosen(found, a)[1] for a in found.axes}
    answers = {a: g.answer for a, g in gains.items() if g.answer}
    if len(answers) < 2:
        return ""
    if len(set(answers.values())) == 1:
        (answer,) = set(answers.values())
        return f"the answer, {', '.join(answer)}, is the same on {', '.join(answers)}"
    told = "; ".join(f"{_sure(gains[a])} on {a}" for a in answers)
    return f"the answer changes with the compute axis: {told}"


def _sure(gains: Gains) -> str:
    if gains.free:
        return f"{', '.join(gains.answer)} (nearly free)"
    return f"{gains.best} (best in {gains.share:.0%} of resamples)"


def _law(found: Study) -> str:
    law = found.law
    if law is None:
        reason = found.laws[found.axis].reasons.get(found.leader, "no usable run")
        return f"no law: {reason}"
    low, high = law.intervals.get("gain_per_decade", (np.nan, np.nan))
    of = f" of {found.leader}" if found.leader else ""
    return (
        f"{metric_words(found.metric)}{of} falls by {law.params['gain_per_decade']:.4f} over the "
        f"last decade of {found.axis} ({law.confidence:.0%} interval {low:.4f} to {high:.4f}, "
        f"{law.points} runs up to {engineering(law.compute[1])} "
        f"{UNITS.get(found.axis, 'FLOPs')})"
    )


def _best(found: Study) -> str:
    y = column(found.table, found.metric)
    if not len(y):
        return "no usable run to compare with an oracle"
    best = int(np.argmin(y))
    name = f"best run {found.table['run'][best]} has {metric_words(found.metric)} {y[best]:.4f}"
    if found.oracle is None:
        return f"{name}; this data has no true probabilities, so the distance left is unknown"
    left, share = y[best] - found.oracle, (1.0 - y[best]) / (1.0 - found.oracle)
    return (
        f"{name}, {left:.4f} above the oracle's {found.oracle:.4f} "
        f"({share:.0%} of the way from the base rate to the oracle)"
    )


def _architectures(found: Study) -> str:
    told = {}
    for c in found.comparisons:
        if c.arm in told and c.kind != "paired":
            continue
        sign = "worse" if c.difference > 0 else "better"
        if c.low <= 0 <= c.high:
            sign += ", not surely"
        told[c.arm] = f"{arm_words(c.arm)} {abs(c.difference):.4f} {sign}"
    if not told:
        return ""
    baseline = found.comparisons[0].baseline
    return f"against {baseline}, in {metric_words(found.metric)}: {'; '.join(told.values())}"
