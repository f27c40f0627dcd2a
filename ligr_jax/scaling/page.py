"""The report's page: HTML from a `Study`, filled into report.html. Wording and tables only."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from ligr_jax.scaling import figures
from ligr_jax.scaling.runs import varied

if TYPE_CHECKING:
    from ligr_jax.scaling.report import Study

SHAPE = {
    "config/data.seq_len": "T",
    "config/model.depth": "depth",
    "config/model.width": "width",
    "config/model.table_width": "table width",
}
COUNTS = {"params_dense": "dense params", "params_tables": "table params", "tokens": "tokens"}
FLOPS = {"flops_model": "FLOPs (model)", "flops_paper": "FLOPs (paper)"}


@dataclass(frozen=True)
class Drawn:
    """A figure and the sentence under it."""

    figure: Figure
    caption: str


def engineering(value: float) -> str:
    """1.23e13 -> 12.3×10¹²: three digits, exponent a multiple of three."""
    if not math.isfinite(value) or value <= 0:
        return "–"
    power = 3 * math.floor(math.log10(value) / 3 + 1e-12)
    if round(value / 10.0**power, 3 - len(str(int(value / 10.0**power)))) >= 1000:
        power += 3
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    lead = f"{value / 10.0**power:.3g}"
    return lead if power == 0 else f"{lead}×10{raised}"


def page(found: "Study", drawn: dict[str, Drawn], lines: Sequence[str]) -> str:
    """The whole document: no script, style, font or image from outside it."""
    runs = found.runs
    counts = [f"{len(runs.table)} finished", f"{len(runs.failed)} failed"]
    counts += [f"{len(runs.unfinished)} unfinished", f"{runs.not_started} not started"]
    pictures = [
        f"<figure>{figures.svg(each.figure, name, escape(each.caption))}"
        f"<figcaption>{escape(each.caption)}</figcaption></figure>"
        for name, each in drawn.items()
    ]
    template = Template((files("ligr_jax.scaling") / "report.html").read_text("utf-8"))
    return template.substitute(
        title=escape(f"Scaling report: {runs.name}"),
        subtitle=escape("Runs: " + ", ".join(c for c in counts if not c.startswith("0 "))),
        answer=f'<p class="lead">{" ".join(_sentence(line) for line in lines)}</p>',
        notices="".join(_notices(found)),
        figures="".join(pictures),
        axes=_axes(found),
        dimensions=_dimensions(found),
        leftout=_left_out(found),
        runs=_runs(found),
        rest=_rest(found),
    )


def _sentence(line: str) -> str:
    return escape(line[:1].upper() + line[1:] + ".")


def _notices(found: "Study") -> Iterable[str]:
    if found.suspect:
        yield (
            '<div class="notice red" role="alert"><strong>Suspected leak.</strong> '
            f"{_names(found.suspect)} beat the oracle by more than noise. A model cannot know more "
            "than the true probabilities: look for the label, or something after it, among its "
            "inputs. Left out of every fit and of the best run.</div>"
        )
    if found.diverged:
        yield (
            f'<div class="notice"><strong>Diverged.</strong> {_names(found.diverged)} have no '
            f"finite {escape(found.metric)} and were left out of the fits.</div>"
        )
    warnings = dict.fromkeys((*found.notes, *(found.law.warnings if found.law else ())))
    for note in warnings:
        yield f'<div class="notice">{_sentence(note.rstrip("."))}</div>'


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(n)}</code>" for n in names)


def _axes(found: "Study") -> str:
    if not found.laws:
        return f"<p>No law was fitted: {escape(found.reason)}.</p>"
    head = ("compute axis", "floor E", "alpha", "gain over the last decade", "objective")
    rows = []
    for axis, kinds in found.laws.items():
        for law in kinds.values():
            fixed = law.free == 2
            floor = f"{law.params['E']:.4f}, the oracle's" if fixed else _span(law, "E", 4)
            gain = _span(law, "gain_per_decade", 4)
            cells = (axis, floor, _span(law, "alpha", 3), gain, f"{law.objective:.3g}")
            rows.append([escape(c) for c in cells])
    words = (
        "<p>flops_paper (dense parameters × tokens) leaves attention out; flops_model counts it. "
        "flops_6nd is six times flops_paper and has the same exponent. "
        f"{_verdict(found)}</p>"
    )
    caption = "Estimates with percentile intervals; a law with its floor free and at the oracle's."
    return words + _table(head, rows, caption)


def _verdict(found: "Study") -> str:
    best = {a: g["best"] for a, g in found.dimensions.items() if "best" in g}
    if len(best) > 1:
        if len(set(best.values())) > 1:
            named = ", ".join(f"{name} on {axis}" for axis, name in best.items())
            return f"<strong>The dimension that pays best changes with the axis</strong>: {named}."
        return f"The dimension that pays best, {next(iter(best.values()))}, is the same on each."
    spans = [k["free"].intervals.get("alpha") for k in found.laws.values()]
    pairs = [s for s in spans if s]
    if len(pairs) < 2:
        return "With one axis or no intervals there is nothing to compare."
    apart = max(p[0] for p in pairs) > min(p[1] for p in pairs)
    if apart:
        return "<strong>The exponents differ by more than their intervals.</strong>"
    return "The intervals of the exponents overlap: the axis does not change the law's slope."


def _dimensions(found: "Study") -> str:
    gains = found.dimensions.get(found.axis, {})
    if "rows" not in gains:
        if "together" in gains:
            grow = escape(gains["together"].replace(" + ", ", "))
            return (
                f"<p>Varied: {grow}. They do not vary apart, so no regression can tell which of "
                "them pays. The sweeps <code>seq_len</code>, <code>depth</code> and "
                "<code>embed_dim</code> vary one at a time.</p>"
            )
        return f"<p>Nothing to compare: {escape(gains.get('reason') or found.reason)}.</p>"
    head = ("axis", "dimension", "range", "gain per doubling", "compute per doubling")
    rows = []
    for axis, each in found.dimensions.items():
        for row in each.get("rows", ()):
            rate = "nearly free in compute"
            if row["gain_per_decade"] is not None:
                low, high = row["interval"]
                rate = f"{row['gain_per_decade']:.4f} [{low:.4f}, {high:.4f}]"
            low, high = row["range"]
            cells = [axis, row["dimension"], f"{low:g} to {high:g}"]
            cells += [f"{row['gain_per_doubling']:+.4f}", f"×{row['compute_per_doubling']:.2f}"]
            rows.append([escape(c) for c in (*cells, rate)])
    caption = (
        "NE and log compute regressed on the log of every dimension at once. "
        "Gain per decade: fall of NE when tenfold compute is spent on that dimension alone."
    )
    return _table((*head, "gain per decade"), rows, caption)


def _left_out(found: "Study") -> str:
    if not found.left_out:
        return "<p>Too few budgets to leave any out.</p>"
    head = ("budgets left out", "run", "FLOPs", "observed", "predicted", "error", "covered")
    rows = []
    for k, left in found.left_out.items():
        for r in left:
            span = f"{r.predicted:.4f} [{r.low:.4f}, {r.high:.4f}]"
            cells = (str(k), r.run, engineering(r.compute), f"{r.observed:.4f}", span)
            rows.append(
                [
                    escape(c)
                    for c in (*cells, f"{r.error + 0.0:+.4f}".replace("-", "−"), _yes(r.covered))
                ]
            )
    caption = "Laws fitted without the largest budgets; intervals are for one further run."
    return _table(head, rows, caption)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _span(law: Any, name: str, digits: int) -> str:
    value = f"{law.params[name]:.{digits}f}"
    if name not in law.intervals:
        return f"{value} (no interval)"
    low, high = law.intervals[name]
    return f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    titles = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<p class="soft">{escape(caption)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _runs(found: "Study") -> str:
    """Every finished run, sortable; configuration that is the same in all of them stands above."""
    table, split = found.runs.table, found.metric.split("/")[0]
    shape = {c: t for c, t in SHAPE.items() if c in table.columns}
    counts = {c: t for c, t in (COUNTS | FLOPS).items() if c in table.columns}
    ends = f"{split}/", "/auc"
    aucs = {
        c: f"AUC {c.split('/')[1]}"
        for c in table.columns
        if c.startswith(ends[0]) and c.endswith(ends[1]) and c.count("/") == 2
    }
    columns = shape | counts | {found.metric: "NE"} | aucs
    columns |= {c: c for c in ("seconds",) if c in table.columns}
    differing = [c for c in table.columns if c.startswith("config/") and table[c].n_unique() > 1]
    titles = {"run": "run"} | columns
    head = "".join(
        f'<th scope="col" aria-sort="none" data-kind="{"text" if c == "run" else "number"}">'
        f'<button type="button">{escape(t)}</button></th>'
        for c, t in titles.items()
    )
    body = []
    for row in table.iter_rows(named=True):
        suspect = row["run"] in found.suspect
        name = escape(row["run"]) + (" (suspected leak)" if suspect else "")
        config = _config({c: row[c] for c in differing})
        first = f"<details><summary>{name}</summary>{config}</details>" if config else name
        cells = [f'<th scope="row" data-value="{escape(row["run"])}">{first}</th>']
        cells += [_cell(row[c], c in counts) for c in columns]
        body.append(f'<tr class="suspect">{"".join(cells)}' if suspect else f"<tr>{''.join(cells)}")
    same = {c: table[c][0] for c in table.columns if c.startswith("config/") and c not in differing}
    shared = (
        f"<details><summary>Configuration that is the same in every run ({len(same)})</summary>"
    )
    shared = f"{shared}{_config(same)}</details>" if same else ""
    return (
        f"<p class='soft'>Metrics on {escape(split)}. Sort by any column; open a run for what sets "
        f"it apart ({len(varied(table))} settings beside the seed).</p>{shared}"
        '<div class="scroll" tabindex="0" role="region" aria-label="All finished runs">'
        f'<table id="runs"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(r + '</tr>' for r in body)}</tbody></table></div>"
    )


def _config(values: dict[str, Any]) -> str:
    if not values:
        return ""
    pairs = (f"<dt>{escape(c[7:])}</dt><dd>{escape(str(v))}</dd>" for c, v in values.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _cell(value: Any, large: bool) -> str:
    number = isinstance(value, int | float) and math.isfinite(value)
    if value is None or (isinstance(value, float) and not number):
        return '<td data-value="">–</td>'
    if not number:
        text = str(value)
    elif large:
        text = engineering(value)
    else:
        text = f"{value:.4f}" if isinstance(value, float) and abs(value) < 10 else f"{value:,.0f}"
    return f'<td data-value="{escape(str(value))}">{escape(text)}</td>'


def _rest(found: "Study") -> str:
    """Failed, unfinished and unstarted runs."""
    parts = []
    if found.runs.failed:
        rows = [[f"<code>{escape(n)}</code>", escape(m)] for n, m in found.runs.failed]
        parts.append("<h2>Failed</h2>" + _table(("run", "error"), rows, "Last line of each error"))
    if found.runs.unfinished:
        rows = [[f"<code>{escape(n)}</code>", escape(m)] for n, m in found.runs.unfinished]
        parts.append("<h2>Unfinished</h2>" + _table(("run", "reached"), rows, "Last step logged"))
    if found.runs.not_started:
        parts.append(f"<p>{found.runs.not_started} planned points have not been started.</p>")
    return "".join(parts)
