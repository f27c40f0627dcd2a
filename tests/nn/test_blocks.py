"""Laws of the gated block: it equals its two equations, written in NumPy and float64."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from ligr_jax.config import ModelConfig
from ligr_jax.nn.blocks import Block
from ligr_jax.ops.masks import dense_mask, history_mask
from tests.batches import model_config, random_batch


def norm(x: np.ndarray, p: Any) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * p["scale"] + p["bias"]


def block(h: np.ndarray, p: Any, allowed: np.ndarray, config: ModelConfig) -> np.ndarray:
    def gate(h: np.ndarray, p: Any) -> np.ndarray | float:
        gates = expit(h @ p["gate"]["kernel"]) if config.gate in ("sigmoid", "both") else 1.0
        return gates * p.get("residual_scale", 1.0)

    def self_gated(x: np.ndarray, name: str) -> np.ndarray:
        if config.gate not in ("cadet", "both"):
            return x
        return x * expit(x @ p["attention"][name]["gate"]["kernel"])

    b, t, d = h.shape
    x = self_gated(norm(h, p["gated_attention"]["norm"]), "input_gate")
    q, k, v = np.split(x @ p["attention"]["qkv"]["kernel"], 3, axis=-1)
    q, k = self_gated(q, "query_gate"), self_gated(k, "key_gate")
    q, k, v = (x.reshape(b, t, config.heads, -1).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(d // config.heads)
    mixed = softmax(np.where(allowed[:, None], scores, -np.inf), axis=-1) @ v
    out = np.moveaxis(mixed, 1, 2).reshape(b, t, d) @ p["attention"]["out"]["kernel"]
    h = h + out * gate(h, p["gated_attention"])
    if config.ffn == "none":
        return h
    x, f = norm(h, p["gated_ffn"]["norm"]), p["ffn"]
    if config.ffn == "gelu":
        u = x @ f["up"]["kernel"] + f["up"]["bias"]
        hidden = u / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        out = hidden @ f["down"]["kernel"] + f["down"]["bias"]
    else:
        u = x @ f["up"]["kernel"]
        out = (u * expit(u) * (x @ f["value"]["kernel"])) @ f["down"]["kernel"]
    return h + out * gate(h, p["gated_ffn"])


@pytest.mark.parametrize(
    "changes",
    [
        {"ffn": "gelu"},
        {"ffn": "gelu", "gate": "none"},
        {"ffn": "swiglu"},
        {"ffn": "none", "gate": "none"},
        {"ffn": "none", "gate": "cadet"},
        {"ffn": "gelu", "gate": "both", "residual_scale": True},
    ],
    ids=str,
)
def test_a_block_equals_its_two_equations(changes: dict[str, object]) -> None:
    config = model_config(**changes)
    batch = random_batch([[[2, 3, 1]], [[1, 2], [3]]], 6)
    mask = history_mask(batch.member, batch.session)
    rng = np.random.default_rng(0)
    h = rng.normal(size=(2, 12, config.width)).astype(np.float32)
    shapes = jax.eval_shape(Block(config).init, jax.random.key(0), h, mask, None, True)["params"]
    params = jax.tree.map(lambda s: 0.4 * rng.normal(size=s.shape).astype(np.float32), shapes)

    apply = jax.jit(Block(config).apply, static_argnums=4)
    out, _ = apply({"params": params}, h, mask, None, True)
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    wanted = block(h.astype(np.float64), exact, np.asarray(dense_mask(mask)), config)
    np.testing.assert_allclose(out, wanted, atol=1e-4, rtol=1e-4)
