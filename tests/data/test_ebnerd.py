"""EB-NeRD: pages become rows, histories become context, and times and files are checked."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import read_arrow, read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "ebnerd"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of EB-NeRD in {SAMPLE}")

PAGE_TYPES = {
    "impression_id": pl.UInt32,
    "user_id": pl.UInt32,
    "impression_time": pl.Datetime("us"),
    "session_id": pl.UInt32,
    "article_id": pl.Int32,
    "article_ids_inview": pl.List(pl.Int32),
    "article_ids_clicked": pl.List(pl.Int32),
    "read_time": pl.Float32,
    "scroll_percentage": pl.Float32,
    "next_read_time": pl.Float32,
    "next_scroll_percentage": pl.Float32,
    **dict.fromkeys(("device_type", "gender", "postcode", "age"), pl.Int8),
    **dict.fromkeys(("is_sso_user", "is_subscriber"), pl.Boolean),
}
HISTORY_TYPES = {
    "user_id": pl.UInt32,
    "impression_time_fixed": pl.List(pl.Datetime("us")),
    "scroll_percentage_fixed": pl.List(pl.Float32),
    "article_id_fixed": pl.List(pl.Int32),
    "read_time_fixed": pl.List(pl.Float32),
}
VISITOR = (2, None, None, 5, True, False)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2023, 5, day, hour, minute)


def frame(rows: list[tuple[Any, ...]], types: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=types, orient="row")


TRAIN = [
    (1, 1, at(19, 10), 5, None, [11, 12, 13], [12], 30, None, 40, 90, *VISITOR),
    (1, 1, at(19, 10), 5, None, [11, 12, 13], [12], 30, None, 40, 90, *VISITOR),
    (2, 1, at(25, 6, 50), 6, 12, [11], [11], 20, 50, 10, 80, *VISITOR),
]
VALIDATION = [
    (3, 1, at(25, 7, 5), 6, 11, [13, 12], [13, 12], 20, 50, 10, 80, *VISITOR),
    (4, 1, at(27, 8), 5, None, [13], None, 20, None, None, None, *VISITOR),
    (5, 2, at(28, 8), 5, None, [14], [14], 20, None, 7, None, *VISITOR),
    (6, 2, at(28, 9), 5, None, [11, 12], [11], 20, None, 7, None, *VISITOR),
]
HISTORIES = {
    "train": [(1, [at(10, 1), at(2, 1)], [80, None], [13, 11], [9, 8])],
    "validation": [(1, [at(20, 1)], [1], [12], [1]), (2, [at(20, 1)], [2], [12], [3])],
}
ARTICLES = pl.DataFrame(
    {
        "article_id": pl.Series([11, 12, 13], dtype=pl.Int32),
        "title": ["Storm over Jylland", "Fodbold i aften", None],
        "subtitle": ["Vejret", None, None],
        "published_time": [at(19, 4), at(19, 11), None],
        "category": pl.Series([118, 142, 142], dtype=pl.Int16),
        "subcategory": pl.Series([[1, 2], [], [3]], dtype=pl.List(pl.Int16)),
        "topics": [["Vejr"], ["Sport", "Bold"], []],
        "article_type": ["article_default"] * 3,
        "premium": [False, True, False],
        "sentiment_score": [0.5, 0.25, None],
        "last_modified_time": [at(30, 1)] * 3,
        "total_inviews": [10, 20, 30],
        "body": ["..."] * 3,
    }
)


def write_layout(directory: Path) -> None:
    pages = {"train": frame(TRAIN, PAGE_TYPES), "validation": frame(VALIDATION, PAGE_TYPES)}
    artificial = pl.Series([False, None, False, True])
    pages["validation"] = pages["validation"].with_columns(is_beyond_accuracy=artificial)
    for split, rows in pages.items():
        (directory / split).mkdir(parents=True)
        rows.write_parquet(directory / split / "behaviors.parquet")
        history = frame(HISTORIES[split], HISTORY_TYPES)
        history.write_parquet(directory / split / "history.parquet")
    ARTICLES.write_parquet(directory / "articles.parquet")


def test_a_page_becomes_a_row_per_article_in_view(tmp_path: Path) -> None:
    write_layout(tmp_path / "data" / "ebnerd_demo")
    source = open_source(tmp_path / "data")
    assert source.name == "EB-NeRD"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    assert manifest.counts["duplicates"] == 3  # the repeated page
    first, second = read_rows(tmp_path / "out" / manifest.shards[0].file)
    assert (first["member_id"], second["member_id"]) == (1, 2)
    assert first["item_id"] == [11, 13, 11, 12, 13, 11, 13, 12, 13]
    assert first["click"] == [1, 1, 0, 1, 0, 1, 1, 1, -1]
    nan = np.nan
    np.testing.assert_equal(
        [first[c][2:] for c in ("read_time_s", "scroll_percentage")],
        [[nan, 40, nan, 10, nan, nan, nan], [nan, 90, nan, 80, nan, nan, nan]],
    )
    assert first["page_read_time_s"][2:] == [30, 30, 30, 20, 20, 20, 20]
    assert first["page_article"][2:] == [MISSING] * 3 + [12, 11, 11, MISSING]
    assert first["hour"][2:] == [10, 10, 10, 6, 7, 7, 8]
    np.testing.assert_allclose(
        first["article_age_hours"][2:], [6, 0, nan, 146 + 5 / 6, nan, 140 + 1 / 12, nan], 1e-6
    )
    assert (first["device_type"][2], first["gender"][2], first["age"][2]) == (2, MISSING, 5)
    assert first["category"] == [118, 142, 118, 142, 142, 118, 142, 142, 142]
    # The page after 07:00 continues a session; the reused id of a later day does not.
    assert np.diff(first["session"][2:]).tolist() == [0, 0, 1, 0, 0, 1]
    # The artificial page is left out, and the article without a row in the table stays.
    assert (second["item_id"], second["click"]) == ([12, 14], [1, 1])
    assert manifest.counts["without_item"] == 1


def test_a_member_has_the_history_of_the_split_of_their_first_page(tmp_path: Path) -> None:
    write_layout(tmp_path)
    prepare(open_source(tmp_path), tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    first, second = read_rows(next((tmp_path / "out").glob("members-*")))
    assert [m["n_context"] for m in (first, second)] == [2, 1]
    assert first["timestamp_ms"][:3] == [-1, -1, 1684490400000]
    assert first["item_id"][:2] == [11, 13]  # in order of time
    np.testing.assert_equal(first["read_time_s"][:2], [8, 9])
    np.testing.assert_equal(first["scroll_percentage"][:2], [np.nan, 80])
    assert np.isnan(first["page_read_time_s"][:2]).all()
    assert second["item_id"][0] == 12


def rewrite(file: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def rewritten(directory: Path) -> None:
        change(pl.read_parquet(directory / file)).write_parquet(directory / file)

    return rewritten


def divided(name: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    milliseconds = (pl.col(name).cast(pl.Int64) // 1000).cast(pl.Datetime("us"))
    return lambda f: f.with_columns(milliseconds.alias(name))


PAGES = "validation/behaviors.parquet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewrite(PAGES, divided("impression_time")), "'impression_time'.*are milliseconds"),
        (
            rewrite(PAGES, lambda f: f.with_columns(pl.col("impression_time").dt.epoch("s"))),
            "column 'impression_time' has the type int64, and EB-NeRD has time values",
        ),
        (
            rewrite(
                PAGES, lambda f: f.with_columns(pl.col("impression_time") + pl.duration(days=99))
            ),
            "after the period of EB-NeRD.*another data set",
        ),
        (rewrite(PAGES, lambda f: f.drop("session_id")), r"lacks the columns \['session_id'\]"),
        (
            rewrite(
                "validation/history.parquet",
                lambda f: f.with_columns(pl.lit([at(25, 8)]).alias("impression_time_fixed")),
            ),
            "history.parquet, column 'impression_time_fixed': value 2023-05-25T08:00:00Z is after",
        ),
        (lambda d: (d / "articles.parquet").unlink(), "lacks articles.parquet"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    write_layout(tmp_path)
    change(tmp_path)
    with pytest.raises(BadInput, match=message):
        open_source(tmp_path, "ebnerd")


def test_one_of_several_sizes_has_to_be_named(tmp_path: Path) -> None:
    for size in ("ebnerd_demo", "ebnerd_small"):
        write_layout(tmp_path / size)
    with pytest.raises(BadInput, match=r"\['ebnerd_demo', 'ebnerd_small'\]\); give one"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    source = open_source(SAMPLE)
    manifest = prepare(source, tmp_path, PrepareOptions(batch_rows=7))
    pages = pl.concat(
        pl.read_parquet(SAMPLE / split / "behaviors.parquet").with_columns(split=pl.lit(split))
        for split in ("train", "validation")
    )
    counts = manifest.counts
    assert counts["impressions"] == pages["article_ids_inview"].list.len().sum()
    assert counts["sessions"] == pages.select("split", "user_id", "session_id").n_unique()
    history = pl.read_parquet(SAMPLE / "train" / "history.parquet")
    assert counts["context"] == history["article_id_fixed"].list.len().sum()
    rows = pl.DataFrame(read_rows(tmp_path / manifest.shards[0].file))
    clicks = rows.explode("timestamp_ms", "click").filter(pl.col("timestamp_ms") >= 0)
    assert clicks["click"].sum() == pages["article_ids_clicked"].list.len().sum()
    assert not np.isnan(read_arrow(tmp_path / "items.arrow")["content"].flatten()).any()
