"""MerRec (Li et al., KDD 2025; CC BY-NC 4.0): visits of a marketplace, May to October 2023.

Reads `20230501/*.parquet` ... `20231001/*.parquet`, one event per row. A view of an item is an
impression. The other events are labels: each counts for all earlier views of the same item in the
same session, so all labels are known when the session ends. An item is sold once, so the product
takes its place.

The files are published by user: a file has all events of its users in a month. One file per thread
is in memory.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    read_batches,
    rows_in,
)
from ligr_jax.data.sources.parts import chained
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import (
    ROW_DIGEST,
    DeferredBatch,
    Fault,
    LogBatch,
    LogSource,
    OnBadRow,
    Part,
)

URL = "https://huggingface.co/datasets/mercari-us/merrec"
TITLE = "MerRec"
PERIOD = Period(TITLE, "2023-05-01", "2023-10-31")
VIEW = "item_view"
LABELS = {
    "like": "item_like",
    "cart": "item_add_to_cart_tap",
    "offer": "offer_make",
    "checkout": "buy_start",
    "purchase": "buy_comp",
}
IDS = ("c0_id", "c1_id", "c2_id", "brand_id", "item_condition_id", "size_id", "shipper_id", "color")
COLUMNS = ("user_id", "session_id", "stime", "event_id", "item_id", "product_id", "price", *IDS)
SCHEMA = LogSchema(
    actions=tuple(LABELS),
    columns={
        "item_id": Column("categorical"),
        **{name: Column("categorical") for name in IDS},
        "price": Column("numeric"),
    },
    notes=(
        "every row is a view, the user's own visit: nothing was shown and ignored",
        "a label is an event on the same item later in the session",
        "the later views of a session are choices of the user after the impression, and set-wise "
        "layers see their items: compare with model.set_depth=0",
        "sequence_length is not read, because it is known at the end of the sequence",
    ),
)
BATCH_ROWS = 1 << 17
MONTH = re.compile(r"2023\d{2}01")


def merrec_marks(directory: Path) -> list[str] | None:
    """Return a message for every column that a file of MerRec lacks; None without files of a month.

    Args:
        directory: directory of the months, or of one month.
    """
    files = _files(directory)
    if not files:
        return None
    return [message for file in files for message in missing_columns(file, COLUMNS, TITLE)]


def merrec_source(directory: Path) -> LogSource:
    """Open MerRec; `directory` as in `merrec_marks`.

    Raises:
        BadInput: there is no file of a month, or a column is missing.
    """
    require_complete(
        merrec_marks(directory),
        f"{directory} lacks Parquet files in directories of months, e.g. 20231001/; download "
        f"{TITLE} from {URL}",
    )
    files = _files(directory)
    parts: tuple[Part, ...] = tuple(partial(_deferred, file) for file in files)
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=count_all_rows(files),
        description={"format": "merrec", "files": describe_files(files)},
        names={
            "member_id": "user_id",
            "item_id": "product_id",
            "timestamp_ms": "stime",
            **dict.fromkeys(LABELS, "event_id"),
        },
        sessions=True,
        present=("session_id",),
        parts=parts,
    )


def _deferred(file: DataFile, batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
    """Yield a file as one deferred batch, because no session may be cut."""
    if rows_in(file):
        yield partial(_views, file)


def _views(file: DataFile) -> LogBatch:
    """Return the views of a file in canonical columns, with the labels of their sessions.

    Raises:
        BadInput: the times are not in the period of the data set.
    """
    frame = pl.concat(b.frame.select(ROW_DIGEST, *COLUMNS) for b in read_batches(file, BATCH_ROWS))
    frame = frame.with_columns(
        row=pl.int_range(pl.len()),
        timestamp_ms=_milliseconds(frame["stime"], f"{file.name}, column 'stime'"),
        known=pl.col("event_id").is_in([VIEW, *LABELS.values()]).fill_null(False),
    )

    # An event is later than a view if it has a later time, or the same time and a later row.
    frame = frame.sort("timestamp_ms", maintain_order=True)
    frame = frame.with_columns(position=pl.int_range(pl.len()))
    is_view = pl.col("event_id") == VIEW
    item, position = ("user_id", "session_id", "item_id"), pl.col("position")
    last = {name: position.filter(event_id=event).max() for name, event in LABELS.items()}
    last_events = frame.filter(~is_view).group_by(item).agg(**last)

    # The ids of sessions start again in every directory of a month. Rows of unknown events are kept
    # until they are reported.
    month = pl.lit(file.path.parent.name)
    session = pl.struct(month, "session_id").hash() // 2
    frame = frame.filter(is_view | ~pl.col("known")).join(last_events, item, how="left").sort("row")
    rule = f"is not one of {', '.join([VIEW, *LABELS.values()])}{OR_SKIP}"
    views = frame.select(
        ROW_DIGEST,
        "timestamp_ms",
        *((pl.col(name) > position).fill_null(False).cast(pl.Int8) for name in LABELS),
        *IDS,
        "price",
        member_id="user_id",
        item_id="product_id",
        session_id=pl.when(pl.col("session_id").is_not_null()).then(session.cast(pl.Int64)),
    )
    return LogBatch(
        file.name,
        1,
        views,
        text=False,
        faults=(Fault("event_id", ~frame["known"].to_numpy(), frame["event_id"], rule),),
        row_numbers=frame["row"].to_numpy() + 1,
    )


def _milliseconds(times: pl.Series, where: str) -> pl.Series:
    """Return times in milliseconds, from datetimes or integer microseconds.

    Args:
        times: the column.
        where: file and column, for the message.

    Raises:
        BadInput: the median is not in the period of the data set, or the type is another.
    """
    if not (isinstance(times.dtype, pl.Datetime) or times.dtype.is_integer()):
        raise BadInput(
            f"{where}: {times.dtype} values are not times; {TITLE} has timestamps in microseconds"
        )
    PERIOD.require([times], "us", where)
    return times.dt.epoch("ms") if isinstance(times.dtype, pl.Datetime) else times // 1000


def _files(directory: Path) -> list[DataFile]:
    """Return the files of all months in a directory, or of a month, in order."""
    months = sorted(p for p in directory.glob("*") if MONTH.fullmatch(p.name))
    if not months and MONTH.fullmatch(directory.resolve().name):
        months = [directory.resolve()]
    paths = [path for month in months for path in sorted(month.glob("*.parquet"))]
    return [DataFile(path, f"{path.parent.name}/{path.name}") for path in paths]


MERREC = Adapter(
    name="merrec",
    title="MerRec (Mercari): visits of items of a marketplace",
    open=merrec_source,
    lacking=merrec_marks,
    files={
        "20230501/*.parquet ... 20231001/*.parquet": "events of a month, a file has whole users"
    },
    impression="a view of an item, the user's own visit: nothing was shown and ignored",
    session="session_id of a user and month",
    actions="like, cart, offer, checkout, purchase: an event on the item later in the session",
    outcomes="none",
    refused="sequence_length: known at the end; item_id is only for labels, because an item is "
    "sold once; names are not read",
    obtain=f"{URL} (CC BY-NC 4.0)",
)
