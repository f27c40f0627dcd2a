"""LiGR without action tokens equals its equations in NumPy; its own action is never a value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.nn.action_values import ActionValueAttention, ItemStream
from ligr_jax.nn.late_actions import LateActions
from ligr_jax.nn.models import attention_pairs
from ligr_jax.nn.mup import multipliers
from ligr_jax.nn.streams import View
from ligr_jax.ops.masks import earlier_mask
from tests.batches import model_config, random_batch

pytestmark = pytest.mark.usefixtures("quick_keys")

N, D, HEADS = 9, 6, 2
BATCH = random_batch([[[2, 3, 1], [1, 1]], [[1, 4, 2]]], N)
RNG = np.random.default_rng(0)
ITEMS, ACTIONS = RNG.normal(size=(2, 2, N, D)).astype(np.float32)


def seen() -> np.ndarray:
    """Return the impressions of earlier sessions that each impression sees, bool [B, N, N]."""
    member, session = BATCH.member, BATCH.session
    same = (member[:, :, None] == member[:, None]) & (member > 0)[:, None]
    return np.asarray(same & (session[:, :, None] > session[:, None]))


def applied(module: Any, *args: Any) -> tuple[Any, np.ndarray]:
    """Return random parameters in float64, and the output of a layer that has them."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]
    params = jax.tree.map(lambda p: RNG.normal(size=p.shape).astype(np.float32), shapes)
    out = jax.jit(lambda p: module.apply({"params": p}, *args)[0])(params)
    return jax.tree.map(lambda p: p.astype(np.float64), params), np.asarray(out)


def view() -> View:
    ranges = earlier_mask(jnp.asarray(BATCH.member), jnp.asarray(BATCH.session))
    return View(history=None, ranges=ranges)


def by_head(x: np.ndarray) -> np.ndarray:
    return x.reshape(2, N, HEADS, -1)


def weights(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return exponentials of scores [B, H, N, N]."""
    scores = np.einsum("bihk,bjhk->bhij", q, k) / np.sqrt(q.shape[-1])
    return np.asarray(np.exp(scores))


def shape(actions_as: str, **changes: Any) -> ModelConfig:
    return model_config(
        actions_as=actions_as, width=D, heads=HEADS, position="none", unroll="no", **changes
    )


def test_actions_are_values_of_earlier_impressions() -> None:
    module = ActionValueAttention(shape("values"))
    p, ours = applied(module, jnp.asarray(ITEMS), jnp.asarray(ACTIONS), view(), None)
    q, k, v = (by_head(part) for part in np.split(ITEMS @ p["qkv"]["kernel"], 3, -1))
    of_actions = by_head(ACTIONS @ p["action_values"]["kernel"])
    weight = weights(q, k)
    earlier = weight * seen()[:, None]
    itself = weight * np.eye(N)
    mixed = np.einsum("bhij,bjhk->bihk", earlier, v + of_actions)
    mixed += np.einsum("bhij,bjhk->bihk", itself, v)
    mixed /= np.moveaxis((earlier + itself).sum(-1), 1, 2)[..., None]
    wanted = mixed.reshape(2, N, D) @ p["out"]["kernel"]
    real = BATCH.member > 0
    np.testing.assert_allclose(ours[real], wanted[real], rtol=1e-4, atol=1e-4)


def test_late_attention_reads_the_actions_of_earlier_impressions() -> None:
    """An impression without history reads nothing."""
    module = LateActions(shape("late_values"))
    stream = ItemStream(jnp.asarray(ITEMS), jnp.asarray(ACTIONS))
    p, ours = applied(module, stream, view(), None)
    x = ITEMS - ITEMS.mean(-1, keepdims=True)
    x = x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
    q, k = (by_head(x @ p[name]["kernel"]) for name in ("query", "key"))
    weight = weights(q, k) * seen()[:, None]
    mixed = np.einsum("bhij,bjhk->bihk", weight, by_head(ACTIONS @ p["value"]["kernel"]))
    mixed /= np.maximum(np.moveaxis(weight.sum(-1), 1, 2), 1e-30)[..., None]
    wanted = mixed.reshape(2, N, D) @ p["out"]["kernel"]
    real = BATCH.member > 0
    np.testing.assert_allclose(ours[real], wanted[real], rtol=1e-4, atol=1e-4)
    assert not ours[real & ~seen().any(-1)].any()


@pytest.mark.parametrize("actions_as", ["values", "late_values"])
def test_pairs_are_those_of_items(actions_as: str) -> None:
    pairs = attention_pairs(shape(actions_as), BATCH.member, BATCH.session)
    assert pairs["history_pairs"] == seen().sum() + (BATCH.member > 0).sum()


def test_matrices_of_the_late_attention_have_rates_of_a_width_and_no_depth() -> None:
    config = shape("late_values", parametrization="mup", base_width=3, base_heads=1, depth=6)
    path = tuple(jax.tree_util.DictKey(name) for name in ("late_actions", "query", "kernel"))
    assert multipliers(config, path) == (1 / 2, 1 / 2)


@pytest.mark.parametrize("changes", [{"kind": "hstu"}, {"depth": 0}, {"next_item": "item_id"}])
def test_layers_that_have_no_action_values_are_refused(changes: Any) -> None:
    with pytest.raises(ConfigError, match=r"set model\.actions_as=tokens"):
        model_config(actions_as="values", **changes)
