"""Tenrec's QK-Video (Yuan et al., NeurIPS 2022; CC BY-NC 4.0 and an agreement), without times.

Reads `QK-video.csv`: 493 M impressions of 5 M users. The rows of a user are in order, and nothing
else is known of their times: the splits are parts of each user's history, and sessions are blocks
of rows (`ligr_jax.data.prepare.order`). The number of plays (`watching_times`) is an outcome.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import describe_files, file_parts, rows_in
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.source import ROW_DIGEST, LogBatch, LogSource

URL = "https://github.com/yuangh-x/2022-NIPS-Tenrec"
TITLE = "Tenrec's QK-Video"
FILE = "QK-video.csv"
ACTIONS = ("click", "follow", "like", "share")
FEATURES = {"video_category": "video_category", "gender": "user_gender", "age": "user_age"}
SCHEMA = LogSchema(
    actions=ACTIONS,
    columns={
        "item_id": Column("categorical"),
        **{name: Column("categorical") for name in FEATURES.values()},
        "watching_times": Column("numeric", outcome=True),
    },
    time_is_order=True,
)
_INTEGERS = ("user_id", "item_id", *FEATURES, "watching_times")


def tenrec_marks(directory: Path) -> list[str] | None:
    """Return a message if the file of a directory lacks columns; None if it is not there."""
    path = directory / FILE
    if not path.is_file():
        return None
    return missing_columns(path, (*_INTEGERS, *ACTIONS), TITLE)


def tenrec_source(directory: Path) -> LogSource:
    """Open QK-Video.

    Args:
        directory: directory of `QK-video.csv`.

    Raises:
        BadInput: the file or a column is missing.
    """
    require_complete(
        tenrec_marks(directory),
        f"{directory} lacks {FILE}; request the data at {URL}",
    )
    path = directory / FILE
    parts = tuple(converted(part, _impressions) for part in file_parts(path))
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=rows_in(path),
        description={"format": "tenrec", "files": describe_files([path])},
        names={"member_id": "user_id", **{ours: theirs for theirs, ours in FEATURES.items()}},
        parts=parts,
    )


def _impressions(batch: LogBatch) -> LogBatch:
    """Return impressions in canonical columns; equal times leave the rows in file order."""
    batch = with_types(batch, dict.fromkeys(_INTEGERS, pl.Int64))
    frame = batch.frame.select(
        ROW_DIGEST,
        "item_id",
        "watching_times",
        *ACTIONS,
        *(pl.col(theirs).alias(ours) for theirs, ours in FEATURES.items()),
        member_id="user_id",
        timestamp_ms=pl.lit(0, pl.Int64),
    )
    return replace(batch, frame=frame)


TENREC = Adapter(
    name="tenrec",
    title="Tenrec QK-Video (Tencent): short videos, in order and without times",
    open=tenrec_source,
    lacking=tenrec_marks,
    files={FILE: "impressions"},
    impression="a video shown to a user; without a click it was ignored",
    session="a block of 10 rows of a user, because there are no times",
    actions="click, follow, like, share",
    outcomes="watching_times, the number of plays",
    refused="ctr_data_1M.csv: the first ten clicks of a user are the history of earlier rows too",
    obtain=f"{URL} (CC BY-NC 4.0 and an agreement)",
)
