"""KuaiRand (Gao et al., CIKM 2022; CC BY-SA 4.0): impressions of a short-video feed.

Reads the published CSV files and Parquet files of the same columns:

    log_standard*, log_random*     impressions (time_ms is UTC; date and hourmin are UTC+8, unused)
    video_features_basic*          videos; they must fit into memory
    user_features*                 optional, static
    watch_history_before.parquet   optional: earlier impressions in order, without times

`video_features_statistic*` is not read, because its counts include the future.
Play time is clipped to [0, 3 x duration] and to at most 10 minutes, because longer times measure a
screen that was left on. A duration of 0 is missing. Only the first tag of a video is used.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, Archive, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    count_all_rows,
    describe_files,
    file_parts,
    read_batches,
    read_whole,
    rows_in,
)
from ligr_jax.data.sources.listing import is_table_file
from ligr_jax.data.sources.parse import DAY_MS, PolarsType, with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.source import ROW_DIGEST, ItemSource, LogBatch, LogSource, OnBadRow

URL = "https://zenodo.org/records/10439422/files/"
ARCHIVES = {  # published checksums
    "KuaiRand-Pure.tar.gz": "md5:0820331067a3784d9691136f772b35a7",
    "KuaiRand-1K.tar.gz": "md5:6b0b9c8222d67fcd4c676218edca3f1f",
    "KuaiRand-27K.tar.gz": "md5:3e3c799a24e2d23a4d2c757fbf9adf59",
}
UTC_PLUS_8_MS = 8 * 3_600_000
MAX_PLAY_MS = 600_000
EARLIER_PER_USER = 50  # largest number of impressions of a user in a history file

RENAMED = {
    "user_id": "member_id",
    "video_id": "item_id",
    "time_ms": "timestamp_ms",
    "tab": "surface",
    "is_rand": "is_random",
    "is_click": "click",
    "long_view": "long_dwell",
    "is_like": "like",
    "is_comment": "comment",
    "is_forward": "share",
    "is_follow": "follow",
    "is_hate": "hate",
}
CONTRIBUTION = ("is_like", "is_comment", "is_forward", "is_follow")
ACTIONS = ("click", "long_dwell", "like", "comment", "share", "follow", "hate", "contribution")
VIDEO = ("actor_id", "tag", "video_type", "upload_type", "music_id", "music_type")
USER = {
    "user_active_degree": "user_active_degree",
    "follow_user_num_range": "user_follows",
    "fans_user_num_range": "user_fans",
    "friend_user_num_range": "user_friends",
    "register_days_range": "user_registered",
}
NOTES = (
    "click means different things on different surfaces: report it per surface",
    "hate is an explicit negative; contribution is any of like, comment, share, follow",
)
# Files next to the logs, by the start of their names, and the columns that are read.
NEEDED = {
    "video_features_basic": (
        *("video_id", "author_id", "video_type", "upload_dt", "upload_type"),
        *("video_duration", "music_id", "music_type", "tag"),
    ),
    "user_features": ("user_id", *USER),
    "watch_history_before": ("user_id", "video_id", "long_view", "is_like"),
}
OPTIONAL = ("user_features", "watch_history_before")
_INTEGERS = ("user_id", "video_id", "time_ms", "tab", "play_time_ms", "duration_ms")


def kuairand_marks(directory: Path) -> list[str] | None:
    """Return what a directory, or its `data` directory, lacks to be KuaiRand.

    Returns:
        A message for every missing file or column; None if no file is named like a log.
    """
    directory = _data(directory)
    logs = _logs(directory)
    if not logs:
        return None
    files = {start: _only(directory, start) for start in NEEDED}
    lacking = []
    for start, file in files.items():
        if file is None and start not in OPTIONAL:
            lacking.append(
                f"{directory} lacks {start}* (.csv or .parquet); unpack one of "
                f"{', '.join(ARCHIVES)} from {URL} in it"
            )
        elif file is not None:
            lacking += missing_columns(file, NEEDED[start], "KuaiRand")
    for log in logs:
        lacking += missing_columns(log, (*RENAMED, "play_time_ms", "duration_ms"), "KuaiRand")
    return lacking


def kuairand_source(directory: Path) -> LogSource:
    """Open KuaiRand, with all of its logs in order of their names.

    Args:
        directory: the directory of the files, or its parent with a `data` directory.

    Raises:
        BadInput: a file or a column is missing.
    """
    # Files; missing ones are an error.
    directory = _data(directory)
    logs = _logs(directory)
    require_complete(
        kuairand_marks(directory),
        f"{directory} lacks log_standard* (.csv or .parquet); unpack one of "
        f"{', '.join(ARCHIVES)} from {URL} in it",
    )
    # Videos and users are in memory, because every batch is joined with them.
    video_file, user_file, history = (_only(directory, start) for start in NEEDED)
    assert video_file is not None
    items, videos = _videos(read_whole(video_file))
    users = _users(read_whole(user_file)) if user_file else None

    convert = partial(_impressions, videos=videos, users=users)
    parts = tuple(converted(part, convert) for path in logs for part in file_parts(path))

    # A row of the history file has many impressions, so its batches have fewer rows.
    def context(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        assert history is not None
        row = 1
        for batch in read_batches(history, max(batch_rows // EARLIER_PER_USER, 1), on_bad_row):
            frame = _earlier(batch.frame, videos, users)
            yield replace(batch, frame=frame, first_row=row, text=False)
            row += frame.height

    used = [*logs, *(p for p in (video_file, user_file, history) if p)]
    return LogSource(
        name="KuaiRand",
        schema=_schema(users is not None),
        batches=chained(parts),
        rows=count_all_rows(logs) + (EARLIER_PER_USER * rows_in(history) if history else 0),
        description={"format": "kuairand", "files": describe_files(used)},
        items=ItemSource.from_batch(items),
        present=("is_random",),
        context=context if history else None,
        names={ours: theirs for theirs, ours in RENAMED.items()},
        parts=parts,
    )


def _schema(users: bool) -> LogSchema:
    names = ("item_id", "surface", "hour", *VIDEO, *(USER.values() if users else ()))
    columns = {name: Column("categorical") for name in names}
    columns |= {name: Column("numeric") for name in ("duration_ms", "video_age_days")}
    columns["play_time_ms"] = Column("numeric", outcome=True)
    return LogSchema(ACTIONS, columns, notes=NOTES)


def _impressions(batch: LogBatch, videos: pl.DataFrame, users: pl.DataFrame | None) -> LogBatch:
    """Return impressions in canonical columns, joined with videos and users."""
    batch = with_types(batch, dict.fromkeys(_INTEGERS, pl.Int64))
    frame = batch.frame.with_columns(pl.col("user_id", "video_id").cast(pl.Int64))
    frame = _with_users(frame, users).join(videos, "video_id", how="left", maintain_order="left")
    time, duration = pl.col("time_ms").cast(pl.Int64), pl.col("duration_ms").cast(pl.Float64)
    duration = pl.when(duration > 0).then(duration)
    longest = pl.min_horizontal(3 * duration, pl.lit(MAX_PLAY_MS))
    frame = frame.select(
        *(pl.col(theirs).alias(ours) for theirs, ours in RENAMED.items()),
        *(USER.values() if users is not None else ()),
        ROW_DIGEST,
        contribution=pl.any_horizontal(
            pl.col(c).cast(pl.Int8, strict=False) == 1 for c in CONTRIBUTION
        ),
        hour=(time + UTC_PLUS_8_MS) // 3_600_000 % 24,
        duration_ms=duration,
        video_age_days=((time - pl.col("uploaded_ms")) / DAY_MS).clip(0),
        play_time_ms=pl.col("play_time_ms").cast(pl.Float64).clip(0, longest),
    )
    return replace(batch, frame=frame)


def _earlier(frame: pl.DataFrame, videos: pl.DataFrame, users: pl.DataFrame | None) -> pl.DataFrame:
    """Return the impressions of a history file.

    They have video, long_view, is_like, and the features of the video and the user. The duration of
    the video is added because the threshold of a long view depends on it.
    """
    lists = ["video_id", "long_view", "is_like"]
    frame = frame.filter(pl.col("video_id").list.len() > 0).select("user_id", *lists)
    frame = frame.explode(lists).with_columns(pl.col("user_id", "video_id").cast(pl.Int64))
    durations = videos.select("video_id", duration_ms="video_ms")
    frame = frame.join(durations, "video_id", how="left", maintain_order="left")
    return _with_users(frame, users).rename(RENAMED, strict=False)


def _videos(batch: LogBatch) -> tuple[LogBatch, pl.DataFrame]:
    """Return the item table, and the upload time and duration of each video."""
    ids = ("video_id", "author_id", "music_id")
    types: dict[str, PolarsType] = dict.fromkeys(ids, pl.Int64)
    types |= dict.fromkeys(("music_type", "video_duration"), pl.Float64)
    batch = with_types(batch, types)
    duration = pl.col("video_duration")
    uploaded = pl.col("upload_dt").cast(pl.String).str.to_date("%Y-%m-%d", strict=False)
    videos = batch.frame.select(
        pl.col("video_id").cast(pl.Int64),
        video_ms=pl.when(duration.cast(pl.Float64) > 0).then(duration.cast(pl.Float64)),
        uploaded_ms=uploaded.cast(pl.Datetime("ms")).dt.epoch("ms") - UTC_PLUS_8_MS,
    ).unique("video_id", keep="first", maintain_order=True)
    first_tag = pl.col("tag").cast(pl.String).str.split(",").list.first()
    items = batch.frame.select(
        item_id="video_id",
        actor_id="author_id",
        tag=first_tag.cast(pl.Int64, strict=False),
        video_type="video_type",
        upload_type="upload_type",
        music_id="music_id",
        music_type=pl.col("music_type").cast(pl.Int64),
    )
    return replace(batch, frame=items), videos


def _users(batch: LogBatch) -> pl.DataFrame:
    frame = with_types(batch, {"user_id": pl.Int64}).frame.rename(USER)
    columns = [pl.col("user_id").cast(pl.Int64), pl.col(*USER.values()).cast(pl.String)]
    return frame.select(columns).unique("user_id", keep="first", maintain_order=True)


def _with_users(frame: pl.DataFrame, users: pl.DataFrame | None) -> pl.DataFrame:
    if users is None:
        return frame
    return frame.join(users, "user_id", how="left", maintain_order="left")


def _data(directory: Path) -> Path:
    """Return the directory of the files."""
    inner = directory / "data"
    return inner if inner.is_dir() and not _logs(directory) else directory


def _logs(directory: Path) -> list[Path]:
    starts = ("log_standard", "log_random")
    files = directory.iterdir() if directory.is_dir() else ()
    return sorted(p for p in files if p.name.startswith(starts) and is_table_file(p))


def _only(directory: Path, start: str) -> Path | None:
    """Return the only file of rows whose name has a start, or None."""
    files = sorted(p for p in directory.iterdir() if p.name.startswith(start) and is_table_file(p))
    if len(files) > 1:
        raise BadInput(f"{directory}: several {start}* files ({[p.name for p in files]}); keep one")
    return files[0] if files else None


KUAIRAND = Adapter(
    name="kuairand",
    title="KuaiRand-Pure, -1K and -27K (Kuaishou): short videos",
    open=kuairand_source,
    lacking=kuairand_marks,
    files={
        "log_standard*": "impressions of the production policy (.csv or .parquet)",
        "log_random*": "impressions of random videos (optional)",
        "video_features_basic*": "videos",
        "user_features*": "users, as of an unknown date (optional)",
        "watch_history_before.parquet": "earlier impressions in order, without times (optional)",
    },
    impression="a video shown to a user; 55 % have no action",
    session="a pause (--session-gap); KuaiRand-Pure has holes, so use hours there",
    actions="is_click, long_view, is_like, is_comment, is_forward, is_follow, is_hate",
    outcomes="play_time_ms",
    refused="video_features_statistic*: its counts include the future; date and hourmin: UTC+8",
    obtain=f"{URL} (CC BY-SA 4.0)",
    archives={
        file.removesuffix(".tar.gz").lower(): Archive(URL + file, checksum)
        for file, checksum in ARCHIVES.items()
    },
)
