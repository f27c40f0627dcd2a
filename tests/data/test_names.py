"""Laws of names: a column may have any name, and no name stands for another column."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.assemble import Assembler, default_features
from ligr_jax.data.batch import Batch
from ligr_jax.data.columns import stored_name
from ligr_jax.data.manifest import Manifest, load_manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.shards import write_batch
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.digests import digest_file
from tests.data.logs import ODD_FEATURES as FEATURES
from tests.data.logs import write_log, write_odd_log


def prepared_log(directory: Path) -> Records:
    prepare(canonical_source(directory), directory / "out", PrepareOptions(shard_rows=300))
    return Records(directory / "out")


def batch_of(records: Records, features: dict[str, Feature]) -> Batch:
    model = ModelConfig(features=features, actions=("click",))
    plan = make_packing_plan(records, "train", 32)
    return Assembler(records, plan, model)(np.arange(len(plan)))


def test_odd_names_change_only_their_own_features_of_a_batch(tmp_path: Path) -> None:
    write_odd_log(tmp_path / "odd")
    write_log(tmp_path / "plain", rows=600, members=12)
    odd, plain = prepared_log(tmp_path / "odd"), prepared_log(tmp_path / "plain")
    features = default_features(odd.manifest.columns)
    assert set(features) == {"item_id", *FEATURES}
    a = batch_of(odd, features)
    b = batch_of(plain, {"item_id": features["item_id"]})
    for field in ("member", "session", "time", "labels", "weight"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), field)
    np.testing.assert_array_equal(a.ids["item_id"], b.ids["item_id"])
    assert {*a.ids, *a.numeric} == {"item_id", *FEATURES}


def test_every_column_with_an_odd_name_equals_the_log(tmp_path: Path) -> None:
    schema = write_odd_log(tmp_path)
    records = prepared_log(tmp_path)
    rows = pl.read_parquet(tmp_path / "impressions-00000.parquet")
    rows = rows.with_columns(i=pl.int_range(len(rows)))
    place = {m: k for k, m in enumerate(records.member_ids.tolist())}
    keys = [(place[m], t, i) for m, t, i in rows.select("member_id", "timestamp_ms", "i").rows()]
    rows = rows[[i for _, _, i in sorted(keys)]]
    for name in ("item_id", *FEATURES):
        wanted = rows[name].to_numpy().astype(records.feature(name).dtype)
        np.testing.assert_array_equal(records.feature(name), wanted, name)
    for action in schema.actions:
        np.testing.assert_array_equal(records.label(action), rows[action].to_numpy())
    np.testing.assert_array_equal(records.take("weight", np.arange(len(records))), 1)


@pytest.mark.parametrize(
    ("actions", "features", "message"),
    [
        (("click",), ("",), "feature '': the name is empty"),
        (("click", " "), (), "action ' ': the name is empty"),
        (("click",), ("a\nb",), "feature 'a.nb': the name has control characters"),
        (("click", "a\x1fb"), (), "action 'a.x1fb': the name has control characters"),
        (("click",), ("age", " age"), "feature 'age': two columns have this name"),
        (("click", "click"), (), "action 'click': two columns have this name"),
    ],
)
def test_names_that_cannot_work_are_refused(
    actions: tuple[str, ...], features: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        LogSchema(actions, {n: Column("numeric") for n in features})


def test_a_column_of_the_log_is_not_both_feature_and_label(tmp_path: Path) -> None:
    write_odd_log(tmp_path, ("share",))
    for name in ("click", "share"):
        schema = LogSchema(("click", "share"), {n: Column("numeric") for n in ("item_id", name)})
        schema = LogSchema(schema.actions, {**schema.columns, "item_id": Column("categorical")})
        save_schema(schema, tmp_path)
        with pytest.raises(
            BadInput, match=rf"'{name}'.* an action and a feature, which leaks the label"
        ):
            prepared_log(tmp_path)


def test_an_items_feature_may_have_an_actions_name(tmp_path: Path) -> None:
    log = write_log(tmp_path, vector=4)
    items = pl.read_parquet(tmp_path / "items.parquet").with_columns(
        click=pl.col("item_id") * 10, session=pl.col("item_id") % 3
    )
    items.write_parquet(tmp_path / "items.parquet")
    columns = {n: Column("categorical") for n in ("item_id", "click", "session")}
    save_schema(LogSchema(("click", "like"), columns, items="items.parquet"), tmp_path)
    records = prepared_log(tmp_path)
    item = records.feature("item_id")
    np.testing.assert_array_equal(records.feature("click"), 10 * item)
    np.testing.assert_array_equal(records.feature("session"), item % 3)
    assert records.label("click").sum() == log["click"].sum()
    assert records.label("click").max() == 1


def as_version_1(directory: Path) -> None:
    """Convert a prepared directory to format version 1."""
    manifest = json.loads((directory / "manifest.json").read_text())
    for shard in [*manifest["shards"], *([manifest["items"]] if manifest["items"] else [])]:
        path = directory / shard["file"]
        batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
        names = [stored_name(name, version=1) for name in batch.schema.names]
        write_batch(pa.RecordBatch.from_arrays(batch.columns, names), path)
        shard["xxh64"] = digest_file(path)
    del manifest["digest"], manifest["index"]  # version 1 had neither
    text = json.dumps({**manifest, "version": 1}, indent=1)
    (directory / "manifest.json").write_text(text + "\n")


def test_data_of_format_version_1_are_read_as_before(tmp_path: Path) -> None:
    write_log(tmp_path, vector=4, truth=True)
    new = prepared_log(tmp_path)
    everything = {
        **{("feature", n): new.feature(n) for n in new.manifest.columns},
        **{("label", a): new.label(a) for a in new.manifest.actions},
        **{("truth", a): new.truth(a) for a in new.manifest.actions},
    }
    shutil.copytree(tmp_path / "out", tmp_path / "old")
    as_version_1(tmp_path / "old")
    old = Records(tmp_path / "old")
    text = (tmp_path / "old" / "manifest.json").read_text().rstrip("\n")
    assert old.digest == hashlib.sha256(text.encode()).hexdigest()[:12]
    for (role, name), values in everything.items():
        np.testing.assert_array_equal(getattr(old, role)(name), values)
    np.testing.assert_array_equal(old.column("session"), new.column("session"))


def test_format_version_1_with_one_column_for_two_names_is_refused(tmp_path: Path) -> None:
    write_odd_log(tmp_path, ("session", "count"))
    prepared_log(tmp_path)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    path.write_text(json.dumps({**manifest, "version": 1}))
    with pytest.raises(BadInput, match=r"manifest.json: .*the names \['session'\].*prepare` again"):
        Records(tmp_path / "out")


def test_a_changed_value_of_the_manifest_is_an_error(tmp_path: Path) -> None:
    write_log(tmp_path)
    prepared_log(tmp_path)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    for change in (
        {"counts": {**manifest["counts"], "members": 1}},
        {"actions": ["like", "click"]},
        {"version": 1},
    ):
        path.write_text(json.dumps({**manifest, **change}, indent=1))
        with pytest.raises(BadInput, match=r"manifest.json: values have changed.*prepare the data"):
            load_manifest(tmp_path / "out")
    path.write_text(json.dumps({k: v for k, v in manifest.items() if k != "splits"}))
    with pytest.raises(BadInput, match=r"manifest.json: values have changed|not a complete"):
        load_manifest(tmp_path / "out")
    path.write_text(json.dumps(manifest))
    assert isinstance(load_manifest(tmp_path / "out"), Manifest)
