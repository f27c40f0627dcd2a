"""Laws of batches: every field equals the log, read row by row."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.assemble import (
    Assembler,
    NumericScale,
    check_columns,
    crowded_tables,
    default_features,
)
from ligr_jax.data.bags import Bags
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import MISSING, ColumnStats, load_manifest, save_manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, LogSchema, load_schema, save_schema
from ligr_jax.ops.hashing import hash_rows, qr_rows
from ligr_jax.scaling.ladder import configure

FEATURES = {
    "item_id": Feature(rows=31, lookup="direct"),
    "actor_id": Feature(rows=6),
    "surface": Feature(rows=50),
    "age_days": Feature("numeric"),
    "content": Feature("vector", width=4),
    "dwell_s": Feature("bucket", rows=9, outcome=True),
}
MODEL = ModelConfig(features=FEATURES, actions=("click", "like"))


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    return Records(prepared)


@pytest.fixture(scope="module", params=[24, 128], ids=["cut histories", "packed members"])
def plan(records: Records, request: pytest.FixtureRequest) -> PackingPlan:
    plan = make_packing_plan(records, "train", request.param)
    cut = (~np.isin(plan.start, records.offsets)).any()
    packed = (np.diff(plan.bounds) > 1).any()
    assert (cut, packed) == (request.param == 24, request.param == 128)
    return plan


@pytest.fixture(scope="module")
def batch(records: Records, plan: PackingPlan) -> Batch:
    """All rows of the plan, and one of padding."""
    return Assembler(records, plan, MODEL)(np.append(np.arange(len(plan)), -1))


@pytest.fixture(scope="module")
def index(plan: PackingPlan) -> np.ndarray:
    """Impression numbers of `batch`, -1 in padding."""
    return plan.gather(np.append(np.arange(len(plan)), -1))[0]


def test_padding_is_empty_in_every_field(batch: Batch, index: np.ndarray) -> None:
    padding = index < 0
    assert padding[-1].all()
    for field in (batch.member, batch.session, batch.time, batch.weight, *batch.ids.values()):
        assert (field[padding] == 0).all()
    assert (batch.vectors["content"][padding] == 0).all()
    assert np.isnan(batch.numeric["age_days"][padding]).all()
    assert (batch.labels[padding] == -1).all()


def test_types_and_shapes_are_those_of_the_contract(batch: Batch, index: np.ndarray) -> None:
    wanted = {"member": "int32", "session": "int32", "time": "float32", "weight": "float32"}
    for name, dtype in wanted.items():
        assert getattr(batch, name).dtype == dtype
        assert getattr(batch, name).shape == index.shape
    assert all(x.dtype == np.int32 for x in batch.ids.values())
    assert batch.numeric["age_days"].dtype == batch.vectors["content"].dtype == np.float32
    assert batch.labels.dtype == np.int8
    assert batch.labels.shape == (*index.shape, 2)


def test_labels_ids_and_weights_equal_the_log(
    batch: Batch, index: np.ndarray, records: Records, plan: PackingPlan
) -> None:
    real = index >= 0
    at = index[real]
    for a, action in enumerate(MODEL.actions):
        np.testing.assert_array_equal(batch.labels[..., a][real], records.label(action)[at])
    np.testing.assert_array_equal(batch.ids["item_id"][real], 1 + records.feature("item_id")[at])
    for name in ("actor_id", "surface"):
        rows = hash_rows(records.feature(name)[at], FEATURES[name].rows)
        np.testing.assert_array_equal(batch.ids[name][real], rows)
        assert batch.ids[name][real].min() >= 1
        assert batch.ids[name].max() < FEATURES[name].rows
    is_target = plan.gather(np.append(np.arange(len(plan)), -1))[2]
    np.testing.assert_array_equal(batch.weight, is_target)
    np.testing.assert_array_equal(batch.vectors["content"][real], records.feature("content", at))


def test_sessions_and_hours_count_from_the_start_of_each_window(
    batch: Batch, index: np.ndarray, records: Records
) -> None:
    session, time = records.column("session"), records.column("timestamp_ms")
    for r, b in np.ndindex(index.shape):
        if index[r, b] >= 0:
            first = index[r][batch.member[r] == batch.member[r, b]].min()
            assert batch.session[r, b] == session[index[r, b]] - session[first]
            hours = (time[index[r, b]] - time[first]) / 3.6e6
            assert batch.time[r, b] == np.float32(hours)


class _Made:
    """Records made by hand: columns of one member, and a manifest of their kinds."""

    def __init__(self, columns: dict[str, list], stats_of: dict[str, ColumnStats]) -> None:
        self.bags = {k: columns.pop(k) for k, s in stats_of.items() if s.kind == "bag"}
        self.columns = {k: np.asarray(v) for k, v in columns.items()}
        self.manifest = SimpleNamespace(
            columns=stats_of, actions=("click",), late_actions=(), time_is_order=False
        )

    def take(self, name: str, index: np.ndarray) -> np.ndarray:
        return self.columns[name][index]

    feature = label = take

    def locate(self, index: np.ndarray) -> np.ndarray:
        return index

    def bag(self, name: str, index: np.ndarray, size: int) -> np.ndarray:
        flat = np.array([i for b in self.bags[name] for i in b], np.int64)
        bags = Bags.from_lengths(np.array([len(b) for b in self.bags[name]]), flat)
        return bags.padded(index, size)


def made(features: dict[str, Feature], stats_of: dict[str, ColumnStats], **columns: list) -> Batch:
    """A batch of one row with one window of the given columns."""
    n = len(next(iter(columns.values())))
    defaults = {
        "timestamp_ms": [0] * n,
        "session": [0] * n,
        "weight": [1.0] * n,
        "click": [0] * n,
    }
    at = np.array([0])
    plan = PackingPlan(n, at, at, np.array([n]), np.array([0, 1]))
    model = ModelConfig(features=features, actions=("click",))
    return Assembler(_Made(defaults | columns, stats_of), plan, model)(at)  # type: ignore[arg-type]


def test_untimed_context_rows_have_hour_zero_and_their_own_sessions() -> None:
    hour = 3_600_000
    start = 1_650_000_000_000
    batch = made({}, {}, timestamp_ms=[-1, -1, start, start + 2 * hour], session=[3, 4, 5, 6])
    assert batch.time.tolist() == [[0, 0, 0, 2]]
    assert batch.session.tolist() == [[0, 1, 2, 3]]
    assert made({}, {}, timestamp_ms=[-1, -1]).time.tolist() == [[0, 0]]


def test_only_missing_ids_have_row_zero() -> None:
    ids = [MISSING, 0, 5, -3, 2**62]
    features = {"tag": Feature(rows=4)}
    batch = made(features, {"tag": ColumnStats("categorical")}, tag=ids)
    rows = batch.ids["tag"][0]
    assert rows[0] == 0
    assert ((rows[1:] >= 1) & (rows[1:] <= 3)).all()
    direct = {"tag": Feature(rows=7, lookup="direct")}
    batch = made(direct, {"tag": ColumnStats("categorical")}, tag=[MISSING, 0, 5])
    assert batch.ids["tag"].tolist() == [[0, 1, 6]]


def test_quotient_and_remainder_are_two_rows_of_one_table() -> None:
    ids = [MISSING, 0, 5, -3, 2**62]
    for rows in (3, 4, 2001):
        feature = {"tag": Feature(rows=rows, lookup="qr")}
        batch = made(feature, {"tag": ColumnStats("categorical")}, tag=ids)
        assert batch.ids["tag"].dtype == np.int32
        assert batch.ids["tag"].shape == (1, 5, 2)
        assert batch.ids["tag"][0, 0].tolist() == [0, -1]
        np.testing.assert_array_equal(batch.ids["tag"][0, 1:], qr_rows(np.array(ids[1:]), rows))


BAGS: list[list[int]] = [[7, 8], [], [9, 7, 9, 11, 12], [MISSING, 8], [MISSING]]


@pytest.mark.parametrize("lookup", ["hash", "direct", "qr"])
def test_a_bag_is_the_rows_of_its_first_ids_without_the_missing(lookup: str) -> None:
    feature = Feature(rows=31, lookup=lookup, bag="sum", bag_size=3)  # type: ignore[arg-type]
    batch = made({"tag": feature}, {"tag": ColumnStats("bag")}, tag=BAGS)
    single = replace(feature, bag="", bag_size=0)
    for bag, found in zip(BAGS, batch.ids["tag"][0]):
        ids = [i for i in bag if i != MISSING][:3]
        one = made({"tag": single}, {"tag": ColumnStats("categorical")}, tag=[*ids, MISSING])
        wanted = one.ids["tag"][0, :-1].ravel().tolist()
        assert found.tolist() == wanted + [-1] * (len(found) - len(wanted))
        assert len(found) == (6 if lookup == "qr" else 3)
    assert batch.ids["tag"].dtype == np.int32


def test_padding_has_empty_bags() -> None:
    features = {
        "tag": Feature(rows=31, bag="mean", bag_size=2),
        "qr": Feature(rows=31, bag="sum", bag_size=2, lookup="qr"),
    }
    stats_of = dict.fromkeys(features, ColumnStats("bag"))
    records = _Made({"tag": [[1, 2]], "qr": [[1]], "session": [0], "timestamp_ms": [0],
                     "weight": [1.0], "click": [0]}, stats_of)  # fmt: skip
    at = np.array([0])
    plan = PackingPlan(2, at, at, np.array([1]), np.array([0, 1]))
    batch = Assembler(records, plan, ModelConfig(features=features))(np.array([0, -1]))  # type: ignore[arg-type]
    assert (batch.ids["tag"] == -1).tolist() == [[[False] * 2, [True] * 2], [[True] * 2] * 2]
    padding = [True] * 4
    assert (batch.ids["qr"] == -1).tolist() == [[[False] * 2 + [True] * 2, padding], [padding] * 2]


def test_an_id_of_a_shared_table_is_one_row_for_all_its_features() -> None:
    ids = [3, -5, 2**62, MISSING]
    columns = {"item_id": ids, "tag": ids, "seen": [[i] for i in ids]}
    stats_of = {"item_id": ColumnStats("categorical"), "tag": ColumnStats("categorical"),
                "seen": ColumnStats("bag")}  # fmt: skip
    for lookup in ("hash", "qr"):
        shared = Feature(rows=101, lookup=lookup, table="item_id")  # type: ignore[arg-type]
        seen = replace(shared, bag="sum", bag_size=1)
        features = {"item_id": replace(shared, table=""), "tag": shared, "seen": seen}
        batch = made(features, stats_of, **columns)
        np.testing.assert_array_equal(batch.ids["item_id"], batch.ids["tag"])
        bagged = batch.ids["seen"].reshape(batch.ids["tag"].shape)
        np.testing.assert_array_equal(bagged[:, :-1], batch.ids["tag"][:, :-1])
        assert (bagged[:, -1] == -1).all()


@pytest.mark.parametrize("wrong", [6, -1, 2**40])
def test_a_direct_lookup_refuses_an_id_outside_its_table(wrong: int) -> None:
    features = {"tag": Feature(rows=7, lookup="direct")}
    with pytest.raises(BadInput, match=rf"column tag: id {wrong} is outside 0..5.*tag.rows"):
        made(features, {"tag": ColumnStats("categorical")}, tag=[0, wrong])


def numeric(values: np.ndarray) -> ColumnStats:
    return ColumnStats("numeric", quantiles=tuple(np.quantile(values, np.linspace(0, 1, 33))))


def test_numbers_become_their_quantile_in_minus_one_to_one() -> None:
    x = np.random.default_rng(0).gamma(2, 3, 5000)
    ends = np.array([np.nan, -1e9, 1e9])
    batch = made({"x": Feature("numeric")}, {"x": numeric(x)}, x=[*x, *ends])
    out = batch.numeric["x"][0]
    rank = 2 * stats.rankdata(x) / len(x) - 1
    assert np.abs(out[:-3] - rank).max() < 1 / 16  # one quantile, in the tails
    np.testing.assert_array_equal(out[-3:], np.float32([np.nan, -1, 1]))


def test_a_point_mass_becomes_the_middle_of_its_quantiles() -> None:
    x = np.concatenate([np.zeros(600), np.arange(1, 401)])
    batch = made({"x": Feature("numeric")}, {"x": numeric(x)}, x=[0.0, 400.0])
    np.testing.assert_allclose(batch.numeric["x"][0], [-0.4, 1.0], atol=0.05)


@pytest.mark.parametrize("rows", [2, 5, 17, 33])
def test_buckets_have_equal_mass(rows: int) -> None:
    x = np.random.default_rng(1).gamma(2, 3, 8000)
    batch = made({"x": Feature("bucket", rows=rows)}, {"x": numeric(x)}, x=[*x, np.nan])
    counts = np.bincount(batch.ids["x"][0], minlength=rows)
    assert len(counts) == rows
    assert counts[0] == 1  # the missing one
    assert np.abs(counts[1:] / 8000 - 1 / (rows - 1)).max() < 0.02


@pytest.mark.parametrize("rows", [33, 100])
def test_buckets_of_float32_values_are_those_of_their_exact_comparison(rows: int) -> None:
    """The edges are float64 numbers between, and equal to, neighbouring float32 values."""
    x = np.sort(np.random.default_rng(2).standard_normal(33).astype(np.float32))
    below, above = np.nextafter(x, np.float32(-9)), np.nextafter(x, np.float32(9))
    for quantiles in (x.astype(float), x + 0.3 * (above.astype(float) - x)):
        scale = NumericScale(ColumnStats("numeric", quantiles=tuple(quantiles)))
        inner = np.linspace(0, 32, rows)[1:-1]
        edges = np.interp(inner, np.arange(33), quantiles)
        values = np.concatenate([x, below, above])
        wanted = 1 + np.searchsorted(edges, values.astype(float), side="right")
        np.testing.assert_array_equal(scale.bucket(values, rows), wanted)


def test_edges_replace_quantiles() -> None:
    """Those of a display position are 1, 2 to 4, and 5 or more."""
    positions = [1, 2, 4, 5, 900, 0, np.nan]
    column = {"x": ColumnStats("numeric", quantiles=(1.0, 900.0), outcome=True)}
    batch = made({"x": Feature("bucket", rows=17, post=True)}, column, x=positions)
    np.testing.assert_array_equal(batch.ids["x"][0], [1, 2, 2, 3, 3, 1, 0])
    batch = made({"x": Feature("bucket", edges=(1.5,))}, {"x": ColumnStats("numeric")}, x=positions)
    np.testing.assert_array_equal(batch.ids["x"][0], [1, 2, 2, 2, 2, 1, 0])


def test_an_empty_column_is_all_missing() -> None:
    nothing = {"x": ColumnStats("numeric")}
    values = np.full(3, np.nan, np.float32).tolist()
    assert np.isnan(made({"x": Feature("numeric")}, nothing, x=values).numeric["x"]).all()
    assert (made({"x": Feature("bucket", rows=5)}, nothing, x=values).ids["x"] == 0).all()


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("colour", Feature(rows=5), r"features.colour: the data has no column of this name"),
        ("item_id", Feature("numeric"), r"item_id.kind=numeric: the column is categorical"),
        ("dwell_s", Feature("bucket", rows=5), r"dwell_s.outcome=false: dwell_s is known only"),
        (
            "content",
            Feature("vector", width=5),
            r"content.width=5: the vectors of the column have length 4",
        ),
    ],
)
def test_a_model_with_columns_that_the_data_lack_is_refused(
    records: Records, name: str, feature: Feature, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_columns(replace(MODEL, features={name: feature}), records.manifest)


def test_a_post_feature_without_values_is_refused(records: Records) -> None:
    columns = {"position": ColumnStats("numeric", missing=1.0)}
    model = replace(MODEL, features={"position": Feature("bucket", post=True)})
    with pytest.raises(ConfigError, match=r"position.post=true: the train split has no value"):
        check_columns(model, replace(records.manifest, columns=columns))


def test_bags_and_single_ids_are_distinguished(records: Records) -> None:
    bag = Feature(rows=5, bag="mean", bag_size=4)
    with pytest.raises(ConfigError, match=r"bag=mean: the column is categorical, one id .*bag=$"):
        check_columns(replace(MODEL, features={"surface": bag}), records.manifest)
    columns = {"surface": ColumnStats("bag", longest=9, places=(0.5, 0.3, 0.2), distinct=7)}
    manifest = replace(records.manifest, columns=columns)
    for feature, message in (
        (Feature(rows=5), r"up to 9 ids per impression; set model.features.surface.bag=mean"),
        (Feature("bucket", rows=5), r"kind=bucket: the column is bag"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_columns(replace(MODEL, features={"surface": feature}), manifest)
    model = replace(MODEL, features=default_features(columns))
    check_columns(model, manifest)
    assert model.features["surface"] == Feature(rows=16, bag="mean", bag_size=9)
    assert crowded_tables(model, manifest) == []
    many = {"surface": replace(columns["surface"], longest=100)}
    assert default_features(many)["surface"].bag_size == 16


def test_ids_that_share_rows_and_truncated_bags_are_reported(records: Records) -> None:
    columns = {"a": ColumnStats("categorical", distinct=1200),
               "b": ColumnStats("bag", distinct=3, longest=9, places=(0.5, 0.3, 0.2))}  # fmt: skip
    manifest = replace(records.manifest, columns=columns)
    for a, line in (
        (Feature(rows=101), "a: 1,200 ids are hashed into 101 rows, 12.0 per row"),
        (
            Feature(rows=21, lookup="qr"),
            "a: 1,200 ids are hashed into 100 pairs of rows, 12.0 per pair",
        ),
        (Feature(rows=101, lookup="qr"), None),
    ):
        model = replace(MODEL, features={"a": a, "b": Feature(rows=9, bag="sum", bag_size=2)})
        truncated = (
            "b: bags of up to 9 ids are truncated to model.features.b.bag_size=2, which drops "
            "20.0% of the ids"
        )
        assert crowded_tables(model, manifest) == [*([line] if line else []), truncated]


def test_an_action_the_data_lacks_is_refused(records: Records) -> None:
    with pytest.raises(ConfigError, match=r"no labels of \['share'\]"):
        check_columns(replace(MODEL, actions=("click", "share")), records.manifest)


def test_an_action_that_is_known_late_is_not_history(records: Records, tmp_path: Path) -> None:
    schema = LogSchema(("click", "like"), {}, late_actions=("like",))
    save_schema(schema, tmp_path)
    assert load_schema(tmp_path) == schema
    with pytest.raises(BadInput, match=r"late_actions has \['buy'\]"):
        LogSchema(("click",), {}, late_actions=("buy",))
    manifest = replace(records.manifest, late_actions=schema.late_actions)
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path).late_actions == ("like",)
    assert configure(manifest, tmp_path).model.late_actions == ("like",)
    with pytest.raises(ConfigError, match=r"\['like'\] .*leaks.*set model.late_actions=like$"):
        check_columns(MODEL, manifest)
    with pytest.raises(ConfigError, match=r"no labels of \['buy'\]"):
        check_columns(replace(MODEL, late_actions=("like", "buy")), manifest)
    check_columns(replace(MODEL, actions=("click",), late_actions=("like",)), manifest)
    check_columns(replace(MODEL, actions=("click",)), manifest)


def test_default_features_take_every_column_and_fit_the_data(records: Records) -> None:
    features = default_features(records.manifest.columns)
    assert set(features) == set(records.manifest.columns)
    assert [k for k, f in features.items() if f.outcome] == ["dwell_s"]
    check_columns(replace(MODEL, features=features), records.manifest)
