"""Criteo's display advertising challenge (Kaggle, 2014): a table of impressions.

Reads `train.txt`: fields separated by tabs, without a header; an empty field is missing.

    label, I1 ... I13 (integers), C1 ... C26 (8 hexadecimal digits)

There are no members, sessions or times. Every row is a member of its own, so models have no
history. The rows are in order of time over seven days; they are spread evenly over a week that
starts on an arbitrary Monday, so that the splits are consecutive rows.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, require_complete
from ligr_jax.data.sources.files import DataFile, describe_files, file_parts, rows_in
from ligr_jax.data.sources.parse import DAY_MS
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.source import ROW_DIGEST, LogBatch, LogSource
from ligr_jax.data.sources.text_options import TextOptions

URL = "https://ailab.criteo.com/ressources/"
TITLE = "Criteo"
START_MS = 946_857_600_000  # 2000-01-03, a Monday
NUMBERS = tuple(f"I{k}" for k in range(1, 14))
IDS = tuple(f"C{k}" for k in range(1, 27))
FIELDS = ("label", *NUMBERS, *IDS)
SCHEMA = LogSchema(
    actions=("click",),
    columns={
        **{name: Column("numeric") for name in NUMBERS},
        **{name: Column("categorical") for name in IDS},
    },
    notes=(
        "every row is a member of its own, because users are not published: models have no history",
        "the file has no times: rows are spread evenly over seven days from 2000-01-03, an "
        "arbitrary Monday, in the order of the file",
        "impressions without a click are subsampled, so the click rate is not that of the platform",
    ),
)


def criteo_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be Criteo; None if no file resembles it."""
    file = directory / "train.txt"
    if not file.is_file():
        return None
    with file.open("rb") as lines:
        fields = lines.readline().count(b"\t") + 1
    if fields == 1:
        return None
    if fields == len(FIELDS):
        return []
    return [f"{file} has {fields} fields in its first line; Criteo has {len(FIELDS)}"]


def criteo_source(directory: Path) -> LogSource:
    """Open Criteo.

    Args:
        directory: directory with `train.txt`.

    Raises:
        BadInput: the file is missing, or its lines do not have 40 fields.
    """
    require_complete(
        criteo_marks(directory),
        f"{directory} lacks train.txt with fields separated by tabs; see {URL}",
    )
    file = DataFile(directory / "train.txt", "train.txt", reading=TextOptions("\t", names=FIELDS))
    rows = rows_in(file)
    parts = tuple(converted(part, partial(_impressions, rows=rows)) for part in file_parts(file))
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=rows,
        description={"format": "criteo", "files": describe_files([file])},
        names={"click": "label"},
        parts=parts,
    )


def _impressions(batch: LogBatch, rows: int) -> LogBatch:
    """Return impressions in canonical columns; `rows` is the number of rows of the file."""
    row = np.arange(batch.frame.height, dtype=np.int64) + batch.first_row
    frame = batch.frame.select(
        pl.Series("member_id", row),
        pl.Series("timestamp_ms", START_MS + (row - 1) * 7 * DAY_MS // rows),
        pl.col("label").alias("click"),
        *NUMBERS,
        *IDS,
        # Equal lines are impressions of different users.
        pl.Series(ROW_DIGEST, row.astype(np.uint64)),
    )
    return replace(batch, frame=frame)


CRITEO = Adapter(
    name="criteo",
    title="Criteo display advertising challenge (Kaggle, 2014): a table without members",
    open=criteo_source,
    lacking=criteo_marks,
    files={"train.txt": "impressions in order of time, without a header"},
    impression="an advertisement shown; impressions without a click are subsampled",
    session="none: every row is a member of its own",
    actions="label",
    outcomes="none",
    refused="test.txt: it has no labels",
    obtain=f"{URL} (terms of Criteo)",
)
