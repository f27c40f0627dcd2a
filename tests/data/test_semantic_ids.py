"""Laws of semantic ids as item features: they equal a simple join of table and data."""

import errno
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.assemble import Assembler, default_features
from ligr_jax.data.manifest import MISSING, ColumnStats, load_manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.attach import attach_semantic_ids
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.semantic_ids import CODES, MODEL, prefix_ids
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.files import read_items
from ligr_jax.ops.hashing import hash_rows
from tests.data.logs import ACTIONS, write_log

K = 200  # the ids of the third level are too many for a row each
NAMES = ["sid1", "sid2", "sid3"]


def write_ids(path: Path, table: pl.DataFrame, k: object = K, **metadata: str) -> Path:
    """Write a table as `ligr sid assign` does, in row groups of seven."""
    arrow = table.to_arrow()
    raw = {CODES: str(k).encode(), MODEL: b"0123456789ab"}
    raw |= {name.encode(): value.encode() for name, value in metadata.items()}
    pq.write_table(arrow.replace_schema_metadata(raw), path, row_group_size=7)
    return path


def codes_of(items: range, seed: int = 0) -> pl.DataFrame:
    codes = np.random.default_rng(seed).integers(0, K, (len(items), 3))
    columns = {f"c{i + 1}": pl.Series(codes[:, i], dtype=pl.Int32) for i in range(3)}
    return pl.DataFrame({"item_id": items, **columns}).sample(fraction=1, shuffle=True, seed=seed)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Semantic ids of items 4..37; the data has items 0..29."""
    return codes_of(range(4, 38))


@pytest.fixture(scope="module")
def attached(prepared: Path, table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sid")
    attach_semantic_ids(write_ids(directory / "ids.parquet", table), prepared, directory / "out")
    return directory / "out"


def expected(table: pl.DataFrame, item_id: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of impressions of items, by a dictionary and Python integers."""
    out: dict[int, tuple[int, ...]] = {}
    for item, a, b, c in table.select("item_id", "c1", "c2", "c3").iter_rows():
        out[item] = (a, a * K + b, (a * K + b) * K + c)
    rows = [out.get(i, (MISSING,) * 3) for i in item_id.ravel().tolist()]
    return {n: np.array(rows)[:, i].reshape(item_id.shape) for i, n in enumerate(NAMES)}


def test_prefixes_enumerate_the_tuples() -> None:
    """Every prefix has one id, all ids of its range are used, and none overflows."""
    tuples = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    ids = prefix_ids(tuples.astype(np.int16), 3)
    for level in range(3):
        np.testing.assert_array_equal(ids[:, level], np.arange(27) // 3 ** (2 - level))
    last = prefix_ids(np.full((1, 3), 2047, np.int32), 2048)
    assert last.tolist() == [[2047, 2048**2 - 1, 2048**3 - 1]]
    assert last[0, 2] > 2**32


def test_every_impression_has_the_prefixes_of_its_item(attached: Path, table: pl.DataFrame) -> None:
    records = Records(attached)
    item = records.feature("item_id")
    index = np.random.default_rng(0).integers(0, len(records), (17, 5))
    edge = records.manifest.splits["train"].end_ms
    in_train = records.column("timestamp_ms") < edge
    for name, wanted in expected(table, item).items():
        taken = records.feature(name, index)
        assert taken.dtype == np.int64
        np.testing.assert_array_equal(taken, wanted[index])
        assert (taken == MISSING).any()
        values = np.unique(wanted)
        counts = records.train_counts(name, values)
        assert counts.tolist() == [(wanted[in_train] == v).sum() for v in values]
        level = NAMES.index(name) + 1
        assert records.manifest.columns[name] == ColumnStats(
            "categorical",
            distinct=len(set(wanted.tolist()) - {MISSING}),
            missing=float((wanted[in_train] == MISSING).mean()),
            id_range=K**level,
        )


def test_all_other_columns_are_unchanged(prepared: Path, attached: Path) -> None:
    old, new = Records(prepared), Records(attached)
    everything = np.arange(len(old))
    for name in old.manifest.columns:
        np.testing.assert_array_equal(old.feature(name, everything), new.feature(name, everything))
    for shard in new.manifest.shards:
        assert os.path.samefile(prepared / shard.file, attached / shard.file)
    assert "id_range" not in (prepared / "manifest.json").read_text()
    assert "3 levels of 200 codes by model 0123456789ab" in new.manifest.notes[-1]
    assert new.manifest.digest != old.manifest.digest
    same = ("actions", "splits", "shards", "counts", "truth")
    assert all(getattr(new.manifest, n) == getattr(old.manifest, n) for n in same)


def test_features_are_looked_up_by_prefix(attached: Path, table: pl.DataFrame) -> None:
    records = Records(attached)
    features = {n: f for n, f in default_features(records.manifest.columns).items() if n in NAMES}
    assert features == {
        "sid1": Feature(rows=K + 1, lookup="direct"),
        "sid2": Feature(rows=K**2 + 1, lookup="direct"),
        "sid3": Feature(rows=10**6),
    }
    plan = make_packing_plan(records, "train", 128)
    rows = np.append(np.arange(len(plan)), -1)
    batch = Assembler(records, plan, ModelConfig(features=features, actions=ACTIONS))(rows)
    index = plan.gather(rows)[0]
    real = index >= 0
    wanted = expected(table, records.feature("item_id")[index[real]])
    for name, ids in wanted.items():
        direct = features[name].lookup == "direct"
        there = ids + 1 if direct else hash_rows(ids, 10**6)
        np.testing.assert_array_equal(
            batch.ids[name][real], np.where(ids == MISSING, 0, there), err_msg=name
        )
        assert (batch.ids[name][~real] == 0).all()


def test_files_are_copied_if_they_cannot_be_linked(
    prepared: Path, attached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    ids = attached.parent / "ids.parquet"
    assert attach_semantic_ids(ids, prepared, tmp_path / "out") == load_manifest(attached)
    for file in attached.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
        assert not os.path.samefile(file, tmp_path / "out" / file.name)


def test_complete_output_is_reused_and_another_is_refused(
    prepared: Path, attached: Path, tmp_path: Path
) -> None:
    ids, out = attached.parent / "ids.parquet", tmp_path / "out"
    made = attach_semantic_ids(ids, prepared, out)
    before = (out / "items.arrow").stat()
    assert attach_semantic_ids(ids, prepared, out) == made
    assert (out / "items.arrow").stat() == before
    other = write_ids(tmp_path / "other.parquet", codes_of(range(30), seed=1))
    with pytest.raises(BadInput, match=r"prepared from other inputs.*semantic_ids.*--overwrite"):
        attach_semantic_ids(other, prepared, out)
    assert attach_semantic_ids(other, prepared, out, overwrite=True).digest != made.digest
    (out / "items.arrow").unlink()
    with pytest.raises(BadInput, match=r"items\.arrow is missing.*--overwrite"):
        attach_semantic_ids(other, prepared, out)
    with pytest.raises(BadInput, match=r"already has .*'sid1'"):
        attach_semantic_ids(ids, attached, tmp_path / "twice")
    with pytest.raises(BadInput, match="is the prepared data itself"):
        attach_semantic_ids(ids, prepared, prepared)


def test_semantic_ids_do_not_depend_on_labels(tmp_path: Path, table: pl.DataFrame) -> None:
    """They come from content: inverting every label gives the same columns."""
    ids, made = write_ids(tmp_path / "ids.parquet", table), []
    for name in ("as it was", "turned"):
        log = tmp_path / name
        write_log(log, rows=600, vector=4)
        if name == "turned":
            path = log / "impressions-00000.parquet"
            turned = pl.read_parquet(path).with_columns(pl.col(*ACTIONS) == 0)
            turned.write_parquet(path)
        prepare(canonical_source(log), log / "prepared", PrepareOptions())
        manifest = attach_semantic_ids(ids, log / "prepared", log / "out")
        assert manifest.splits["train"].positive_rate
        made.append((manifest.columns, (log / "out" / "items.arrow").read_bytes()))
    assert made[0] == made[1]


def bad(table: pl.DataFrame, column: str, value: int | None) -> pl.DataFrame:
    """Return the table with a value in row 20."""
    return table.with_columns(
        pl.when(pl.int_range(pl.len()) == 19).then(value).otherwise(column).alias(column)
    )


@pytest.mark.parametrize(
    ("change", "k", "message"),
    [
        (lambda t: bad(t, "c2", K), K, rf"row 20, column 'c2': value {K}, but .* in 0..199"),
        (lambda t: bad(t, "c1", -1), K, r"row 20, column 'c1': value -1"),
        (lambda t: bad(t, "c3", None), K, r"row 20, column 'c3': value None"),
        (lambda t: bad(t, "item_id", None), K, r"row 20, column 'item_id': value None"),
        (
            lambda t: bad(t, "item_id", t.row(3)[0]),
            K,
            r"row 20, column 'item_id': value \d+ occurs twice",
        ),
        (
            lambda t: bad(t, "item_id", t.row(18)[0]),
            K,
            r"row 20, column 'item_id': value \d+ occurs twice",
        ),
        (lambda t: t.with_columns(item_id=pl.col("item_id") + 100), K, "none of its items.*30"),
        (lambda t: t.drop("item_id"), K, "no column 'item_id'"),
        (lambda t: t.drop("c2"), K, "no column 'c2' among"),
        (lambda t: t.select("item_id"), K, "no column 'c1' among"),
        (lambda t: t.cast({"c1": pl.Float32}), K, "column 'c1': type float, expected integers"),
        (lambda t: t, "", r"metadata sid_codes='', .*ligr sid assign"),
        (lambda t: t, 3_000_000, r"K\^3 < 2\^63"),
    ],
)
def test_a_bad_table_is_a_clear_error(
    prepared: Path,
    table: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change,
    k: object,
    message: str,
) -> None:
    few = partial(read_items, batch_rows=7)  # a repeated item is in one batch or in two
    monkeypatch.setattr("ligr_jax.data.semantic_ids.read_items", few)
    in_data_first = table.sort(pl.col("item_id") >= 30)
    ids = write_ids(tmp_path / "ids.parquet", change(in_data_first), k)
    with pytest.raises(BadInput, match=message) as error:
        attach_semantic_ids(ids, prepared, tmp_path / "out")
    assert "ids.parquet" in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_data_without_an_item_table_is_refused(tmp_path: Path, table: pl.DataFrame) -> None:
    write_log(tmp_path / "log")
    prepare(canonical_source(tmp_path / "log"), tmp_path / "prepared", PrepareOptions())
    ids = write_ids(tmp_path / "ids.parquet", table)
    with pytest.raises(BadInput, match="has no item table; prepare the data with an item table"):
        attach_semantic_ids(ids, tmp_path / "prepared", tmp_path / "out")
    (tmp_path / "text.parquet").write_text("item_id,c1")
    with pytest.raises(BadInput, match="not a readable Parquet file"):
        attach_semantic_ids(tmp_path / "text.parquet", tmp_path / "prepared", tmp_path / "out")


def test_default_rows_fit_the_codes() -> None:
    """Every id has a row if there are at most 2^20 ids, even if the log has only a few of them."""
    stats = ColumnStats("categorical", distinct=40)
    for k, rows in ((32, [33, 1025, 32_769]), (1000, [1001, 10**6 + 1, 10**6]), (1024, None)):
        columns = {f"sid{n}": replace(stats, id_range=k**n) for n in (1, 2, 3)}
        features = list(default_features(columns).values())
        assert rows is None or [f.rows for f in features] == rows
        assert all(f.rows == 10**6 if f.lookup == "hash" else f.rows > k for f in features)
        assert features[1].lookup == "direct"
