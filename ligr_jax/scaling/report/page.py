"""The report's page: sections of a study, filled into page.html. No computation."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ligr_jax.runs.columns import config_column, config_field
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.report import tables
from ligr_jax.scaling.report.checks import input_notes, split_notes
from ligr_jax.scaling.report.drawn import Drawn, action_of, arm_words, split_caption
from ligr_jax.scaling.report.html import cell, engineering, names, sentence, table
from ligr_jax.scaling.report.preferred import forms_lead, forms_tables
from ligr_jax.scaling.report.slope_tables import slopes_tables
from ligr_jax.scaling.report.study import Study
from ligr_jax.scaling.report.svg import svg

# name: title, table, and what the section needs, shown if it is empty.
SECTIONS = {
    "ne": ("Quality against compute", tables.laws_table, ""),
    "auc": ("AUC against compute", tables.auc_table, "no run has the AUC of an action."),
    "forms": (
        "Form of the law",
        forms_tables,
        "this section needs a ladder of six budgets or more.",
    ),
    "dimensions": (
        "Gain per dimension",
        tables.gains_table,
        "this section needs sweeps that vary one dimension each (seq_len, depth, embed_dim).",
    ),
    "isoflop": (
        "Best size per compute budget",
        tables.iso_flop_table,
        "this section needs a sweep of budgets times sizes (isoflop): three sizes at each of two "
        "budgets or more.",
    ),
    "frontier": ("Frontier", tables.frontier_table, "no run has this compute axis."),
    "comparisons": (
        "Comparison of architectures",
        tables.comparisons_table,
        "this section needs a sweep that varies the architecture on one ladder (architecture, "
        "ablations).",
    ),
    "architectures": (
        "Architectures compared",
        slopes_tables,
        "this section needs a sweep that varies the architecture on one ladder of three sizes or "
        "more (architecture).",
    ),
    "forecasts": (
        "Predictions of the largest runs",
        tables.forecasts_table,
        "this section needs a ladder of five budgets or more.",
    ),
    "noise": (
        "Noise floor",
        tables.noise_table,
        "this section needs a sweep that varies only the seed (seeds).",
    ),
    "training": (
        "Training curves",
        None,
        "this section needs run directories with a metrics.jsonl.",
    ),
    "time": (
        "Estimated and actual time",
        None,
        "this section needs runs of `ligr sweep`, which estimates the time of each run.",
    ),
}
LEADS = {"forms": forms_lead}  # sentences above the figures of a section
SHAPE = {
    config_column("data.seq_len"): "T",
    config_column("model.depth"): "depth",
    config_column("model.width"): "width",
    config_column("model.table_width"): "table width",
    config_column("data.fraction"): "data",
}
LARGE = {
    "params_dense": "dense params",
    "params_tables": "table params",
    "tokens": "tokens",
    "flops_model": "FLOPs (model)",
    "flops_paper": "FLOPs (paper)",
}


def page(
    study: Study, drawn: Sequence[Drawn], lines: Sequence[str], reload_s: float | None = None
) -> str:
    """Return the HTML document. It loads no script, style, font or image.

    Args:
        study: the study.
        drawn: its figures.
        lines: sentences of `summary_lines`, shown at the top.
        reload_s: time (seconds) after which the page reloads itself; None for never.
    """
    runs = study.runs
    counts = [f"{len(runs.table)} finished", f"{len(runs.failed)} failed"]
    counts += [f"{len(runs.unfinished)} unfinished", f"{runs.not_started} not started"]
    resources = files("ligr_jax.scaling.report")
    reloads = reload_s is not None
    sections = {name: section for name in SECTIONS if (section := _section(study, name, drawn))}
    titles = {name: SECTIONS[name][0] for name in sections} | {"all": "Every run"}
    missing = [name for name in SECTIONS if name not in sections]
    titles |= {"missing": "Not shown"} if missing else {}
    return Template((resources / "page.html").read_text("utf-8")).substitute(
        title=escape(f"Scaling report: {runs.name}"),
        subtitle=escape("Runs: " + ", ".join(c for c in counts if not c.startswith("0 ")))
        + (". The sweep is being trained; this page reloads itself." if reloads else ""),
        style=(resources / "page.css").read_text("utf-8"),
        script=(resources / "page.js").read_text("utf-8"),
        data=_data(study),
        reload=f' data-reload="{reload_s:g}"' if reloads else "",
        answer="".join(f"<li>{sentence(line)}</li>" for line in lines),
        contents="".join(
            f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in titles.items()
        ),
        notices="".join(_notices(study)),
        sections="".join(sections.values()),
        runs=_runs(study),
        rest=_rest(study) + _missing(missing),
    )


def _section(study: Study, name: str, drawn: Sequence[Drawn]) -> str:
    """Return a section; "" if there is nothing to show."""
    title, make_table, _ = SECTIONS[name]
    pictures = [_figure(each) for each in drawn if each.section == name]
    lead = LEADS[name](study) if name in LEADS else ""
    text = make_table(study) if make_table else ""
    body = lead + (f'<div class="figures">{"".join(pictures)}</div>' if pictures else "") + text
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>' if body else ""


def _missing(names: Sequence[str]) -> str:
    """Return the list of the sections that are not shown, with what each of them needs."""
    items = "".join(
        f"<li><strong>{escape(SECTIONS[name][0])}</strong>: {escape(SECTIONS[name][2])}</li>"
        for name in names
    )
    return f'<h2 id="missing">Not shown</h2><ul class="soft">{items}</ul>' if names else ""


def _figure(each: Drawn) -> str:
    files_of = " ".join(
        f'<a href="figures/{each.name}.{ending}">{ending.upper()}</a>'
        for ending in ("png", "svg", "csv")
    )
    first, rest = split_caption(each.caption)
    more = f"<details><summary>How to read it</summary>{escape(rest)}</details>" if rest else ""
    return (
        f"<figure>{svg(each.figure, each.name, each.caption)}"
        f'<figcaption>{escape(first)} <span class="files">{files_of}</span>{more}</figcaption>'
        "</figure>"
    )


def _notices(study: Study) -> Iterable[str]:
    """Yield boxes on suspected leaks, diverged runs, and warnings."""
    if study.suspect:
        yield (
            '<div class="notice red" role="alert"><strong>Suspected leak.</strong> '
            f"These runs beat the oracle by more than noise: {names(study.suspect)}. No model can "
            "beat the true probabilities, so its inputs probably contain the label or information "
            "from after the impression. They are excluded from all fits and from the best "
            "run.</div>"
        )
    if study.diverged:
        yield (
            '<div class="notice"><strong>Diverged.</strong> These runs have no finite '
            f"{escape(study.metric)} and are excluded from the fits: {names(study.diverged)}.</div>"
        )
    reasons = [
        f"{arm_words(arm)}: {why}" for arm, why in study.laws[study.axis].reasons.items() if arm
    ]
    warnings = study.law.warnings if study.law else ()
    measured = (*split_notes(study), *input_notes(study))
    notes = dict.fromkeys((*warnings, *reasons, *measured, *study.notes))
    if notes:
        items = "".join(f"<li>{sentence(note)}</li>" for note in notes)
        few = " open" if len(notes) < 4 else ""
        yield (
            f'<details class="notice"{few}><summary>Warnings ({len(notes)})</summary>'
            f"<ul>{items}</ul></details>"
        )


def _data(study: Study) -> str:
    """Return, as JSON, what the page shows of a selected run, in the order of the run numbers."""
    table = study.table
    seeds = [c for c in table.settings if c.endswith(".seed")]
    differing = [*table.varied(), *(c for c in seeds if table.distinct(c) > 1)]
    shown = {c: t for c, t in (LARGE | {study.metric: "NE"}).items() if table.has(c)}
    shown |= {c: f"AUC {action_of(c)}" for c in study.aucs}
    shown |= {c: "seconds" for c in ("seconds",) if table.has(c)}
    rows = [
        {
            "run": run,
            "sweep": sweep,
            "values": {t: _short(row[c], c in LARGE) for c, t in shown.items()},
            "config": {config_field(c): row[c] for c in differing},
        }
        for run, sweep, row in zip(table.names, table.first_sweeps, table.rows())
    ]
    return json.dumps(rows, default=str).replace("<", "\\u003c")


def _short(value: Any, large: bool) -> str | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return engineering(value) if large else f"{value:.5g}"


def _runs(study: Study) -> str:
    """Return the sortable table of all finished runs, below the configuration common to all."""
    runs = RunTable(study.runs.table)
    arms = dict(zip(study.table.names, study.arms))
    columns = {c: t for c, t in (SHAPE | LARGE).items() if runs.has(c)}
    columns |= {study.metric: "NE"}
    columns |= {
        c: f"AUC {action_of(c)}"
        for c in runs.columns
        if c.startswith(f"{study.split}/") and c.endswith("/auc") and c.count("/") == 2
    }
    columns |= {c: c for c in ("seconds",) if runs.has(c)}
    words = {"run": "run"} | ({"sweep": "sweep"} if len(set(runs.first_sweeps)) > 1 else {})
    words |= {"arm": "architecture"} if any(study.arms) else {}
    head = "".join(
        f'<th scope="col" aria-sort="none" data-kind="{"text" if c in words else "number"}">'
        f'<button type="button">{escape(t)}</button></th>'
        for c, t in (words | columns).items()
    )
    differing = [c for c in runs.settings if runs.distinct(c) > 1]
    body = []
    for run, sweep, row in zip(runs.names, runs.first_sweeps, runs.rows()):
        mark = "suspected leak" if run in study.suspect else "leaks" * (run in study.leaking)
        name = escape(run) + (f" ({mark})" if mark else "")
        config = _config({c: row[c] for c in differing})
        first = f"<details><summary>{name}</summary>{config}</details>" if config else name
        cells = [f'<th scope="row" data-value="{escape(run)}">{first}</th>']
        cells += [cell(sweep)] if "sweep" in words else []
        cells += [cell(arms.get(run, ""))] if "arm" in words else []
        cells += [cell(row[c], c in LARGE) for c in columns]
        kind = ' class="suspect"' if mark else ""
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    same = {c: runs.frame[c][0] for c in runs.settings if c not in differing}
    shared = (
        f"<details><summary>Configuration that is the same in every run ({len(same)})</summary>"
        f"{_config(same)}</details>"
    )
    return (
        f'<p class="soft">Metrics on the {escape(study.split)} split. Click a column title to '
        f"sort; open a run to see its configuration.</p>{shared if same else ''}"
        '<p><label for="filter">Show only runs that match </label>'
        '<input id="filter" type="search" placeholder="all words, e.g. T=64 depth=2">'
        '<span id="count" class="soft" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="All finished runs">'
        f'<table id="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        "</div>"
    )


def _config(values: dict[str, Any]) -> str:
    if not values:
        return ""
    pairs = (
        f"<div><dt>{escape(config_field(c))}</dt><dd>{escape(str(v))}</dd></div>"
        for c, v in values.items()
    )
    return f"<dl>{''.join(pairs)}</dl>"


def _rest(study: Study) -> str:
    """Return the lists of failed, unfinished and unstarted runs."""
    parts = []
    if study.runs.failed:
        caption = "Last line of each error message"
        parts.append(
            "<h2>Failed</h2>" + table(("run", "error"), study.runs.failed, caption, words=2)
        )
    if study.runs.unfinished:
        caption = "Last step in the log"
        rows = study.runs.unfinished
        parts.append("<h2>Unfinished</h2>" + table(("run", "reached"), rows, caption))
    if study.runs.not_started:
        parts.append(f"<p>{study.runs.not_started} planned runs have not started.</p>")
    return "".join(parts)
