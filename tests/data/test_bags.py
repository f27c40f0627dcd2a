"""Laws of bags, several ids per impression, from a file to a batch."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import MISSING, PLACES, Manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import Column, LogSchema, save_schema
from ligr_jax.data.sources import parse
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.data.sources.source import LogBatch, LogSource

START_MS = 1_650_000_000_000
WORDS = [f"w{k}" for k in range(40)]
BIG = [5, 2**63 + 7, 2**64 - 1]
Bag = list[str | None] | None


def hashed(words: Bag) -> list[int]:
    """Return the ids of a bag, computed one by one."""
    return [int(to_ids(pl.Series([w]))[0]) for w in words or () if w is not None]


def test_bags_equal_their_lists() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.integers(-9, 9, n).tolist() for n in rng.integers(0, 6, 50)]
    bags = Bags.from_lengths(
        np.array([len(x) for x in lists]), np.concatenate(lists).astype(np.int64)
    )
    again = Bags.from_arrow(bags.to_arrow().slice(3, 40))
    for made, wanted in ((bags, lists), (again, lists[3:43])):
        rows = rng.integers(0, len(wanted), (7, 5))
        assert made.to_series("b").to_list() == wanted
        assert made[rows.ravel()].to_series("b").to_list() == [wanted[r] for r in rows.ravel()]
        for size in (1, 3, 9):
            padded = [(wanted[r] + [MISSING] * size)[:size] for r in rows.ravel()]
            assert made.padded(rows, size).reshape(-1, size).tolist() == padded
    nothing = Bags.empty(3)
    assert (nothing.padded(np.array([0, 2]), 2) == MISSING).all()
    assert len(nothing[np.zeros(0, np.int64)]) == 0


def write(directory: Path, log: pl.DataFrame, items: pl.DataFrame, csv: bool) -> None:
    directory.mkdir()
    for name, frame in (("log", log), ("items", items)):
        if csv:
            text = pl.col(pl.List(pl.String)).list.join(";", ignore_nulls=True)
            frame.with_columns(text).write_csv(directory / f"{name}.csv")
        else:
            frame.write_parquet(directory / f"{name}.parquet", row_group_size=37)
    columns = {
        "item_id": Column("categorical"),
        "first_word": Column("categorical"),
        "first_tag": Column("categorical"),
        "words": Column("bag", separator=";"),
        "tags": Column("bag", separator=";"),
        "content": Column("vector", width=2),
    }
    suffix = "csv" if csv else "parquet"
    save_schema(LogSchema(("click",), columns, items=f"items.{suffix}"), directory)


@pytest.mark.parametrize("csv", [False, True], ids=["parquet", "csv"])
def test_prepared_bags_equal_those_of_log_and_item_table(tmp_path: Path, csv: bool) -> None:
    rng = random.Random(0)

    def bag() -> Bag:
        # Repeated ids are kept, one bag is long, and null ids are dropped.
        words: list[str | None] = [*rng.choices(WORDS, k=rng.choice([1, 2, 5])), None]
        return rng.choice([None, [], words, words])

    n = 300
    words = [bag() for _ in range(n)]
    words[17] = WORDS[:1] * 100
    tags = [bag() for _ in range(12)]
    tags[2] = None
    content: list[str | None] = ["0.5,1.5"] * 12
    content[2] = content[3] = None
    words_type = pl.List(pl.String)
    log = pl.DataFrame(
        {
            "member_id": [rng.randrange(9) for _ in range(n)],
            "timestamp_ms": [START_MS + k for k in range(n)],
            "item_id": [rng.randrange(10) for _ in range(n)],
            "words": pl.Series(words, dtype=words_type),
            "click": 1,
        }
    )
    items = pl.DataFrame(
        {"item_id": range(12), "tags": pl.Series(tags, dtype=words_type), "content": content}
    )
    log = log.with_columns(first_word=pl.col("words").list.first())
    items = items.with_columns(first_tag=pl.col("tags").list.first())
    write(tmp_path / "log", log, items, csv)
    options = PrepareOptions(fractions=(1, 0, 0), shard_rows=100, batch_rows=41)
    manifest = prepare(canonical_source(tmp_path / "log"), tmp_path / "out", options)
    records = Records(tmp_path / "out")
    assert len(manifest.shards) > 1

    row = records.column("timestamp_ms") - START_MS
    index = np.random.default_rng(0).integers(0, n, (8, 30))
    item = log["item_id"].to_numpy()[row]
    for size in (1, 4, 128):
        taken = records.bag("words", index, size), records.bag("tags", index, size)
        for at in np.ndindex(index.shape):
            ours, theirs = words[row[index[at]]], tags[item[index[at]]]
            for found, bag_ in zip(taken, (ours, theirs)):
                assert found[at].tolist() == (hashed(bag_) + [MISSING] * size)[:size]
        for one, first in (("first_word", taken[0]), ("first_tag", taken[1])):
            np.testing.assert_array_equal(records.feature(one, index), first[..., 0])
    has_vector = np.array([c is not None for c in content])[item]
    assert (records.feature("content", np.arange(n)).any(1) == has_vector).all()

    check_statistics(manifest, "words", words)
    check_statistics(manifest, "tags", [tags[i] for i in log["item_id"]])
    assert manifest.columns["content"].missing == pytest.approx(1 - has_vector.mean())
    assert Records(tmp_path / "out").manifest == manifest


def check_statistics(manifest: Manifest, name: str, bags: list[Bag]) -> None:
    stats, ids = manifest.columns[name], [hashed(b) for b in bags]
    assert (stats.kind, stats.longest) == ("bag", max(map(len, ids)))
    assert stats.distinct == len({i for b in ids for i in b})
    assert stats.missing == pytest.approx(sum(not b for b in ids) / len(ids))
    total = sum(map(len, ids))
    places = [sum(len(b) > k for b in ids) / total for k in range(min(stats.longest, PLACES))]
    np.testing.assert_allclose(stats.places, places)


def test_context_without_the_column_has_empty_bags(tmp_path: Path) -> None:
    schema = LogSchema(("click",), {"item_id": Column("categorical"), "words": Column("bag")})
    timed = {"member_id": [1, 1], "timestamp_ms": [START_MS] * 2, "item_id": [1, 2], "click": 1}
    words = pl.Series([["a", "b"], ["c"]])
    source = LogSource(
        name="made",
        schema=schema,
        batches=lambda *_: iter([LogBatch("log", 1, pl.DataFrame({**timed, "words": words}))]),
        rows=2,
        description={},
        context=lambda *_: iter(
            [LogBatch("earlier", 1, pl.DataFrame({"member_id": [1], "item_id": [3]}))]
        ),
    )
    prepare(source, tmp_path, PrepareOptions(fractions=(1, 0, 0)))
    taken = Records(tmp_path).bag("words", np.arange(3), 2)
    assert taken.tolist() == [[MISSING] * 2, hashed(["a", "b"]), [*hashed(["c"]), MISSING]]


def test_an_item_table_whose_bags_are_all_empty(tmp_path: Path) -> None:
    log = pl.DataFrame({"member_id": [1], "timestamp_ms": [START_MS], "item_id": 1, "click": 1})
    log = log.with_columns(words=pl.lit(["a"]))
    items = pl.DataFrame({"item_id": [1], "tags": pl.Series([[]], dtype=pl.List(pl.String))})
    write(tmp_path / "log", log, items.with_columns(content=pl.lit("1,2")), csv=False)
    schema = {"item_id": Column("categorical"), "tags": Column("bag")}
    save_schema(LogSchema(("click",), schema, items="items.parquet"), tmp_path / "log")
    options = PrepareOptions(fractions=(1, 0, 0))
    assert prepare(canonical_source(tmp_path / "log"), tmp_path / "out", options).items
    taken = Records(tmp_path / "out").bag("tags", np.zeros((2, 1), np.int64), 3)
    assert (taken == np.full((2, 1, 3), MISSING)).all()


def test_an_id_is_the_same_number_everywhere() -> None:
    """It does not depend on bags, types and text; ids above 2^63 keep their 64 bits."""
    for ids in (WORDS, BIG, [-4, 0, 7]):
        typed = pl.Series(ids, dtype=pl.UInt64 if ids is BIG else None)
        wanted = to_ids(typed)
        text = pl.Series(["|".join(map(str, ids))])
        for made in (parse.parse_bags(pl.Series([typed]))[0], parse.parse_bags(text, text=True)[0]):
            np.testing.assert_array_equal(made.values, wanted)
        np.testing.assert_array_equal(to_ids(typed.cast(pl.String), text=True), wanted)
        if ids is not WORDS:
            assert [int(i) % 2**64 for i in wanted] == [i % 2**64 for i in ids]
