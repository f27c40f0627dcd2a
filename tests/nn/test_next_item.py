"""The head that predicts the next item: its loss, its masks, its counts."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from ligr_jax.config import Config, ConfigError, DataConfig, OptimConfig
from ligr_jax.cost.flops import forward_flops, parameter_counts
from ligr_jax.cost.memory import dense_parameters
from ligr_jax.nn.experts import LOSSES
from ligr_jax.nn.models import make_model
from ligr_jax.nn.next_item import next_item_loss
from ligr_jax.nn.work import Work
from ligr_jax.tables.layout import layout
from ligr_jax.train.optimizer import make_optimizer
from ligr_jax.train.preflight import require_whole_tables
from ligr_jax.train.state import abstract_state
from tests.batches import model_config, random_batch
from tests.cost.test_flops import products
from tests.nn.models import random_params

N = 8
CONFIG = model_config(next_item="item_id", mask="causal", depth=2, set_depth=0, unroll="no")
BATCH = random_batch([[[2, 1], [1, 3]], [[4]], []], N)


def test_loss_is_the_cross_entropy_of_the_targets_that_have_an_earlier_impression() -> None:
    rng = np.random.default_rng(0)
    query, rows = rng.normal(size=(3, N, 5)), rng.normal(size=(50, 5))
    item = BATCH.ids["item_id"].copy()
    item[0, 1] = 0  # missing
    weight = BATCH.weight * rng.uniform(0.5, 2, BATCH.weight.shape)
    weight[1, 2] = 0  # context
    total = norm = 0.0
    for b, i in np.ndindex(3, N - 1):
        following = b, i + 1
        if BATCH.member[following] == BATCH.member[b, i] > 0 and item[following]:
            classes = log_softmax(rows[1:] @ query[b, i])
            total -= weight[following] * classes[item[following] - 1]
            norm += weight[following]
    loss, grads = jax.jit(jax.value_and_grad(next_item_loss, argnums=(0, 1)))(
        query.astype(np.float32), rows.astype(np.float32), item, BATCH.member, weight
    )
    assert loss == pytest.approx(total / norm, rel=1e-5)
    assert all(np.isfinite(g).all() for g in grads)


def test_no_later_item_or_action_reaches_a_query() -> None:
    model = make_model(CONFIG)
    params = {"params": random_params(CONFIG, BATCH)}
    queries = jax.jit(lambda b: model.apply(params, b, method="next_item_queries"))
    before = queries(BATCH)
    k = 5  # the second impression of the second member of row 0
    changed = BATCH.ids["item_id"].copy()
    changed[0, k] += 1
    after = queries(
        BATCH._replace(ids={**BATCH.ids, "item_id": changed}, labels=1 - np.abs(BATCH.labels))
    )
    differs = np.abs(np.asarray(after - before)).max(axis=-1)[0] > 0
    only_item = queries(BATCH._replace(ids={**BATCH.ids, "item_id": changed}))
    differs_by_item = np.abs(np.asarray(only_item - before)).max(axis=-1)
    assert differs[: k + 1].any()  # the actions are read
    assert not differs_by_item[0, :k].any()
    assert not differs_by_item[1:].any()
    assert differs_by_item[0, k:7].all()


def test_counts_of_flops_and_parameters_equal_those_of_the_traced_model() -> None:
    model = make_model(CONFIG)
    full = random_batch([[[4, 4]]] * 2, N)

    tx = make_optimizer(CONFIG, OptimConfig(table_optimizer="adamw"), 10, layout(CONFIG.tables))
    params = abstract_state(model, tx, full).params
    assert dense_parameters(CONFIG) == parameter_counts(CONFIG, params)["dense"]

    def traced_flops(deterministic: bool) -> float:
        def forward(p: Any) -> Any:
            return model.apply({"params": p}, full, deterministic=deterministic, mutable=[LOSSES])

        return sum(products(jax.make_jaxpr(forward)(params).jaxpr))

    work = Work(impressions=2 * N, history_pairs=0, set_pairs=0)
    assert forward_flops(CONFIG, work)["next_item"] == traced_flops(False) - traced_flops(True)


def test_settings_that_cannot_predict_the_next_item_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.next_item=age is not a categorical feature"):
        model_config(next_item="age")
    with pytest.raises(ConfigError, match=r"model.kind=wukong"):
        model_config(next_item="item_id", kind="wukong", set_depth=0)
    config = Config(model=CONFIG, data=DataConfig(seq_len=16))
    with pytest.raises(ConfigError, match=r"set optim.table_optimizer=adamw"):
        require_whole_tables(config)
