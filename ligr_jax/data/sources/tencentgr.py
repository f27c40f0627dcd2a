"""TencentGR-1M and -10M (Tencent Advertising Algorithm Challenge 2025): advertisements shown.

Reads Parquet files, each either `NAME.parquet` or a directory `NAME` of them:

    seq         user_id, seq: list of struct (item_id, action_type, timestamp in seconds)
    user_feat   user_id, 103 ... 110; columns of lists are bags
    item_feat   item_id, 100 ... 122

An element of a sequence is one exposure with the strongest action that followed from it: 0 none,
1 a click, 2 a conversion, which is also a click. The time is that of the exposure. Conversions have
no time of their own and can happen days later, so they are targets and never history. The features
of users are in memory (about 2 GB for 10M users), and so are those of items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import (
    Adapter,
    id_column,
    is_list,
    missing_columns,
    require_complete,
)
from ligr_jax.data.sources.files import (
    column_names,
    column_type,
    count_all_rows,
    describe_files,
    file_parts,
    read_columns,
    read_items,
)
from ligr_jax.data.sources.id_table import IdTable
from ligr_jax.data.sources.parts import chained, converted, with_fewer_rows
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, ItemSource, LogBatch, LogSource

URL = "https://huggingface.co/TAAC2025"
TITLE = "TencentGR"
PERIOD = Period(TITLE, "2025-01-01", "2025-12-31")
MAX_EVENTS = 100  # of a user
SCAN_ROWS = 1 << 13
TABLES = {
    "seq": ("user_id", "seq"),
    "user_feat": ("user_id",),
    "item_feat": ("item_id",),
}
EVENT = ("item_id", "action_type", "timestamp")
NOTES = (
    "a sequence is a window of at most 100 exposures, chosen by its end: a member may have earlier "
    "ones",
    "conversion is known at an unknown later time, so it is a target and not part of histories",
    "the time zone of the platform is not published",
    "the multimodal vectors 81 to 86 are not read: only a pickle maps their ids to item_id",
)


def tencentgr_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be TencentGR.

    Returns:
        A message for every missing file or column; None if there are no sequences.
    """
    sequences = _files(directory, "seq")
    if not sequences or "seq" not in column_names(sequences[0]):
        return None
    lacking = []
    for name, columns in TABLES.items():
        files = _files(directory, name)
        if not files:
            lacking.append(f"{directory} lacks {name}.parquet and {name}/; download it from {URL}")
        for file in files:
            lacking += missing_columns(file, columns, TITLE)
    for file in sequences:
        lacking += _lacking_fields(file)
    return lacking


def tencentgr_source(directory: Path) -> LogSource:
    """Open TencentGR.

    Args:
        directory: directory of the files.

    Raises:
        BadInput: a file, a column or a field is missing, or the times are not in seconds.
    """
    require_complete(
        tencentgr_marks(directory),
        f"{directory} lacks seq.parquet and seq/; download {TITLE} from {URL}",
    )
    files = {name: _files(directory, name) for name in TABLES}
    PERIOD.require(_times(files["seq"]), "s", f"{files['seq'][0]}, column 'seq', field 'timestamp'")
    user_names, item_names = (_features(files[n][0]) for n in ("user_feat", "item_feat"))
    users = IdTable.of(
        (batch for file in files["user_feat"] for batch in read_items(file)), "user_id", user_names
    )
    convert = partial(_impressions, users=users)
    parts = tuple(
        converted(with_fewer_rows(part, MAX_EVENTS), convert)
        for file in files["seq"]
        for part in file_parts(file)
    )
    columns = {"item_id": Column("categorical")}
    columns |= {f"user_{n}": id_column(files["user_feat"][0], n) for n in user_names}
    columns |= {f"item_{n}": id_column(files["item_feat"][0], n) for n in item_names}
    return LogSource(
        name=TITLE,
        schema=LogSchema(
            ("click", "conversion"), columns, notes=NOTES, late_actions=("conversion",)
        ),
        batches=chained(parts),
        rows=MAX_EVENTS * count_all_rows(files["seq"]),
        description={
            "format": "tencentgr",
            "files": describe_files([f for group in files.values() for f in group]),
        },
        items=ItemSource(
            ["item_id", *(f"item_{n}" for n in item_names)],
            partial(_items, files["item_feat"], item_names),
        ),
        names={"member_id": "user_id", "item_id": "seq.item_id", "timestamp_ms": "seq.timestamp"},
        parts=parts,
    )


def _impressions(batch: LogBatch, users: IdTable) -> LogBatch:
    """Return one row per element of the sequences, with the features of its user."""
    features = users.find(batch.frame["user_id"])
    features = features.rename({name: f"user_{name}" for name in features.columns})
    batch = exploded(replace(batch, frame=batch.frame.hstack(features)), ["seq"])
    frame = batch.frame.unnest("seq")
    action = frame["action_type"]
    rule = f"is not 0 (exposure), 1 (click) or 2 (conversion){OR_SKIP}"
    unknown = ~action.is_in([0, 1, 2]).fill_null(True)
    frame = frame.select(
        ROW_DIGEST,
        *features.columns,
        "item_id",
        member_id="user_id",
        timestamp_ms=pl.col("timestamp").cast(pl.Int64) * 1000,
        click=(pl.col("action_type") >= 1).cast(pl.Int8),
        conversion=(pl.col("action_type") == 2).cast(pl.Int8),
    )
    fault = Fault("action_type", unknown.to_numpy(), action, rule)
    return replace(batch, frame=frame, text=False, faults=(fault,))


def _items(files: Sequence[Path], names: Sequence[str]) -> Iterator[LogBatch]:
    for file in files:
        for batch in read_items(file):
            features = [pl.col(name).alias(f"item_{name}") for name in names]
            yield replace(batch, frame=batch.frame.select("item_id", *features), text=False)


def _times(files: Sequence[Path]) -> Iterator[pl.Series]:
    for file in files:
        for frame in read_columns(file, ["seq"], SCAN_ROWS):
            yield frame["seq"].explode().struct.field("timestamp")


def _files(directory: Path, name: str) -> list[Path]:
    """Return the Parquet file of a table, or the files of its directory in order."""
    file = directory / f"{name}.parquet"
    return [file] if file.is_file() else sorted((directory / name).glob("**/*.parquet"))


def _features(file: Path) -> list[str]:
    """Return the feature columns of a table, whose names are numbers."""
    return [name for name in column_names(file) if name.isdecimal()]


def _lacking_fields(file: Path) -> list[str]:
    """Return a message if the elements of a sequence lack a field, or []."""
    kind = column_type(file, "seq")
    element = kind.value_type if is_list(kind) else kind
    fields = [f.name for f in element] if pa.types.is_struct(element) else []
    missing = [name for name in EVENT if name not in fields]
    if not missing:
        return []
    return [f"{file}, column 'seq' has type {kind}; its elements lack the fields {missing}"]


TENCENTGR = Adapter(
    name="tencentgr",
    title="TencentGR-1M and -10M (Tencent, challenge of 2025): advertisements",
    open=tencentgr_source,
    lacking=tencentgr_marks,
    files={
        "seq.parquet or seq/": "sequences of exposures, a row per user",
        "user_feat.parquet or user_feat/": "features of users, as of an unknown date",
        "item_feat.parquet or item_feat/": "features of advertisements",
    },
    impression="an element of a sequence: an exposure, with the strongest action it led to",
    session="a pause (--session-gap)",
    actions="click (action_type 1 and 2); conversion (2), known late: a target, never history",
    outcomes="none",
    refused="vectors 81 to 86 and indexer.pkl: pickles are never read, and only this one maps the "
    "ids of the vectors",
    obtain=f"{URL} (CC BY 4.0)",
)
