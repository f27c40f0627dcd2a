"""Netflix Prize (2006): ratings of movies, with days and without times of day.

Reads the files of the prize:

    combined_data_1.txt ... combined_data_4.txt     a line `movie:`, then lines `user,rating,date`
    movie_titles.csv                                movie, year or NULL, title with commas; Latin-1

Every rating is an impression: click is always 1, like is a rating of at least 4, and the rating is
an outcome. All ratings of a user on one day have one time, so they are one slate and one session.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, require_complete
from ligr_jax.data.sources.files import describe_files
from ligr_jax.data.sources.parse import DAY_MS
from ligr_jax.data.sources.parts import chained
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import (
    ROW_DIGEST,
    DeferredBatch,
    Fault,
    ItemSource,
    LogBatch,
    LogSource,
    OnBadRow,
)
from ligr_jax.data.sources.text_vectors import text_vectors, words

TITLE = "Netflix Prize"
FIRST, LAST = "1999-11-11", "2005-12-31"
LIKED = 4
CONTENT_WIDTH = 32
LINE_BYTES = 21  # average length of a line
SCHEMA = LogSchema(
    actions=("click", "like"),
    columns={
        "item_id": Column("categorical"),
        "year": Column("numeric"),
        "content": Column("vector", width=CONTENT_WIDTH),
        "rating": Column("numeric", outcome=True),
    },
    notes=(
        "every row is a rating, and nothing was shown and ignored: click is constant (1) and "
        "teaches nothing; like is a rating of 4 and more",
        "only days are known: the ratings of a user on one day are one slate and one session",
    ),
)


def netflix_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be the Netflix Prize; None if there are no ratings."""
    if not _ratings(directory):
        return None
    titles = directory / "movie_titles.csv"
    return [] if titles.is_file() else [f"{directory} lacks movie_titles.csv; put it there"]


def netflix_source(directory: Path) -> LogSource:
    """Open the Netflix Prize.

    Args:
        directory: directory of the files.

    Raises:
        BadInput: a file is missing.
    """
    require_complete(
        netflix_marks(directory),
        f"{directory} lacks combined_data_*.txt; unpack the archive of the prize",
    )
    files = _ratings(directory)
    titles = directory / "movie_titles.csv"
    parts = tuple(partial(_deferred, path) for path in files)
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=sum(path.stat().st_size for path in files) // LINE_BYTES + 1,
        description={"format": "netflix", "files": describe_files([*files, titles])},
        items=ItemSource.from_batch(_movies(titles)),
        names={"member_id": "user", "item_id": "movie", "timestamp_ms": "date"},
        parts=parts,
    )


def _deferred(path: Path, batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
    """Yield the ratings of a file in batches; the movie of a line is that of the last `movie:`."""
    movie: int | None = None
    number = 1
    with path.open(encoding="latin-1", newline="\n") as file:
        while lines := list(islice(file, batch_rows)):
            line = pl.Series("line", lines, dtype=pl.String).str.strip_chars()
            movies = line.str.extract(r"^(\d+):$").cast(pl.Int64)
            yield partial(_impressions, path.name, line, movies, movie, number)
            known = movies.drop_nulls()
            movie = known[-1] if len(known) else movie
            number += len(lines)


def _impressions(
    name: str, line: pl.Series, movies: pl.Series, movie: int | None, number: int
) -> LogBatch:
    """Return the ratings of consecutive lines.

    Args:
        name: name of the file.
        line: the lines, [n].
        movies: the movie of each line `movie:`, null for other lines, [n].
        movie: the movie of the lines before the first such line.
        number: number of the first line.
    """
    row = pl.Series("row", np.arange(number, number + len(line)))
    fields = line.str.split_exact(",", 2).struct.rename_fields(["user", "rating", "date"])
    current = pl.concat([pl.Series("movie", [movie], dtype=pl.Int64), movies.alias("movie")])
    frame = pl.DataFrame([line, row, current.forward_fill()[1:]])
    frame = frame.with_columns(fields.struct.unnest()).filter(movies.is_null() & (line != ""))
    day = frame["date"].str.to_date("%Y-%m-%d", strict=False)
    rating = frame["rating"].cast(pl.Float64, strict=False)
    user = frame["user"].cast(pl.Int64, strict=False)
    broken = user.is_null() | rating.is_null() | day.is_null() | frame["movie"].is_null()
    outside = ~day.is_between(pl.lit(FIRST).str.to_date(), pl.lit(LAST).str.to_date())
    rules = {
        f"is not a line `movie:` or `user,rating,date` (2003-07-04){OR_SKIP}": broken,
        f"is outside of the period of the prize, {FIRST} to {LAST}{OR_SKIP}": outside,
    }
    faults = tuple(
        Fault("line", bad.fill_null(False).to_numpy(), frame["line"], rule)
        for rule, bad in rules.items()
    )
    result = pl.DataFrame(
        {
            "member_id": user,
            "item_id": frame["movie"],
            "timestamp_ms": day.cast(pl.Int64) * DAY_MS,
            "click": np.ones(frame.height, np.int8),
            "like": rating >= LIKED,
            "rating": rating,
            ROW_DIGEST: frame.select("movie", "line").hash_rows(seed=0),
        }
    )
    return LogBatch(
        name, number, result, text=False, faults=faults, row_numbers=frame["row"].to_numpy()
    )


def _movies(path: Path) -> LogBatch:
    """Return the item table of lines `movie,year,title`."""
    text = path.read_text(encoding="latin-1").removesuffix("\n")
    lines = pl.DataFrame({"line": text.split("\n")})
    fields = pl.col("line").str.strip_chars().str.splitn(",", 3)
    frame = lines.select(fields.struct.rename_fields(["movie", "year", "title"]).struct.unnest())
    content = text_vectors(frame.select(words=words(pl.col("title")))["words"], CONTENT_WIDTH)
    items = frame.select(
        item_id=pl.col("movie").cast(pl.Int64, strict=False),
        year=pl.col("year").cast(pl.Float64, strict=False),
        content=pl.Series(content),
    )
    return LogBatch(path.name, 1, items, text=False)


def _ratings(directory: Path) -> list[Path]:
    return sorted(directory.glob("combined_data_*.txt"))


NETFLIX = Adapter(
    name="netflix",
    title="Netflix Prize (2006): ratings of movies",
    open=netflix_source,
    lacking=netflix_marks,
    files={
        "combined_data_*.txt": "ratings, 1999 to 2005",
        "movie_titles.csv": "years and titles",
    },
    impression="a rating: there are no rows that were shown and ignored",
    session="a day, the unit of the dates",
    actions="like is a rating of at least 4; click is constant",
    outcomes="rating",
    refused="probe.txt and qualifying.txt: the latter has no ratings",
    obtain="the archive of the prize (no redistribution)",
)
