"""MovieLens (Harper and Konstan, TiiS 2015), any of the GroupLens archives.

Reads `ratings.csv` and `movies.csv`, or `ratings.dat` and `movies.dat`. Every rating is an
impression: click is always 1, like is a rating of at least 4, and the rating is an outcome. Movies
have genres, a year, and a content vector computed from the words of their titles and genres.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    describe_files,
    file_parts,
    read_whole,
    rows_in,
)
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.source import ROW_DIGEST, ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.sources.text_vectors import text_vectors, words

URL = "https://files.grouplens.org/datasets/movielens/"
ARCHIVES = {  # published checksums
    "ml-1m.zip": "md5:c4d9eecfca2ab87c1945afe126590906",
    "ml-25m.zip": "md5:6b51fb2759a8657d3bfcbfc42b592ada",
}
LIKED = 4.0
CONTENT_WIDTH = 32
NO_GENRES = "(no genres listed)"
SCHEMA = LogSchema(
    actions=("click", "like"),
    columns={
        "item_id": Column("categorical"),
        "genres": Column("bag"),
        "year": Column("numeric"),
        "content": Column("vector", width=CONTENT_WIDTH),
        "rating": Column("numeric", outcome=True),
    },
    notes=(
        "MovieLens has no shown-and-ignored rows: every row is a rating, so click is constant (1) "
        "and teaches nothing; like is a rating of 4 and more",
    ),
)
_TYPES = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
# Reading `::` with the delimiter `:` gives an empty column between two columns.
_DAT_COLUMNS = ("userId", "_1", "movieId", "_2", "rating", "_3", "timestamp")


def movielens_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be MovieLens.

    Returns:
        A message for every missing file or column; None if no file has ratings of MovieLens.
    """
    suffix = _suffix(directory)
    ratings, movies = directory / f"ratings.{suffix}", directory / f"movies.{suffix}"
    if not ratings.is_file() or _missing_columns(ratings, list(_TYPES)):
        return None
    if not movies.is_file():
        return [
            f"{directory} lacks {movies.name}; unpack one of {', '.join(ARCHIVES)} from {URL} in it"
        ]
    return _missing_columns(movies, ["movieId", "title", "genres"])


def movielens_source(directory: Path) -> LogSource:
    """Open MovieLens.

    Args:
        directory: directory of the files.

    Raises:
        BadInput: a file or a column is missing.
    """
    suffix = _suffix(directory)
    ratings, movies = directory / f"ratings.{suffix}", directory / f"movies.{suffix}"
    lacking = movielens_marks(directory)
    if lacking is None and ratings.is_file():
        lacking = _missing_columns(ratings, list(_TYPES))
    elif lacking is None:
        lacking = [f"{directory} lacks ratings.csv; unpack one of {', '.join(ARCHIVES)} from {URL}"]
    if lacking:
        raise BadInput("; ".join(lacking))
    dat = suffix == "dat"
    layout = TextOptions(delimiter=":", names=_DAT_COLUMNS) if dat else TextOptions()
    rating_file = DataFile(ratings, ratings.name, reading=layout)

    parts = tuple(converted(part, _impressions) for part in file_parts(rating_file))
    return LogSource(
        name="MovieLens",
        schema=SCHEMA,
        batches=chained(parts),
        rows=rows_in(rating_file),
        description={
            "format": "movielens",
            "files": describe_files([ratings, movies]),
        },
        items=ItemSource.from_batch(
            _movies(_read_dat_movies(movies) if dat else read_whole(movies))
        ),
        names={"member_id": "userId", "item_id": "movieId", "timestamp_ms": "timestamp"},
        parts=parts,
    )


def _impressions(batch: LogBatch) -> LogBatch:
    batch = with_types(batch, _TYPES)
    frame = batch.frame.select(
        ROW_DIGEST,
        member_id="userId",
        item_id="movieId",
        timestamp_ms=pl.col("timestamp") * 1000,
        click=pl.lit(1, pl.Int8),
        like=pl.col("rating") >= LIKED,
        rating="rating",
    )
    return replace(batch, frame=frame)


def _movies(batch: LogBatch) -> LogBatch:
    """Return the item table, computed from movieId, title and genres."""
    batch = with_types(batch, {"movieId": pl.Int64})
    title, genres = pl.col("title"), pl.col("genres").replace(NO_GENRES, None).str.split("|")
    frame = batch.frame.select(
        item_id="movieId",
        genres=genres,
        year=title.str.extract(r"\((\d{4})\)\s*$").cast(pl.Float64),
        terms=pl.concat_list(
            words(title.str.replace(r"\(\d{4}\)\s*$", "")),
            genres.list.eval("genre:" + pl.element()).fill_null([]),
        ),
    )
    content = pl.Series("content", text_vectors(frame["terms"], CONTENT_WIDTH))
    return replace(batch, frame=frame.drop("terms").with_columns(content))


def _read_dat_movies(path: Path) -> LogBatch:
    """Read lines `movieId::title::genres` in Latin-1."""
    lines = path.read_text(encoding="latin-1").splitlines()
    parts = pl.Series("line", lines, dtype=pl.String).str.split("::")
    names = ("movieId", "title", "genres")
    frame = pl.DataFrame({n: parts.list.get(k, null_on_oob=True) for k, n in enumerate(names)})
    return LogBatch(path.name, 1, frame, text=True)


def _suffix(directory: Path) -> str:
    return "csv" if (directory / "ratings.csv").is_file() else "dat"


def _missing_columns(file: Path, columns: list[str]) -> list[str]:
    """Return a message if a file lacks columns; .dat files have no header and `::` as delimiter."""
    if file.suffix == ".dat":
        with file.open(encoding="latin-1") as lines:
            fields = lines.readline().count("::") + 1
        if fields == len(columns):
            return []
        return [f"{file} has {fields} fields in its first line; MovieLens has {columns}"]
    present = column_names(file)
    missing = [c for c in columns if c not in present]
    if not missing:
        return []
    return [
        f"{file} lacks the columns {missing} of MovieLens (its columns are {present}); unpack one "
        f"of {', '.join(ARCHIVES)} from {URL}, or read another table with --format table and "
        "--actions"
    ]


MOVIELENS = Adapter(
    name="movielens",
    title="MovieLens (GroupLens): ratings of movies",
    open=movielens_source,
    lacking=movielens_marks,
    files={
        "ratings.csv, ratings.dat": "ratings",
        "movies.csv, movies.dat": "titles and genres",
    },
    impression="a rating: there are no rows that were shown and ignored",
    session="a pause (--session-gap); use a day, because many ratings are given in one sitting",
    actions="like is a rating of at least 4; click is constant",
    outcomes="rating",
    refused="tags and links",
    obtain=f"{URL} (GroupLens terms: no redistribution without permission)",
)
