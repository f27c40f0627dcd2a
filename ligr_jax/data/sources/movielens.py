"""MovieLens (Harper and Konstan, TiiS 2015), every release of GroupLens from 100K to 32M.

Every rating is an impression: click is always 1, like is a rating of at least 4, and the rating is
an outcome. Ratings of a user in one second are one slate, in the order of the file. Movies have
genres, a year, and a content vector computed from the words of their titles and genres. The 100K
and 1M releases also have users.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, Archive
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    describe_files,
    file_parts,
    read_column,
    rows_in,
)
from ligr_jax.data.sources.movielens_files import (
    ARCHIVES,
    LAYOUTS,
    RATING,
    URL,
    find_layout,
    lacking_movies,
    lacking_ratings,
    read_movies,
    read_users,
    standard_names,
)
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.source import ROW_DIGEST, ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.text_vectors import text_vectors, words

PERIOD = Period("MovieLens", "1995-01-09", "2030-01-01")  # ml-latest is updated
LIKED = 4.0
CONTENT_WIDTH = 32
NO_GENRES = "(no genres listed)"
NOTES = (
    "MovieLens has no shown-and-ignored rows: every row is a rating, so click is constant (1) "
    "and teaches nothing; like is a rating of 4 and more",
    "many ratings are given in one sitting, which is the order of a form: use --session-gap 1d",
)
USER = ("user_gender", "user_age", "user_occupation", "user_zip")


def movielens_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be MovieLens.

    Returns:
        A message for every missing file or column; None if no file has ratings of MovieLens.
    """
    layout = find_layout(directory)
    if layout is None or lacking_ratings(directory, layout):
        return None
    return lacking_movies(directory, layout)


def movielens_source(directory: Path) -> LogSource:
    """Open MovieLens.

    Args:
        directory: directory of the files.

    Raises:
        BadInput: a file or a column is missing, or the times are not those of MovieLens.
    """
    # Files; missing ones are an error.
    layout = find_layout(directory)
    if layout is None:
        names = ", ".join(x.ratings for x in LAYOUTS)
        raise BadInput(
            f"{directory} lacks ratings ({names}); unpack one of {', '.join(ARCHIVES)} from {URL}"
        )
    lacking = [*lacking_ratings(directory, layout), *lacking_movies(directory, layout)]
    if lacking:
        raise BadInput("; ".join(lacking))
    ratings = DataFile(directory / layout.ratings, layout.ratings, reading=layout.reading)
    (time,) = (name for name in column_names(ratings) if name.lower() == "timestamp")
    PERIOD.require(read_column(ratings, time, 1 << 20), "s", f"{ratings.path}, column {time!r}")

    # Users are in memory, because every batch is joined with them.
    users = read_users(directory, layout)
    user_table = None if users is None else _users(users)
    convert = partial(_impressions, users=user_table)
    parts = tuple(converted(part, convert) for part in file_parts(ratings))
    used = [layout.ratings, layout.movies, *([layout.users] if users else [])]
    return LogSource(
        name="MovieLens",
        schema=_schema(users is not None),
        batches=chained(parts),
        rows=rows_in(ratings),
        description={
            "format": "movielens",
            "files": describe_files([directory / name for name in used]),
        },
        items=ItemSource.from_batch(_movies(read_movies(directory, layout))),
        names={"member_id": "userId", "item_id": "movieId", "timestamp_ms": "timestamp"},
        parts=parts,
    )


def _schema(users: bool) -> LogSchema:
    columns = {
        "item_id": Column("categorical"),
        "genres": Column("bag"),
        "year": Column("numeric"),
        "content": Column("vector", width=CONTENT_WIDTH),
        "rating": Column("numeric", outcome=True),
    }
    for name in USER if users else ():
        columns[name] = Column("numeric" if name == "user_age" else "categorical")
    return LogSchema(("click", "like"), columns, notes=NOTES)


def _impressions(batch: LogBatch, users: pl.DataFrame | None) -> LogBatch:
    batch = replace(batch, frame=standard_names(batch.frame, RATING))
    types = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
    batch = with_types(batch, types)
    frame = batch.frame
    if users is not None:
        frame = frame.join(users, "userId", how="left", maintain_order="left")
    frame = frame.select(
        ROW_DIGEST,
        *(USER if users is not None else ()),
        member_id="userId",
        item_id="movieId",
        timestamp_ms=pl.col("timestamp") * 1000,
        click=pl.lit(1, pl.Int8),
        like=pl.col("rating") >= LIKED,
        rating="rating",
    )
    return replace(batch, frame=frame)


def _users(batch: LogBatch) -> pl.DataFrame:
    frame = with_types(batch, {"userId": pl.Int64, "user_age": pl.Float64}).frame
    return frame.select("userId", *USER).unique("userId", keep="first", maintain_order=True)


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


MOVIELENS = Adapter(
    name="movielens",
    title="MovieLens 100K to 32M and latest (GroupLens): ratings of movies",
    open=movielens_source,
    lacking=movielens_marks,
    files={
        "ratings.csv, movies.csv": "ratings and movies of 20M, 25M, 32M and latest",
        "ratings.dat, movies.dat": "ratings and movies of 1M and 10M",
        "users.dat": "users of 1M (optional)",
        "u.data, u.item": "ratings and movies of 100K",
        "u.user": "users of 100K (optional)",
    },
    impression="a rating: there are no rows that were shown and ignored",
    session="a pause (--session-gap); use a day, because many ratings are given in one sitting",
    actions="like is a rating of at least 4; click is constant",
    outcomes="rating",
    refused="tags, links and genome scores; u1.base and the other splits of 100K, which mix times",
    obtain=f"{URL} (GroupLens terms: no redistribution without permission)",
    archives={
        f"movielens-{file[3:].removesuffix('.zip')}": Archive(URL + file, checksum)
        for file, checksum in ARCHIVES.items()
    },
)
