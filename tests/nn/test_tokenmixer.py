"""TokenMixer-Large equals a public layer and its equations; sparse experts compute the chosen."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig, TokenMixerConfig, TwoStreamConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.experts import LOSSES
from ligr_jax.nn.models import make_model
from ligr_jax.nn.per_token_experts import PerTokenExperts
from ligr_jax.nn.tokenmixer import TokenMixer, TokenMixerLayer, TokenMixerStack
from tests.batches import random_batch
from tests.nn.fixtures import Arrays, check, load_fixture
from tests.nn.models import random_params
from tests.nn.two_stream_kinds import two_stream_config

pytestmark = pytest.mark.usefixtures("quick_keys")

M, D, F = 4, 8, 32
DENSE = TokenMixerConfig(down_init=1.0)


def tokenmixer(**changes: Any) -> ModelConfig:
    defaults = {"tokenmixer": DENSE, "streams": TwoStreamConfig(M), "position": "none"}
    return two_stream_config("tokenmixer", **(defaults | changes))


def drawn(module: nn.Module, *args: Any) -> Any:
    """Return random parameters of a module."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape) * s.shape[-1] ** -0.5, jnp.float32), shapes
    )


def tokens() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, M, D)).astype(np.float32)


def test_layers_equal_those_of_a_public_code() -> None:
    """UniRank's, with LayerNorm, GELU and no bias of the down projections."""
    fixture = load_fixture("tokenmixer_large_block")
    c = fixture.config
    # F is 20 in the fixture and 24 in our layer, where widths are multiples of 8.
    config = tokenmixer(width=c["D"], ffn_factor=2.4, streams=TwoStreamConfig(c["T"]))
    layer = TokenMixerLayer(
        config,
        activation=lambda x: nn.gelu(x, approximate=False),
        norm=nn.LayerNorm,
        epsilon=c["eps"],
    )

    def fn(inputs: Arrays, params: Arrays) -> jax.Array:
        x = inputs["x"][None]
        for i in range(c["layers"]):
            x = layer.apply({"params": layer_params(params, f"layer{i}")}, x, True)
        return x[0]

    check(fn, fixture)


def layer_params(p: Arrays, prefix: str) -> dict[str, Any]:
    """Return the parameters of a layer from those of the fixture, padded to the width F = 24."""

    def norm(name: str) -> dict[str, jax.Array]:
        return {"scale": p[f"{prefix}/{name}/gain"], "bias": p[f"{prefix}/{name}/bias"]}

    def transform(name: str) -> dict[str, Any]:
        def linear(part: str) -> dict[str, jax.Array]:
            kernel, bias = p[f"{prefix}/{name}/{part}"], p[f"{prefix}/{name}/{part}_bias"]
            return {
                "kernel": jnp.pad(kernel, [(0, 0), (0, 0), (0, 4)]),
                "bias": jnp.pad(bias, [(0, 0), (0, 4)]),
            }

        down = jnp.pad(p[f"{prefix}/{name}/down"], [(0, 0), (0, 4), (0, 0)])
        bias = jnp.zeros(down.shape[::2])
        network = {"up": linear("gate"), "value": linear("up")}
        return {"per_token": network | {"down": {"kernel": down, "bias": bias}}}

    return {
        "mix_norm": norm("mix_norm"),
        "token_norm": norm("ffn_norm"),
        "mixed": transform("mixed"),
        "token": transform("token"),
    }


def reference_layer(x: np.ndarray, p: Any, reading: str) -> np.ndarray:
    def norm(x: np.ndarray, p: Any) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]

    def mix(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:-1], M, D // M).swapaxes(-3, -2).reshape(x.shape)

    def transform(x: np.ndarray, p: Any) -> np.ndarray:
        def linear(name: str, x: np.ndarray) -> np.ndarray:
            layer = p["per_token"][name]
            return np.einsum("...MD,MDF->...MF", x, layer["kernel"]) + layer["bias"]

        up = linear("up", x)
        return linear("down", up / (1 + np.exp(-up)) * linear("value", x))

    y = x + mix(transform(mix(norm(x, p["mix_norm"])), p["mixed"]))
    return (y if reading == "residual" else x) + transform(norm(y, p["token_norm"]), p["token"])


@pytest.mark.parametrize("reading", ["residual", "revert"])
def test_layers_and_their_residuals_equal_the_equations(reading: Any) -> None:
    """Five layers with s = 2, under mup with l = 1: X^0 is added to X^2, and X^2 to X^4."""
    config = tokenmixer(
        depth=5, tokenmixer=dataclasses.replace(DENSE, reading=reading, residual_interval=2)
    )
    x = tokens()
    stack = TokenMixerStack(config)
    params = drawn(stack, x, True)
    last, outputs = jax.jit(lambda p: stack.apply({"params": p}, x, True))(params)
    expected = [x.astype(np.float64)]
    for i in range(5):
        p = jax.tree.map(lambda a, i=i: np.asarray(a[i], np.float64), params["layers"]["layer"])
        y = reference_layer(expected[-1], p, reading)
        expected.append(y + expected[i - 1] if i in (1, 3) else y)
    scale = np.abs(expected[-1]).max()
    np.testing.assert_allclose(last, expected[-1], rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(outputs, np.stack(expected[1:]), rtol=0, atol=1e-5 * scale)


def test_the_auxiliary_loss_is_the_mean_cross_entropy_of_a_middle_layer() -> None:
    """Of heads that read the mean of the tokens after layer s; only in training."""
    config = tokenmixer(depth=3, tokenmixer=TokenMixerConfig(auxiliary_weight=0.3))
    batch = random_batch([[[2, 3]], [[4]]], 6, unknown=0.2)
    model = make_model(config)
    params = random_params(config, batch)
    keys = {"dropout": jax.random.key(0)}
    trained, found = jax.jit(
        lambda p: model.apply({"params": p}, batch, False, rngs=keys, mutable=[LOSSES])
    )(params)
    (loss,) = jax.tree.leaves(found)

    x_BNMD = jax.jit(lambda p: middle_tokens(model, p, batch))(params)
    x = np.asarray(x_BNMD, np.float64).mean(2)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    p = jax.device_get(params["middle_heads_0"])
    z = (x * p["norm"]["scale"] + p["norm"]["bias"]) @ p["logits"]["kernel"] + p["logits"]["bias"]
    known = batch.weight[..., None] * (batch.labels >= 0)
    total = (known * (np.logaddexp(0, z) - z * (batch.labels > 0))).sum((0, 1))
    assert float(loss) == pytest.approx(0.3 * (total / known.sum((0, 1))).sum(), rel=1e-5)

    served, found = jax.jit(lambda p: model.apply({"params": p}, batch, mutable=[LOSSES]))(params)
    assert not found
    np.testing.assert_allclose(served, trained, rtol=1e-4, atol=1e-5)


def middle_tokens(model: nn.Module, params: Any, batch: Batch) -> jax.Array:
    """Return the candidate tokens after the only middle layer, [B, N, M, D]."""

    def read(bound: TokenMixer) -> jax.Array:
        streams = bound._both_streams(batch, bound.tables(batch.ids), True)
        (x_BNMD,) = bound.layers.with_middle(streams, bound._row(batch), True)[1]
        return x_BNMD

    return model.apply({"params": params}, method=read)


def experts_reference(config: ModelConfig, x: np.ndarray, p: Any) -> np.ndarray:
    """Return the output of all experts, of which the unchosen have weight zero."""
    count, chosen = config.tokenmixer.experts, config.tokenmixer.chosen
    out = np.zeros(x.shape)
    for n, m in np.ndindex(*x.shape[:-1]):

        def network(params: Any, index: int, row: np.ndarray = x[n, m]) -> np.ndarray:
            def linear(name: str, y: np.ndarray) -> np.ndarray:
                return y @ params[name]["kernel"][index] + params[name]["bias"][index]

            up = linear("up", row)
            return linear("down", up / (1 + np.exp(-up)) * linear("value", row))

        scores = x[n, m] @ p["router"]["kernel"][m]
        top = np.argsort(-scores)[:chosen]
        weights = np.exp(scores[top]) / np.exp(scores[top]).sum()
        out[n, m] = network(p["shared"], m)
        for weight, j in zip(weights, top):
            out[n, m] += count / chosen * weight * network(p, m * count + j)
    return out


def test_sparse_experts_equal_their_equations_and_do_not_depend_on_other_rows() -> None:
    config = tokenmixer(tokenmixer=TokenMixerConfig(experts=4, chosen=2))
    x = np.random.default_rng(0).normal(size=(6, M, D)).astype(np.float32)
    module = PerTokenExperts(config)
    params = drawn(module, x)
    apply = jax.jit(lambda p, x: module.apply({"params": p}, x))
    expected = experts_reference(config, x.astype(np.float64), jax.device_get(params))
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(apply(params, x), expected, rtol=0, atol=atol)
    gradient = jax.jit(jax.jacobian(lambda x: module.apply({"params": params}, x)[2, 1].sum()))(x)
    others = np.ones((6, M), bool)
    others[2, 1] = False
    assert np.all(gradient[others] == 0)
    assert np.all(gradient[2, 1] != 0)


def test_initial_deviations_have_the_fan_in_of_one_token_and_routers_start_at_zero() -> None:
    mixer = TokenMixerConfig(experts=2, chosen=1)
    config = tokenmixer(width=64, tokenmixer=mixer)
    params = jax.jit(PerTokenExperts(config).init)(jax.random.key(0), jnp.zeros((1, M, 64)))
    p = params["params"]
    assert not np.any(p.pop("router")["kernel"])
    hidden = config.ffn_width // 2
    for part in (p, p.pop("shared")):
        for name, fan_in, factor in (("up", 64, 1), ("value", 64, 1), ("down", hidden, 0.01)):
            deviation = np.std(part[name]["kernel"])
            assert deviation == pytest.approx(factor * fan_in**-0.5, rel=0.05), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": 2}, r"chosen=2 must be in 1..model.tokenmixer.experts=1"),
        ({"down_init": 0.0}, r"down_init=0.0 must be > 0"),
        ({"residual_interval": -1}, "must be >= 0"),
    ],
)
def test_bad_values_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenMixerConfig(**changes)


def test_experts_must_divide_the_feed_forward_width() -> None:
    with pytest.raises(ConfigError, match=r"experts=3 does not divide the feed-forward width 32"):
        tokenmixer(tokenmixer=TokenMixerConfig(experts=3))
