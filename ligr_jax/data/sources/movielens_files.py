"""The files of MovieLens in every release of GroupLens.

100K                    u.data, u.item, u.user              tabs and |, Latin-1
1M                      ratings.dat, movies.dat, users.dat  ::, Latin-1
10M                     ratings.dat, movies.dat             ::, UTF-8, half stars
20M, 25M, 32M, latest   ratings.csv, movies.csv             header, UTF-8, half stars
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from ligr_jax.data.sources.files import column_names, read_whole
from ligr_jax.data.sources.source import LogBatch
from ligr_jax.data.sources.text_options import TextOptions

URL = "https://files.grouplens.org/datasets/movielens/"
ARCHIVES = {  # published checksums
    "ml-100k.zip": "md5:0e33842e24a9c977be4e0107933c0723",
    "ml-1m.zip": "md5:c4d9eecfca2ab87c1945afe126590906",
    "ml-10m.zip": "md5:ce571fd55effeba0271552578f2648bd",
    "ml-20m.zip": "md5:cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m.zip": "md5:6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m.zip": "md5:d472be332d4daa821edc399621853b57",
    # The release of September 2018; GroupLens may replace it.
    "ml-latest-small.zip": (
        "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"
    ),
}
RATING = ("userId", "movieId", "rating", "timestamp")
MOVIE = ("movieId", "title", "genres")
GENRES = (  # the last columns of u.item
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller"),
    *("War", "Western"),
)


@dataclass(frozen=True)
class ReleaseFiles:
    """Files of a release.

    Attributes:
        ratings, movies: names of the files.
        reading: how `ratings` is read.
        separator: separator of `movies` and `users`, which have no header; "" for CSV files.
        movie: columns of `movies`.
        users: name of the optional file of users, or "".
        user: columns of `users`.
    """

    ratings: str
    movies: str
    reading: TextOptions = field(default_factory=TextOptions)
    separator: str = ""
    movie: tuple[str, ...] = MOVIE
    users: str = ""
    user: tuple[str, ...] = ()


LAYOUTS = (
    ReleaseFiles(ratings="ratings.csv", movies="movies.csv"),
    ReleaseFiles(
        ratings="ratings.dat",
        movies="movies.dat",
        reading=TextOptions("::", names=RATING),
        separator="::",
        users="users.dat",
        user=("userId", "user_gender", "user_age", "user_occupation", "user_zip"),
    ),
    ReleaseFiles(
        ratings="u.data",
        movies="u.item",
        reading=TextOptions("\t", names=RATING),
        separator="|",
        movie=("movieId", "title", "released", "video_released", "imdb", "unknown", *GENRES),
        users="u.user",
        user=("userId", "user_age", "user_gender", "user_occupation", "user_zip"),
    ),
)


def find_layout(directory: Path) -> ReleaseFiles | None:
    """Return the layout of the ratings in a directory, or None if there are no ratings."""
    return next((x for x in LAYOUTS if (directory / x.ratings).is_file()), None)


def lacking_ratings(directory: Path, layout: ReleaseFiles) -> list[str]:
    """Return a message if the ratings lack a column, or []."""
    file, reading = directory / layout.ratings, layout.reading
    if reading.names:
        return _lacking_fields(file, reading.delimiter, reading.names)
    return _lacking_columns(file, RATING)


def lacking_movies(directory: Path, layout: ReleaseFiles) -> list[str]:
    """Return a message if the file of movies or one of its columns is missing, or []."""
    file = directory / layout.movies
    if not file.is_file():
        return [f"{directory} lacks {file.name}; unpack one of {', '.join(ARCHIVES)} from {URL}"]
    if layout.separator:
        return _lacking_fields(file, layout.separator, layout.movie)
    return _lacking_columns(file, MOVIE)


def read_movies(directory: Path, layout: ReleaseFiles) -> LogBatch:
    """Return the movies, with the columns movieId, title and genres (text, separated by |)."""
    file = directory / layout.movies
    if not layout.separator:
        movies = read_whole(file)
        return replace(movies, frame=standard_names(movies.frame, MOVIE))
    movies = _read_fields(file, layout.separator, layout.movie)
    if "genres" in layout.movie:
        return movies
    # Genres are columns of 0 and 1. A movie of unknown genre has none.
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True)
    genres = pl.when(genres != "").then(genres)
    return replace(movies, frame=movies.frame.select("movieId", "title", genres=genres))


def read_users(directory: Path, layout: ReleaseFiles) -> LogBatch | None:
    """Return the users, with the columns `layout.user`, or None if the release has none."""
    if not layout.users or not (directory / layout.users).is_file():
        return None
    return _read_fields(directory / layout.users, layout.separator, layout.user)


def standard_names(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return a frame whose header may be in another case, with the names of `columns`."""
    standard = {name.lower(): name for name in columns}
    return frame.rename({c: standard.get(c.lower(), c) for c in frame.columns})


def _read_fields(file: Path, separator: str, fields: Sequence[str]) -> LogBatch:
    """Read a small file without a header, in UTF-8 or else Latin-1."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    # Latin-1 has a line separator (0x85) that `splitlines` would split at.
    lines = pl.Series(text.removesuffix("\n").split("\n"), dtype=pl.String).str.strip_suffix("\r")
    parts = lines.str.split(separator)
    frame = pl.DataFrame({n: parts.list.get(k, null_on_oob=True) for k, n in enumerate(fields)})
    empty_as_null = pl.all().replace("", None)
    return LogBatch(file.name, 1, frame.with_columns(empty_as_null), text=True)


def _lacking_fields(file: Path, separator: str, fields: Sequence[str]) -> list[str]:
    with file.open(encoding="latin-1") as lines:
        found = lines.readline().count(separator) + 1
    if found == len(fields):
        return []
    return [f"{file} has {found} fields in its first line; MovieLens has {[*fields]}"]


def _lacking_columns(file: Path, columns: Sequence[str]) -> list[str]:
    present = column_names(file)
    lowered = [name.lower() for name in present]
    missing = [name for name in columns if name.lower() not in lowered]
    if not missing:
        return []
    return [
        f"{file} lacks the columns {missing} of MovieLens (its columns are {present}); unpack one "
        f"of {', '.join(ARCHIVES)} from {URL}, or read another table with --format table and "
        "--actions"
    ]
