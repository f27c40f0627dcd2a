"""MIND (Wu et al., ACL 2020; Microsoft News): pages of news with a click.

Reads the directories of the archives, named `train` and `dev`, or as the archives are:

    behaviors.tsv    pages: one row of the log per article shown
    news.tsv         articles

The files have tabs, no header and no quoting. A page has a list of earlier clicks of its user
without times. A member's context is the list of their earliest page; the other lists are not read,
because they may have clicks of later pages, and context precedes all rows of its member.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.atomic import read_text
from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    file_parts,
    read_batches,
    read_column,
    read_columns,
)
from ligr_jax.data.sources.parts import chained, converted, with_fewer_rows
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import SKIP_HINT
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import (
    ROW_DIGEST,
    Fault,
    ItemSource,
    LogBatch,
    LogSource,
    OnBadRow,
)
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.sources.text_vectors import text_vectors, words

URL = "https://msnews.github.io"
SPLITS = ("train", "dev")
PERIOD = Period("MIND", "2019-11-09", "2019-11-22")
TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"
SHOWN_PER_PAGE = 37
CLICKS_PER_USER = 32
CONTENT_WIDTH = 32
HOUR_MS = 3_600_000
SCAN_ROWS = 1 << 17

PAGE = ("impression_id", "user_id", "time", "history", "impressions")
ARTICLE = (
    *("item_id", "category", "subcategory", "title", "abstract"),
    *("url", "title_entities", "abstract_entities"),
)
TIME_RULE = f"is not a time such as 11/15/2019 8:55:22 AM; {SKIP_HINT}"
LABEL_RULE = f"is not ID-0 or ID-1 (the labels of the test set are hidden); {SKIP_HINT}"
SCHEMA = LogSchema(
    actions=("click",),
    columns={
        **{name: Column("categorical") for name in ("item_id", "hour", "category", "subcategory")},
        "content": Column("vector", width=CONTENT_WIDTH),
    },
    notes=(
        "only pages with a click are published, so the click rate is not that of the site: report "
        "the ranking within a page (GAUC) first, and NE only to compare models",
        "the time zone is not published: times and hour are those of the files, read as UTC",
        "context is the list of earlier clicks of a member's earliest page: all are positive, so "
        "they are inputs and not targets",
    ),
)


def mind_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be MIND.

    Returns:
        A message for every missing file, and every file with another number of fields; None if no
        file is named like the pages.
    """
    splits = _splits(directory)
    if not splits:
        return None
    lacking = []
    for split in splits:
        lacking += _other_fields(split / "behaviors.tsv", PAGE)
        lacking += _other_fields(split / "news.tsv", ARTICLE)
    return lacking


def mind_source(directory: Path) -> LogSource:
    """Open MIND.

    Args:
        directory: the parent of the directories `train` and `dev`, of which one is enough.

    Raises:
        BadInput: a file is missing, has another number of fields, or has times of another period.
    """
    require_complete(
        mind_marks(directory),
        f"{directory} lacks train/behaviors.tsv and dev/behaviors.tsv; unpack the archives of "
        f"{URL} in it",
    )
    layout = TextOptions(delimiter="\t", names=PAGE)
    behaviors = [_file(split, "behaviors.tsv", layout) for split in _splits(directory)]
    news = [_file(split, "news.tsv") for split in _splits(directory)]
    for file in behaviors:
        times = (_times(values) for values in read_column(file, "time", SCAN_ROWS))
        PERIOD.require(times, "ms", f"{file.path}, column 'time'")
    first_pages = _first_pages(behaviors)
    parts = tuple(
        converted(with_fewer_rows(part, SHOWN_PER_PAGE), _impressions)
        for file in behaviors
        for part in file_parts(file)
    )

    # A list has many clicks, so its batches have fewer rows.
    def context(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for k, file in enumerate(behaviors):
            wanted = first_pages.filter(pl.col("file") == k)["row"].to_numpy()
            start = 0
            for batch in read_batches(file, max(batch_rows // CLICKS_PER_USER, 1), on_bad_row):
                rows = np.arange(start, start + batch.frame.height)
                yield _clicks(batch, np.isin(rows, wanted))
                start += batch.frame.height

    return LogSource(
        name="MIND",
        schema=SCHEMA,
        batches=chained(parts),
        rows=SHOWN_PER_PAGE * count_all_rows(behaviors) + CLICKS_PER_USER * first_pages.height,
        description={"format": "mind", "files": describe_files([*behaviors, *news])},
        items=ItemSource.from_batch(_articles(news)),
        context=context,
        context_targets=False,
        names={
            "member_id": "user_id",
            "item_id": "impressions",
            "click": "impressions",
            "timestamp_ms": "time",
        },
        one_label=True,
        parts=parts,
    )


def _impressions(batch: LogBatch) -> LogBatch:
    """Return one row per article shown."""
    frame = batch.frame.with_columns(
        ms=_times(batch.frame["time"]), shown=pl.col("impressions").str.extract_all(r"\S+")
    )
    batch = exploded(replace(batch, frame=frame), ["shown"])
    shown, time = batch.frame["shown"], batch.frame["time"]
    frame = batch.frame.select(
        ROW_DIGEST,
        member_id="user_id",
        item_id=pl.col("shown").str.extract(r"^(.+)-[01]$"),
        timestamp_ms="ms",
        click=pl.col("shown").str.extract(r"-([01])$").cast(pl.Int8),
        hour=pl.col("ms") // HOUR_MS % 24,
    )
    unreadable = (frame["timestamp_ms"].is_null() & time.is_not_null()).to_numpy()
    faults = (
        Fault("timestamp_ms", unreadable, time, TIME_RULE),
        Fault("click", frame["item_id"].is_null().to_numpy(), shown, LABEL_RULE),
    )
    return replace(batch, frame=frame, faults=faults)


def _times(values: pl.Series) -> pl.Series:
    """Return times in milliseconds, null for other text."""
    return values.str.to_datetime(TIME_FORMAT, time_unit="ms", strict=False).dt.epoch("ms")


def _first_pages(behaviors: Sequence[DataFile]) -> pl.DataFrame:
    """Return file number and row (from 0) of the earliest page of each user."""
    first = pl.DataFrame(
        schema={"user_id": pl.String, "ms": pl.Int64, "file": pl.Int32, "row": pl.Int64}
    )
    for k, file in enumerate(behaviors):
        start = 0
        for piece in read_columns(file, ["user_id", "time"], SCAN_ROWS):
            pages = piece.select(
                "user_id",
                ms=_times(piece["time"]),
                file=pl.lit(k, pl.Int32),
                row=pl.int_range(start, start + piece.height),
            )
            first = pl.concat([first, pages.drop_nulls()]).sort("ms", "file", "row")
            first = first.unique("user_id", keep="first", maintain_order=True)
            start += piece.height
    return first.select("file", "row")


def _clicks(batch: LogBatch, wanted: np.ndarray) -> LogBatch:
    """Return the lists of earlier clicks of some pages."""
    clicks = pl.col("history").str.extract_all(r"\S+")
    frame = batch.frame.with_columns(pl.when(pl.Series(wanted)).then(clicks).alias("history"))
    batch = exploded(replace(batch, frame=frame), ["history"])
    frame = batch.frame.select(member_id="user_id", item_id="history", click=pl.lit(1, pl.Int8))
    return replace(batch, frame=frame)


def _articles(files: Sequence[DataFile]) -> LogBatch:
    """Return the item table, which has the articles of all splits once."""
    tables = [_read_news(file) for file in files]
    articles = pl.concat(tables).unique("item_id", keep="first", maintain_order=True)
    terms = pl.concat_list(
        words(pl.col("title")),
        words(pl.col("abstract")),
        "category:" + pl.col("category").fill_null(""),
        "subcategory:" + pl.col("subcategory").fill_null(""),
    )
    content = text_vectors(articles.select(terms).to_series(), CONTENT_WIDTH)
    items = articles.select("item_id", "category", "subcategory")
    items = items.with_columns(pl.Series("content", content))
    return LogBatch(files[0].name, 1, items, text=True)


def _read_news(file: DataFile) -> pl.DataFrame:
    """Read articles as lines, because their titles have quotes that are not delimiters."""
    lines = pl.Series("line", read_text(file.path).removesuffix("\n").split("\n"))
    fields = lines.str.split("\t")
    wrong = fields.list.len() != len(ARTICLE)
    if wrong.any():
        row = wrong.arg_max() or 0
        raise BadInput(
            f"{file.path}, row {row + 1}: {fields[row].len()} fields, and MIND has "
            f"{len(ARTICLE)} {list(ARTICLE)}; correct the line"
        )
    columns = ARTICLE[: ARTICLE.index("abstract") + 1]
    return pl.DataFrame({c: fields.list.get(k).replace("", None) for k, c in enumerate(columns)})


def _other_fields(file: Path, columns: Sequence[str]) -> list[str]:
    """Return a message if a file is missing, or has another number of fields in its first line."""
    if not file.is_file():
        return [f"{file.parent} lacks {file.name}; unpack the archives of {URL} again"]
    with file.open(encoding="utf-8", errors="replace") as lines:
        fields = lines.readline().count("\t") + 1
    if fields == len(columns):
        return []
    return [f"{file} has {fields} fields in its first line; MIND has {list(columns)}"]


def _file(split: Path, name: str, reading: TextOptions | None = None) -> DataFile:
    return DataFile(split / name, f"{split.name}/{name}", reading=reading or TextOptions())


def _splits(directory: Path) -> list[Path]:
    """Return the directories of the splits."""
    out = []
    for split in SPLITS:
        found = [directory / split, *sorted(directory.glob(f"MIND*_{split}"))]
        found = [path for path in found if (path / "behaviors.tsv").is_file()]
        if len(found) > 1:
            raise BadInput(
                f"{directory} has several sizes ({[p.name for p in found]}); keep one of them"
            )
        out += found
    return out


MIND = Adapter(
    name="mind",
    title="MIND small and large (Microsoft News): news",
    open=mind_source,
    lacking=mind_marks,
    files={
        "{train,dev}/behaviors.tsv": "pages with the articles shown (one is enough)",
        "{train,dev}/news.tsv": "articles",
    },
    impression="an article shown on a page; every page has a click, so pages are selected",
    session="a pause (--session-gap)",
    actions="click is the label in impressions (N1-0 N2-1)",
    outcomes="none",
    refused="test: its labels are hidden; the lists of clicks of later pages; the embeddings of "
    "entities",
    obtain=f"{URL} (Microsoft Research terms)",
)
