"""Assigned ids: file format, and ids that depend only on an item's vector."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ligr_jax.cli import main
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.sid.corpus import Corpus, item_ids, open_corpus
from ligr_jax.sid.measure import quality
from ligr_jax.sid.model import load_model
from tests.sid.corpora import clusters, write_items

TRAIN = ["--levels", "3", "--codes", "8", "--batch", "64", "--steps", "20"]
TRAIN += ["--latent", "3", "--hidden", "16"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with items.parquet and model/."""
    place = tmp_path_factory.mktemp("sid")
    x = clusters()
    x[5] = 0  # an item without content
    items = write_items(place / "items.parquet", x)
    assert main(["sid", "train", str(items), "--out", str(place / "model"), *TRAIN]) == 0
    return place


def assigned(model: Path, source: Path, out: Path) -> pa.Table:
    assert main(["sid", "assign", str(model), str(source), "--out", str(out)]) == 0
    return pq.read_table(out)


def test_file_has_the_documented_columns_and_metadata(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = assigned(trained / "model", trained / "items.parquet", tmp_path / "ids.parquet")
    assert table.schema.names == ["item_id", "c1", "c2", "c3"]
    assert table.schema.types == [pa.int64(), *[pa.int32()] * 3]
    about = json.loads((trained / "model" / "model.json").read_text())
    metadata = table.schema.metadata
    assert metadata[b"sid_digest"].decode() == about["digest"] in capsys.readouterr().out
    assert (metadata[b"sid_codes"], metadata[b"sid_levels"]) == (b"8", b"3")
    assert table["item_id"].to_pylist() == [1000 + i for i in range(600) if i != 5]
    codes = np.stack([table[c].to_numpy() for c in ("c1", "c2", "c3")])
    assert codes.min() >= 0
    assert codes.max() < 8


def test_a_new_item_gets_the_ids_of_its_vector_from_the_frozen_model(
    trained: Path, tmp_path: Path
) -> None:
    old = assigned(trained / "model", trained / "items.parquet", tmp_path / "old.parquet")
    like = clusters()[[7, 3]]
    fresh = write_items(tmp_path / "new.parquet", like, np.array(["new", "newer"]))
    new = assigned(trained / "model", fresh, tmp_path / "ids.parquet")
    for column in ("c1", "c2", "c3"):
        kept = dict(zip(old["item_id"].to_pylist(), old[column].to_pylist()))
        assert new[column].to_pylist() == [kept[1007], kept[1003]]


def test_prepared_data_is_a_source(prepared: Path, tmp_path: Path) -> None:
    records = Records(prepared)
    (name,) = (n for n, c in records.manifest.columns.items() if c.kind == "vector")
    model = tmp_path / "model"
    assert main(["sid", "train", str(prepared), "--column", name, "--out", str(model), *TRAIN]) == 0
    table = assigned(model, prepared, tmp_path / "ids.parquet")
    assert records.manifest.items is not None
    assert 0 < len(table) <= records.manifest.items.members
    assert set(table["item_id"].to_pylist()) <= set(records.feature("item_id").tolist())


def test_vectors_of_another_width_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, out = write_items(tmp_path / "wide.parquet", clusters(width=7)), tmp_path / "ids.parquet"
    assert main(["sid", "assign", str(trained / "model"), str(wide), "--out", str(out)]) == 1
    assert "vectors of 7 numbers, but the model was trained on 6" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [wide]


def test_a_model_that_changed_is_refused(trained: Path, tmp_path: Path) -> None:
    for file in (trained / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    arrays = dict(np.load(tmp_path / "model.npz"))
    arrays["codebooks"] = arrays["codebooks"] + 1
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(BadInput, match="train again"):
        load_model(tmp_path)


def test_the_measures_equal_a_count_by_hand() -> None:
    """Vectors a a b c d: a twice; b and c share a tuple; d has its own."""
    codes = np.array([[0, 1], [0, 1], [2, 2], [2, 2], [0, 2]], np.int32)
    found = quality(codes, np.array([7, 7, 8, 9, 10], np.uint64), 4)
    assert (found.items, found.vectors, found.equal, found.tuples) == (5, 4, 2, 3)
    assert found.unique == 2 / 4
    assert (found.bucket, found.bucket_items) == (2, 2)
    assert found.used == (2 / 4, 2 / 4)
    shares = np.array([3, 2]) / 5
    entropy = -(shares * np.log(shares)).sum()
    np.testing.assert_allclose(found.perplexity, np.exp([entropy, entropy]))


def broken(kind: str) -> tuple[pa.Table, str]:
    x, ids = clusters(4).astype(np.float32), pa.array([1, 2, 3, 4])
    content = pa.array(x.tolist(), pa.list_(pa.float32()))
    if kind == "twice":
        return pa.table({"item_id": [1, 2, 1, 4], "content": content}), "row 3.*value 1 is there"
    if kind == "no id":
        return pa.table({"item_id": [1, None, 3, 4], "content": content}), "row 2.*null"
    if kind == "not finite":
        x[2, 1] = np.inf
        content = pa.array(x.tolist(), pa.list_(pa.float32()))
        return pa.table({"item_id": ids, "content": content}), "row 3.*holds inf"
    if kind == "length":
        rows = [*x.tolist()[:3], [1.0]]
        content = pa.array(rows, pa.list_(pa.float32()))
        return pa.table({"item_id": ids, "content": content}), "row 4.*1 numbers where row 1 has 6"
    if kind == "numbers":
        return pa.table({"item_id": ids, "content": [1, 2, 3, 4]}), "no vectors"
    if kind == "zeros":
        content = pa.array((0 * x).tolist(), pa.list_(pa.float32()))
        return pa.table({"item_id": ids, "content": content}), "no item has a vector"
    return pa.table({"item_id": ids, "other": content}), "no column 'content'"


@pytest.mark.parametrize(
    "kind", ["twice", "no id", "not finite", "length", "numbers", "zeros", "column"]
)
def test_bad_vectors_are_refused_with_their_row(kind: str, tmp_path: Path) -> None:
    table, words = broken(kind)
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(BadInput, match=words):
        open_corpus(tmp_path / "items.parquet", "content")


def test_a_corpus_may_be_empty() -> None:
    """Prepared data whose items all lack content; `open_corpus` then says so."""
    assert len(Corpus(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), "")) == 0


def test_ids_are_those_of_prepare() -> None:
    """Item vectors keyed by text join logs keyed by integers."""
    assert item_ids(pl.Series(["17", " 18", "19.0"]), "items").tolist() == [17, 18, 19]
