"""Laws of the model's options: some change the numbers, others must not."""

from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.ligr import LiGR
from tests.batches import FEATURES, model_config, random_batch
from tests.nn.models import logits, random_params, value_and_gradient

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

N = 8


@pytest.fixture(scope="module")
def batch() -> Batch:
    return random_batch([[[2, 1, 2], [1, 2]], [[3, 2]]], N)


def fresh_params(config: ModelConfig, batch: Batch) -> Any:
    init = jax.jit(LiGR(config).init)
    return init(jax.random.key(0), batch)["params"]


def test_scanning_unrolling_and_remat_give_the_same_parameters_and_numbers(batch: Batch) -> None:
    configs = [
        model_config(unroll=unroll, remat=remat, depth=2, set_depth=0)
        for unroll, remat in (("no", False), ("yes", False), ("no", True), ("yes", True))
    ]
    fresh = [fresh_params(c, batch) for c in configs]
    for other in fresh[1:]:
        jax.tree.map(np.testing.assert_array_equal, fresh[0], other)
    kernels = np.asarray(fresh[0]["history"]["layers"]["attention"]["qkv"]["kernel"])
    assert kernels.shape[0] == 2
    assert not np.allclose(kernels[0], kernels[1])  # layers are initialized differently
    params = random_params(configs[0], batch)
    (_, z), gradient = value_and_gradient(configs[0], params, batch)
    for config in configs[1:]:
        (_, other_z), other_gradient = value_and_gradient(config, params, batch)
        np.testing.assert_allclose(other_z, z, atol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
            gradient,
            other_gradient,
        )


@pytest.mark.parametrize("ffn", ["gelu", "swiglu"])
def test_bfloat16_agrees_with_float32_within_its_rounding(batch: Batch, ffn: str) -> None:
    shape = {"unroll": "no", "depth": 2, "set_depth": 0}
    exact, short = (model_config(ffn=ffn, dtype=d, **shape) for d in ("float32", "bfloat16"))
    params = random_params(exact, batch, scale=0.1)
    assert jax.tree.all(jax.tree.map(lambda p: p.dtype == jnp.float32, params))
    ((_, a), gradient), ((_, b), other) = (
        value_and_gradient(c, params, batch) for c in (exact, short)
    )
    assert b.dtype == jnp.float32
    np.testing.assert_array_less(np.linalg.norm(b - a), 0.03 * np.linalg.norm(a))
    g, h = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (gradient, other))
    cosine = g @ h / np.linalg.norm(g) / np.linalg.norm(h)
    assert cosine > 0.99


ABLATIONS = {
    "base": {},
    **{
        f"{name}={value}": {name: value}
        for name in ("gate", "ffn", "attention", "position", "mask", "action_token", "actions_as")
        for value in get_args(get_type_hints(ModelConfig)[name])
        if value != getattr(ModelConfig, name)
    },
    "residual_scale": {"residual_scale": True},
    "depth=0": {"depth": 0},
    "set_depth=0": {"set_depth": 0},
    "no outcome": {"features": {k: f for k, f in FEATURES.items() if not f.outcome}},
    "one feature": {"features": {"age": FEATURES["age"]}},
}


def test_all_ablations_differ(batch: Batch) -> None:
    """That each has gradients by all of its parameters is in test_ligr.py."""
    outputs: dict[str, np.ndarray] = {}
    for name, changes in ABLATIONS.items():
        config = model_config(unroll="no", **{"depth": 2, "set_depth": 1, **changes})
        z = logits(config, random_params(config, batch, scale=0.2), batch)
        outputs[name] = np.asarray(z)[batch.member > 0]
        for other, output in outputs.items():
            assert other == name or not np.allclose(output, outputs[name], atol=1e-3), (other, name)


def test_dropout_is_off_if_deterministic_and_depends_on_its_key_otherwise(batch: Batch) -> None:
    config, still = model_config(unroll="no", dropout=0.5), model_config(unroll="no")
    params = random_params(config, batch)
    np.testing.assert_array_equal(logits(config, params, batch), logits(still, params, batch))

    def noisy(key: jax.Array) -> jax.Array:
        rngs = {"dropout": key}
        z = LiGR(config).apply({"params": params}, batch, deterministic=False, rngs=rngs)
        return jnp.asarray(z)

    noisy = jax.jit(noisy)
    a, same_key, b = (noisy(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(a, same_key)
    assert not np.allclose(a, b)
    assert not np.allclose(a, logits(config, params, batch))


def test_an_initial_model_predicts_the_base_rates(batch: Batch) -> None:
    prior = (0.2, 0.05, 0.5)
    config = model_config(unroll="no", prior=prior, depth=0, set_depth=1)
    params = fresh_params(config, batch)
    rate = jax.nn.sigmoid(logits(config, params, batch))
    np.testing.assert_allclose(rate, np.broadcast_to(prior, rate.shape), rtol=1e-5)


def test_an_unknown_action_differs_from_taken_and_not_taken(batch: Batch) -> None:
    """The three values of a label give three different later logits."""
    config = model_config(unroll="no")
    params = random_params(config, batch)
    later = (1, 4)  # second session of the second row
    values = []
    for label in (-1, 0, 1):
        labels = np.array(batch.labels)
        labels[1, 0] = (label, 0, 0)
        values.append(np.asarray(logits(config, params, batch._replace(labels=labels)))[later])
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[0], values[2])
    assert not np.allclose(values[1], values[2])


def test_a_missing_number_is_not_a_zero(batch: Batch) -> None:
    config = model_config(unroll="no")
    params = random_params(config, batch)
    outputs = []
    for value in (np.nan, 0.0):
        age = np.array(batch.numeric["age"])
        age[0, 0] = value
        outputs.append(np.asarray(logits(config, params, batch._replace(numeric={"age": age}))))
    assert not np.allclose(outputs[0][0, 0], outputs[1][0, 0])


def test_a_model_without_item_features_is_refused(batch: Batch) -> None:
    config = model_config(features={"dwell": FEATURES["dwell"]})
    with pytest.raises(ValueError, match="no item feature"):
        LiGR(config).init(jax.random.key(0), batch)
