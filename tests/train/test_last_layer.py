"""Features of the last layer: logits are a linear function of them."""

import jax
import numpy as np
import pytest

from ligr_jax.config import HeadConfig
from ligr_jax.nn.models import make_model
from ligr_jax.train.last_layer import last_layer_features
from tests.batches import model_config, random_batch


def test_logits_are_linear_in_the_features() -> None:
    config = model_config(depth=1, set_depth=1, parametrization="mup", base_width=8)
    model, batch = make_model(config), random_batch([[[2, 1], [3]], [[1]]], 8)
    params = model.init(jax.random.key(0), batch)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten([x + jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])
    phi = last_layer_features(model, {"params": params}, batch)
    heads = [params[name]["logits"] for name in ("heads", "setwise_heads")]
    kernel = np.concatenate([h["kernel"] for h in heads])
    logits = phi @ kernel + sum(h["bias"] for h in heads)
    np.testing.assert_allclose(logits, model.apply({"params": params}, batch), rtol=1e-5, atol=1e-5)


def test_heads_without_a_common_layer_are_refused() -> None:
    config = model_config(depth=1, head=HeadConfig(kind="mlp", widths=(4,)))
    model, batch = make_model(config), random_batch([[[2, 1], [3]], [[1]]], 8)
    variables = model.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"no layer `logits`.*model\.head\.kind=linear"):
        last_layer_features(model, variables, batch)
