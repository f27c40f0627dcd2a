"""Laws of the synthetic world: bytes, probabilities, planted effects and exposures."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.data.schema import BadInput, load_schema
from ligr_jax.data.world import arithmetic
from ligr_jax.data.world.block import block_response, block_table
from ligr_jax.data.world.catalog import item_tables
from ligr_jax.data.world.config import LABELS, START_MS
from ligr_jax.data.world.generate import Planted, WorldConfig, generate_world
from ligr_jax.lock import Busy

SMALL = WorldConfig(
    members=96, items=400, days=8, sessions=8.0, parents=4, leaves=4, block_members=32
)
WORLD = WorldConfig(members=1_280, seed=3, items=4_000, block_members=512)
GOLDEN = ["2fa8eb3eb7886e1a", "ee93a768e1e269f7", "a7e4683c999d7f39"]  # of the blocks of SMALL
KEYS = ["member_id", "session_id", "timestamp_ms", "item_id"]
SESSION = ["member_id", "session_id"]


def read(directory: Path) -> pl.DataFrame:
    """Return the log with the true columns of the item table, in file order."""
    items = pl.read_parquet(directory / "items.parquet").drop("content")
    files = sorted(directory.glob("impressions-*.parquet"))
    log = pl.concat([pl.read_parquet(f) for f in files])
    return log.join(items, on="item_id", how="left", suffix="_of_item", maintain_order="left")


def contents(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(directory.iterdir())}


def digest(table: pa.Table) -> str:
    """Return the SHA-256 of the values of a table, whatever the version of pyarrow."""
    result = hashlib.sha256()
    for name in table.column_names:
        values = table[name].to_numpy()
        data = "|".join(values).encode() if values.dtype == object else values.tobytes()
        result.update(name.encode() + data)
    return result.hexdigest()


def auc(label: np.ndarray, score: np.ndarray) -> float:
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positives = label.sum()
    pairs = positives * (len(label) - positives)
    return (rank[label == 1].sum() - positives * (positives + 1) / 2) / pairs


def utility(log: pl.DataFrame) -> np.ndarray:
    """Return the utility of every row up to a constant, from the probability of a click."""
    p = log["p_click"].to_numpy().astype(np.float64)
    return np.log(p) - np.log1p(-p)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("world") / "log"
    generate_world(WORLD, out, workers=1)
    return out


@pytest.fixture(scope="module")
def log(directory) -> pl.DataFrame:
    return read(directory)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Return the world without some planted effects: the same draws with other utilities."""

    def make(**planted: float) -> pl.DataFrame:
        config = dataclasses.replace(WORLD, planted=Planted(**planted))
        out = tmp_path_factory.mktemp("without")
        generate_world(config, out, workers=1)
        return read(out)

    return make


def test_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path):
    generate_world(SMALL, tmp_path / "one", workers=1)
    generate_world(SMALL, tmp_path / "two", workers=2)
    generate_world(dataclasses.replace(SMALL, seed=1), tmp_path / "other", workers=1)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert sorted(one) == [
        *(f"impressions-{b:05d}.parquet" for b in range(3)),
        "items.parquet",
        "log.json",
        "world.json",
    ]
    assert one == contents(tmp_path / "two")
    assert all((one[name] == other[name]) == (name == "log.json") for name in one)
    ids = [set(read(tmp_path / name)["item_id"]) for name in ("one", "other")]
    assert not ids[0] & ids[1]


def test_worlds_keep_their_values(tmp_path):
    """A change of the generator that changes any value needs another `VERSION`."""
    assert [digest(block_table(SMALL, b))[:16] for b in range(3)] == GOLDEN
    generate_world(SMALL, tmp_path, workers=1)
    description = (tmp_path / "world.json").read_bytes()
    assert hashlib.sha256(description).hexdigest()[:16] == "81fcde11fdda2abb"
    other = dataclasses.replace(SMALL, planted=Planted(satiation_later=0.0))
    with pytest.raises(
        BadInput, match=r"config\.planted\.satiation_later is None in the directory"
    ):
        generate_world(other, tmp_path)


def test_item_table_does_not_depend_on_how_many_rows_are_made_at_a_time():
    (whole,) = item_tables(SMALL, SMALL.items)
    parts = list(item_tables(SMALL, 150))
    assert [p.num_rows for p in parts] == [150, 150, 100]
    assert pa.concat_tables(parts).equals(whole)


def test_an_interrupted_run_has_no_schema_and_completes_to_the_same_bytes(tmp_path):
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert (done, total) == (1, 3)
        raise Stop

    generate_world(SMALL, tmp_path / "whole", workers=1)
    with pytest.raises(Stop):
        generate_world(SMALL, tmp_path / "stopped", workers=1, progress=stop)
    assert not (tmp_path / "stopped" / "log.json").exists()
    (tmp_path / "stopped" / ".impressions-00001.parquet.partial").write_bytes(b"half a block")
    calls = []
    generate_world(SMALL, tmp_path / "stopped", workers=1, progress=lambda *c: calls.append(c))
    assert calls == [(2, 3), (3, 3)]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_two_at_a_time_never_share_a_directory(tmp_path):
    def second(done: int, total: int) -> None:
        with pytest.raises(Busy, match=r"world: another process is making a world there \(host "):
            generate_world(SMALL, tmp_path / "world", workers=1)

    generate_world(SMALL, tmp_path / "world", workers=1, progress=second)
    assert not [name for name in contents(tmp_path / "world") if name.startswith(".")]


def test_complete_world_is_reused_and_another_one_refused(tmp_path):
    schema = generate_world(SMALL, tmp_path / "world", workers=1)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "world").iterdir()}
    assert generate_world(SMALL, tmp_path / "world") == schema
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "world").iterdir()}
    other = dataclasses.replace(SMALL, seed=7, planted=Planted(drift=0.25))
    with pytest.raises(
        BadInput, match=r"config\.planted\.drift is 0\.55 in the directory and 0\.25 in the request"
    ):
        generate_world(other, tmp_path / "world")
    with pytest.raises(BadInput, match=r"config\.seed is 0 in the directory and 7 in the request"):
        generate_world(other, tmp_path / "world")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "log.json").write_text("{}")
    with pytest.raises(BadInput, match="contains a log that is not a world"):
        generate_world(SMALL, tmp_path / "foreign")
    with pytest.raises(BadInput, match="workers=0"):
        generate_world(SMALL, tmp_path / "none", workers=0)


@pytest.mark.parametrize("action", LABELS)
def test_labels_are_drawn_with_the_probabilities_of_the_log(log, action):
    y = log[action].to_numpy().astype(np.float64)
    p = log[f"p_{action}"].to_numpy().astype(np.float64)
    assert set(np.unique(y)) == {0.0, 1.0}
    assert log[f"p_{action}"].dtype == pl.Float32
    assert ((p > 0) & (p < 1)).all()
    deciles = np.array_split(np.argsort(p, kind="stable"), 10)
    z = [(y[d].sum() - p[d].sum()) / np.sqrt((p[d] * (1 - p[d])).sum()) for d in deciles]
    assert abs(y.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    assert np.square(z).sum() < 35  # chi-square, 10 degrees of freedom: 1 in 8,000


def test_contribution_is_any_of_like_comment_share(log):
    parts = ("like", "comment", "share")
    assert (log["contribution"] == log.select(pl.max_horizontal(parts)).to_series()).all()
    p = [log[f"p_{a}"].to_numpy().astype(np.float64) for a in parts]
    expected = (1 - (1 - p[0]) * (1 - p[1]) * (1 - p[2])).astype(np.float32)
    np.testing.assert_array_equal(log["p_contribution"].to_numpy(), expected)


def test_actions_share_the_utility_and_are_as_rare_as_in_a_feed(log):
    rates = {a: log[a].mean() for a in LABELS}
    target = {"click": 0.25, "long_dwell": 0.15, "like": 0.05, "comment": 0.015, "share": 0.008}
    assert all(0.65 < rates[a] / target[a] < 1.35 for a in target), rates
    assert log.filter(pl.col("click") == 1)["like"].mean() > 2 * rates["like"]


@pytest.mark.parametrize(("effect", "key"), [("topic", "true_topic"), ("actor", "actor_id")])
def test_session_satiates_with_others_of_the_same_kind(log, without, effect, key):
    free = without(**{f"{effect}_satiation": 0.0})
    assert log.select(KEYS).equals(free.select(KEYS))
    n = log.select(pl.len().over(*SESSION, key) - 1).to_series().to_numpy().astype(np.float64)
    planted = WORLD.planted
    limit = getattr(planted, f"{effect}_satiation")
    loss = utility(free) - utility(log)
    np.testing.assert_allclose(loss, limit * n / (n + planted.satiation_half), atol=2e-3)
    by_count = [loss[n == k].mean() for k in range(6)]
    assert (np.diff(by_count) > 0.02).all()
    first = (log["position"] == 0).to_numpy()
    assert (loss[first] > 0.1).mean() > 0.05  # later items reduce the utility of the first item


def test_true_responses_to_the_logged_slates_are_those_of_the_log():
    for later in (1.0, 0.0, 0.5):
        config = dataclasses.replace(SMALL, planted=Planted(satiation_later=later))
        table = block_table(config, 1)
        response = block_response(config, 1)
        truth = response.probabilities(np.arange(table.num_rows), response.session)
        for action in LABELS:
            np.testing.assert_array_equal(truth[action], table[f"p_{action}"].to_numpy())


@pytest.mark.parametrize("later", [1.0, 0.25, 0.0])
def test_true_responses_to_other_slates_are_those_of_the_formula(later):
    """Random subsets of sessions in random order, against a loop over items."""
    planted = Planted(satiation_later=later)
    response = block_response(dataclasses.replace(SMALL, planted=planted), 0)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(response.session))[:400]
    truth = response.probabilities(rows, response.session[rows])["click"]
    assert truth.dtype == np.float32
    for session in np.unique(response.session[rows]):
        shown = np.flatnonzero(response.session[rows] == session)
        for place, i in enumerate(shown):
            u = response.alone[rows[i]] - planted.position * np.log1p(place)
            for effect in ("topic", "actor"):
                kind = getattr(response, effect)[rows]
                same = [j for j in shown if j != i and kind[j] == kind[i]]
                n = sum(1.0 if j < i else later for j in same)
                u -= getattr(planted, f"{effect}_satiation") * n / (n + planted.satiation_half)
            assert truth[i] == pytest.approx(1 / (1 + np.exp(1.88 - u)), rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "slate", "message"),
    [
        ([0, 0], [3, 3], "slate 3 shows row 0 twice"),
        ([0, 10**6], [0, 1], "rows from 0 to 1000000"),
        ([-1], [0], "rows from -1"),
        ([0, 200], [5, 5], "slate 5 has rows 0 and 200 of different sessions"),
        ([0, 1], [0], r"rows \(2,\) and slate \(1,\)"),
    ],
)
def test_slates_that_the_world_cannot_show_are_refused(rows, slate, message):
    with pytest.raises(ValueError, match=message):
        block_response(SMALL, 0).probabilities(rows, slate)


def test_position_bias_is_planted(log, without):
    loss = utility(without(position=0.0)) - utility(log)
    position = log["position"].to_numpy().astype(np.float64)
    np.testing.assert_allclose(loss, WORLD.planted.position * np.log1p(position), atol=2e-3)


def test_interests_drift_slowly(log, without):
    drift = utility(log) - utility(without(drift=0.0))
    rows = log.select("member_id", "true_topic", "timestamp_ms").with_columns(drift=drift)
    rows = rows.filter(pl.len().over("member_id") < 400)
    pairs = rows.join(rows, on=["member_id", "true_topic"], suffix="_b")
    pairs = pairs.with_columns(
        days=(pl.col("timestamp_ms_b") - pl.col("timestamp_ms")) / 86_400_000
    )

    def correlation(low: float, high: float) -> float:
        near = pairs.filter(pl.col("days").is_between(low, high))
        return near.select(pl.corr("drift", "drift_b")).item()

    assert 0.2 < np.std(drift) < 1.0
    assert correlation(0.04, 1) > 0.75
    assert correlation(8, 20) < 0.3


def test_sessions_are_apart_and_some_are_slates(log):
    order = log.select("member_id", "timestamp_ms")
    assert order.equals(order.sort("member_id", "timestamp_ms", maintain_order=True))
    sessions = log.group_by(*SESSION, maintain_order=True).agg(
        start=pl.col("timestamp_ms").min(),
        end=pl.col("timestamp_ms").max(),
        times=pl.col("timestamp_ms").n_unique(),
        rows=pl.len(),
        items=pl.col("item_id").n_unique(),
        surfaces=pl.col("surface").n_unique(),
        positions=pl.col("position").sort().eq(pl.int_range(pl.len())).all(),
    )
    gap = sessions.select(pl.col("start") - pl.col("end").shift(1).over("member_id")).to_series()
    assert gap.drop_nulls().min() >= 31 * 60_000
    assert sessions["start"].min() >= START_MS
    assert sessions["start"].max() < WORLD.end_ms
    assert (sessions["items"] == sessions["rows"]).all()
    assert (sessions["surfaces"] == 1).all()
    assert sessions["positions"].all()
    several = sessions.filter(pl.col("rows") > 1)
    slate = several["times"] == 1
    assert (slate | (several["times"] == several["rows"])).all()
    assert 0.30 < slate.mean() < 0.37
    hours = (log["timestamp_ms"] // 3_600_000 % 24).value_counts()["count"]
    assert hours.max() > 3 * hours.min()


def test_history_lengths_topics_and_sessions_are_heavy_tailed(log):
    rows = log["member_id"].value_counts()["count"]
    assert log["member_id"].n_unique() == WORLD.members
    assert 120 < rows.mean() < 250
    assert rows.median() < 0.65 * rows.mean()
    assert rows.max() > 1_000
    topics = log["true_topic"].value_counts(sort=True)["count"]
    assert len(topics) == WORLD.topics
    assert topics[0] > 20 * topics[-1]
    lengths = log.group_by(SESSION).len()["len"]
    assert 7 < lengths.mean() < 9
    assert (lengths.min(), lengths.max()) == (1, 40)


def test_random_traffic_is_uniform_over_existing_items(log, directory):
    random = log["is_random"].to_numpy()
    share = WORLD.random_share
    assert abs(random.mean() - share) < 4 * np.sqrt(share / len(random)) + 1e-3
    created = np.sort(pl.read_parquet(directory / "items.parquet")["created_ms"].to_numpy())
    alive = np.searchsorted(created, log["timestamp_ms"].to_numpy(), side="right")
    place = np.searchsorted(created, log["created_ms"].to_numpy()) / alive
    assert abs(place[random].mean() - 0.5) < 4 / np.sqrt(12 * random.sum())
    assert place[~random].mean() > 0.6  # the other policies prefer fresh items
    lift = [log.filter(pl.col("is_random") == r)["p_click"].mean() for r in (False, True)]
    assert lift[0] > 1.2 * lift[1]


def test_items_are_shown_only_once_created_and_agree_with_their_table(log, directory):
    items = pl.read_parquet(directory / "items.parquet")
    assert items["item_id"].n_unique() == len(items) == WORLD.items
    assert items["item_id"].min() >= 0
    assert items["item_id"].max() > 2**60
    assert (items["content"].list.len() == WORLD.content_width).all()
    assert 0.5 < items["content"].explode().std() < 2.0
    assert log["created_ms"].null_count() == 0
    assert (log["timestamp_ms"] >= log["created_ms"]).all()
    assert (log["actor_id"] == log["actor_id_of_item"]).all()
    assert (log["item_type"] == log["item_type_of_item"]).all()
    age = (log["timestamp_ms"] - log["created_ms"]) / 3_600_000
    np.testing.assert_allclose(log["age_h"].to_numpy(), age.to_numpy(), rtol=1e-6)
    late = items.filter(pl.col("created_ms") > WORLD.end_ms - 5 * 86_400_000)
    assert log["item_id"].is_in(late["item_id"].implode()).any()


def test_content_determines_the_topic_only_partly(directory):
    items = pl.read_parquet(directory / "items.parquet")
    x_IW = np.array(items["content"].to_list())
    topic = items["true_topic"].to_numpy()
    train = np.arange(len(x_IW)) % 2 == 0
    common = np.flatnonzero(np.bincount(topic[train], minlength=WORLD.topics) >= 10)
    centres = np.array([x_IW[train & (topic == k)].mean(axis=0) for k in common])
    test = ~train & np.isin(topic, common)
    distance = np.square(centres).sum(axis=1) - 2 * x_IW[test] @ centres.T
    assert 0.4 < (common[distance.argmin(axis=1)] == topic[test]).mean() < 0.9
    quality = items["true_quality"].to_numpy()
    weights = np.linalg.lstsq(x_IW[train], quality[train], rcond=None)[0]
    assert 0.05 < np.corrcoef(x_IW[~train] @ weights, quality[~train])[0, 1] < 0.6


def test_average_rates_find_only_a_part_of_the_signal(log):
    late = log["timestamp_ms"] >= log["timestamp_ms"].quantile(0.8)
    train, test = log.filter(~late), log.filter(late)
    label = test["click"].to_numpy()
    assert 0.80 < auc(label, test["p_click"].to_numpy()) < 0.85
    mean = train["click"].mean()
    for key, most in (("item_id", 0.64), ("actor_id", 0.64), ("member_id", 0.65)):
        rate = (pl.col("click").sum() + 10 * mean) / (pl.len() + 10)
        rates = train.group_by(key).agg(rate=rate)
        score = test.join(rates, on=key, how="left", maintain_order="left")["rate"]
        assert 0.51 < auc(label, score.fill_null(mean).to_numpy()) < most, key
    correlation = np.corrcoef(np.log(log["dwell_s"].to_numpy()), utility(log))[0, 1]
    assert 0.4 < correlation < 0.9  # dwell determines the utility only partly


def test_schema_and_configuration_round_trip(directory):
    schema = load_schema(directory)
    assert schema == generate_world(WORLD, directory)
    assert schema.truth
    columns = set(pl.read_parquet_schema(directory / "impressions-00000.parquet"))
    item_columns = set(pl.read_parquet_schema(directory / schema.items))
    assert set(schema.columns) <= columns | item_columns
    assert set(schema.actions) | {f"p_{a}" for a in schema.actions} <= columns
    assert [n for n, c in schema.columns.items() if c.outcome] == ["dwell_s"]
    undeclared = columns - set(schema.columns) - set(schema.actions)
    assert {c for c in undeclared if not c.startswith("p_")} == {
        *("member_id", "session_id", "timestamp_ms", "is_random", "position")
    }
    raw = json.loads((directory / "world.json").read_text())["config"]
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.pop("planted").items()}
    assert WorldConfig(planted=Planted(**tuples), **raw) == WORLD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 0}, r"world\.members=0; give a whole number from 1"),
        ({"members": 10.5}, r"world\.members=10\.5"),
        ({"seed": -1}, r"world\.seed=-1"),
        ({"items": 100}, r"world\.items=100; give a whole number from 384"),
        ({"sessions": 0.5}, r"world\.sessions=0\.5"),
        ({"days": 1}, r"world\.sessions=24\.0; give a number from 1\.0 to 10\.0"),
        ({"random_share": float("nan")}, r"world\.random_share=nan"),
        ({"popular_share": 0.95}, r"world\.popular_share=0\.95; give a number from 0\.0 to 0\.9"),
        ({"planted": Planted(drift=-1.0)}, r"world\.planted\.drift=-1\.0"),
        ({"planted": Planted(type_appeal=(0.0,))}, r"give a tuple of 5"),
        ({"planted": Planted(satiation_half=0.0)}, r"satiation_half=0\.0; give a number > 0"),
    ],
)
def test_bad_configuration_is_refused_with_value_and_remedy(change, message):
    with pytest.raises(BadInput, match=message):
        WorldConfig(**change)


def test_arithmetic_agrees_with_the_library_and_ids_are_a_bijection():
    x = np.linspace(-29.0, 29.0, 10_001)
    np.testing.assert_allclose(arithmetic.exp(x), np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(arithmetic.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_allclose(arithmetic.wave(x), np.sin(2 * np.pi * (x + 0.5)), atol=0.06)
    ids = arithmetic.spread(np.arange(100_000), 5, "item")
    assert len(np.unique(ids)) == len(ids)
    z = arithmetic.heavy_deviate(ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    weights = np.array([5.0, 1.0, 0.0, 3.0, 1.0])
    low, high = np.ones(20_000, np.int64), np.full(20_000, 4)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    picked = arithmetic.pick(arithmetic.from_zero(weights), low, high, uniform)
    assert np.bincount(picked, minlength=5).tolist() == [0, 5_000, 0, 15_000, 0]
