"""Summary of a study in sentences, for the terminal and the top of the page."""

import numpy as np

from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report.dimensions import Gains
from ligr_jax.scaling.report.drawn import arm_words, metric_words, shape_words
from ligr_jax.scaling.report.html import engineering
from ligr_jax.scaling.report.laws import FEWEST
from ligr_jax.scaling.report.preferred import form_line
from ligr_jax.scaling.report.study import Study

UNITS = {"device_seconds": "seconds"}  # of a compute axis; all others are FLOPs


def summary_lines(study: Study) -> tuple[str, ...]:
    """Return sentences on what to scale next, whether that depends on the compute axis, the law
    and its form, the best run, and the comparison of architectures."""
    parts = (_next, _axes, _law, form_line, _best, _architectures)
    return tuple(line for part in parts if (line := part(study)))


def chosen(study: Study, axis: str) -> tuple[str, Gains]:
    """Return the architecture whose gains are reported (the leader, or the first with an answer),
    and its gains."""
    gains = study.gains[axis]
    answered = [a for a in (study.leader, *gains) if a in gains and gains[a].answer]
    arm = answered[0] if answered else study.leader
    return arm, gains.get(arm, Gains(reason="no usable run"))


def _next(study: Study) -> str:
    arm, gains = chosen(study, study.axis)
    of = f" of {arm}" if arm else ""
    ne = metric_words(study.metric)
    if gains.free:
        names = ", ".join(g.dimension for g in gains.free)
        falls = ", ".join(f"{g.per_doubling:.4f} per doubling of {g.dimension}" for g in gains.free)
        first = f"scale {names}{of} first (nearly free in {study.axis}): {ne} falls by {falls}"
        return f"{first}; then {_best_dimension(study, gains)}" if gains.best else first
    if not gains.best:
        if not gains.inseparable:
            return f"no recommendation on what to scale: {gains.reason}"
        if len(gains.inseparable) == 1:
            return (
                f"no recommendation on what to scale: only {gains.inseparable[0]} varies; run "
                "sweeps of other dimensions to compare them"
            )
        return (
            f"no recommendation on what to scale: {', '.join(gains.inseparable)} grow together, so "
            "their effects cannot be separated; run the sweeps seq_len, depth and embed_dim, which "
            "vary one dimension each"
        )
    return _best_dimension(study, gains, of)


def _best_dimension(study: Study, gains: Gains, of: str = "") -> str:
    best = next(row for row in gains.rows if row.dimension == gains.best)
    assert best.per_decade is not None  # `gains.best` costs compute
    if best.per_decade <= 0:
        return "no dimension lowers the metric as it grows; check the data and the training"
    if not gains.share >= CONFIDENCE:
        return (
            f"{gains.best}{of} has the largest gain, but not significantly (best in "
            f"{gains.share:.0%} of resamples): add seeds or a wider range before scaling it"
        )
    low, high = best.per_decade_interval or (np.nan, np.nan)
    least = min(row.runs for row in gains.rows)
    few = (
        f"; this is only a hint, because just {least} runs vary one of the dimensions"
        if least < FEWEST
        else ""
    )
    return (
        f"scale {gains.best}{of}: {metric_words(study.metric)} falls by {best.per_decade:.4f} "
        f"per tenfold {study.axis} spent on it ({CONFIDENCE:.0%} interval {low:.4f} to "
        f"{high:.4f}; range tried {best.span[0]:g} to {best.span[1]:g}; best in "
        f"{gains.share:.0%} of resamples){few}"
    )


def _axes(study: Study) -> str:
    """Return whether the recommended dimension depends on the compute axis."""
    gains = {a: chosen(study, a)[1] for a in study.axes}
    answers = {a: g.answer for a, g in gains.items() if g.answer}
    if len(answers) < 2:
        return ""
    if len(set(answers.values())) == 1:
        (answer,) = set(answers.values())
        return (
            f"the recommendation, {', '.join(answer)}, is the same on all compute axes "
            f"({', '.join(answers)})"
        )
    per_axis = "; ".join(f"{_answer(gains[a])} on {a}" for a in answers)
    return f"the recommendation changes with the compute axis: {per_axis}"


def _answer(gains: Gains) -> str:
    """Return the recommended dimensions and how certain they are."""
    if gains.free:
        return f"{', '.join(gains.answer)} (nearly free)"
    return f"{gains.best} (best in {gains.share:.0%} of resamples)"


def _law(study: Study) -> str:
    law = study.law
    if law is None:
        reason = study.laws[study.axis].reasons.get(study.leader, "no usable run")
        return f"no law in compute: {reason}"
    low, high = law.intervals.get("gain_per_decade", (np.nan, np.nan))
    of = f" of {study.leader}" if study.leader else ""
    return (
        f"{metric_words(study.metric)}{of} falls by {law.params['gain_per_decade']:.4f} over the "
        f"last decade of {study.axis} ({law.confidence:.0%} interval {low:.4f} to {high:.4f}, "
        f"{law.points} runs up to {engineering(law.compute[1])} "
        f"{UNITS.get(study.axis, 'FLOPs')})"
    )


def _best(study: Study) -> str:
    y = study.table.numbers(study.metric)
    if not len(y):
        return "no usable run to compare with an oracle"
    best = int(np.argmin(y))
    shape = shape_words(study)[best]
    name = f"best run {study.table.names[best]}" + (f" ({shape})" if shape else "")
    name += f" has {metric_words(study.metric)} {y[best]:.4f}"
    if study.oracle is None:
        return f"{name}; the best possible value is unknown, as the data has no true probabilities"
    gap = y[best] - study.oracle
    share = (1.0 - y[best]) / (1.0 - study.oracle)
    return (
        f"{name}, {gap:.4f} above the oracle's {study.oracle:.4f} "
        f"({share:.0%} of the way from the base rate to the oracle)"
    )


def _architectures(study: Study) -> str:
    """Return one comparison per architecture: by pairs if there is one, else by laws."""
    by_arm: dict[str, str] = {}
    for c in study.comparisons:
        if c.arm in by_arm and c.kind != "paired":
            continue
        sign = "worse" if c.difference > 0 else "better"
        if c.low <= 0 <= c.high:
            sign += " (not significant)"
        by_arm[c.arm] = f"{arm_words(c.arm)} is {abs(c.difference):.4f} {sign}"
    if not by_arm:
        return ""
    baseline = study.comparisons[0].baseline
    return f"{metric_words(study.metric)} against {baseline}: {'; '.join(by_arm.values())}"
