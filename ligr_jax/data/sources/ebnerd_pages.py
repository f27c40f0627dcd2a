"""What concerns all pages of EB-NeRD: units of times, users and sessions of the train split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import DataFile, read_column, read_columns
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.times import format_time

PERIOD = Period("EB-NeRD", "2023-05-18", "2023-06-08")
CLICKS_PER_USER = 150
SESSION_MS = 30 * 60_000  # sessions are shorter
SCAN_ROWS = 1 << 17


@dataclass(frozen=True)
class TrainPages:
    """Properties of the pages of the train split.

    Attributes:
        users: ids of the users.
        open_sessions: user_id and session_id of sessions that may last longer than the train split.
        open_until_ms: latest time at which they end.
    """

    users: pl.Series
    open_sessions: pl.DataFrame
    open_until_ms: int


def check_times(behaviors: Mapping[str, DataFile], histories: Mapping[str, DataFile]) -> None:
    """Check the unit of the times, and that the histories end before the pages of their split.

    Args:
        behaviors: pages by split.
        histories: histories by split.

    Raises:
        BadInput: times have another unit, or a history has clicks after the first page.
    """
    for split, file in behaviors.items():
        where = f"{file.path}, column 'impression_time'"
        PERIOD.require(read_column(file, "impression_time", SCAN_ROWS), "us", where)
        first = _span(read_column(file, "impression_time", SCAN_ROWS))[0]
        lists = read_column(histories[split], "impression_time_fixed", SCAN_ROWS // CLICKS_PER_USER)
        last = _span(v.drop_nulls().explode() for v in lists)[1]
        if first is not None and last is not None and last > first:
            raise BadInput(
                f"{histories[split].path}, column 'impression_time_fixed': value "
                f"{format_time(last)} is after the first page of the split ({file.name}: "
                f"{format_time(first)}); a history ends before its split, so one of the two files "
                "is of another split"
            )


def read_train_pages(train: DataFile | None) -> TrainPages:
    """Read the users and the last sessions of the train split; None if it is not there."""
    keys = pl.DataFrame(schema={"user_id": pl.Int64, "session_id": pl.Int64})
    if train is None:
        return TrainPages(keys["user_id"], keys, 0)
    users = [v.unique() for v in read_column(train, "user_id", SCAN_ROWS)]
    last = _span(read_column(train, "impression_time", SCAN_ROWS))[1] or 0
    late = pl.col("impression_time").dt.epoch("ms") > last - SESSION_MS
    pieces = read_columns(train, ["user_id", "session_id", "impression_time"], SCAN_ROWS)
    sessions = [p.filter(late).select(pl.col(keys.columns).cast(pl.Int64)) for p in pieces]
    return TrainPages(
        users=pl.concat([keys["user_id"], *(u.cast(pl.Int64) for u in users)]).unique(),
        open_sessions=pl.concat([keys, *sessions]).unique(),
        open_until_ms=last + SESSION_MS,
    )


def _span(pieces: Iterable[pl.Series]) -> tuple[int | None, int | None]:
    """Return the earliest and the latest time in milliseconds, or None without times."""
    times = (p.dt.epoch("ms").drop_nulls().to_numpy() for p in pieces)
    ends = [int(end) for t in times if len(t) for end in (t.min(), t.max())]
    return (min(ends), max(ends)) if ends else (None, None)


def session_ids(frame: pl.DataFrame, split: str, train: TrainPages) -> pl.Series:
    """Return session ids, which differ between the splits.

    Ids may be numbered separately in each split. Only a session that is open at the end of the
    train split has the same id in both.
    """
    keys = ["user_id", "session_id"]
    frame = frame.select(pl.col(keys).cast(pl.Int64), "impression_time")
    open_sessions = train.open_sessions.with_columns(open=True)
    frame = frame.join(open_sessions, keys, how="left", maintain_order="left")
    early = pl.col("impression_time").dt.epoch("ms") <= train.open_until_ms
    of_train = (split == "train") | (early & pl.col("open").fill_null(False))
    return frame.select(2 * pl.col("session_id") + (~of_train).cast(pl.Int64)).to_series()
