"""MovieLens in all of its layouts, and the content vectors of its titles."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.data.sources.movielens import CONTENT_WIDTH
from ligr_jax.data.sources.movielens_files import GENRES
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.text_vectors import text_vectors
from tests.data.logs import DAY_MS, read_arrow, read_rows

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REAL, SAMPLE = DATA / "ml_latest_small", DATA / "samples" / "movielens_dat"

RATINGS = [(1, 10, 4.0, 978300760), (1, 20, 3.5, 978300760), (2, 10, 5.0, 978302109)]
MOVIES = [
    (10, "Toy Story (1995)", "Animation|Comedy"),
    (20, "Heat, the Story (1995)", "Comedy|Crime"),
    (30, "The Amélie", "(no genres listed)"),
]


def write_csv(directory: Path, lower: bool = False) -> None:
    directory.mkdir()
    for name, rows, header in (
        ("ratings", RATINGS, ["userId", "movieId", "rating", "timestamp"]),
        ("movies", MOVIES, ["movieId", "title", "genres"]),
    ):
        columns = [h.lower() for h in header] if lower else header
        frame = pl.DataFrame(rows, orient="row", schema=columns)
        frame.write_csv(directory / f"{name}.csv")


def write_dat(directory: Path, encoding: str = "latin-1") -> None:
    directory.mkdir()
    for name, rows in (("ratings", RATINGS), ("movies", MOVIES)):
        lines = ["::".join(map(str, r)) for r in rows]
        (directory / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding=encoding)


def write_100k(directory: Path) -> None:
    directory.mkdir()
    lines = ["\t".join(map(str, r)) for r in RATINGS]
    (directory / "u.data").write_text("\n".join(lines) + "\n")
    lines = []
    for movie, title, genres in MOVIES:
        flags = [int(g in genres.split("|")) for g in GENRES]
        cells = [movie, title, "01-Jan-1995", "", "http://us.imdb.com/", int(not any(flags))]
        lines.append("|".join(map(str, [*cells, *flags])))
    (directory / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "csv, lower-case header": partial(write_csv, lower=True),
    "1M": write_dat,
    "10M": partial(write_dat, encoding="utf-8"),
    "100K": write_100k,
}


def test_all_layouts_prepare_to_the_same_rows(tmp_path: Path) -> None:
    made = []
    for name, write in LAYOUTS.items():
        write(tmp_path / name)
        out = tmp_path / f"{name}-out"
        manifest = prepare(open_source(tmp_path / name), out, PrepareOptions(fractions=(1, 0, 0)))
        assert "no shown-and-ignored rows" in manifest.notes[0]
        made.append((name, manifest.shards, manifest.items))
    assert len({(shards, items) for _, shards, items in made}) == 1, made
    first = read_rows(out / manifest.shards[0].file)[0]
    assert first["timestamp_ms"] == [978300760000] * 2
    assert first["session"] == [0, 0]
    assert first["item_id"] == [10, 20]
    assert (first["click"], first["like"]) == ([1, 1], [1, 0])
    assert first["rating"] == [4.0, 3.5]
    assert first["year"] == [1995.0] * 2
    records = Records(out)
    genres = records.bag("genres", np.arange(len(records)), 3)
    words = pl.Series([["Animation", "Comedy"], ["Comedy", "Crime"], ["Animation", "Comedy"]])
    assert genres[:, :2].tolist() == [to_ids(w).tolist() for w in words]
    assert (genres[:, 2] == MISSING).all()


@pytest.mark.parametrize(
    ("write", "name", "user"),
    [(write_dat, "users.dat", "1::F::56::10::48067"), (write_100k, "u.user", "1|56|F|10|48067")],
)
def test_users_have_features(
    tmp_path: Path, write: Callable[[Path], None], name: str, user: str
) -> None:
    write(tmp_path / "ml")
    (tmp_path / "ml" / name).write_text(f"{user}\n")
    batch = next(open_source(tmp_path / "ml").batches(10, "error")).frame
    expected = [("F", 56.0, "10", "48067")] * 2 + [(None,) * 4]
    names = ("user_gender", "user_age", "user_occupation", "user_zip")
    assert batch.select(names).rows() == expected


def test_times_in_milliseconds_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "ml")
    path = tmp_path / "ml" / "ratings.csv"
    pl.read_csv(path).with_columns(pl.col("timestamp") * 1000).write_csv(path)
    with pytest.raises(
        BadInput, match=r"ratings.csv, column 'timestamp': .* the values are millis"
    ):
        open_source(tmp_path / "ml")


def test_missing_movies_are_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "ml")
    (tmp_path / "ml" / "movies.csv").unlink()
    with pytest.raises(BadInput, match=r"lacks movies.csv; unpack one of ml-100k.zip"):
        open_source(tmp_path / "ml")


def test_similar_texts_have_similar_vectors() -> None:
    texts = [["star", "wars", "scifi"], ["star", "trek", "scifi"], ["love", "story"], []]
    terms = pl.Series(texts * 5)
    vectors = text_vectors(terms, width=3)
    np.testing.assert_array_equal(vectors, text_vectors(terms, width=3))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0] * 5, atol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1
    assert not text_vectors(pl.Series([["one"]]), width=3).any()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no MovieLens in {REAL}")
def test_real_ratings_equal_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(REAL), tmp_path)
    ratings = pl.read_csv(REAL / "ratings.csv")
    assert manifest.counts["impressions"] == ratings.height == 100_836
    assert manifest.counts["members"] == 610
    likes = sum(s.impressions * s.positive_rate["like"] for s in manifest.splits.values())
    assert round(likes) == (ratings["rating"] >= 4).sum()
    assert manifest.columns["item_id"].distinct == ratings["movieId"].n_unique()
    assert manifest.items is not None
    assert manifest.items.members == 9_742
    items = read_arrow(tmp_path / "items.arrow")
    vectors = items["content"].flatten().to_numpy().reshape(-1, CONTENT_WIDTH)
    assert np.isfinite(vectors).all()
    assert vectors.std(axis=0).min() > 0.01


def test_a_directory_is_movielens_only_with_all_its_columns(tmp_path: Path) -> None:
    """Ratings with other columns are a table; the error names the file and the missing column."""
    write_csv(tmp_path / "ml")
    movies = tmp_path / "ml" / "movies.csv"
    pl.read_csv(movies).drop("genres").write_csv(movies)
    for format in ("auto", "movielens"):
        with pytest.raises(BadInput, match=r"movies.csv lacks the columns \['genres'\]"):
            open_source(tmp_path / "ml", format)
    own = tmp_path / "own"
    own.mkdir()
    columns = {"member_id": [1, 2], "item_id": [3, 4], "timestamp_ms": [1_700_000_000_000] * 2}
    pl.DataFrame({**columns, "click": [0, 1]}).write_csv(own / "ratings.csv")
    with pytest.raises(BadInput, match=r"format of the log is not known.*--format table"):
        open_source(own)
    assert open_source(own, columns=TableColumns(actions=("click",))).name == "table"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of MovieLens in {SAMPLE}")
def test_sample_of_1m_equals_direct_counts(tmp_path: Path) -> None:
    options = PrepareOptions(session_gap_ms=DAY_MS)
    manifest = prepare(open_source(SAMPLE), tmp_path / "out", options)
    lines = [line.split("::") for line in (SAMPLE / "ratings.dat").read_text().splitlines()]
    assert manifest.counts["impressions"] == len(lines) == 2152
    assert manifest.counts["members"] == len({user for user, *_ in lines}) == 40
    likes = sum(s.impressions * s.positive_rate["like"] for s in manifest.splits.values())
    assert round(likes) == sum(float(rating) >= 4 for _, _, rating, _ in lines)
    assert manifest.counts["without_item"] == 0
