"""The forms of the laws on the page: sentences, table and figures of the choices of a study."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ligr_jax.scaling.report.choices import UNEXPLAINED, Choice
from ligr_jax.scaling.report.drawn import (
    Drawn,
    action_of,
    arm_words,
    facts,
    metric_words,
    points,
    slug,
)
from ligr_jax.scaling.report.figures import WIDTH, Series, draw_legend
from ligr_jax.scaling.report.html import folded, sentence, table
from ligr_jax.scaling.report.study import AXES, Study
from ligr_jax.scaling.report.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    compute_axis,
    dots,
    styled,
    value_axis,
)


def form_line(study: Study) -> str:
    """Return a sentence for the summary if the leader's runs do not follow the default form."""
    for choice in study.choices:
        if not (_is_main(study, choice) and choice.scores):
            continue
        default, preferred = choice.default, choice.preferred
        name = default.candidate.name
        if preferred is not default:
            return (
                f"a {preferred.candidate.name} predicts the largest budgets better than a {name}: "
                f"errors of {preferred.error:.1f} and {default.error:.1f} standard deviations of "
                "a seed"
            )
        if _has_pattern(choice):
            return (
                f"the residuals of the {name} form a pattern that seeds do not explain, and no "
                "other form predicts the largest budgets better"
            )
    return ""


def forms_lead(study: Study) -> str:
    """Return sentences on the forms that the runs prefer, as HTML."""

    def is_first(choice: Choice) -> bool:
        other = bool(choice.scores) and choice.preferred is not choice.default
        return other or _is_main(study, choice)

    lines = [_sentence(choice) for choice in study.choices if is_first(choice)]
    others = [c for c in study.choices if c.scores and not is_first(c)]
    for title, names in (
        (
            "no other form is clearly better, though the residuals form a pattern that seeds do "
            "not explain",
            [f"{_subject(c)} ({_pattern(c)})" for c in others if _has_pattern(c)],
        ),
        ("no other form is clearly better", [_subject(c) for c in others if not _has_pattern(c)]),
    ):
        lines += [f"{title}: {'; '.join(names)}"] if names else []
    items = "".join(f"<li>{sentence(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def forms_tables(study: Study) -> str:
    """Return the table of the leader's main metric, and those of all others folded."""
    compared = [c for c in study.choices if c.scores]
    main = [c for c in compared if _is_main(study, c)]
    others = [c for c in compared if not _is_main(study, c)]
    return (_table(main) if main else "") + (
        folded("Other metrics and architectures", _table(others)) if others else ""
    )


def forms_figures(study: Study) -> Iterator[Drawn]:
    """Yield the figure of the leader's NE, and of each choice that is not the default form."""
    for choice in study.choices:
        if choice.curves and (_is_main(study, choice) or choice.preferred is not choice.default):
            yield _drawn(study, choice)


def _is_main(study: Study, choice: Choice) -> bool:
    return (choice.arm, choice.metric) == (study.leader, study.metric)


def _has_pattern(choice: Choice) -> bool:
    return choice.unexplained is not None and choice.unexplained < UNEXPLAINED


def _pattern(choice: Choice) -> str:
    return f"p = {choice.unexplained:.1g}; signs from the smallest budget on: {choice.signs}"


def _subject(choice: Choice) -> str:
    return metric_words(choice.metric) + (f" of {choice.arm}" if choice.arm else "")


def _sentence(choice: Choice) -> str:
    """Return what the runs say about the form of the law."""
    subject = _subject(choice)
    if not choice.scores:
        return f"{subject}: forms are not compared, {choice.reason}"
    default, preferred = choice.default, choice.preferred
    name = default.candidate.name
    if choice.noise is None:
        best = min((s for s in choice.scores if np.isfinite(s.error)), key=lambda s: s.error)
        return (
            f"{subject}: no form is preferred, because the noise between seeds is unknown; the "
            f"{best.candidate.name} has the smallest error at the budgets left out"
        )
    if preferred is not default:
        verdict = (
            f"the runs prefer a {preferred.candidate.name} ({preferred.candidate.formula}). Its "
            f"error at the budgets left out is {preferred.error:.1f} standard deviations of a "
            f"seed, that of the {name} {default.error:.1f}"
        )
    else:
        verdict = (
            f"no form is clearly better than the {name}, whose error at the budgets left out is "
            f"{default.error:.1f} standard deviations of a seed"
        )
    if not _has_pattern(choice):
        return f"{subject}: {verdict}"
    return (
        f"{subject}: {verdict}. The residuals of the {name} form a pattern that seeds do not "
        f"explain ({_pattern(choice)})"
    )


def _table(choices: Sequence[Choice]) -> str:
    """Return the table of forms; a form that was not fitted says why."""
    metrics = len({choice.metric for choice in choices}) > 1
    arms = len({choice.arm for choice in choices}) > 1
    head = [*(["metric"] * metrics), *(["architecture"] * arms), "form", "formula", "parameters"]
    known = all(choice.noise for choice in choices)
    head += ["error, largest budget", "error, in sd of seeds" if known else "error"]
    rows = []
    reasons: dict[str, None] = {}
    for choice in choices:
        first = [metric_words(choice.metric)] * metrics + [arm_words(choice.arm)] * arms
        order = sorted(choice.scores, key=lambda s: (not np.isfinite(s.error), s.error))
        for score in order:
            mark = " (preferred)" if choice.noise and score is choice.preferred else ""
            form = score.candidate
            cells = ["–", "not fitted"]
            if np.isfinite(score.error):
                cells = [f"{score.largest:+.4f}", f"{score.error:.{2 if choice.noise else 4}f}"]
            else:
                reasons[f"{', '.join([*first, form.name])}: {score.reason}"] = None
            rows.append([*first, form.name + mark, form.formula, str(form.free), *cells])
    caption = (
        "Forms fitted without the largest budget and without the largest two. Error at the largest "
        "budget: predicted minus observed mean. Last column: root mean square over the budgets "
        "left out"
        + (", each in standard deviations of its mean over seeds; about 1 is noise" * known)
    )
    notes = "".join(f"<li>{sentence(reason)}</li>" for reason in reasons)
    return table(head, rows, caption, words=metrics + arms + 2) + (
        folded("Why forms were not fitted", f"<ul>{notes}</ul>") if notes else ""
    )


def _drawn(study: Study, choice: Choice) -> Drawn:
    """Draw the runs of a choice with the default law and the preferred one."""
    curves = choice.curves
    assert curves is not None  # a choice with scores has curves
    number = {name: i for i, name in enumerate(study.table.names)}
    rows = [number[name] for name in curves.runs]
    series = Series(name=_subject(choice), x=curves.compute, y=curves.observed, runs=rows)
    default, preferred = choice.default.candidate, choice.preferred.candidate
    laws = f"the {default.name} ({default.formula})"
    if preferred is not default:
        laws += f", and the preferred {preferred.name} ({preferred.formula}) with its interval"
    unit = "standard deviations of a seed; grey: two of them" if choice.noise else "percent"
    subject = _subject(choice)
    caption = f"{subject[:1].upper()}{subject[1:]}: runs of the ladder, {laws}. "
    caption += f"Lower panel: residuals in {unit}. "
    suffix = "".join(f"_{slug(part)}" for part in (action_of(choice.metric), choice.arm) if part)
    return Drawn(
        name=f"forms{suffix}",
        section="forms",
        figure=_figure(choice, series, AXES[study.axis]),
        caption=caption + facts(study, rows, study.axis),
        points=points(study, [series]),
    )


def _figure(choice: Choice, series: Series, axis: str) -> Figure:
    curves = choice.curves
    assert curves is not None
    laws: list[tuple[str, Any, str, str, Any]] = [
        (choice.default.candidate.name, curves.default, ORANGE, "s", (0, (5, 2)))
    ]
    if choice.preferred is not choice.default:
        value, low, high = curves.preferred
        laws.append((choice.preferred.candidate.name, value, BLUE, "o", "-"))
    with styled():
        figure = Figure(figsize=(WIDTH, 5.2))
        panels = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.4))
        main: Axes = panels[0]
        dots(main, series.x, series.y, series.runs, marker="o", color=INK, ms=4.5)
        main.plot([], [], "o", color=INK, ms=4.5, label="runs")
        for name, value, color, mark, stroke in laws:
            main.plot(series.x, value, color=color, ls=stroke, lw=1.8, label=name)
            off = series.y - value
            scaled = off / choice.noise if choice.noise else 100 * off / value
            dots(panels[1], series.x, scaled, series.runs, marker=mark, color=color, ms=5)
        if choice.preferred is not choice.default:
            main.fill_between(series.x, low, high, color=BLUE, alpha=0.15, lw=0)
        if choice.noise:
            panels[1].axhspan(-2, 2, color=GREY, alpha=0.18, lw=0)
        panels[1].axhline(0, color=INK, lw=0.8)
        panels[1].set_ylabel("residual, sd of seeds" if choice.noise else "residual, %")
        panels[1].yaxis.set_major_locator(MaxNLocator(5))
        value_axis(main, metric_words(choice.metric))
        compute_axis(panels[1], series.x, axis)
        draw_legend(figure)
        return figure
