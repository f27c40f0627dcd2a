"""The memory estimate equals the size of the training state and is close to XLA's allocation."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import Config, DataConfig, HeadConfig, OptimConfig
from ligr_jax.cost.flops import parameter_counts
from ligr_jax.cost.memory import (
    activation_bytes,
    dense_parameters,
    state_bytes,
    table_bytes,
)
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.models import make_model
from ligr_jax.tables.layout import layout
from ligr_jax.train.optimizer import Optimizer, make_optimizer
from ligr_jax.train.state import TrainState, abstract_state
from ligr_jax.train.step import make_step
from tests.batches import FEED_SR, HEAD_FEATURES, model_config, random_batch, with_head_features


def problem(config: Config) -> tuple[nn.Module, Optimizer, TrainState, object]:
    rows = [[[2, 2]]] * config.optim.batch
    batch = with_head_features(random_batch(rows, config.data.seq_len // 2))
    model = make_model(config.model)
    tx = make_optimizer(config.model, config.optim, 10, layout(config.model.tables))
    return model, tx, abstract_state(model, tx, batch), batch


@pytest.mark.parametrize("ffn", ["gelu", "swiglu", "none"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate": "none", "position": "relative_time", "depth": 5},
        {"set_depth": 0, "position": "none"},
        {"depth": 0, "width": 24, "heads": 3, "gate": "cadet"},
        {"gate": "both", "residual_scale": True},
        {"actions_as": "values", "position": "relative_session"},
        {"actions_as": "late_values", "position": "relative_session"},
        {"features": HEAD_FEATURES, "head": FEED_SR},
        {"features": HEAD_FEATURES, "head": HeadConfig("ple", levels=2, gated=True)},
        {
            "features": HEAD_FEATURES,
            "set_depth": 0,
            "head": HeadConfig("mlp", calibration=True, calibration_features=("tag",)),
        },
    ],
    ids=str,
)
def test_parameter_count_equals_that_of_the_model(ffn: str, changes: dict[str, object]) -> None:
    config = Config(model=model_config(ffn=ffn, **changes), data=DataConfig(seq_len=16))
    params = problem(config)[2].params
    assert dense_parameters(config.model) == parameter_counts(config.model, params)["dense"]


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adagrad", "lazy_adam", "sgd", "adamw"])
def test_state_is_counted_to_the_byte(rule: str) -> None:
    optim = OptimConfig(table_optimizer=rule)  # type: ignore[arg-type]
    config = Config(model=model_config(), data=DataConfig(seq_len=16), optim=optim)
    state = problem(config)[2]
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert state_bytes(config) == size
    assert 0 < table_bytes(config) < size


@pytest.mark.parametrize(
    ("seq_len", "changes"),
    [
        (64, {"depth": 2, "set_depth": 1}),
        (96, {"depth": 4, "set_depth": 0, "unroll": "no", "remat": True}),
        (320, {"depth": 2, "set_depth": 1, "unroll": "no", "ffn": "none", "dtype": "bfloat16"}),
        (64, {"depth": 2, "set_depth": 1, "gate": "both", "residual_scale": True}),
        (64, {"depth": 2, "set_depth": 1, "actions_as": "values"}),
        (64, {"depth": 1, "set_depth": 0, "actions_as": "late_values"}),
    ],
    ids=["dense", "recomputed", "blocked, scanned, bfloat16", "all gates", "values", "late"],
)
def test_activations_are_within_a_factor_of_two_of_what_xla_allocates(
    seq_len: int, changes: dict[str, object]
) -> None:
    model_changes = {"width": 64, "heads": 4, **changes}
    config = Config(
        model=model_config(**model_changes),
        data=DataConfig(seq_len=seq_len),
        optim=OptimConfig(batch=16),
    )
    model, tx, state, batch = problem(config)
    inputs = UniqueIdMapper(config.model)(batch)  # type: ignore[arg-type]
    step = jax.jit(make_step(model, tx, config.optim, jax.random.key(0)), donate_argnums=0)
    allocated = step.lower(state, inputs).compile().memory_analysis().temp_size_in_bytes
    counted = activation_bytes(config, 16, on_cpu=True) + 4 * dense_parameters(config.model)
    assert np.abs(np.log2(allocated / counted)) < 1
