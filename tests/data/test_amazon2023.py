"""Amazon Reviews 2023: ratings of JSON lines and of the benchmark's CSV files."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.amazon2023 import CONTENT_WIDTH
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import hash_strings
from tests.data.logs import read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "amazon2023"
TIME = 1_600_000_000_000
HOUR = 3_600_000
REVIEWS = [("A", "B1", 5.0, TIME), ("A", "007", 2.0, TIME + HOUR), ("B", "B1", 3.5, TIME)]
PRODUCTS: list[dict[str, object]] = [
    {"parent_asin": "B1", "title": "Red Soap", "main_category": "Beauty", "store": "S",
     "price": 12.5, "categories": ["Bath", "Soap"], "average_rating": 4.1, "rating_number": 9},
    {"parent_asin": "007", "title": "Blue Soap", "main_category": None, "store": None,
     "price": "from $1,014.99", "categories": [], "average_rating": 1.0, "rating_number": 1},
]  # fmt: skip
NAMES = ("user_id", "parent_asin", "rating", "timestamp")


def write_json(directory: Path, compressed: bool = False) -> None:
    directory.mkdir()
    more = {"title": "t", "text": "x", "images": [], "helpful_vote": 7, "verified_purchase": True}
    reviews = [{**dict(zip(NAMES, row)), **more} for row in REVIEWS]
    for name, rows in (("Soap", reviews), ("meta_Soap", PRODUCTS)):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = directory / f"{name}.jsonl{'.gz' if compressed else ''}"
        path.write_bytes(gzip.compress(text) if compressed else text)


def write_benchmark(directory: Path) -> Path:
    write_json(directory)
    (directory / "Soap.jsonl").unlink()
    (directory / "meta_categories").mkdir()
    (directory / "meta_Soap.jsonl").rename(directory / "meta_categories" / "meta_Soap.jsonl")
    place = directory / "benchmark" / "5core" / "timestamp_w_his"
    place.mkdir(parents=True)
    for split, rows in (("train", REVIEWS[:2]), ("test", REVIEWS[2:])):
        frame = pl.DataFrame(rows, orient="row", schema=NAMES).with_columns(
            history=pl.lit("B1 007")
        )
        frame.write_csv(place / f"Soap.{split}.csv")
    return place


def test_all_layouts_prepare_to_the_same_members(tmp_path: Path) -> None:
    write_json(tmp_path / "json")
    write_json(tmp_path / "gzip", compressed=True)
    places = [tmp_path / "json", tmp_path / "gzip", write_benchmark(tmp_path / "csv")]
    made = []
    for k, place in enumerate(places):
        source = open_source(place)
        assert source.name == "Amazon Reviews 2023"
        options = PrepareOptions(fractions=(1, 0, 0), session_gap_ms=24 * HOUR)
        manifest = prepare(source, tmp_path / f"out{k}", options)
        assert any("5-core" in note for note in manifest.notes) == (k == 2)
        members = read_rows(tmp_path / f"out{k}" / manifest.shards[0].file)
        made.append(sorted(members, key=lambda m: len(m["click"])))
    assert made[0] == made[1] == made[2]
    second, first = made[0]
    assert first["timestamp_ms"] == [TIME, TIME + HOUR]
    assert first["session"] == [0, 0]
    assert (first["click"], first["like"]) == ([1, 1], [1, 0])
    assert (first["rating"], second["rating"]) == ([5.0, 2.0], [3.5])
    assert first["item_id"] == hash_strings(pl.Series(["B1", "007"])).tolist()
    np.testing.assert_allclose(first["price"], [12.5, 1014.99])
    assert (first["store"][0] == MISSING, first["store"][1] == MISSING) == (False, True)
    assert not {"average_rating", "rating_number", "helpful_vote", "text"} & {*manifest.columns}
    records = Records(tmp_path / "out0")
    categories = records.bag("categories", np.arange(len(records)), 3)
    assert sorted((categories != MISSING).sum(1).tolist()) == [0, 2, 2]


def test_other_times_and_columns_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "in")
    path = tmp_path / "in" / "Soap.jsonl"
    text = path.read_text()
    path.write_text(text.replace(str(TIME), str(TIME // 1000)))
    with pytest.raises(BadInput, match=r"Soap.jsonl, column 'timestamp': .* the values are secon"):
        open_source(tmp_path / "in")
    path.write_text(text.replace("parent_asin", "item"))
    with pytest.raises(BadInput, match=r"lacks reviews"):
        open_source(tmp_path / "in", "amazon2023")
    path.write_text(text)
    path.with_name("Tools.jsonl").write_text('{"user_id": "A"}\n')
    with pytest.raises(BadInput, match=r"Tools.jsonl lacks \['parent_asin', 'rating', 'timestamp'"):
        open_source(tmp_path / "in")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Amazon Reviews 2023 in {SAMPLE}")
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    for name, place in (
        ("All_Beauty.jsonl", SAMPLE),
        ("All_Beauty.csv", SAMPLE / "benchmark" / "5core" / "rating_only"),
    ):
        source = open_source(place)
        manifest = prepare(source, tmp_path / name, PrepareOptions(session_gap_ms=24 * HOUR))
        file = place / name
        rows = pl.read_ndjson(file) if name.endswith("jsonl") else pl.read_csv(file)
        rows = rows.unique()
        assert manifest.counts["impressions"] == rows.height
        assert manifest.counts["members"] == rows["user_id"].n_unique()
        likes = sum(s.impressions * s.positive_rate["like"] for s in manifest.splits.values())
        assert round(likes) == (rows["rating"] >= 4).sum()
        assert manifest.counts["without_item"] == 0
        assert manifest.columns["content"].width == CONTENT_WIDTH
