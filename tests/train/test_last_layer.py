"""Features of the last layer: logits are a linear function of them."""

import functools

import jax
import numpy as np
import pytest

from ligr_jax.config import HeadConfig
from ligr_jax.nn.models import make_model
from ligr_jax.train.last_layer import last_layer_features
from tests.batches import HEAD_FEATURES, model_config, random_batch


def test_logits_are_linear_in_the_features() -> None:
    config = model_config(depth=1, set_depth=1, parametrization="mup", base_width=8)
    model, batch = make_model(config), random_batch([[[2, 1], [3]], [[1]]], 8)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(size=x.shape).astype(np.float32),
        jax.jit(model.init)(jax.random.key(0), batch)["params"],
    )
    features = functools.partial(last_layer_features, model)
    phi = jax.jit(features)({"params": params}, batch)
    heads = [params[name]["logits"] for name in ("heads", "setwise_heads")]
    kernel = np.concatenate([h["kernel"] for h in heads])
    logits = phi @ kernel + sum(h["bias"] for h in heads)
    expected = jax.jit(model.apply)({"params": params}, batch)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_several_output_layers_of_an_action_are_refused() -> None:
    for changes in ({"features": HEAD_FEATURES}, {"head": HeadConfig(cross_layers=1)}):
        model = make_model(model_config(**changes))
        with pytest.raises(ValueError, match="the logits are not one layer's"):
            last_layer_features(model, {}, random_batch([[[1]]], 1))


def test_heads_without_a_common_layer_are_refused() -> None:
    config = model_config(depth=1, head=HeadConfig(kind="mlp", widths=(4,)))
    model, batch = make_model(config), random_batch([[[2, 1], [3]], [[1]]], 8)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"no layer `logits`.*model\.head\.kind=linear"):
        jax.jit(functools.partial(last_layer_features, model))(variables, batch)
