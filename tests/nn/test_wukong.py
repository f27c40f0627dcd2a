"""Laws of Wukong: it equals its published equations and its pooled history, in NumPy."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import pytest

from ligr_jax.config import ConfigError, ModelConfig, WukongConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.history import PooledInput, pooled_history
from tests.batches import FEATURES, model_config, random_batch
from tests.nn.models import logits, random_params
from tests.nn.test_blocks import norm

BATCH = random_batch([[[2, 3, 1], [1, 2]], [[3, 1, 2, 2]], []], 12, unknown=0.1)


def seen(batch: Batch, row: int, i: int, kind: str) -> tuple[list[int], list[int]]:
    """Return the impressions visible to impression i, and those of their newest session."""
    member, session = batch.member[row], batch.session[row]
    mine = [j for j in range(len(member)) if member[i] > 0 and member[j] == member[i]]
    lag = 2 if kind == "session_lag" else 1
    every = [j for j in mine if (j < i if kind == "causal" else session[j] <= session[i] - lag)]
    return every, [j for j in every if session[j] == session[every[-1]]]


def pooled(
    batch: Batch, items: np.ndarray, actions: np.ndarray, kind: str = "session"
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `pooled_history` impression by impression."""
    b, n, d = items.shape
    a = batch.labels.shape[-1]
    means, counts = np.zeros((b, n, 2 * (2 + a), d)), np.zeros((b, n, 2 * (1 + a)))
    for row, i in np.ndindex(b, n):
        for s, span in enumerate(seen(batch, row, i, kind)):
            taken = [[j for j in span if batch.labels[row, j, k] == 1] for k in range(a)]
            for slot, (token, group) in enumerate(
                [(items, span), (actions, span), *((items, group) for group in taken)]
            ):
                if group:
                    means[row, i, s * (2 + a) + slot] = token[row, group].mean(axis=0)
            for slot, group in enumerate([span, *taken]):
                counts[row, i, s * (1 + a) + slot] = np.log(1 + len(group))
    return means, counts


@pytest.mark.parametrize("kind", ["session", "session_lag", "causal"])
def test_history_is_pooled_over_the_impressions_that_the_mask_allows(kind: Any) -> None:
    rng = np.random.default_rng(0)
    items, actions = rng.normal(size=(2, *BATCH.member.shape, 4)).astype(np.float32)
    inputs = PooledInput(items, actions, BATCH.labels)
    result = jax.jit(pooled_history, static_argnums=2)(BATCH, inputs, kind)
    for ours, wanted in zip(result, pooled(BATCH, items, actions, kind)):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 0.5


def affine(x: np.ndarray, p: Any) -> np.ndarray:
    y: np.ndarray = x @ p["kernel"]
    return y + p["bias"] if "bias" in p else y


def mlp(x: np.ndarray, p: Any) -> np.ndarray:
    for i in range(len(p)):
        x = np.maximum(affine(x, p[f"layer_{i}"]), 0)
    return x


def layer(x: np.ndarray, p: Any, outputs: int) -> np.ndarray:
    """Apply a layer to one impression's embeddings X [n, D] (Zhang et al. 2024, section 3)."""
    interactions = x @ x.T @ p["fm"]["kernel"]
    hidden = mlp(norm(interactions.reshape(-1), p["fm_norm"]), p["mlp"])
    machines = affine(hidden, p["mlp_out"]).reshape(outputs, -1)
    compressed = p["compress"]["kernel"].T @ x
    kept = p["residual"]["kernel"].T @ x if "residual" in p else x
    return norm(np.concatenate([machines, compressed]) + kept, p["norm"])


def features_of(batch: Batch, tables: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    parts = {}
    for name in names:
        if FEATURES[name].has_table:
            parts[name] = tables[name][batch.ids[name]]
        elif FEATURES[name].kind == "vector":
            parts[name] = batch.vectors[name]
        else:
            gone = np.isnan(batch.numeric[name])
            parts[name] = np.stack([np.where(gone, 0, batch.numeric[name]), gone], axis=-1)
    return parts


def wukong(config: ModelConfig, p: Any, batch: Batch) -> np.ndarray:
    names = sorted(n for n, f in FEATURES.items() if not f.outcome)
    parts = features_of(batch, p["tables"], names)
    items = affine(np.concatenate(list(parts.values()), -1), p["items"]["projection"])
    known = [batch.labels == 1, batch.labels == -1, (batch.labels == 0).all(-1, keepdims=True)]
    actions = affine(np.concatenate(known, -1), p["actions"]["actions"])
    dwell = features_of(batch, p["tables"], ["dwell"])["dwell"]
    means, counts = pooled(batch, items, actions + affine(dwell, p["actions"]["projection"]))
    parts["history counts"] = counts
    dual = config.wukong.dual_path
    through = [n for n in parts if not dual or n not in ("age", "history counts")]
    x = np.stack([affine(parts[n], p["tokens"][f"from_{n}"]) for n in through] + [items], axis=2)
    x = np.concatenate([x, means], axis=2)

    z = np.zeros((*batch.member.shape, len(config.actions)))
    for index in np.ndindex(*batch.member.shape):
        h = x[index]
        for i in range(config.depth):
            h = layer(h, p["layers"][f"layer_{i}"], config.wukong.fm_outputs)
        h = h.reshape(-1)
        if dual:
            first = crossed = np.concatenate([parts[n][index] for n in parts if n != "content"])
            for i in range(2):
                crossed = first * affine(crossed, p[f"cross_{i}"]["w"]) + crossed
            h = np.concatenate([h, crossed])
        z[index] = affine(norm(mlp(h, p.get("mlp", {})), p["heads"]["norm"]), p["heads"]["logits"])
    return z


SHAPES = {
    "defaults": WukongConfig(),
    "odd": WukongConfig(fm_outputs=3, compress_outputs=5, rank=2, mlp=(2, 3), head=()),
    "dual path": WukongConfig(head=(2, 1), dual_path=True),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_the_model_equals_its_published_equations(shape: WukongConfig) -> None:
    config = model_config(kind="wukong", depth=2, set_depth=0, wukong=shape)
    params = random_params(config, BATCH, scale=0.1)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    wanted = wukong(config, exact, BATCH)
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(logits(config, params, BATCH), wanted, atol=2e-3, rtol=2e-3)


def test_pooled_history_has_no_rounding_error_from_other_members() -> None:
    """Differences of sums over the row would lose a small number that follows a large one."""
    items = np.full((1, 4, 1), 1e-3, np.float32)
    items[0, 0] = 1e8
    member = np.array([[1, 2, 2, 2]], np.int32)
    batch = random_batch([[[1], [1, 1, 1]]], 4)._replace(
        member=member, session=np.array([[0, 0, 1, 2]], np.int32)
    )
    pooled = jax.jit(lambda b: pooled_history(b, PooledInput(items, items, b.labels), "session"))
    means = np.asarray(pooled(batch)[0])
    np.testing.assert_allclose(means[0, 2:, 0, 0], 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set_depth": 1}, r"model.set_depth=1; set depth >= 1 and set_depth=0"),
        ({"depth": 0}, r"model.depth=0 and model.set_depth=0"),
        ({"parametrization": "mup"}, r"model.parametrization=mup has no rules .* tune optim.dense"),
        ({"gate": "none"}, r"model.gate=none applies to LiGR's block, .* set it to sigmoid"),
        (
            {"wukong": WukongConfig(dual_path=True), "features": {"age": FEATURES["age"]}},
            r"model.wukong.dual_path=true removes numeric features",
        ),
        ({"kind": "hstu", "attention": "silu"}, r"model.attention=silu .* set it to softmax"),
        ({"residual_scale": True}, r"model.residual_scale=true .* set it to false"),
    ],
)
def test_options_that_a_kind_does_not_have_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(**{"kind": "wukong", "set_depth": 0, **change})


def test_sizes_of_layers_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"model.wukong.rank=0 must be >= 1"):
        WukongConfig(rank=0)
    with pytest.raises(ConfigError, match=r"model.wukong.mlp=4,0: hidden widths must be >= 1"):
        WukongConfig(mlp=(4, 0))
