"""The report's page: the sections of a study, filled into page.html. Wording and order only."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ligr_jax.scaling.report import tables
from ligr_jax.scaling.report.drawn import Drawn, arm_words
from ligr_jax.scaling.report.html import cell, engineering, names, sentence, table
from ligr_jax.scaling.report.study import Study
from ligr_jax.scaling.report.svg import svg
from ligr_jax.scaling.runs import varied

# name: title, its table, and what would fill it where it has nothing.
SECTIONS = {
    "ne": ("Quality against compute", tables.laws_table, ""),
    "auc": ("AUC against compute", tables.auc_table, "no run logs an action's AUC."),
    "dimensions": (
        "Which dimension pays?",
        tables.gains_table,
        "the sweeps seq_len, depth and embed_dim, which vary one dimension each, would fill this.",
    ),
    "isoflop": (
        "The best size for a budget",
        tables.iso_flop_table,
        "a sweep of budgets times sizes (isoflop) would fill this: three sizes at each of two "
        "budgets or more.",
    ),
    "frontier": ("Frontier", tables.frontier_table, "no run has this compute axis."),
    "comparisons": (
        "Architectures compared",
        tables.comparisons_table,
        "a sweep that varies the architecture on one ladder (architecture, ablations) would fill "
        "this.",
    ),
    "forecasts": (
        "Would the laws have predicted the largest runs?",
        tables.forecasts_table,
        "a ladder of five budgets or more would fill this.",
    ),
    "noise": (
        "Noise floor",
        tables.noise_table,
        "a sweep that varies the seed alone (seeds) would fill this.",
    ),
    "training": ("Training curves", None, "runs with metrics.jsonl beside them would fill this."),
    "time": (
        "Estimated and actual time",
        None,
        "runs of `ligr sweep`, which estimates each before it starts, would fill this.",
    ),
}
SHAPE = {
    "config/data.seq_len": "T",
    "config/model.depth": "depth",
    "config/model.width": "width",
    "config/model.table_width": "table width",
    "config/data.fraction": "data",
}
LARGE = {
    "params_dense": "dense params",
    "params_tables": "table params",
    "tokens": "tokens",
    "flops_model": "FLOPs (model)",
    "flops_paper": "FLOPs (paper)",
}


def page(found: Study, drawn: Sequence[Drawn], lines: Sequence[str]) -> str:
    """The whole document: no script, style, font or image from outside it."""
    runs = found.runs
    counts = [f"{len(runs.table)} finished", f"{len(runs.failed)} failed"]
    counts += [f"{len(runs.unfinished)} unfinished", f"{runs.not_started} not started"]
    here = files("ligr_jax.scaling.report")
    sections = [_section(found, name, drawn) for name in SECTIONS]
    return Template((here / "page.html").read_text("utf-8")).substitute(
        title=escape(f"Scaling report: {runs.name}"),
        subtitle=escape("Runs: " + ", ".join(c for c in counts if not c.startswith("0 "))),
        style=(here / "page.css").read_text("utf-8"),
        script=(here / "page.js").read_text("utf-8"),
        data=_data(found),
        answer="".join(f"<li>{sentence(line)}</li>" for line in lines),
        contents="".join(
            f'<li><a href="#{name}">{escape(title)}</a></li>'
            for name, (title, _, _) in (SECTIONS | {"all": ("Every run", None, "")}).items()
        ),
        notices="".join(_notices(found)),
        sections="".join(sections),
        runs=_runs(found),
        rest=_rest(found),
    )


def _section(found: Study, name: str, drawn: Sequence[Drawn]) -> str:
    title, make_table, remedy = SECTIONS[name]
    pictures = [_figure(each) for each in drawn if each.section == name]
    text = make_table(found) if make_table else ""
    body = (f'<div class="figures">{"".join(pictures)}</div>' if pictures else "") + text
    if not body:
        body = f'<p class="soft">Nothing to show: {escape(remedy)}</p>'
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def _figure(each: Drawn) -> str:
    files_of = " ".join(
        f'<a href="figures/{each.name}.{ending}">{ending.upper()}</a>'
        for ending in ("png", "svg", "csv")
    )
    return (
        f"<figure>{svg(each.figure, each.name, each.caption)}"
        f'<figcaption>{escape(each.caption)} <span class="files">{files_of}</span></figcaption>'
        "</figure>"
    )


def _notices(found: Study) -> Iterable[str]:
    if found.suspect:
        yield (
            '<div class="notice red" role="alert"><strong>Suspected leak.</strong> '
            f"{names(found.suspect)} beat the oracle by more than noise. A model cannot know more "
            "than the true probabilities: look for the label, or something after it, among its "
            "inputs. Left out of every fit and of the best run.</div>"
        )
    if found.diverged:
        yield (
            f'<div class="notice"><strong>Diverged.</strong> {names(found.diverged)} have no '
            f"finite {escape(found.metric)} and were left out of the fits.</div>"
        )
    reasons = [
        f"{arm_words(arm)}: {why}" for arm, why in found.laws[found.axis].reasons.items() if arm
    ]
    warnings = found.law.warnings if found.law else ()
    notes = dict.fromkeys((*warnings, *reasons, *found.notes))
    if notes:
        items = "".join(f"<li>{sentence(note)}</li>" for note in notes)
        few = " open" if len(notes) < 4 else ""
        yield (
            f'<details class="notice"{few}><summary>What to mind ({len(notes)})</summary>'
            f"<ul>{items}</ul></details>"
        )


def _data(found: Study) -> str:
    """What the page shows of a run that is pointed at, in the order of the figures' numbers."""
    table = found.table
    seeds = [c for c in table.columns if c.startswith("config/") and c.endswith(".seed")]
    differing = [*varied(table), *(c for c in seeds if table[c].n_unique() > 1)]
    shown = {c: t for c, t in (LARGE | {found.metric: "NE"}).items() if c in found.table.columns}
    shown |= {c: f"AUC {c.split('/')[1]}" for c in found.aucs}
    shown |= {c: "seconds" for c in ("seconds",) if c in found.table.columns}
    rows = [
        {
            "run": row["run"],
            "sweep": row["sweep"],
            "values": {t: _short(row[c], c in LARGE) for c, t in shown.items()},
            "config": {c.removeprefix("config/"): row[c] for c in differing},
        }
        for row in found.table.iter_rows(named=True)
    ]
    return json.dumps(rows, default=str).replace("<", "\\u003c")


def _short(value: Any, large: bool) -> str | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return engineering(value) if large else f"{value:.5g}"


def _runs(found: Study) -> str:
    """Every finished run, sortable; configuration that is the same in all of them stands above."""
    runs = found.runs.table
    arms = dict(zip(found.table["run"], found.arms))
    columns = {c: t for c, t in (SHAPE | LARGE).items() if c in runs.columns}
    columns |= {found.metric: "NE"}
    columns |= {
        c: f"AUC {c.split('/')[1]}"
        for c in runs.columns
        if c.startswith(f"{found.split}/") and c.endswith("/auc") and c.count("/") == 2
    }
    columns |= {c: c for c in ("seconds",) if c in runs.columns}
    words = {"run": "run"} | ({"sweep": "sweep"} if runs["sweep"].n_unique() > 1 else {})
    words |= {"arm": "architecture"} if any(found.arms) else {}
    head = "".join(
        f'<th scope="col" aria-sort="none" data-kind="{"text" if c in words else "number"}">'
        f'<button type="button">{escape(t)}</button></th>'
        for c, t in (words | columns).items()
    )
    differing = [c for c in runs.columns if c.startswith("config/") and runs[c].n_unique() > 1]
    body = []
    for row in runs.iter_rows(named=True):
        suspect = row["run"] in found.suspect
        name = escape(row["run"]) + (" (suspected leak)" if suspect else "")
        config = _config({c: row[c] for c in differing})
        first = f"<details><summary>{name}</summary>{config}</details>" if config else name
        cells = [f'<th scope="row" data-value="{escape(row["run"])}">{first}</th>']
        cells += [cell(row["sweep"])] if "sweep" in words else []
        cells += [cell(arms.get(row["run"], ""))] if "arm" in words else []
        cells += [cell(row[c], c in LARGE) for c in columns]
        kind = ' class="suspect"' if suspect else ""
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    same = {c: runs[c][0] for c in runs.columns if c.startswith("config/") and c not in differing}
    shared = (
        f"<details><summary>Configuration that is the same in every run ({len(same)})</summary>"
        f"{_config(same)}</details>"
    )
    return (
        f'<p class="soft">Metrics on {escape(found.split)}. Sort by any column; open a run for '
        f"what sets it apart.</p>{shared if same else ''}"
        '<p><label for="filter">Show runs that hold </label>'
        '<input id="filter" type="search" placeholder="every word, e.g. T=64 depth=2">'
        '<span id="count" class="soft" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="All finished runs">'
        f'<table id="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        "</div>"
    )


def _config(values: dict[str, Any]) -> str:
    if not values:
        return ""
    pairs = (
        f"<div><dt>{escape(c.removeprefix('config/'))}</dt><dd>{escape(str(v))}</dd></div>"
        for c, v in values.items()
    )
    return f"<dl>{''.join(pairs)}</dl>"


def _rest(found: Study) -> str:
    """Failed, unfinished and unstarted runs."""
    parts = []
    if found.runs.failed:
        caption = "Last line of each error"
        parts.append(
            "<h2>Failed</h2>" + table(("run", "error"), found.runs.failed, caption, words=2)
        )
    if found.runs.unfinished:
        caption = "Last step logged"
        rows = found.runs.unfinished
        parts.append("<h2>Unfinished</h2>" + table(("run", "reached"), rows, caption))
    if found.runs.not_started:
        parts.append(f"<p>{found.runs.not_started} planned points have not been started.</p>")
    return "".join(parts)
