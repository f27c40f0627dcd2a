"""EB-NeRD (Ekstra Bladet, RecSys Challenge 2024): pages of a Danish newspaper with a click.

Reads one size of the data set:

    {train,validation}/behaviors.parquet    pages: one row of the log per article in view
    {train,validation}/history.parquet      per user, the clicks of the 21 days before the split
    articles.parquet                        articles; they must fit into memory without their texts

A member's context is the history of the split of their first page. The validation history of a
member with training pages is not read: it has clicks of the training week, and context precedes
all rows of its member.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete, wrong_types
from ligr_jax.data.sources.ebnerd_pages import (
    CLICKS_PER_USER,
    SCAN_ROWS,
    TrainPages,
    check_times,
    read_train_pages,
    session_ids,
)
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    file_parts,
    read_batches,
    read_column,
)
from ligr_jax.data.sources.parts import chained, converted, with_fewer_rows
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import ROW_DIGEST, ItemSource, LogBatch, LogSource, OnBadRow
from ligr_jax.data.sources.text_vectors import text_vectors, words

URL = "https://recsys.eb.dk/dataset"
SPLITS = ("train", "validation")
SHOWN_PER_PAGE = 12  # 440 M articles in view on 38 M pages
CONTENT_WIDTH = 32
HOUR_MS = 3_600_000

# Columns that are read, with their kind or "".
VISITOR = ("device_type", "is_sso_user", "gender", "postcode", "age", "is_subscriber")
PAGE = {
    **{"user_id": "integer", "session_id": "integer", "impression_time": "time"},
    **{"article_ids_inview": "list", "article_ids_clicked": "list", "article_id": ""},
    **dict.fromkeys(("read_time", "scroll_percentage", *VISITOR), ""),
    **dict.fromkeys(("next_read_time", "next_scroll_percentage"), ""),
}
CLICK_LISTS = ["impression_time_fixed", "article_id_fixed"]
CLICK_LISTS += ["read_time_fixed", "scroll_percentage_fixed"]
HISTORY = {"user_id": "integer", **dict.fromkeys(CLICK_LISTS, "list")}
ARTICLE = {
    **{"article_id": "integer", "published_time": "time", "subcategory": "list", "topics": "list"},
    **dict.fromkeys(("title", "subtitle", "category", "article_type", "premium"), ""),
    "sentiment_score": "",
}
ARTIFICIAL = "is_beyond_accuracy"  # pages that were never shown, in the test set

SCHEMA = LogSchema(
    actions=("click",),
    columns={
        **{name: Column("categorical") for name in ("item_id", "page_article", "hour", *VISITOR)},
        "article_age_hours": Column("numeric"),
        "category": Column("categorical"),
        "subcategory": Column("bag"),
        "topics": Column("bag"),
        "article_type": Column("categorical"),
        "premium": Column("categorical"),
        "sentiment_score": Column("numeric"),
        "content": Column("vector", width=CONTENT_WIDTH),
        "page_read_time_s": Column("numeric", outcome=True),
        "page_scroll_percentage": Column("numeric", outcome=True),
        "read_time_s": Column("numeric", outcome=True),
        "scroll_percentage": Column("numeric", outcome=True),
    },
    notes=(
        "only pages with a click are published, so the click rate is not that of the newspaper: "
        "report the ranking within a page (GAUC) first, and NE only to compare models",
        "the time zone is not published: times and hour are those of the files, read as UTC; days "
        "begin at 07:00",
        "context is the clicks of the 21 days before the split of a member's first page: all are "
        "positive, so they are inputs and not targets",
        "not read, because they include the future: total_inviews, total_pageviews, "
        "total_read_time and last_modified_time of articles; title and subtitle are those of the "
        "last edit",
    ),
)


def ebnerd_marks(directory: Path) -> list[str] | None:
    """Return what a directory, or its only `ebnerd_*` directory, lacks to be EB-NeRD.

    Returns:
        A message for every missing file or column, and every column of another type; None if no
        file is named like the pages.
    """
    directory = _data(directory)
    splits = _splits(directory)
    if not splits:
        return None
    needed = {directory / "articles.parquet": ARTICLE}
    for split in splits:
        needed[directory / split / "behaviors.parquet"] = PAGE
        needed[directory / split / "history.parquet"] = HISTORY
    lacking = []
    for file, kinds in needed.items():
        if not file.is_file():
            lacking.append(f"{file.parent} lacks {file.name}; unpack an archive of {URL} in it")
            continue
        missing = missing_columns(file, [*kinds], "EB-NeRD")
        lacking += missing or wrong_types(file, kinds, "EB-NeRD")
    return lacking


def ebnerd_source(directory: Path) -> LogSource:
    """Open EB-NeRD.

    Args:
        directory: the directory of one size (`ebnerd_small`), or its parent.

    Raises:
        BadInput: a file or a column is missing, a column has another type or unit, or a history
            has clicks after the first page of its split.
    """
    require_complete(
        ebnerd_marks(directory),
        f"{directory} lacks train/behaviors.parquet and validation/behaviors.parquet; unpack "
        f"an archive of {URL} in it",
    )
    directory = _data(directory)
    behaviors = {s: _file(directory / s, "behaviors.parquet") for s in _splits(directory)}
    histories = {s: _file(directory / s, "history.parquet") for s in _splits(directory)}
    check_times(behaviors, histories)
    train = read_train_pages(behaviors.get("train"))

    # Articles are in memory, because every batch is joined with their times.
    article_file = directory / "articles.parquet"
    items, published = _articles(article_file)
    parts = tuple(
        converted(
            with_fewer_rows(part, SHOWN_PER_PAGE),
            partial(_impressions, split=split, train=train, published=published),
        )
        for split, file in behaviors.items()
        for part in file_parts(file)
    )

    # A row of a history has many clicks, so its batches have fewer rows.
    def context(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for split, file in histories.items():
            for batch in read_batches(file, max(batch_rows // CLICKS_PER_USER, 1), on_bad_row):
                yield _clicks(batch, split, train.users)

    shown = SHOWN_PER_PAGE * count_all_rows([*behaviors.values()])
    clicks = CLICKS_PER_USER * count_all_rows([*histories.values()])
    used = [*behaviors.values(), *histories.values(), DataFile.of(article_file)]
    return LogSource(
        name="EB-NeRD",
        schema=SCHEMA,
        batches=chained(parts),
        rows=shown + clicks,
        description={"format": "ebnerd", "files": describe_files(used)},
        items=ItemSource.from_batch(items),
        context=context,
        context_targets=False,
        names={
            "member_id": "user_id",
            "item_id": "article_ids_inview",
            "timestamp_ms": "impression_time",
        },
        sessions=True,
        present=("session_id",),
        one_label=True,
        parts=parts,
    )


def _impressions(
    batch: LogBatch, split: str, train: TrainPages, published: pl.DataFrame
) -> LogBatch:
    """Return one row per article in view."""
    frame = batch.frame
    if ARTIFICIAL in frame.columns:  # exploded without articles, they have no rows
        genuine = ~pl.col(ARTIFICIAL).fill_null(False)
        frame = frame.with_columns(pl.when(genuine).then(pl.col("article_ids_inview")))
    frame = frame.with_columns(
        pl.col("article_ids_inview", "article_ids_clicked").cast(pl.List(pl.Int64)),
        time=pl.col("impression_time").dt.epoch("ms"),
        session=session_ids(frame, split, train),
    )
    batch = exploded(replace(batch, frame=frame, text=False), ["article_ids_inview"])
    frame = batch.frame.rename({"article_ids_inview": "item_id"})
    frame = frame.join(published, "item_id", how="left", maintain_order="left")
    time, clicked = pl.col("time"), pl.col("article_ids_clicked")
    click = clicked.list.contains(pl.col("item_id"))
    # next_* describe the article that is opened next: the clicked one if there is one click.
    opened = click & (clicked.list.len() == 1)
    frame = frame.select(
        ROW_DIGEST,
        "item_id",
        *VISITOR,
        member_id="user_id",
        session_id="session",
        timestamp_ms="time",
        click=click,
        page_article="article_id",
        hour=time // HOUR_MS % 24,
        article_age_hours=((time - pl.col("published_ms")) / HOUR_MS).clip(0),
        page_read_time_s="read_time",
        page_scroll_percentage="scroll_percentage",
        read_time_s=pl.when(opened).then("next_read_time"),
        scroll_percentage=pl.when(opened).then("next_scroll_percentage"),
    )
    return replace(batch, frame=frame)


def _clicks(batch: LogBatch, split: str, train_users: pl.Series) -> LogBatch:
    """Return the clicks in a history, in order of time, of users whose first page is in a split."""
    of_train = pl.col("user_id").cast(pl.Int64).is_in(train_users.implode())
    wanted = of_train if split == "train" else ~of_train
    frame = batch.frame.with_columns(pl.when(wanted).then(pl.col(CLICK_LISTS)).name.keep())
    batch = exploded(replace(batch, frame=frame, text=False), CLICK_LISTS)
    frame = batch.frame.with_columns(pl.Series("row", batch.row_numbers))
    frame = frame.sort("row", "impression_time_fixed", maintain_order=True).select(
        member_id="user_id",
        item_id="article_id_fixed",
        click=pl.lit(1, pl.Int8),
        read_time_s="read_time_fixed",
        scroll_percentage="scroll_percentage_fixed",
    )
    return replace(batch, frame=frame)


def _articles(file: Path) -> tuple[LogBatch, pl.DataFrame]:
    """Return the item table, and the time at which each article was published."""
    # Column by column, because the texts of the articles would not fit.
    articles = pl.DataFrame([pl.concat(read_column(file, c, SCAN_ROWS)) for c in ARTICLE])
    articles = articles.rename({"article_id": "item_id"})
    terms = articles.select(pl.concat_list(words(pl.col("title")), words(pl.col("subtitle"))))
    content = text_vectors(terms.to_series(), CONTENT_WIDTH)
    items = articles.drop("title", "subtitle", "published_time")
    published = articles.select(
        pl.col("item_id").cast(pl.Int64), published_ms=pl.col("published_time").dt.epoch("ms")
    ).unique("item_id", keep="first")
    items = items.with_columns(pl.Series("content", content))
    return LogBatch(file.name, 1, items, text=False), published


def _data(directory: Path) -> Path:
    """Return the directory with the splits."""
    if _splits(directory) or not directory.is_dir():
        return directory
    sizes = sorted(p for p in directory.glob("ebnerd_*") if _splits(p))
    if len(sizes) > 1:
        raise BadInput(f"{directory} has several sizes ({[p.name for p in sizes]}); give one")
    return sizes[0] if sizes else directory


def _file(split: Path, name: str) -> DataFile:
    return DataFile(split / name, f"{split.name}/{name}")


def _splits(directory: Path) -> list[str]:
    return [s for s in SPLITS if (directory / s / "behaviors.parquet").is_file()]


EBNERD = Adapter(
    name="ebnerd",
    title="EB-NeRD demo, small and large (Ekstra Bladet): news",
    open=ebnerd_source,
    lacking=ebnerd_marks,
    files={
        "{train,validation}/behaviors.parquet": "pages with the articles in view (one is enough)",
        "{train,validation}/history.parquet": "earlier clicks of the users of each split",
        "articles.parquet": "articles",
    },
    impression="an article in view on a page; every page has a click, so pages are selected",
    session="session_id",
    actions="click is whether an article in view is in article_ids_clicked",
    outcomes="read_time and scroll_percentage of the page; next_* of the clicked article",
    refused="total_* and last_modified_time of articles: they include the future; test: its labels "
    "are hidden, and is_beyond_accuracy pages were never shown",
    obtain=f"{URL} (own terms)",
)
