"""Tables of the page: laws, gains, frontier, noise, comparisons, forecasts."""

from typing import Any

import numpy as np

from ligr_jax.scaling.fit import CONFIDENCE, Law
from ligr_jax.scaling.report.budgets import frontier
from ligr_jax.scaling.report.dimensions import CHEAP
from ligr_jax.scaling.report.drawn import arm_words, metric_words, shape_words
from ligr_jax.scaling.report.html import engineering, interval, table
from ligr_jax.scaling.report.study import Study
from ligr_jax.scaling.runs import column

HOW = {
    "apart": "Each from runs that vary that dimension alone",
    "together": "NE and log compute regressed on the log of every dimension at once",
}


def laws_table(found: Study) -> str:
    """Power laws of NE, with their floor free and at the oracle's."""
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
        for axis, laws in found.laws.items()
        for arm in found.order
        for law in laws.power.get(arm, {}).values()
    ]  # fmt: skip
    caption = (
        f"{metric_words(found.metric)} = E + A C^-alpha: estimates with percentile intervals; "
        "the objective is the sum of Huber terms (delta 0.001) of log residuals"
    )
    return table(head, rows, caption, words=2) if rows else ""


def auc_table(found: Study) -> str:
    """Gain of AUC per decade of compute, and where it would end."""
    head = ("compute axis", "architecture", "AUC", "gain per decade", "ceiling")
    rows = [
        [axis, arm_words(arm), metric_words(name), _span(law, "gain_per_decade"),
         _ceiling(laws.ceiling.get(arm, {}).get(name))]
        for axis, laws in found.laws.items()
        for arm in found.order
        for name, law in laws.auc.get(arm, {}).items()
        if axis == found.axis or name == found.aucs[0]
    ]  # fmt: skip
    caption = (
        "AUC as a line in log compute: its slope; and the ceiling of ceiling - A C^-alpha; with "
        "intervals"
    )
    return table(head, rows, caption, words=3) if rows else ""


def gains_table(found: Study) -> str:
    """Gain per decade of every dimension on every axis."""
    head = ("compute axis", "architecture", "dimension", "range", "runs", "gain per decade",
            "gain per doubling", "compute per doubling")  # fmt: skip
    rows, ways = [], []
    for axis, arms in found.gains.items():
        for arm, gains in arms.items():
            ways += [gains.how] if gains.how else []
            for g in gains.rows:
                rate = interval(g.per_decade, g.per_decade_interval)
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
        f"{how}. Gain per decade: fall of NE when tenfold compute is spent on it alone; nearly "
        f"free: a doubling costs less than {10**CHEAP - 1:.0%} of compute"
    )
    return table(head, rows, caption, words=3) if rows else ""


def frontier_table(found: Study) -> str:
    c, y = column(found.table, found.axis), column(found.table, found.metric)
    words = shape_words(found)
    names = found.table["run"].to_list()
    head = ("run", "architecture", "shape", "compute", metric_words(found.metric))
    rows = [
        [names[i], arm_words(found.arms[i]), words[i], engineering(float(c[i])), f"{y[i]:.4f}"]
        for i in frontier(c, y)
    ]
    caption = f"The best run at each {found.axis}, and its shape"
    return table(head, rows, caption, words=3) if rows else ""


def iso_flop_table(found: Study) -> str:
    head = ("architecture", "budget", "best size", "NE there", "runs", "")
    rows = [
        [arm_words(arm), engineering(b.compute), _around(b), f"{b.metric:.4f}", str(len(b.runs)),
         "at the edge of the sizes tried" if b.at_edge else ""]
        for arm, (_, fit) in found.iso.items()
        for b in fit.budgets
    ]  # fmt: skip
    return table(head, rows, "Minima of the iso-FLOP curves, with intervals") if rows else ""


def noise_table(found: Study) -> str:
    if found.noise is None:
        return ""
    rows = [[f"{n}", f"{float(found.noise.detectable(n)):.5f}"] for n in (1, 2, 3, 5, 10)]
    sd, low, high = found.noise.pooled
    caption = (
        f"Standard deviation between seeds {sd:.2g} [{low:.2g}, {high:.2g}], pooled over "
        f"{len(found.noise.scales)} shapes. Least difference of two means that is found in "
        f"80% of cases at {CONFIDENCE:.0%} confidence, by seeds of each"
    )
    return table(("seeds of each", "least detectable difference"), rows, caption)


def comparisons_table(found: Study) -> str:
    head = ("architecture", "against", "by", "at", "difference", "baseline's compute for its NE")
    rows = [
        [arm_words(c.arm), arm_words(c.baseline),
         f"{c.pairs} pairs" if c.kind == "paired" else "laws", engineering(c.at) if c.at else "–",
         interval(c.difference, (c.low, c.high)), _multiplier(c.multiplier)]
        for c in found.comparisons
    ]  # fmt: skip
    caption = f"Differences in {metric_words(found.metric)}, below zero is better, with intervals"
    return table(head, rows, caption, words=3) if rows else ""


def forecasts_table(found: Study) -> str:
    head = ("prediction", "run", "compute", "predicted", "observed", "error", "inside")
    rows = [
        [f.how + (f", {f.arm}" if f.arm else ""), f.outcome.run, engineering(f.outcome.compute),
         interval(f.outcome.predicted, (f.outcome.low, f.outcome.high)),
         f"{f.outcome.observed:.4f}", f"{f.outcome.error:+.4f}",
         "yes" if f.outcome.covered else "no"]
        for f in found.forecasts
    ]  # fmt: skip
    held = sum(f.outcome.covered for f in found.forecasts)
    caption = f"{held} of {len(rows)} predictions came true: the interval holds what was observed"
    return table(head, rows, caption, words=2) if rows else ""


def _floor(law: Law) -> str:
    return f"{law.params['E']:.4f}, the oracle's" if law.free == 2 else _span(law, "E")


def _span(law: Law, name: str, digits: int = 4) -> str:
    return interval(law.params[name], law.intervals.get(name), digits)


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
