"""Tables of the page: laws, gains, frontier, noise, comparisons, predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ligr_jax.scaling.fit import CONFIDENCE, Law
from ligr_jax.scaling.report.budgets import frontier_rows
from ligr_jax.scaling.report.dimensions import CHEAP
from ligr_jax.scaling.report.drawn import arm_words, metric_words, shape_words
from ligr_jax.scaling.report.html import engineering, interval_text, table
from ligr_jax.scaling.report.study import Study

HOW = {
    "apart": "Each dimension from runs that vary only that dimension",
    "together": "From one regression of NE and log compute on the logs of all dimensions",
}


def laws_table(study: Study) -> str:
    """Return the table of power laws of NE, with the floor fitted and fixed at the oracle's NE."""
    head = (
        "compute axis",
        "architecture",
        "runs",
        "floor E",
        "alpha",
        "gain, last decade",
        "objective",
    )
    rows = [
        [axis, arm_words(arm), str(law.points), _floor(law), _span(law, "alpha", 3),
         _span(law, "gain_per_decade"), f"{law.objective:.3g}"]
        for axis, laws in study.laws.items()
        for arm in study.order
        for law in laws.power.get(arm, {}).values()
    ]  # fmt: skip
    caption = (
        f"{metric_words(study.metric)} = E + A C^-alpha: estimates with percentile intervals; "
        "the objective is the sum over runs of the Huber loss (delta 0.001) of log residuals"
    )
    return _table(study, head, rows, caption, words=2)


def auc_table(study: Study) -> str:
    """Return the table of AUC: gain per decade of compute, and ceiling."""
    head = ("compute axis", "architecture", "AUC", "gain per decade", "ceiling")
    rows = [
        [axis, arm_words(arm), metric_words(name), _span(law, "gain_per_decade"),
         _ceiling(laws.ceiling.get(arm, {}).get(name))]
        for axis, laws in study.laws.items()
        for arm in study.order
        for name, law in laws.auc.get(arm, {}).items()
        if axis == study.axis or name == study.aucs[0]
    ]  # fmt: skip
    caption = (
        "AUC: slope of a straight line in log compute, and ceiling of the fit "
        "ceiling - A C^-alpha, with intervals"
    )
    return _table(study, head, rows, caption, words=3)


def gains_table(study: Study) -> str:
    """Return the table of gains per decade of every dimension on every compute axis."""
    head = ("compute axis", "architecture", "dimension", "range", "runs", "gain per decade",
            "gain per doubling", "compute per doubling")  # fmt: skip
    rows, ways = [], []
    for axis, arms in study.gains.items():
        for arm, gains in arms.items():
            ways += [gains.how] if gains.how else []
            for g in gains.rows:
                rate = interval_text(g.per_decade, g.per_decade_interval)
                if g.per_decade is None:
                    rate = "nearly free in compute"
                mark = " (best)" if g.dimension in gains.answer else ""
                rows.append(
                    [axis, arm_words(arm), g.dimension + mark, f"{g.span[0]:g} to {g.span[1]:g}",
                     str(g.runs), rate, f"{g.per_doubling:+.4f}",
                     f"×{g.cost:.2f}"]
                )  # fmt: skip
    how = "; ".join(HOW[w] for w in dict.fromkeys(ways))
    caption = (
        f"{how}. Gain per decade: decrease of NE if tenfold compute is spent on this dimension "
        f"alone. Nearly free: doubling it adds less than {10**CHEAP - 1:.0%} compute"
    )
    return _table(study, head, rows, caption, words=3)


def frontier_table(study: Study) -> str:
    """Return the table of the runs on the frontier."""
    c = study.table.numbers(study.axis)
    y = study.table.numbers(study.metric)
    words = shape_words(study)
    names = study.table.names
    head = ("run", "architecture", "shape", "compute", metric_words(study.metric))
    rows = [
        [names[i], arm_words(study.arms[i]), words[i], engineering(float(c[i])), f"{y[i]:.4f}"]
        for i in frontier_rows(c, y)
    ]
    caption = f"Best runs by {study.axis}, with their shapes"
    return _table(study, head, rows, caption, words=3)


def iso_flop_table(study: Study) -> str:
    """Return the table of the best size at each budget."""
    head = ("architecture", "budget", "best size", "NE at best size", "runs", "")
    rows = [
        [arm_words(arm), engineering(b.compute), _around(b), f"{b.metric:.4f}", str(len(b.runs)),
         "at the edge of the sizes tried" if b.at_edge else ""]
        for arm, (_, fit) in study.iso.items()
        for b in fit.budgets
    ]  # fmt: skip
    return _table(study, head, rows, "Minima of the iso-FLOP curves, with intervals", words=1)


def noise_table(study: Study) -> str:
    """Return the table of the smallest detectable difference by number of seeds."""
    if study.noise is None:
        return ""
    rows = [[f"{n}", f"{float(study.noise.detectable(n)):.5f}"] for n in (1, 2, 3, 5, 10)]
    sd, low, high = study.noise.pooled
    caption = (
        f"Standard deviation between seeds {sd:.2g} [{low:.2g}, {high:.2g}], pooled over "
        f"{len(study.noise.scales)} shapes. Smallest difference between two means that is "
        f"detected with 80% probability at {CONFIDENCE:.0%} confidence, by seeds per mean"
    )
    return table(("seeds per mean", "smallest detectable difference"), rows, caption)


def comparisons_table(study: Study) -> str:
    """Return the table of comparisons of architectures."""
    head = ("architecture", "baseline", "method", "at", "difference", "compute multiplier")
    rows = [
        [arm_words(c.arm), arm_words(c.baseline),
         f"{c.pairs} pairs" if c.kind == "paired" else "laws", engineering(c.at) if c.at else "–",
         interval_text(c.difference, (c.low, c.high)), _multiplier(c.multiplier)]
        for c in study.comparisons
    ]  # fmt: skip
    caption = (
        f"Difference in {metric_words(study.metric)} from the baseline, with interval; below zero "
        "is better. Compute multiplier: factor on the baseline's compute at which its law reaches "
        "the same metric"
    )
    return _table(study, head, rows, caption, words=3)


def forecasts_table(study: Study) -> str:
    """Return the table of predictions with their outcomes."""
    head = ("prediction", "run", "compute", "predicted", "observed", "error", "in interval")
    rows = [
        [f.how + (f", {f.arm}" if f.arm else ""), f.outcome.run, engineering(f.outcome.compute),
         interval_text(f.outcome.predicted, (f.outcome.low, f.outcome.high)),
         f"{f.outcome.observed:.4f}", f"{f.outcome.error:+.4f}",
         "yes" if f.outcome.covered else "no"]
        for f in study.forecasts
    ]  # fmt: skip
    covered = sum(f.outcome.covered for f in study.forecasts)
    caption = f"{covered} of {len(rows)} prediction intervals contain the observed value"
    return _table(study, head, rows, caption, words=2)


def _table(
    study: Study, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, words: int
) -> str:
    """Return a table, without the column of architectures if there is only one; "" without rows."""
    if not rows:
        return ""
    if "architecture" not in head or any(study.arms):
        return table(head, rows, caption, words=words)
    k = head.index("architecture")
    without = [[*row[:k], *row[k + 1 :]] for row in rows]
    return table([*head[:k], *head[k + 1 :]], without, caption, words=max(1, words - 1))


def _floor(law: Law) -> str:
    if law.free == 2:
        return f"{law.params['E']:.4f}, the oracle's"
    if law.intervals.get("E") == (0.0, 0.0):  # not certainty: no resample determines a floor
        return "0 in all resamples, not identified"
    return _span(law, "E")


def _span(law: Law, name: str, digits: int = 4) -> str:
    return interval_text(law.params[name], law.intervals.get(name), digits)


def _ceiling(law: Law | None) -> str:
    return _span(law, "ceiling") if law else "–"


def _around(budget: Any) -> str:
    if not np.isfinite([budget.low, budget.high]).all():
        return engineering(budget.optimum)
    low, high = engineering(budget.low), engineering(budget.high)
    return f"{engineering(budget.optimum)} [{low}, {high}]"


def _multiplier(value: Any) -> str:
    if value is None:
        return "–"
    return f"×{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
