"""RecFlow (Kuaishou, ICLR 2025; CC BY-SA 4.0): impressions of a short-video feed.

Reads one file per day, `realshow/2024-01-13.feather` to `realshow/2024-02-18.feather`, or, without
this directory, the rows of `all_stage/` that were shown. A request has one time for all of its
videos. `request_timestamp` and the durations are in milliseconds, and `upload_timestamp` is in
seconds.

The rows of other stages (`realshow` = 0) are candidates that were never shown: they are no
impressions, and their feedback means nothing. Pickle files are not read, because reading one runs
its code.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete, wrong_types
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    file_parts,
    read_column,
    read_columns,
)
from ligr_jax.data.sources.listing import is_table_file
from ligr_jax.data.sources.parse import DAY_MS
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.period import Period, median_side
from ligr_jax.data.sources.rules import SKIP_HINT
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch, LogSource

URL = "https://github.com/RecFlow-ICLR/RecFlow"
TITLE = "RecFlow"
DIRECTORIES = ("realshow", "all_stage")  # the first one that is present is read
DAYS = Period(TITLE, "2024-01-13", "2024-02-18")
UPLOADS = Period(f"the uploads of {TITLE}", "2011-01-01", "2024-02-18")  # Kuaishou began in 2011
UTC_PLUS_8_MS = 8 * 3_600_000
PLAYED = (0.03, 30)  # limits of the median share of a video that is played; another unit is outside
SCAN_ROWS = 1 << 17

RENAMED = {
    "user_id": "member_id",
    "video_id": "item_id",
    "author_id": "actor_id",
    "request_timestamp": "timestamp_ms",
    "effective_view": "effective_view",
    "long_view": "long_dwell",
    "like": "like",
    "follow": "follow",
    "forward": "share",
    "comment": "comment",
}
ACTIONS = ("effective_view", "long_dwell", "like", "follow", "share", "comment")
USER = ("device_id", "age", "gender", "province")
VIDEO = ("category_level_one", "category_level_two", "upload_type")
COLUMNS = {
    **dict.fromkeys((*RENAMED, "realshow", *USER, *VIDEO), "integer"),
    **dict.fromkeys(("upload_timestamp", "duration", "playing_time"), "integer"),
}
SCHEMA = LogSchema(
    actions=ACTIONS,
    columns={
        **{n: Column("categorical") for n in ("item_id", "actor_id", "hour", *USER, *VIDEO)},
        "duration_ms": Column("numeric"),
        "video_age_days": Column("numeric"),
        "play_time_ms": Column("numeric", outcome=True),
    },
    notes=(
        "rows of the stages before the show (realshow = 0) are candidates and no impressions; an "
        "ignored video has effective_view 0",
        "effective_view is at least 30 % of the video, long_dwell all of it",
        "hour is UTC+8, the zone of the days, which is inferred and not published",
        "rank_index and rerank_index are not read, because they are the judgement of the platform; "
        "realshow_video_info_daily is not read, because it accumulates",
    ),
)


def recflow_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be RecFlow.

    Returns:
        A message for every file that lacks columns or has them in another type; None if no file is
        named like a day.
    """
    days = _days(directory)
    if not days:
        return None
    lacking = []
    for file in days:
        missing = missing_columns(file, [*COLUMNS], TITLE)
        lacking += missing or wrong_types(file, COLUMNS, TITLE)
    return lacking


def recflow_source(directory: Path) -> LogSource:
    """Open RecFlow, with all days that are present.

    Args:
        directory: the parent of `realshow` or `all_stage`.

    Raises:
        BadInput: there is no file of a day, or a column is missing or has another type or unit.
    """
    require_complete(
        recflow_marks(directory),
        f"{directory} lacks realshow/2024-01-13.feather (or all_stage/); download the data set "
        f"by the links in {URL}",
    )
    days = _days(directory)
    for file in days:
        _check_units(file)
    parts = tuple(converted(part, _impressions) for file in days for part in file_parts(file))
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=count_all_rows(days),
        description={"format": "recflow", "files": describe_files(days)},
        names={ours: theirs for theirs, ours in RENAMED.items()},
        one_label=True,
        parts=parts,
    )


def _impressions(batch: LogBatch) -> LogBatch:
    """Return the rows that were shown, in canonical columns."""
    candidate = (batch.frame["realshow"] == 0).fill_null(False)
    rows = batch.frame.filter(~candidate)
    time, uploaded, duration = (
        pl.col(name).cast(pl.Int64)
        for name in ("request_timestamp", "upload_timestamp", "duration")
    )
    known = pl.when(uploaded > 0).then(uploaded)
    frame = rows.select(
        *(pl.col(theirs).alias(ours) for theirs, ours in RENAMED.items()),
        # Negative categories are placeholders.
        *(pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in (*USER, *VIDEO)),
        ROW_DIGEST,
        hour=(time + UTC_PLUS_8_MS) // 3_600_000 % 24,
        duration_ms=pl.when(duration > 0).then(duration),
        video_age_days=((time - 1000 * known) / DAY_MS).clip(0),
        play_time_ms=pl.when(pl.col("playing_time") >= 0).then(pl.col("playing_time")),
    )
    odd = (rows["realshow"] != 1).fill_null(True).to_numpy()
    fault = Fault("realshow", odd, rows["realshow"], f"is not 0 or 1; {SKIP_HINT}")
    numbers = batch.first_row + np.flatnonzero(~candidate.to_numpy())
    return replace(batch, frame=frame, text=False, faults=(fault,), row_numbers=numbers)


def _check_units(file: DataFile) -> None:
    """Check the units of the times of a day, and of play times by the durations of the videos."""
    for period, name, unit in (
        (DAYS, "request_timestamp", "ms"),
        (UPLOADS, "upload_timestamp", "s"),
    ):
        values = read_column(file, name, SCAN_ROWS)
        period.require(values, unit, f"{file.path}, column {name!r}")
    side = median_side(_shares_played(file), *PLAYED)
    if side:
        raise BadInput(
            f"{file.path}, columns 'playing_time' and 'duration': the median share of a video that "
            f"is played is {'below' if side < 0 else 'above'} {PLAYED[side > 0]}; both have "
            "milliseconds: convert the one that has another unit"
        )


def _shares_played(file: DataFile) -> Iterator[pl.Series]:
    """Yield the share of the video that was played, of the videos that were shown and played."""
    played, duration = pl.col("playing_time"), pl.col("duration")
    for rows in read_columns(file, ["realshow", "playing_time", "duration"], SCAN_ROWS):
        shown = rows.filter(pl.col("realshow") == 1, duration > 0, played > 0)
        yield shown.select(played / duration).to_series()


def _days(directory: Path) -> list[DataFile]:
    """Return the files of the days in order of time."""
    for name in DIRECTORIES:
        files = sorted((directory / name).iterdir()) if (directory / name).is_dir() else []
        days = [f for f in files if is_table_file(f) and re.fullmatch(r"\d{4}-\d\d-\d\d", f.stem)]
        if days:
            return [DataFile(f, f"{name}/{f.name}") for f in days]
    return []


RECFLOW = Adapter(
    name="recflow",
    title="RecFlow (Kuaishou): short videos, 13 January to 18 February 2024",
    open=recflow_source,
    lacking=recflow_marks,
    files={
        "realshow/YYYY-MM-DD.feather": "videos that were shown, a file per day",
        "all_stage/YYYY-MM-DD.feather": "all candidates; read without realshow/, and then only "
        "the videos that were shown",
    },
    impression="a video shown to a user: a row with realshow = 1",
    session="a pause (--session-gap) between requests; a request is a slate and no session",
    actions="effective_view, long_view, like, follow, forward, comment",
    outcomes="playing_time",
    refused="rows with realshow = 0: never shown; rank_index, rerank_index; "
    "realshow_video_info_daily: it accumulates; *.pkl: reading one runs its code",
    obtain=f"{URL} (CC BY-SA 4.0)",
)
