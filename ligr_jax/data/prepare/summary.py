"""Summary of a prepared log for human readers: times, roles of columns, shares and warnings.

The summary is stored in a prepared directory as prepare.json. Training does not read it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.data.manifest import ColumnStats, Manifest
from ligr_jax.data.prepare.measure import HistoryMeasure
from ligr_jax.data.prepare.partition import Tally
from ligr_jax.data.prepare.publish import SUMMARY
from ligr_jax.data.schema import MEMBER, RANDOM, SESSION, TIME
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.times import EARLIEST_MS, format_time
from ligr_jax.data.sources.validate import has_role

MEANINGS = {SESSION: "session", RANDOM: "random impressions"}
MANY = 20  # least number of members for warnings about times
HOUR_MS = 3_600_000


def log_summary(
    source: LogSource, histories: HistoryMeasure, manifest: Manifest, tally: Tally
) -> dict[str, Any]:
    """Return the summary of a log as a JSON object.

    Args:
        source: the log.
        histories: gaps and sessions of its members.
        manifest: manifest of the output.
        tally: totals of the first pass.
    """
    quantiles = histories.gaps.at()
    timed = not manifest.time_is_order
    gap = round(quantiles[len(quantiles) // 2]) if quantiles and timed else None
    rows = manifest.counts.get("impressions", 0) + manifest.counts.get("context", 0)
    matched = 1 - manifest.counts.get("without_item", 0) / max(rows, 1)
    out: dict[str, Any] = {
        "source": source.name,
        "rows": tally.rows,
        "counts": dict(manifest.counts),
        "first": format_time(tally.first_ms) if timed else None,
        "last": format_time(tally.last_ms) if timed else None,
        "time_zone": "UTC",
        "median_gap_ms": gap,
        "sessions_per_member": manifest.counts.get("sessions", 0) / max(histories.members, 1),
        "remarks": list(source.remarks),
        "splits": {
            name: {"impressions": s.impressions, "positive_rate": dict(s.positive_rate)}
            for name, s in manifest.splits.items()
        },
        "columns": [*_roles(source, manifest)],
        "not_used": list(source.unused),
        "items_matched": matched if source.items else None,
        "labelled": tally.labelled if source.label_table else None,
        "skipped": tally.bad.description(),
        "notes": list(manifest.notes),
    }
    sessions = SESSION in source.present
    times = _time_warnings(histories, tally, gap, sessions) if timed else ()
    labels = _label_warnings(source, tally)
    return {**out, "warnings": [*times, *labels, *_warnings(out, manifest)]}


def save_log_summary(content: Mapping[str, Any], directory: Path) -> None:
    """Write the summary to DIRECTORY/prepare.json."""
    (directory / SUMMARY).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_log_summary(directory: Path) -> dict[str, Any]:
    """Read the summary; return {} if an earlier release prepared the directory without one."""
    try:
        content: dict[str, Any] = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def format_summary(manifest: Manifest, summary: Mapping[str, Any], out: Path) -> str:
    """Return the summary as text.

    Args:
        manifest: manifest of the output.
        summary: summary, as returned by `load_log_summary`.
        out: the output directory.
    """
    counted = ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in manifest.counts.items() if v)
    lines = [f"{out}  digest {manifest.digest}", f"  {counted}"]
    if summary:
        gap = summary["median_gap_ms"]
        timed = summary["first"] is not None
        lines.append(
            (f"  from {summary['first']} to {summary['last']} (UTC)" if timed else "  no times")
            + (f", median gap within a member {_duration(gap)}" if gap is not None else "")
            + f", {summary['sessions_per_member']:.1f} sessions per member"
        )
        lines += [f"  {remark}" for remark in summary["remarks"]]
    for name, split in manifest.splits.items():
        rates = "  ".join(f"{a} {rate:.4f}" for a, rate in split.positive_rate.items())
        lines.append(f"  {name:<11}{split.impressions:>12,} impressions  {rates}")
    lines += [f"  {line}" for line in _column_lines(summary.get("columns", []))]
    if summary.get("items_matched") is not None:
        lines.append(f"  {summary['items_matched']:.1%} of rows have their item in the item table")
    if summary.get("labelled") is not None:
        share = summary["labelled"] / summary["rows"]
        lines.append(f"  {share:.1%} of rows have a row in the table of labels")
    for skip in summary.get("skipped", []):
        column = f"column {skip['column']!r} " if skip["column"] else ""
        example = f"; e.g. {skip['example']}" if skip["example"] else ""
        lines.append(f"  skipped {skip['rows']:,} rows: {column}{skip['rule']}{example}")
    lines += [f"  note: {note}" for note in manifest.notes]
    lines += [f"  WARNING: {warning}" for warning in summary.get("warnings", [])]
    return "\n".join(lines)


def _roles(source: LogSource, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield a description of every column that has a role."""
    schema = source.schema
    item_columns = source.items.columns if source.items else ()

    def role(name: str, role: str, **more: Any) -> dict[str, Any]:
        original = source.names.get(name, name)
        by = "name" if name in source.by_name and role != "action" else "said"
        name = original if name.startswith("\x1f") else name  # an internal name of an adapter
        return {"column": original, "name": name, "role": role, "by": by, **more}

    yield role(MEMBER, "member")
    if not manifest.time_is_order:
        yield role(TIME, "time")
    for name in source.present:
        if has_role(name, source):
            yield role(name, MEANINGS.get(name, "weight in the loss"))
    for action in schema.actions:
        rates = [s.positive_rate.get(action) for s in manifest.splits.values()]
        rule = source.rules.get(action)
        ruled = {"rule": rule.text, "rule_column": rule.column} if rule else {}
        late = {"late": True} if action in schema.late_actions else {}
        yield role(action, "action", positive_rate=rates, **ruled, **late)
    for name, stats in manifest.columns.items():
        meaning = "outcome" if stats.outcome else "feature"
        more = {"kind": stats.kind, "missing": stats.missing, **_shape(stats)}
        if name in item_columns and name != "item_id":
            more["from"] = "item table"
        yield role(name, meaning, **more)


def _shape(stats: ColumnStats) -> dict[str, Any]:
    """Return the sizes of a column that its kind has."""
    if stats.kind == "bag":
        return {"distinct": stats.distinct, "longest": stats.longest}
    if stats.kind == "categorical":
        return {"distinct": stats.distinct}
    if stats.kind == "vector":
        return {"width": stats.width}
    return {"range": [stats.quantiles[0], stats.quantiles[-1]] if stats.quantiles else []}


def _column_lines(columns: list[dict[str, Any]]) -> Iterator[str]:
    """Yield one line per column."""
    width = max((len(c["column"]) for c in columns), default=0)
    for c in columns:
        renamed = f" as {c['name']}" if c["name"] != c["column"] else ""
        text = f"{c['column']:<{width}} -> {c['role']}{renamed}"
        if "kind" in c:
            text += f", {c['kind']}"
        if "distinct" in c and "longest" in c:
            text += f", up to {c['longest']} of {c['distinct']:,} ids in a bag"
        elif "distinct" in c:
            text += f", {c['distinct']:,} ids"
        if c.get("range"):
            text += f", {c['range'][0]:g} to {c['range'][1]:g}"
        if c.get("missing"):
            text += f", {c['missing']:.1%} missing"
        if c.get("from"):
            text += f", from the {c['from']}"
        if c.get("rule"):
            text += f" ({c['rule']})"
        if c.get("late"):
            text += ", known late: a target, never history"
        if c["by"] == "name":
            text += f" (by its name; --ignore {c['column']} leaves it out)"
        yield text


def _label_warnings(source: LogSource, tally: Tally) -> Iterator[str]:
    """Yield a warning if impressions share rows of the table of labels."""
    name, rows = source.label_table or ("", 0)
    if tally.labelled > rows:
        yield (
            f"{name}: {tally.labelled:,} impressions share {rows:,} rows of labels; a click would "
            "count for each of them: does --labels-on identify an impression?"
        )


def _time_warnings(
    histories: HistoryMeasure, tally: Tally, gap: int | None, sessions: bool
) -> Iterator[str]:
    """Yield warnings about times that may be in another unit.

    They are warnings and not errors because a small or unusual log can be correct. The unit itself
    is checked when it is inferred.
    """
    span = tally.last_ms - tally.first_ms
    hint = "is the time column in its unit (--time-unit)?"
    if tally.last_ms < EARLIEST_MS:
        yield f"the log ends in {format_time(tally.last_ms)}, before 1990: {hint}"
    if histories.members < MANY or histories.several_rows < MANY:
        return
    if span < HOUR_MS:
        yield f"the whole log of {histories.members:,} members is within {_duration(span)}: {hint}"
    if gap is not None and gap <= 1:
        yield f"the median gap within a member is {gap} ms: {hint}"
    if histories.one_session == histories.members and not sessions:
        yield (
            "every member has one session, so no impression has a history: "
            f"{hint[:-1]}, and is --session-gap too long?"
        )


def _warnings(content: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    """Yield warnings about labels, features and the item table."""
    for c in content["columns"]:
        if c["role"] == "action":
            rates = [r for r in c["positive_rate"] if r is not None]
            if not rates:
                yield f"action {c['name']!r} has no known label: a model cannot learn it"
            elif set(rates) in ({0.0}, {1.0}):
                yield f"action {c['name']!r} is always {rates[0]:.0f}: a model cannot learn from it"
        elif c.get("missing") == 1:
            yield f"{c['role']} {c['column']!r} is missing in all rows of the train split"
        elif c["role"] == "feature" and _leaks_label(c, content["columns"]):
            yield (
                f"feature {c['column']!r} determines a label, so it leaks the label; declare it as "
                "--outcome"
            )
    matched = content["items_matched"]
    if matched is not None and matched < 0.5:
        yield f"only {matched:.1%} of rows have their item in the item table"


def _leaks_label(column: Mapping[str, Any], columns: list[dict[str, Any]]) -> bool:
    """Return whether a rule computes a label from the column."""
    read = {c["rule_column"] for c in columns if c.get("rule_column")}
    return bool(read & {column["column"], column["name"]})


def _duration(ms: int) -> str:
    """Format a duration, e.g. "3.5 h"."""
    for unit, size in (("d", 86_400_000), ("h", HOUR_MS), ("min", 60_000), ("s", 1000)):
        if ms >= size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms} ms"
