"""TAAC 2026 (Tencent Advertising Algorithm Challenge, CC BY-NC 4.0): clicked advertisements.

Reads the Parquet files of a directory, in the layout of 120 columns:

    user_id, item_id, timestamp        the impression; seconds
    label_type                         1 a click, 2 a conversion, which is also a click
    user_int_feats_*, item_int_feats_* ids; columns of lists are bags
    user_dense_feats_*                 lists of numbers; vectors if all rows have one length
    domain_{a,b,c,d}_seq_*             the user's events in four domains, lists of equal length

The events are a fixed history of each impression. Those at or after the impression are left out,
and the newest `KEPT` of each domain become bags, newest first. Conversions become known later, so
they are targets and never history; label_time is not read, because its distance from the impression
tells a conversion from a click.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, id_column, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    column_names,
    count_all_rows,
    describe_files,
    file_parts,
    read_column,
    read_columns,
)
from ligr_jax.data.sources.parts import chained, converted, with_fewer_rows
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch, LogSource

URL = "https://huggingface.co/datasets/TAAC2026/data_sample_1000"
TITLE = "TAAC 2026"
PERIOD = Period(TITLE, "2025-01-01", "2026-12-31")
KEYS = ("user_id", "item_id", "label_type", "timestamp")
TIME_OF = {  # feature with the times of a domain
    "domain_a_seq_": "39",
    "domain_b_seq_": "67",
    "domain_c_seq_": "27",
    "domain_d_seq_": "26",
}
KEPT = 64  # newest events of a domain
EVENTS_PER_ROW = 1000  # of a domain
SCAN_ROWS = 1 << 10
NESTED = ("user_feature", "seq_feature")  # columns of an older layout
NOTES = (
    "every row is a click, so click is constant: the task is the conversion of a clicked "
    "advertisement",
    "conversion is known later, so it is a target and not part of histories; label_time is not "
    "read, because it tells a conversion from a click",
    f"events before the impression are bags, the newest {KEPT} of each domain; what their ids mean "
    "is not published, and neither is the time zone",
)


def taac2026_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be TAAC 2026.

    Returns:
        A message for every missing column; None if no Parquet file resembles the layout.
    """
    files = _files(directory)
    names = column_names(files[0]) if files else []
    if all(name in names for name in NESTED):
        return [
            f"{files[0]} has the older layout with nested columns; download it again from {URL}"
        ]
    if not any(name.startswith(tuple(TIME_OF)) for name in names):
        return None
    needed = [*KEYS, *(start + time for start, time in TIME_OF.items())]
    return [message for file in files for message in missing_columns(file, needed, TITLE)]


def taac2026_source(directory: Path) -> LogSource:
    """Open TAAC 2026.

    Args:
        directory: directory of the Parquet files.

    Raises:
        BadInput: a column is missing, or the times are not in seconds.
    """
    require_complete(
        taac2026_marks(directory),
        f"{directory} lacks a Parquet file with domain_a_seq_*; download it from {URL}",
    )
    files = _files(directory)
    times = (values for file in files for values in read_column(file, "timestamp", SCAN_ROWS))
    PERIOD.require(times, "s", f"{files[0]}, column 'timestamp'")

    # Features by their prefix; the schema follows the types of the first file.
    names = column_names(files[0])
    static = [n for n in names if n.startswith(("user_int_feats_", "item_int_feats_"))]
    widths = _widths(files, [n for n in names if n.startswith("user_dense_feats_")])
    columns = {"item_id": Column("categorical")}
    columns |= {n: id_column(files[0], n) for n in static}
    columns |= {n: Column("vector", width=width) for n, width in widths.items() if width}
    domains = {}
    for start, time in TIME_OF.items():
        lists = [n for n in names if n.startswith(start) and n != start + time]
        domains[start + time] = lists
        columns |= {n: Column("bag") for n in lists}
        columns[start + "hours"] = Column("numeric")
    uneven = [n for n, width in widths.items() if not width]
    notes = (f"lists of different lengths are not read: {', '.join(uneven)}",) if uneven else ()

    vectors = {n: width for n, width in widths.items() if width}
    convert = partial(_impressions, static=static, vectors=vectors, domains=domains)
    parts = tuple(
        converted(with_fewer_rows(part, EVENTS_PER_ROW), convert)
        for file in files
        for part in file_parts(file)
    )
    return LogSource(
        name=TITLE,
        schema=LogSchema(
            ("click", "conversion"), columns, notes=NOTES + notes, late_actions=("conversion",)
        ),
        batches=chained(parts),
        rows=count_all_rows(files),
        description={"format": "taac2026", "files": describe_files(files)},
        names={"member_id": "user_id", "timestamp_ms": "timestamp"},
        parts=parts,
    )


def _impressions(
    batch: LogBatch,
    static: Sequence[str],
    vectors: Mapping[str, int],
    domains: Mapping[str, Sequence[str]],
) -> LogBatch:
    """Return impressions with their features and the events before them.

    Args:
        batch: rows of a file.
        static: features of users and items.
        vectors: names and widths of the vectors.
        domains: column of times of each domain -> its other columns.
    """
    frame = batch.frame
    histories = [_history(batch, time, lists) for time, lists in domains.items()]
    label = frame["label_type"]
    rule = f"is not 0 (exposure), 1 (click) or 2 (conversion){OR_SKIP}"
    fault = Fault("label_type", ~label.is_in([0, 1, 2]).fill_null(True).to_numpy(), label, rule)
    frame = frame.select(
        ROW_DIGEST,
        "item_id",
        *static,
        *(_filled(name, width) for name, width in vectors.items()),
        member_id="user_id",
        timestamp_ms=pl.col("timestamp").cast(pl.Int64) * 1000,
        click=(label >= 1).cast(pl.Int8),
        conversion=(label == 2).cast(pl.Int8),
    )
    frame = pl.concat([frame, *histories], how="horizontal")
    return replace(batch, frame=frame, text=False, faults=(fault,))


def _history(batch: LogBatch, time: str, lists: Sequence[str]) -> pl.DataFrame:
    """Return the events of a domain before each impression, newest first, one row per impression.

    Args:
        batch: rows of a file.
        time: column of the times of the events, seconds; 0 is padding.
        lists: the other columns of the domain.
    """
    rows = batch.frame.select("timestamp", time, *lists).with_row_index("row")
    events = exploded(replace(batch, frame=rows), [time, *lists]).frame
    earlier = events.filter((pl.col(time) > 0) & (pl.col(time) < pl.col("timestamp")))
    newest = earlier.sort("row", time, descending=[False, True], maintain_order=True)
    kept = newest.group_by("row", maintain_order=True).agg(
        (pl.col("timestamp").first() - pl.col(time).first()).alias("seconds"),
        *(pl.col(name).head(KEPT) for name in lists),
    )
    hours = (pl.col("seconds") / 3600).alias(time.rpartition("_")[0] + "_hours")
    joined = rows.select("row").join(kept, "row", how="left", maintain_order="left")
    return joined.select(hours, *lists)


def _filled(name: str, width: int) -> pl.Expr:
    """Return a column of vectors with zeros for missing ones."""
    missing = pl.col(name).list.len().fill_null(0) == 0
    return pl.when(missing).then(pl.lit([0.0] * width)).otherwise(pl.col(name)).alias(name)


def _widths(files: Sequence[Path], names: Sequence[str]) -> dict[str, int]:
    """Return the length of the lists of each column, or 0 if lists have different lengths."""
    lengths = {name: set[int]() for name in names}
    for frame in _pieces(files, names):
        for name in names:
            lengths[name] |= {*frame[name].list.len().unique().drop_nulls().to_list()} - {0}
    return {name: found.pop() if len(found) == 1 else 0 for name, found in lengths.items()}


def _pieces(files: Sequence[Path], names: Sequence[str]) -> Iterator[pl.DataFrame]:
    for file in files:
        yield from read_columns(file, names, SCAN_ROWS)


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.parquet"))


TAAC2026 = Adapter(
    name="taac2026",
    title="TAAC 2026 (Tencent): conversions of clicked advertisements, a sample of 1,000",
    open=taac2026_source,
    lacking=taac2026_marks,
    files={"*.parquet": "impressions with the features and histories of their users, 120 columns"},
    impression="a clicked advertisement",
    session="a pause (--session-gap); most users of the sample have one row",
    actions="click is constant; conversion (label_type 2), known late: a target, never history",
    outcomes="none",
    refused="label_time: it tells a conversion from a click; events at or after the impression",
    obtain=f"{URL} (CC BY-NC 4.0)",
)
