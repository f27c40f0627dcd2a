"""Amazon Reviews 2023 (Hou et al. 2024): ratings of products.

Reads the reviews of one or several categories, compressed or not, in one of two layouts:

    CATEGORY.jsonl              all reviews: user_id, parent_asin, rating, timestamp (milliseconds)
    CATEGORY[.SPLIT].csv        a directory of benchmark/, e.g. 5core/timestamp: the same columns

and their products, if there are any in this directory, in one above it, or in `meta_categories`
next to one of these:

    meta_CATEGORY.jsonl         parent_asin, title, main_category, store, price, categories

Every rating is an impression: click is always 1, like is a rating of at least 4, and the rating is
an outcome. Products have a content vector computed from the words of their titles and categories.
The products must fit into memory.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    count_all_rows,
    describe_files,
    file_parts,
    read_column,
    read_columns,
)
from ligr_jax.data.sources.json_text import json_blocks
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.source import ROW_DIGEST, ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.text_vectors import text_vectors, words

URL = "https://amazon-reviews-2023.github.io"
TITLE = "Amazon Reviews 2023"
PERIOD = Period(TITLE, "1996-05-01", "2023-09-30")
LIKED = 4.0
CONTENT_WIDTH = 32
SCAN_ROWS, SCANS = 1 << 17, 8  # the unit is checked on the first blocks of a file
LEVELS_ABOVE = 3  # benchmark/5core/timestamp
REVIEW = ("user_id", "parent_asin", "rating", "timestamp")
PRODUCT = ("parent_asin", "title", "main_category", "store", "price", "categories")
ITEM = ("item_id", "main_category", "store", "price", "categories", "content")
NOTES = (
    "every row is a rating, and nothing was shown and ignored: click is constant (1) and teaches "
    "nothing; like is a rating of 4 and more",
    "use sessions of a day (--session-gap 1d)",
    "not read, because they include the future: helpful_vote grows after the review; "
    "average_rating and rating_number are totals of all time",
    "products are a snapshot of 2023, prices included",
)
CORE_NOTE = "5-core keeps users and products with five ratings in the whole period, which is future"


def amazon2023_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be Amazon Reviews 2023.

    Returns:
        A message for every missing column; None if no file has reviews.
    """
    files = _reviews(directory)
    if not files or _lacking(files[0]):
        return None
    return [message for file in files for message in _lacking(file)]


def amazon2023_source(directory: Path) -> LogSource:
    """Open the reviews of a directory.

    Args:
        directory: directory of `CATEGORY.jsonl`, or one of the benchmark's.

    Raises:
        BadInput: there are no reviews, a column is missing, or times are not in milliseconds.
    """
    require_complete(
        amazon2023_marks(directory),
        f"{directory} lacks reviews (CATEGORY.jsonl, or CATEGORY.csv of the benchmark) with "
        f"the columns {list(REVIEW)}; download them from {URL}",
    )
    files = _reviews(directory)
    for file in files:
        times = islice(read_column(file, "timestamp", SCAN_ROWS), SCANS)
        PERIOD.require(times, "ms", f"{file.path}, column 'timestamp'")
    products = _products(directory, files)
    parts = tuple(converted(part, _impressions) for file in files for part in file_parts(file))
    columns = {"item_id": Column("categorical"), "rating": Column("numeric", outcome=True)}
    if products:
        columns |= {name: Column("categorical") for name in ("main_category", "store")}
        columns |= {"price": Column("numeric"), "categories": Column("bag")}
        columns |= {"content": Column("vector", width=CONTENT_WIDTH)}
    core = (CORE_NOTE,) if "5core" in directory.resolve().parts else ()
    return LogSource(
        name=TITLE,
        schema=LogSchema(("click", "like"), columns, notes=NOTES + core),
        batches=chained(parts),
        rows=count_all_rows(files),
        description={"format": "amazon2023", "files": describe_files([*files, *products])},
        items=ItemSource(ITEM, partial(_items, products)) if products else None,
        names={"member_id": "user_id", "item_id": "parent_asin", "timestamp_ms": "timestamp"},
        parts=parts,
    )


def _impressions(batch: LogBatch) -> LogBatch:
    batch = with_types(batch, {"rating": pl.Float64, "timestamp": pl.Int64})
    frame = batch.frame.select(
        ROW_DIGEST,
        member_id=pl.col("user_id").cast(pl.String),
        item_id=pl.col("parent_asin").cast(pl.String),
        timestamp_ms="timestamp",
        click=pl.lit(1, pl.Int8),
        like=pl.col("rating") >= LIKED,
        rating="rating",
    )
    return replace(batch, frame=frame)


def _items(files: Sequence[DataFile]) -> Iterator[LogBatch]:
    """Yield the item table of all categories as one batch; the first row of a product is kept."""
    frames = (_known(frame) for file in files for frame in _pieces(file))
    frame = pl.concat(frames).unique("parent_asin", keep="first", maintain_order=True)
    terms = pl.concat_list(
        words(pl.col("title")),
        pl.col("categories").list.eval("category:" + pl.element()).fill_null([]),
    )
    content = text_vectors(frame.select(terms=terms)["terms"], CONTENT_WIDTH)
    price = pl.col("price").str.replace_all(",", "").str.extract(r"(\d+(?:\.\d+)?)")
    yield LogBatch(
        files[0].name,
        1,
        frame.select(
            "main_category",
            "store",
            "categories",
            item_id="parent_asin",
            price=price.cast(pl.Float64),
            content=pl.Series(content),
        ),
        text=False,
    )


def _pieces(file: DataFile) -> Iterator[pl.DataFrame]:
    present = column_names(file)
    yield from read_columns(file, [name for name in PRODUCT if name in present], SCAN_ROWS)


def _known(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `PRODUCT` as text, null where a category lacks a column."""
    types = {name: pl.List(pl.String) if name == "categories" else pl.String for name in PRODUCT}
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in types.items()
    )


def _reviews(directory: Path) -> list[DataFile]:
    """Return the files that may have reviews: JSON lines, or CSV if there are none."""
    files = sorted(p for p in directory.iterdir() if p.is_file()) if directory.is_dir() else []
    files = [p for p in files if not p.name.startswith("meta_")]
    for suffix in (".jsonl", ".csv"):
        found = [DataFile(p, p.name) for p in files if p.name.endswith((suffix, f"{suffix}.gz"))]
        if found:
            return found
    return []


def _lacking(file: DataFile) -> list[str]:
    """Return a message if a file lacks columns of reviews, or [].

    JSON lines are judged by the first line, because a list of all columns takes a pass over the
    file.
    """
    try:
        if file.text:
            present = column_names(file)
        else:
            first = json.loads(next(json_blocks(file.path, file.reading), b"{}").split(b"\n")[0])
            present = [*first] if isinstance(first, dict) else []
    except ValueError as e:  # also `BadInput`
        return [f"{file.path}: {e}"]
    missing = [name for name in REVIEW if name not in present]
    if not missing:
        return []
    return [f"{file.path} lacks {missing} of {TITLE} (it has {present}); remove it, or see {URL}"]


def _products(directory: Path, reviews: Sequence[DataFile]) -> list[DataFile]:
    """Return the files of the products of the categories that have one."""
    resolved = directory.resolve()
    above = [resolved, *resolved.parents[:LEVELS_ABOVE]]
    found = []
    for category in dict.fromkeys(file.name.split(".")[0] for file in reviews):
        patterns = (f"{folder}meta_{category}.jsonl*" for folder in ("", "meta_categories/"))
        paths = (path for p in patterns for place in above for path in sorted(place.glob(p)))
        found += [DataFile(path, path.name) for path in islice(paths, 1)]
    return found


AMAZON2023 = Adapter(
    name="amazon2023",
    title="Amazon Reviews 2023 (McAuley Lab): ratings of products",
    open=amazon2023_source,
    lacking=amazon2023_marks,
    files={
        "CATEGORY.jsonl": "all reviews of a category",
        "CATEGORY[.SPLIT].csv": "reviews of the benchmark, e.g. benchmark/5core/timestamp/",
        "meta_CATEGORY.jsonl": "products, here or up to three directories above (optional)",
    },
    impression="a rating: there are no rows that were shown and ignored",
    session="a pause (--session-gap); use a day",
    actions="like is a rating of at least 4; click is constant",
    outcomes="rating",
    refused="helpful_vote, average_rating and rating_number: they include the future; history of "
    "*_w_his: it follows from the log",
    obtain=f"{URL} (terms of the authors)",
)
