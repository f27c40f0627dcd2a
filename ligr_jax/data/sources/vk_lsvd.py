"""VK-LSVD (Kharlamov et al. 2025; Apache-2.0): impressions of a short-video feed, without times.

Reads `interactions/` or one directory of `subsamples/`:

    train/week_00.parquet ...     impressions, in order of time within a week
    validation/week_25.parquet    the same
    metadata/items_metadata.parquet, metadata/users_metadata.parquet
    metadata/item_embeddings.npz  optional: item_id uint32 [n], embedding float16 [n, 64]

The rows of a week are spread evenly over the week. Times are therefore in order, but wrong by some
hours, because fewer videos are watched at night; sessions are days. Week 0 starts on an arbitrary
Monday, because its date is not published. The tables of users and items are in memory (170 MB for
the whole data set), and `prepare` needs twice the vectors of the items as float32 (10 GB).
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    file_parts,
    read_items,
    rows_in,
)
from ligr_jax.data.sources.id_table import IdTable
from ligr_jax.data.sources.parse import DAY_MS
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, ItemSource, LogBatch, LogSource

URL = "https://huggingface.co/datasets/deepvk/VK-LSVD"
TITLE = "VK-LSVD"
WEEK_MS = 7 * DAY_MS
START_MS = 946_857_600_000  # 2000-01-03, a Monday
SKIPPED_S = 2  # longest time of a skipped video
LONGEST_S = 255  # stands for this time and all longer ones
SPLITS = ("train", "validation", "test")
FEEDBACK = ("like", "dislike", "share", "bookmark", "click_on_author", "open_comments")
CONTEXT = {"place": "surface", "platform": "platform", "agent": "agent"}
USER = {"age": "user_age", "gender": "user_gender", "geo": "user_geo"}
COLUMNS = ("user_id", "item_id", *CONTEXT, "timespent", *FEEDBACK)
ITEMS, USERS, VECTORS = "items_metadata.parquet", "users_metadata.parquet", "item_embeddings.npz"
METADATA = {ITEMS: ("item_id", "author_id", "duration"), USERS: ("user_id", *USER)}
NOTES = (
    "the files have no times: the rows of a week are spread evenly over it, so times are wrong by "
    "some hours; week 0 starts on 2000-01-03, an arbitrary Monday; sessions are days",
    "skip is a time of at most 2 s; full_view is at least the duration of the video, and unknown "
    "if the duration is; 255 s stand for longer times too",
    "train_interactions_rank is not read, because it counts weeks 0 to 24, which are the future of "
    "most rows",
)
CHOSEN_NOTE = (
    "{name}: the most active users (up) or items (ip) of weeks 0 to 24, mostly the future of a "
    "row; measure the effect of more data on random subsamples (ur, ir)"
)


@dataclass(frozen=True)
class _Files:
    """Files of the data set.

    Attributes:
        weeks: impressions by the number of their week, in order.
        metadata: directory of users and items.
        name: name of the subsample, "" for the whole data set.
    """

    weeks: dict[int, Path]
    metadata: Path
    name: str


def vk_lsvd_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be VK-LSVD.

    Args:
        directory: the root of the data set with one kind of impressions, or `interactions/`, or one
            directory in `subsamples/`.

    Returns:
        A message for every missing file or column; None if there is no file of a week.
    """
    found = [d for d in _places(directory) if _weeks(d)]
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(d.relative_to(directory).as_posix() for d in found)
        return [f"{directory} has the impressions of {names}; give one of these directories"]
    files = _files(found[0])
    lacking = []
    for path in files.weeks.values():
        lacking += missing_columns(path, COLUMNS, TITLE)
    for name, columns in METADATA.items():
        path = files.metadata / name
        if path.is_file():
            lacking += missing_columns(path, columns, TITLE)
        else:
            lacking.append(f"{path} does not exist; download metadata/{name} from {URL}")
    return lacking


def vk_lsvd_source(directory: Path) -> LogSource:
    """Open VK-LSVD or a subsample; `directory` as in `vk_lsvd_marks`.

    Raises:
        BadInput: a file or a column is missing, or the vectors are not those of the data set.
    """
    require_complete(
        vk_lsvd_marks(directory),
        f"{directory} lacks train/week_00.parquet; download {TITLE} from {URL}",
    )
    files = _files(next(d for d in _places(directory) if _weeks(d)))
    item_file, vector_file = files.metadata / ITEMS, files.metadata / VECTORS
    users = IdTable.of(read_items(files.metadata / USERS), "user_id", tuple(USER))
    items = IdTable.of(read_items(item_file), "item_id", ("duration",))

    weeks = [DataFile(path, f"{path.parent.name}/{path.name}") for path in files.weeks.values()]
    parts = tuple(
        converted(
            part, partial(_impressions, week=week, rows=rows_in(file), users=users, items=items)
        )
        for week, file in zip(files.weeks, weeks)
        for part in file_parts(file)
    )
    vectors = _vectors(vector_file) if vector_file.is_file() else None
    width = vectors[1].shape[1] if vectors is not None else 0
    used: list[Path | DataFile] = [*weeks, files.metadata / USERS, item_file]
    used += [vector_file] if width else []
    columns = ("item_id", "actor_id", "duration_s", *(["content"] if width else []))
    return LogSource(
        name=TITLE,
        schema=_schema(width, files.name),
        batches=chained(parts),
        rows=count_all_rows(weeks),
        description={"format": "vk_lsvd", "files": describe_files(used)},
        items=ItemSource(columns, partial(_items, item_file, vector_file if width else None)),
        names={"member_id": "user_id", **{ours: theirs for theirs, ours in CONTEXT.items()}},
        sessions=True,
        present=("session_id",),
        parts=parts,
    )


def _schema(width: int, subsample: str) -> LogSchema:
    """Return the schema; `width` is that of the vectors, 0 without."""
    columns = {"item_id": Column("categorical"), "actor_id": Column("categorical")}
    columns |= {name: Column("categorical") for name in CONTEXT.values()}
    columns |= {"user_age": Column("numeric")}
    columns |= {name: Column("categorical") for name in ("user_gender", "user_geo")}
    columns |= {"duration_s": Column("numeric"), "timespent": Column("numeric", outcome=True)}
    if width:
        columns["content"] = Column("vector", width=width)
    chosen = any(part.startswith(("up", "ip")) for part in subsample.split("_"))
    notes = (*NOTES, CHOSEN_NOTE.format(name=subsample)) if chosen else NOTES
    return LogSchema(("full_view", "skip", *FEEDBACK), columns, notes=notes)


def _impressions(batch: LogBatch, week: int, rows: int, users: IdTable, items: IdTable) -> LogBatch:
    """Return impressions in canonical columns.

    Args:
        batch: rows of a file.
        week: number of its week.
        rows: number of rows of the file.
        users: age, gender and geo of the users.
        items: duration of the items.
    """
    frame = batch.frame
    position = np.arange(frame.height, dtype=np.int64) + (batch.first_row - 1)
    time_ms = START_MS + week * WEEK_MS + position * WEEK_MS // rows
    spent = frame["timespent"]
    rule = f"is not a time in seconds, at most {LONGEST_S}{OR_SKIP}"
    fault = Fault("timespent", (spent > LONGEST_S).fill_null(False).to_numpy(), spent, rule)
    duration = items.find(frame["item_id"])["duration"]
    duration = duration.set(duration == 0, None)
    frame = frame.select(
        ROW_DIGEST,
        "item_id",
        "timespent",
        *(pl.col(theirs).alias(ours) for theirs, ours in CONTEXT.items()),
        *(pl.col(name).cast(pl.Int8) for name in FEEDBACK),
        *users.find(frame["user_id"]).rename(USER),
        member_id="user_id",
        timestamp_ms=pl.Series(time_ms),
        session_id=pl.Series(time_ms // DAY_MS),
        full_view=(pl.col("timespent") >= duration).cast(pl.Int8),
        skip=(pl.col("timespent") <= SKIPPED_S).cast(pl.Int8),
    )
    return replace(batch, frame=frame, text=False, faults=(*batch.faults, fault))


def _items(item_file: Path, vector_file: Path | None) -> Iterator[LogBatch]:
    """Yield the item table in batches, with the vectors of `vector_file`."""
    rows_of, values = IdTable(np.empty(0, np.int64), pl.DataFrame()), np.empty((0, 0))
    if vector_file:
        ids, values = _vectors(vector_file)
        order = np.argsort(ids)
        rows_of = IdTable(ids[order], pl.DataFrame({"row": order}))
    for batch in read_items(item_file):
        frame = batch.frame.select(
            "item_id",
            actor_id="author_id",
            duration_s=pl.when(pl.col("duration") > 0).then("duration"),
        )
        if vector_file:
            row = rows_of.find(frame["item_id"])["row"]
            content = pl.Series(values[row.fill_null(0).to_numpy()].astype(np.float32))
            frame = frame.with_columns(content=pl.when(row.is_not_null()).then(content))
        yield replace(batch, frame=frame, text=False)


def _vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids [n] and the float16 vectors [n, W] of the items.

    Raises:
        BadInput: the file is not an archive of numbers with these arrays.
    """
    remedy = f"download it from {URL} again, or remove it to do without vectors"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, values = arrays["item_id"], arrays["embedding"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise BadInput(
            f"{path}: not an archive with the arrays item_id and embedding ({e}); {remedy}"
        ) from e
    if ids.ndim != 1 or values.ndim != 2 or len(ids) != len(values) or not len(ids):
        raise BadInput(
            f"{path}: item_id has shape {ids.shape} and embedding {values.shape}, but {TITLE} has "
            f"[n] and [n, 64]; {remedy}"
        )
    return ids, values


def _places(directory: Path) -> list[Path]:
    """Return the directories that may have impressions."""
    subsamples = directory / "subsamples"
    below = sorted(p for p in subsamples.iterdir() if p.is_dir()) if subsamples.is_dir() else []
    return [directory, directory / "interactions", *below]


def _weeks(directory: Path) -> dict[int, Path]:
    """Return the files of weeks of train, validation and test, by the number of the week."""
    files = (p for split in SPLITS for p in (directory / split).glob("week_*.parquet"))
    numbered = ((re.fullmatch(r"week_(\d+)\.parquet", p.name), p) for p in files)
    return dict(sorted((int(match[1]), p) for match, p in numbered if match))


def _files(directory: Path) -> _Files:
    """Return the files of a directory with weeks."""
    above = [directory, *directory.resolve().parents[:2]]
    metadata = (d / "metadata" for d in above)
    place = next((d for d in metadata if d.is_dir()), directory / "metadata")
    is_subsample = directory.resolve().parent.name == "subsamples"
    return _Files(_weeks(directory), place, directory.resolve().name if is_subsample else "")


VK_LSVD = Adapter(
    name="vk_lsvd",
    title="VK-LSVD (VK): short videos, 40 billion impressions",
    open=vk_lsvd_source,
    lacking=vk_lsvd_marks,
    files={
        "train/week_*.parquet, validation/week_*.parquet": "impressions, in interactions/ or "
        "subsamples/NAME/",
        "metadata/items_metadata.parquet": "author and duration of the videos",
        "metadata/users_metadata.parquet": "age, gender and region, as of an unknown date",
        "metadata/item_embeddings.npz": "content vectors of the videos (optional)",
    },
    impression="a video shown to a user, at most once",
    session="a day of the interpolated times",
    actions="full_view and skip by timespent; like, dislike, share, bookmark, click_on_author, "
    "open_comments",
    outcomes="timespent (s, 255 = at least 255)",
    refused="train_interactions_rank: it counts weeks 0 to 24 (and chose the subsamples up*, ip*)",
    obtain=f"{URL} (Apache-2.0)",
)
