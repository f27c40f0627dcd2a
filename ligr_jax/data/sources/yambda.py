"""Yambda (Ploshkin et al. 2025; Apache-2.0): listens of a music service.

Reads one size of the flat files, e.g. `flat/50m/`:

    multi_event.parquet   all events of a user in order; or, without it,
    listens.parquet       listens, and optionally likes.parquet and dislikes.parquet (in memory)
    ../../artist_item_mapping.parquet, album_item_mapping.parquet, embeddings.parquet   optional

A listen of a track that the recommender played (`is_organic` = 0) is an impression. Listens that
the user started are history with the same labels, but no targets: their weight is 0. A like or
dislike counts for the last listen before it, if the track is the same. Times are seconds since an
unpublished origin, which is set to 2000-01-01; events of 5 seconds keep the order of the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    describe_files,
    file_parts,
    read_columns,
    read_items,
    rows_in,
)
from ligr_jax.data.sources.parts import chained, converted, whole_groups
from ligr_jax.data.sources.period import median_side
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, ItemSource, LogBatch, LogSource

URL = "https://huggingface.co/datasets/yandex/yambda"
TITLE = "Yambda"
ORIGIN_MS = 946_684_800_000  # 2000-01-01
LONGEST_S = 320 * 86_400  # the data set has 301 days
LISTENED_PCT = 50
EVENT = ("uid", "timestamp", "item_id", "is_organic")
LISTEN = (*EVENT, "played_ratio_pct", "track_length_seconds")
EVENTS, LISTENS = "multi_event.parquet", "listens.parquet"
LABELS = {"like": "likes.parquet", "dislike": "dislikes.parquet"}
TYPES = ("listen", "like", "dislike", "unlike", "undislike")
KINDS = pl.Enum(TYPES)
MAPPINGS = {"artist": "artist_item_mapping.parquet", "album": "album_item_mapping.parquet"}
VECTORS, VECTOR = "embeddings.parquet", "normalized_embed"
NOTES = (
    "the origin of the times is not published and set to 2000-01-01: hours and days of the week "
    "are unknown",
    "a listen that the user started (is_organic) is history and no target: its weight is 0",
    "listened is half of the track or more; a like or dislike counts for the last listen before "
    "it, if the track is the same",
    "the later listens of a session are partly choices of the user after the impression, and "
    "set-wise layers see their items: compare with model.set_depth=0",
)
BATCH_ROWS = 1 << 17


def yambda_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be Yambda.

    Args:
        directory: the root of the data set with one size, or the directory of a size.

    Returns:
        A message for every missing column; None if there are no listens.
    """
    sizes = _sizes(directory)
    if not sizes:
        return None
    if len(sizes) > 1:
        names = ", ".join(size.relative_to(directory).as_posix() for size in sizes)
        return [f"{directory} has the events of {names}; give one of these directories"]
    events, others = sizes[0] / EVENTS, _label_files(sizes[0])
    if events.is_file():
        lacking = missing_columns(events, (*LISTEN, "event_type"), TITLE)
    else:
        lacking = missing_columns(sizes[0] / LISTENS, LISTEN, TITLE)
        for path in others.values():
            lacking += missing_columns(path, EVENT, TITLE)
    for path, columns in _item_files(sizes[0]).items():
        lacking += missing_columns(path, columns, TITLE)
    return lacking


def yambda_source(directory: Path) -> LogSource:
    """Open Yambda; `directory` as in `yambda_marks`.

    Raises:
        BadInput: a file or a column is missing.
    """
    require_complete(
        yambda_marks(directory),
        f"{directory} lacks {EVENTS} and {LISTENS}; download flat/50m from {URL}",
    )
    (size,) = _sizes(directory)
    log = size / EVENTS
    others: dict[str, Path] = {}
    if not log.is_file():
        log, others = size / LISTENS, _label_files(size)
    unknown = () if log.name == EVENTS else tuple(name for name in LABELS if name not in others)
    convert = partial(_listens, reactions=_reactions(others), unknown=unknown)
    parts = (converted(whole_groups(file_parts(log), "uid"), convert),)
    item_files = _item_files(size)
    columns, items = _item_table(item_files)
    return LogSource(
        name=TITLE,
        schema=LogSchema(("listened", *LABELS), _columns(columns), notes=NOTES),
        batches=chained(parts),
        rows=rows_in(log),
        description={
            "format": "yambda",
            "files": describe_files([log, *others.values(), *item_files]),
        },
        items=items,
        names={"member_id": "uid", "timestamp_ms": "timestamp"},
        present=("weight",),
        parts=parts,
    )


def _columns(item_columns: Mapping[str, Column]) -> dict[str, Column]:
    return {
        "item_id": Column("categorical"),
        "is_organic": Column("categorical"),
        "track_length_s": Column("numeric"),
        "played_ratio_pct": Column("numeric", outcome=True),
        **item_columns,
    }


def _listens(batch: LogBatch, reactions: pl.DataFrame, unknown: Sequence[str]) -> LogBatch:
    """Return the listens of whole users in canonical columns, with likes and dislikes.

    Args:
        batch: all events, or the listens, of some users.
        reactions: likes and dislikes of all users, sorted by user; no rows if the batch has them.
        unknown: labels that the files do not have.

    Raises:
        BadInput: the times are not in seconds.
    """
    frame = batch.frame.with_columns(row=pl.int_range(pl.len()))
    if median_side([frame["timestamp"]], 0, LONGEST_S):
        raise BadInput(
            f"{batch.file}, column 'timestamp': the median is outside of the {LONGEST_S:,} seconds "
            f"of {TITLE} (e.g. value {frame['timestamp'][0]}); convert the column to seconds since "
            "the origin of the data set"
        )
    if "event_type" not in frame.columns:
        # At the same time, a reaction follows the listen.
        users = reactions["uid"]
        start = users.search_sorted(frame["uid"][0], "left")
        end = users.search_sorted(frame["uid"][-1], "right")
        listens = frame.with_columns(event_type=pl.lit("listen", KINDS))
        frame = pl.concat([listens, reactions[start:end]], how="diagonal")
    kind = pl.col("event_type").cast(pl.String)
    frame = frame.sort("uid", "timestamp", maintain_order=True).with_columns(
        event_type=kind,
        known=kind.is_in(TYPES).fill_null(False),
        number=(kind == "listen").cum_sum(),
        track=pl.when(kind == "listen").then("item_id").forward_fill().over("uid"),
    )

    # Events after a listen and before the next have its number; before the first, no track.
    same = pl.col("item_id") == pl.col("track")
    frame = frame.with_columns(
        ((kind == name) & same).any().over("number").cast(pl.Int8).alias(name) for name in LABELS
    )
    # Rows of unknown events are kept until they are reported.
    frame = frame.filter((kind == "listen") | ~pl.col("known"))
    length = pl.col("track_length_seconds")
    listens = frame.select(
        ROW_DIGEST,
        "item_id",
        "is_organic",
        "played_ratio_pct",
        *(pl.lit(None, pl.Int8).alias(n) if n in unknown else pl.col(n) for n in LABELS),
        member_id="uid",
        timestamp_ms=pl.col("timestamp").cast(pl.Int64) * 1000 + ORIGIN_MS,
        listened=(pl.col("played_ratio_pct") >= LISTENED_PCT).cast(pl.Int8),
        track_length_s=pl.when(length > 0).then(length),
        weight=(pl.col("is_organic") == 0).fill_null(False).cast(pl.Float32),
    )
    rule = f"is not one of {', '.join(TYPES)}{OR_SKIP}"
    fault = Fault("event_type", ~frame["known"].to_numpy(), frame["event_type"], rule)
    return replace(
        batch,
        frame=listens,
        text=False,
        faults=(*batch.faults, fault),
        row_numbers=frame["row"].to_numpy() + batch.first_row,
    )


def _reactions(files: Mapping[str, Path]) -> pl.DataFrame:
    """Return the likes and dislikes of files, sorted by user."""
    empty = pl.DataFrame(schema={"uid": pl.UInt32, "event_type": KINDS})
    pieces = [
        frame.with_columns(event_type=pl.lit(name, KINDS))
        for name, path in files.items()
        for frame in read_columns(path, ("uid", "timestamp", "item_id"), BATCH_ROWS)
    ]
    return pl.concat(pieces or [empty]).sort("uid", maintain_order=True)


def _item_table(files: Mapping[Path, Sequence[str]]) -> tuple[dict[str, Column], ItemSource | None]:
    """Return the feature columns of the item table, and the table; None without files.

    Args:
        files: mappings and vectors.
    """
    names = {path.name: path for path in files}
    columns = {f"{kind}s": Column("bag") for kind, name in MAPPINGS.items() if name in names}
    vectors = names.get(VECTORS)
    if vectors:
        first = next(read_columns(vectors, (VECTOR,), 1), None)
        width = len(first[VECTOR][0]) if first is not None else 1
        columns["content"] = Column("vector", width=width)
    if not columns:
        return {}, None
    return columns, ItemSource(["item_id", *columns], partial(_items, names))


def _items(files: Mapping[str, Path]) -> Iterator[LogBatch]:
    """Yield the item table: artists and albums of the tracks, and their vectors in batches."""
    table = pl.DataFrame(schema={"item_id": pl.UInt32})
    for kind, name in MAPPINGS.items():
        if name in files:
            pairs = pl.concat(read_columns(files[name], (f"{kind}_id", "item_id"), BATCH_ROWS))
            bags = pairs.group_by("item_id", maintain_order=True).agg(
                pl.col(f"{kind}_id").alias(f"{kind}s")
            )
            table = table.join(bags, "item_id", how="full", coalesce=True)
    if VECTORS not in files:
        yield LogBatch(", ".join(files), 1, table, text=False)
        return
    seen = []
    for batch in read_items(files[VECTORS]):
        frame = batch.frame.select("item_id", content=VECTOR)
        seen.append(frame["item_id"])
        frame = frame.join(table, "item_id", how="left", maintain_order="left")
        yield replace(batch, frame=frame, text=False)
    without = table.filter(~pl.col("item_id").is_in(pl.concat(seen).implode()))
    content = pl.lit(None, frame.schema["content"])
    yield LogBatch(", ".join(files), 1, without.with_columns(content=content), text=False)


def _sizes(directory: Path) -> list[Path]:
    """Return the directories with events of one size."""
    places = [directory, *sorted((directory / "flat").glob("*"))]
    return [p for p in places if (p / EVENTS).is_file() or (p / LISTENS).is_file()]


def _label_files(size: Path) -> dict[str, Path]:
    """Return the files of likes and dislikes that are present."""
    return {label: size / name for label, name in LABELS.items() if (size / name).is_file()}


def _item_files(size: Path) -> dict[Path, tuple[str, ...]]:
    """Return the files of the tracks that are present, with their columns."""
    root = size.resolve().parents[1]
    columns = {name: (f"{kind}_id", "item_id") for kind, name in MAPPINGS.items()}
    columns[VECTORS] = ("item_id", VECTOR)
    return {root / n: needed for n, needed in columns.items() if (root / n).is_file()}


YAMBDA = Adapter(
    name="yambda",
    title="Yambda (Yandex Music): listens",
    open=yambda_source,
    lacking=yambda_marks,
    files={
        "flat/SIZE/multi_event.parquet": "all events of one size (50m, 500m or 5b)",
        "flat/SIZE/{listens,likes,dislikes}.parquet": "the same in several files (instead of it)",
        "artist_item_mapping.parquet, album_item_mapping.parquet": "artists and albums (optional)",
        "embeddings.parquet": "vectors of the audio (optional)",
    },
    impression="a listen that the recommender started; the others are history (weight 0)",
    session="a pause (--session-gap)",
    actions="listened (half of the track or more), like and dislike before the next listen",
    outcomes="played_ratio_pct",
    refused="sequential/: the same events; unlikes and undislikes are no labels",
    obtain=f"{URL} (Apache-2.0)",
)
