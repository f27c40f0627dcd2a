"""Laws of weights by position and response: what they correct, what they keep, their use."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import kendalltau

from ligr_jax.data.assemble import Assembler, default_features
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.policy.propensity import ResponseWeights, response_weights
from tests.batches import model_config
from tests.data.logs import write_log

POSITIONS, ITEMS = 10, 60
SEEN = 0.8 ** np.arange(POSITIONS)  # probability that a member looks at each position


def log_of(rng: np.random.Generator, slates: int, knows: float) -> tuple[np.ndarray, ...]:
    """Simulate a log of a production model that ranks by `knows` x log quality + noise.

    A fifth of the slates is in random order. Returns item, position, click and is_random of each
    impression, and the true quality of each item.
    """
    quality = 0.9 * SEEN[rng.integers(0, POSITIONS, ITEMS)] * rng.uniform(0.8, 1, ITEMS)
    score = knows * np.log(quality) + rng.normal(size=ITEMS)
    offered = rng.random((slates, ITEMS)).argpartition(POSITIONS, axis=1)[:, :POSITIONS]
    random = rng.random(slates) < 0.2
    by = np.where(random[:, None], rng.random(offered.shape), -score[offered])
    item = np.take_along_axis(offered, by.argsort(1), 1)
    click = rng.random(item.shape) < quality[item] * SEEN
    position = np.broadcast_to(np.arange(POSITIONS), item.shape)
    return (
        item.ravel(),
        position.ravel(),
        click.ravel().astype(int),
        np.repeat(random, POSITIONS).astype(int),
        quality,
    )


def order_kept(rng: np.random.Generator, knows: float) -> tuple[float, float]:
    """Return Kendall's tau between the qualities of items and their rates in the model's traffic.

    The first is without weights, the second with weights.
    """
    item, position, click, random, quality = log_of(rng, 8_000, knows)
    weight = response_weights(position, click, random)(position, click, random)
    taus = []
    for w in (np.ones(len(item)), weight):
        w = w * (random == 0)
        rate = np.bincount(item, w * click, ITEMS) / np.bincount(item, w, ITEMS)
        taus.append(float(kendalltau(rate, quality).statistic))
    return taus[0], taus[1]


def test_weights_recover_the_order_of_items_that_a_models_ranking_distorted() -> None:
    pairs = np.array([order_kept(np.random.default_rng(s), knows=1.0) for s in range(10)])
    assert (pairs[:, 1] > pairs[:, 0]).all(), pairs
    assert pairs[:, 1].mean() > 0.8 > pairs[:, 0].mean(), pairs.mean(0)


def test_a_random_order_keeps_its_position_bias() -> None:
    """Both kinds of traffic then have the same rates, so all weights are close to one."""
    pairs = np.array([order_kept(np.random.default_rng(s), knows=0.0) for s in range(10)])
    assert abs(pairs[:, 1] - pairs[:, 0]).max() < 0.1, pairs


def test_weighted_rates_are_those_of_random_traffic_and_weights_average_to_one() -> None:
    _, position, click, random, _ = log_of(np.random.default_rng(0), 4_000, knows=1.0)
    weight = response_weights(position, click, random, smoothing=1e-9)(position, click, random)
    for k in range(POSITIONS):
        ranked = (position == k) & (random == 0)
        shuffled = (position == k) & (random == 1)
        assert np.average(click[ranked], weights=weight[ranked]) == pytest.approx(
            click[shuffled].mean(), rel=1e-5
        )
        assert weight[ranked].mean() == pytest.approx(1, rel=1e-5)
        assert (weight[shuffled] == 1).all()


def test_smoothed_weights_equal_a_computation_by_hand() -> None:
    #            random: 1 of 2 at 0, 0 of 2 at 1 and after     other: 2 of 2, 0 of 1
    position = [0, 0, 1, 5, 0, 0, 1, 0]
    response = [1, 0, 0, 0, 1, 1, 0, -1]
    random = [1, 1, 1, 1, 0, 0, 0, 0]
    weights = response_weights(position, response, random, positions=2, smoothing=3)
    rates = np.array([[(1 + 0.75) / 5, 0.75 / 5], [(2 + 2) / 5, 2 / 4]])
    np.testing.assert_allclose(weights.table[:, 1], rates[0] / rates[1])
    np.testing.assert_allclose(weights.table[:, 0], (1 - rates[0]) / (1 - rates[1]))
    assert weights([9, 0], [0, -1], [0, 0]).tolist() == pytest.approx([weights.table[1, 0], 1])
    assert weights([0], [np.nan], [0]).tolist() == [1]  # a null in a column of a log
    with pytest.raises(ValueError, match="0 of 0 impressions of random traffic"):
        response_weights([0, 1], [0, 1], [0, 0])
    with pytest.raises(ValueError, match=r"position\[1\]=-1"):
        weights([0, -1], [0, 0], [0, 0])


def test_weights_reach_the_batch(tmp_path: Path) -> None:
    """They enter as the column `weight` of the log; context and padding keep weight zero."""
    log = write_log(tmp_path / "log", rows=300)
    position = log["member_id"].to_numpy() % 2
    weights = ResponseWeights(np.array([[0.5, 2.0], [0.25, 3.0]]))
    weight = weights(position, log["click"].to_numpy(), np.zeros(len(log)))
    log = log.with_columns(weight=pl.Series(weight))
    log.write_parquet(tmp_path / "log" / "impressions-00000.parquet")
    prepare(canonical_source(tmp_path / "log"), tmp_path / "prepared", PrepareOptions())
    records = Records(tmp_path / "prepared")
    plan = make_packing_plan(records, "train", capacity=16)
    features = {"item_id": default_features(records.manifest.columns)["item_id"]}
    batch = Assembler(records, plan, model_config(features=features, actions=("click",)))(
        np.arange(len(plan))
    )
    index, _, target = plan.gather(np.arange(len(plan)))
    member = np.searchsorted(records.offsets, index, side="right") - 1
    expected = weights.table[records.member_ids[member] % 2, (batch.labels[..., 0] > 0) * 1]
    np.testing.assert_allclose(batch.weight, np.where(target, expected, 0))
