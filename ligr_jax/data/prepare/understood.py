"""What `prepare` has understood of a log: times, roles of columns, shares, and what looks odd.

It lies in a prepared directory as prepare.json, for people; training reads the manifest alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ligr_jax.data.manifest import ColumnStats, Manifest
from ligr_jax.data.prepare.partition import Tally
from ligr_jax.data.prepare.publish import SUMMARY
from ligr_jax.data.prepare.shards import Histories
from ligr_jax.data.prepare.sketches import Quantiles
from ligr_jax.data.schema import MEMBER, RANDOM, SESSION, TIME
from ligr_jax.data.sources.source import Source
from ligr_jax.data.sources.times import EARLIEST_MS
from ligr_jax.data.sources.times import shown as shown_time
from ligr_jax.data.sources.validate import UNTIMED, has_role

MEANINGS = {SESSION: "session", RANDOM: "random impressions"}
MANY = 20  # members, before odd times are worth a warning
HOUR_MS = 3_600_000


@dataclass
class Understood:
    """Gaps and sessions of members, collected shard by shard."""

    source: Source
    gaps: Quantiles = field(default_factory=Quantiles)
    number_of_gaps: int = 0
    members: int = 0
    one_session: int = 0
    several_rows: int = 0

    def add(self, kept: Histories) -> None:
        """Counts the members of a shard."""
        timed = kept.time_ms != UNTIMED
        gap = np.diff(kept.time_ms)[(kept.member[1:] == kept.member[:-1]) & timed[:-1]]
        number = np.arange(self.number_of_gaps, self.number_of_gaps + len(gap))
        self.gaps.add(gap.astype(np.float32), number)
        self.number_of_gaps += len(gap)
        if not len(kept.first):
            return
        last = np.append(kept.first[1:], len(kept.order)) - 1
        sessions = kept.session[last] + 1 - kept.per_member(~timed)
        self.members += len(last)
        self.several_rows += int((kept.per_member(timed) > 1).sum())
        self.one_session += int((sessions == 1).sum())

    def content(self, manifest: Manifest, tally: Tally) -> dict[str, Any]:
        """All of it, as JSON has it."""
        middle = self.gaps.at()
        gap = round(middle[len(middle) // 2]) if middle else None
        rows = manifest.counts.get("impressions", 0) + manifest.counts.get("context", 0)
        matched = 1 - manifest.counts.get("without_item", 0) / max(rows, 1)
        out: dict[str, Any] = {
            "source": self.source.name,
            "rows": tally.rows,
            "counts": dict(manifest.counts),
            "first": shown_time(tally.first_ms),
            "last": shown_time(tally.last_ms),
            "time_zone": "UTC",
            "median_gap_ms": gap,
            "sessions_per_member": manifest.counts.get("sessions", 0) / max(self.members, 1),
            "remarks": list(self.source.remarks),
            "splits": {
                name: {"impressions": s.impressions, "positive_rate": dict(s.positive_rate)}
                for name, s in manifest.splits.items()
            },
            "columns": [*_roles(self.source, manifest)],
            "not_used": list(self.source.unused),
            "items_matched": matched if self.source.items else None,
            "skipped": tally.bad.description(),
            "notes": list(manifest.notes),
        }
        return {**out, "warnings": [*_time_warnings(self, tally, gap), *_warnings(out, manifest)]}


def save_understood(content: Mapping[str, Any], directory: Path) -> None:
    """Writes DIRECTORY/prepare.json."""
    (directory / SUMMARY).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_understood(directory: Path) -> dict[str, Any]:
    """What was saved, {} where an earlier release prepared the directory."""
    try:
        content: dict[str, Any] = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def shown(manifest: Manifest, understood: Mapping[str, Any], out: Path) -> str:
    """What a reader should know of a prepared data set, as text."""
    counted = ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in manifest.counts.items() if v)
    lines = [f"{out}  digest {manifest.digest}", f"  {counted}"]
    if understood:
        gap = understood["median_gap_ms"]
        lines.append(
            f"  from {understood['first']} to {understood['last']} (UTC)"
            + (f", median gap within a member {_duration(gap)}" if gap is not None else "")
            + f", {understood['sessions_per_member']:.1f} sessions per member"
        )
        lines += [f"  {remark}" for remark in understood["remarks"]]
    for name, split in manifest.splits.items():
        rates = "  ".join(f"{a} {rate:.4f}" for a, rate in split.positive_rate.items())
        lines.append(f"  {name:<11}{split.impressions:>12,} impressions  {rates}")
    lines += [f"  {line}" for line in _columns_shown(understood.get("columns", []))]
    if understood.get("items_matched") is not None:
        lines.append(f"  {understood['items_matched']:.1%} of rows have their item in the table")
    for skip in understood.get("skipped", []):
        column = f"column {skip['column']!r} " if skip["column"] else ""
        example = f"; e.g. {skip['example']}" if skip["example"] else ""
        lines.append(f"  skipped {skip['rows']:,} rows: {column}{skip['rule']}{example}")
    lines += [f"  note: {note}" for note in manifest.notes]
    lines += [f"  WARNING: {warning}" for warning in understood.get("warnings", [])]
    return "\n".join(lines)


def _roles(source: Source, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Every column with a role."""
    schema = source.schema
    of_items = source.items.columns if source.items else ()

    def role(name: str, role: str, **more: Any) -> dict[str, Any]:
        own = source.names.get(name, name)
        by = "name" if name in source.by_name and role != "action" else "said"
        name = own if name.startswith("\x1f") else name  # a name that an adapter made up
        return {"column": own, "name": name, "role": role, "by": by, **more}

    yield role(MEMBER, "member")
    yield role(TIME, "time")
    for name in source.present:
        if has_role(name, source):
            yield role(name, MEANINGS.get(name, "weight in the loss"))
    for action in schema.actions:
        rates = [s.positive_rate.get(action) for s in manifest.splits.values()]
        rule = source.rules.get(action)
        ruled = {"rule": rule.text, "rule_column": rule.column} if rule else {}
        yield role(action, "action", positive_rate=rates, **ruled)
    for name, stats in manifest.columns.items():
        meaning = "outcome" if stats.outcome else "feature"
        more = {"kind": stats.kind, "missing": stats.missing, **_shape(stats)}
        if name in of_items and name != "item_id":
            more["from"] = "item table"
        yield role(name, meaning, **more)


def _shape(stats: ColumnStats) -> dict[str, Any]:
    if stats.kind == "bag":
        return {"distinct": stats.distinct, "longest": stats.longest}
    if stats.kind == "categorical":
        return {"distinct": stats.distinct}
    if stats.kind == "vector":
        return {"width": stats.width}
    return {"range": [stats.quantiles[0], stats.quantiles[-1]] if stats.quantiles else []}


def _columns_shown(columns: list[dict[str, Any]]) -> Iterator[str]:
    width = max((len(c["column"]) for c in columns), default=0)
    for c in columns:
        own = f" as {c['name']}" if c["name"] != c["column"] else ""
        text = f"{c['column']:<{width}} -> {c['role']}{own}"
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
        if c["by"] == "name":
            text += f" (by its name; --ignore {c['column']} leaves it out)"
        yield text


def _time_warnings(u: Understood, tally: Tally, gap: int | None) -> Iterator[str]:
    """Times that may be of another unit. They never refuse a log: a small or strange one may be
    honest, and the unit itself is checked where it is found."""
    span = tally.last_ms - tally.first_ms
    hint = "is the time column in its unit (--time-unit)?"
    if tally.last_ms < EARLIEST_MS:
        yield f"the log ends in {shown_time(tally.last_ms)}, before 1990: {hint}"
    if u.members < MANY or u.several_rows < MANY:
        return
    if span < HOUR_MS:
        yield f"the whole log of {u.members:,} members lies within {_duration(span)}: {hint}"
    if gap is not None and gap <= 1:
        yield f"the median gap within a member is {gap} ms: {hint}"
    if u.one_session == u.members and SESSION not in u.source.present:
        yield (
            "every member's rows are one session, so that no history precedes any: "
            f"{hint[:-1]}, and --session-gap as it should be?"
        )


def _warnings(content: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    for c in content["columns"]:
        if c["role"] == "action":
            rates = [r for r in c["positive_rate"] if r is not None]
            if not rates:
                yield f"action {c['name']!r} has no label at all: it teaches nothing"
            elif set(rates) in ({0.0}, {1.0}):
                yield f"action {c['name']!r} is always {rates[0]:.0f}: it teaches nothing"
        elif c.get("missing") == 1:
            yield f"{c['role']} {c['column']!r} is missing in all rows of the train split"
        elif c["role"] == "feature" and _reads_answer(c, content["columns"]):
            yield (
                f"feature {c['column']!r} decides a label and is known before it: name it as "
                "--outcome, or the model reads its answer"
            )
    matched = content["items_matched"]
    if matched is not None and matched < 0.5:
        yield f"only {matched:.1%} of rows have their item in the item table"


def _reads_answer(column: Mapping[str, Any], columns: list[dict[str, Any]]) -> bool:
    read = {c["rule_column"] for c in columns if c.get("rule_column")}
    return bool(read & {column["column"], column["name"]})


def _duration(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", HOUR_MS), ("min", 60_000), ("s", 1000)):
        if ms >= size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms} ms"
