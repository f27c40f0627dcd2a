"""Laws of batches: every field against the log, read plainly."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.assemble import Assembler, check_columns, default_features
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import MISSING, ColumnStats
from ligr_jax.data.plan import Plan, make_plan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.ops.hashing import hash_rows

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
def plan(records: Records, request: pytest.FixtureRequest) -> Plan:
    plan = make_plan(records, "train", request.param)
    cut = (~np.isin(plan.start, records.offsets)).any()
    packed = (np.diff(plan.bounds) > 1).any()
    assert (cut, packed) == (request.param == 24, request.param == 128)
    return plan


@pytest.fixture(scope="module")
def batch(records: Records, plan: Plan) -> Batch:
    """All rows of the plan, and one of padding."""
    return Assembler(records, plan, MODEL)(np.append(np.arange(len(plan)), -1))


@pytest.fixture(scope="module")
def index(plan: Plan) -> np.ndarray:
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


def test_labels_ids_and_weights_are_the_logs(
    batch: Batch, index: np.ndarray, records: Records, plan: Plan
) -> None:
    real = index >= 0
    at = index[real]
    for a, action in enumerate(MODEL.actions):
        np.testing.assert_array_equal(batch.labels[..., a][real], records.column(action)[at])
    np.testing.assert_array_equal(batch.ids["item_id"][real], 1 + records.column("item_id")[at])
    for name in ("actor_id", "surface"):
        rows = hash_rows(records.column(name)[at], FEATURES[name].rows)
        np.testing.assert_array_equal(batch.ids[name][real], rows)
        assert batch.ids[name][real].min() >= 1
        assert batch.ids[name].max() < FEATURES[name].rows
    is_target = plan.gather(np.append(np.arange(len(plan)), -1))[2]
    np.testing.assert_array_equal(batch.weight, is_target)
    np.testing.assert_array_equal(batch.vectors["content"][real], records.take("content", at))


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
    """Records by hand: columns of one member each, and a manifest of their kinds."""

    def __init__(self, columns: dict[str, list], stats_of: dict[str, ColumnStats]) -> None:
        self.columns = {k: np.asarray(v) for k, v in columns.items()}
        self.manifest = SimpleNamespace(columns=stats_of, actions=("click",))

    def take(self, name: str, index: np.ndarray) -> np.ndarray:
        return self.columns[name][index]


def made(features: dict[str, Feature], stats_of: dict[str, ColumnStats], **columns: list) -> Batch:
    """One row of one window that holds the given columns."""
    n = len(next(iter(columns.values())))
    defaults = {
        "timestamp_ms": [0] * n,
        "session": [0] * n,
        "weight": [1.0] * n,
        "click": [0] * n,
    }
    at = np.array([0])
    plan = Plan(n, at, at, np.array([n]), np.array([0, 1]))
    model = ModelConfig(features=features, actions=("click",))
    return Assembler(_Made(defaults | columns, stats_of), plan, model)(at)  # type: ignore[arg-type]


def test_untimed_context_stands_at_hour_zero_in_sessions_of_its_own() -> None:
    hour = 3_600_000
    start = 1_650_000_000_000
    batch = made({}, {}, timestamp_ms=[-1, -1, start, start + 2 * hour], session=[3, 4, 5, 6])
    assert batch.time.tolist() == [[0, 0, 0, 2]]
    assert batch.session.tolist() == [[0, 1, 2, 3]]
    assert made({}, {}, timestamp_ms=[-1, -1]).time.tolist() == [[0, 0]]


def test_a_missing_id_is_row_zero_and_no_other_is() -> None:
    ids = [MISSING, 0, 5, -3, 2**62]
    features = {"tag": Feature(rows=4)}
    batch = made(features, {"tag": ColumnStats("categorical")}, tag=ids)
    rows = batch.ids["tag"][0]
    assert rows[0] == 0
    assert ((rows[1:] >= 1) & (rows[1:] <= 3)).all()
    direct = {"tag": Feature(rows=7, lookup="direct")}
    batch = made(direct, {"tag": ColumnStats("categorical")}, tag=[MISSING, 0, 5])
    assert batch.ids["tag"].tolist() == [[0, 1, 6]]


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
    assert np.abs(out[:-3] - rank).max() < 1 / 16  # a quantile apart, in the tails
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


def test_a_column_nobody_filled_is_all_missing() -> None:
    nothing = {"x": ColumnStats("numeric")}
    values = np.full(3, np.nan, np.float32).tolist()
    assert np.isnan(made({"x": Feature("numeric")}, nothing, x=values).numeric["x"]).all()
    assert (made({"x": Feature("bucket", rows=5)}, nothing, x=values).ids["x"] == 0).all()


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("colour", Feature(rows=5), r"features.colour: no such column in the data, which has"),
        ("item_id", Feature("numeric"), r"item_id.kind=numeric: the column is categorical"),
        ("dwell_s", Feature("bucket", rows=5), r"dwell_s.outcome=false: dwell_s is known only"),
        ("content", Feature("vector", width=5), r"content.width=5: the column's vectors are 4"),
    ],
)
def test_a_model_the_data_cannot_feed_is_refused(
    records: Records, name: str, feature: Feature, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_columns(replace(MODEL, features={name: feature}), records.manifest)


def test_an_action_the_data_lacks_is_refused(records: Records) -> None:
    with pytest.raises(ConfigError, match=r"no \['share'\] in the data"):
        check_columns(replace(MODEL, actions=("click", "share")), records.manifest)


def test_default_features_take_every_column_and_fit_the_data(records: Records) -> None:
    features = default_features(records.manifest.columns)
    assert set(features) == set(records.manifest.columns)
    assert [k for k, f in features.items() if f.outcome] == ["dwell_s"]
    check_columns(replace(MODEL, features=features), records.manifest)
