"""Laws of HSTU's layer: it equals its published equations, in NumPy and float64."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.nn.hstu import TransductionUnit
from ligr_jax.ops.attention import bucket_distance
from ligr_jax.ops.masks import Mask, dense_mask, history_mask, session_mask
from tests.batches import model_config, random_batch
from tests.nn.fixtures import load_fixture
from tests.nn.test_blocks import norm

BATCH = random_batch([[[2, 3, 1]], [[1, 2], [3]]], 6)


def silu(x: np.ndarray) -> np.ndarray:
    return x * expit(x)


def unit(
    x: np.ndarray, p: Any, allowed: np.ndarray, rab: np.ndarray | float, heads: int, n: Any
) -> np.ndarray:
    """Return equations 1 to 3 of Zhai et al. 2024; sums over keys are divided by n.

    The widths of values and of keys may differ.
    """
    b, t, _ = x.shape
    projected = silu(norm(x, p["norm"]) @ p["uvqk"]["kernel"] + p["uvqk"]["bias"])
    values = len(p["out"]["kernel"])
    keys = projected.shape[-1] // 2 - values
    u, v, q, k = np.split(projected, np.cumsum([values, values, keys]), axis=-1)
    v, q, k = (np.moveaxis(a.reshape(b, t, heads, -1), 2, 1) for a in (v, q, k))
    weights = silu(q @ k.swapaxes(-1, -2) + rab) / n * allowed[:, None]
    mixed = np.moveaxis(weights @ v, 1, 2).reshape(b, t, values)
    return x + (norm(mixed, p["mixed_norm"]) * u) @ p["out"]["kernel"] + p["out"]["bias"]


def parameters_of(config: ModelConfig, x: np.ndarray, mask: Mask, place: Any) -> Any:
    init = TransductionUnit(config).init
    shapes = jax.eval_shape(init, jax.random.key(0), x, mask, place, True)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: 0.4 * rng.normal(size=s.shape).astype(np.float32), shapes)


def test_the_reference_equals_the_published_code() -> None:
    """With its biases by time and by place, divided by the padded length of the row."""
    fixture = load_fixture("hstu_research_layer")
    c, params = fixture.config, fixture.params
    plain = {"scale": np.ones(1), "bias": np.zeros(1)}
    layer = {
        **{"norm": plain, "mixed_norm": plain, "uvqk": {"kernel": params["uvqk"], "bias": 0.0}},
        "out": {"kernel": params["out/kernel"], "bias": params["out/bias"]},
    }
    i, j = np.ogrid[: c["N"], : c["N"]]
    offsets = fixture.extra["offsets"]
    for row, times in enumerate(fixture.extra["times"]):
        # The time of a query is that of the event that follows it.
        following = np.append(times[1:], times[-1])
        apart = np.maximum(np.abs(following[:, None] - times[None, :]), 1)
        bucket = np.clip((np.log(apart) / 0.301).astype(int), 0, c["buckets"])
        rab = params["time_bias"][bucket] + params["position_bias"][c["N"] - 1 + j - i]
        length = offsets[row + 1] - offsets[row]
        x = fixture.inputs["x"][offsets[row] : offsets[row + 1]].astype(np.float64)
        allowed = fixture.extra["mask"][:length, :length].astype(bool)
        y = unit(x[None], layer, allowed[None], rab[:length, :length], c["H"], c["N"])[0]
        expected = fixture.outputs["y"][offsets[row] : offsets[row + 1]]
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("attention_length", [0, 50])
@pytest.mark.parametrize("implementation", ["dense", "blocked"])
def test_a_layer_equals_its_published_equations_under_our_masks(
    implementation: str, attention_length: int
) -> None:
    config = model_config(
        kind="hstu", implementation=implementation, attention_length=attention_length
    )
    history = (history_mask(BATCH.member, BATCH.session), np.repeat(BATCH.session, 2, axis=1), 12)
    setwise = (session_mask(BATCH.member, BATCH.session), None, 6)
    apply = jax.jit(TransductionUnit(config).apply, static_argnums=4)
    for mask, place, length in (history, setwise):
        x = np.random.default_rng(0).normal(size=(2, length, config.width)).astype(np.float32)
        params = parameters_of(config, x, mask, place)
        out, _ = apply({"params": params}, x, mask, place, True)
        exact = jax.tree.map(lambda p: p.astype(np.float64), params)
        rab: np.ndarray | float = 0.0
        if place is not None:
            apart = np.abs(place[:, :, None] - place[:, None, :])
            rab = np.moveaxis(exact["bias"][:, np.asarray(bucket_distance(apart, 32))], 0, 1)
        allowed = np.asarray(dense_mask(mask))
        keys = allowed.sum(-1)[:, None, :, None]
        n = attention_length or keys
        wanted = unit(x.astype(np.float64), exact, allowed, rab, config.heads, n)
        np.testing.assert_allclose(out, wanted, atol=1e-4, rtol=1e-4)


def test_a_long_divisor_makes_the_epsilon_of_the_norm_matter() -> None:
    """The numbers of the module's docstring at its smallest width, at initial weights."""
    batch = random_batch([[[1] * 12]], 12)
    mask = history_mask(batch.member, batch.session)
    x = np.random.default_rng(0).normal(size=(1, 24, 16)).astype(np.float32)
    added = {}
    for n in (0, 24, 2048):
        config = model_config(kind="hstu", width=16, position="none", attention_length=n)
        run = jax.jit(TransductionUnit(config).init_with_output, static_argnums=4)
        (y, _), _ = run(jax.random.key(0), x, mask, None, True)
        added[n] = y - x
    change = {n: np.linalg.norm(a - added[0]) / np.linalg.norm(added[0]) for n, a in added.items()}
    assert change[24] < 0.01
    assert change[2048] == pytest.approx(0.55, abs=0.1)


def test_only_hstu_divides_by_a_length() -> None:
    with pytest.raises(ConfigError, match=r"model.attention_length=8 .* got model.kind=ligr"):
        model_config(attention_length=8)
    with pytest.raises(ConfigError, match=r"model.attention_length=-1 must be >= 0"):
        model_config(kind="hstu", attention_length=-1)
