"""RankMixer and target attention equal public layers; what does not apply is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, RankMixerConfig, TwoStreamConfig
from ligr_jax.nn.history_token import TargetAttention
from ligr_jax.nn.models import attention_pairs
from ligr_jax.nn.per_token import mix_tokens
from ligr_jax.nn.rankmixer import RankMixerLayer
from ligr_jax.nn.streams import Streams, View, view_of_row
from ligr_jax.nn.tokenmixer import TokenMixer
from ligr_jax.ops.masks import Mask
from tests.batches import random_batch
from tests.nn.fixtures import Arrays, check, load_fixture
from tests.nn.two_stream_kinds import two_stream_config

pytestmark = pytest.mark.usefixtures("quick_keys")

NO_VIEW = View(history=None, ranges=None)


def layer_params(p: Arrays, prefix: str) -> dict[str, Any]:
    """Return the parameters of a layer from those of the fixture."""

    def of(name: str) -> jax.Array:
        return p[f"{prefix}/{name}"]

    def norm(name: str) -> dict[str, jax.Array]:
        return {"scale": of(f"{name}/gain"), "bias": of(f"{name}/bias")}

    def linear(name: str) -> dict[str, jax.Array]:
        return {"kernel": of(name), "bias": of(f"{name}_bias")}

    return {
        "mix_norm": norm("mix_norm"),
        "ffn_norm": norm("ffn_norm"),
        "per_token": {"up": linear("up"), "down": linear("down")},
    }


def test_layers_equal_those_of_a_public_code() -> None:
    """UniRank's, which have the norms in front and the exact GELU."""
    fixture = load_fixture("rankmixer_block")
    c = fixture.config
    np.testing.assert_array_equal(mix_tokens(fixture.inputs["x"]), fixture.extra["mix_of_x"])
    config = two_stream_config(
        "rankmixer", width=c["D"], ffn_factor=c["F"] / c["D"], streams=TwoStreamConfig(c["T"])
    )
    layer = RankMixerLayer(config, activation=lambda x: nn.gelu(x, approximate=False))

    def fn(inputs: Arrays, params: Arrays) -> jax.Array:
        streams = Streams(None, inputs["x"][None])
        for i in range(c["layers"]):
            variables = {"params": layer_params(params, f"layer{i}")}
            streams, _ = layer.apply(variables, streams, NO_VIEW, None, True, False)
        return streams.candidates_BNMD[0]

    check(fn, fixture)


def test_the_published_norm_follows_the_sum() -> None:
    config = two_stream_config(
        "rankmixer", rankmixer=RankMixerConfig(norm="post"), streams=TwoStreamConfig(4)
    )
    layer = RankMixerLayer(config)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 4, 8)).astype(np.float32)
    args = (Streams(None, jnp.asarray(x)), NO_VIEW, None, True, False)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *args))["params"]
    p = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    ours = jax.jit(lambda p: layer.apply({"params": p}, *args)[0].candidates_BNMD)(p)

    def norm(x: np.ndarray, p: Any) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p["scale"] + p["bias"]

    x64 = x.astype(np.float64)
    mixed = x64.reshape(1, 2, 4, 4, 2).swapaxes(2, 3).reshape(x.shape)
    y = norm(x64 + mixed, p["mix_norm"])
    up, down = p["per_token"]["up"], p["per_token"]["down"]
    hidden = np.einsum("BNMD,MDF->BNMF", y, up["kernel"]) + up["bias"]
    hidden *= 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    y += np.einsum("BNMF,MFD->BNMD", hidden, down["kernel"]) + down["bias"]
    np.testing.assert_allclose(ours, norm(y, p["ffn_norm"]), rtol=1e-4, atol=1e-4)


def test_target_attention_equals_that_of_a_public_code() -> None:
    """The target is an impression after its history; the public code pads histories in front."""
    fixture = load_fixture("target_attention")
    c, mask = fixture.config, fixture.extra["mask"]
    config = two_stream_config("rankmixer", width=c["width"], heads=c["H"], position="none")
    b, n = mask.shape
    index = np.broadcast_to(np.arange(n + 1), (b, n + 1))
    start = np.where(index == n, n - mask.sum(1).astype(np.int32)[:, None], 0)
    view = View(None, ranges=Mask(start, np.where(index == n, n, 0), index == n))

    def fn(inputs: Arrays, params: Arrays) -> jax.Array:
        wide = jnp.pad(params["o"], [(0, 0), (0, c["width"] - c["D"])])
        kernels = {
            "query": params["q"],
            "key_value": jnp.concatenate([params["k"], params["v"]], 1),
            "out": wide,
        }
        module = TargetAttention(config).bind(
            {"params": {name: {"kernel": kernel} for name, kernel in kernels.items()}}
        )
        target = inputs["target"][:, None]
        keys = module.keys_of(jnp.concatenate([inputs["history"], target], 1))
        out = module(jnp.repeat(target, n + 1, axis=1), keys, view, None)
        return out[:, n, : c["D"]]

    check(fn, fixture)


def test_an_impression_without_history_has_a_zero_history_token() -> None:
    config = two_stream_config("rankmixer")
    batch = random_batch([[[2, 1]]], 4)
    x_BND = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 8)), jnp.float32)
    member, session = jnp.asarray(batch.member), jnp.asarray(batch.session)
    view = view_of_row(config, member, session, session)

    def read(module: TargetAttention) -> jax.Array:
        return module(x_BND, module.keys_of(x_BND), view, None)

    z_BND, _ = jax.jit(lambda key: TargetAttention(config).init_with_output(key, method=read))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(np.any(z_BND[0] != 0, axis=-1), [False, False, True, False])
    pairs = attention_pairs(config, batch.member, batch.session)
    assert (pairs["stream_pairs"], pairs["range_pairs"]) == (0, 2)


@pytest.mark.parametrize("kind", ["rankmixer", "tokenmixer"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": TwoStreamConfig(6)}, r"width=8 is not divisible by model.streams.tokens=6"),
        ({"streams": TwoStreamConfig(1)}, "no token for features"),
        ({"streams": TwoStreamConfig(4, history="session")}, "set it to causal"),
        ({"streams": TwoStreamConfig(4, windows=(3, 2))}, "no windows of layers"),
        ({"gate": "none"}, r"model.gate=none applies to LiGR's block"),
        (
            {
                "rankmixer": RankMixerConfig("post"),
                "parametrization": "mup",
                "base_depth": 1,
                "streams": TwoStreamConfig(4),
            },
            r"set it to pre, or model.base_depth=2",
        ),
    ],
)
def test_what_does_not_apply_is_refused(kind: str, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        two_stream_config(kind, **changes)


def test_groups_are_those_of_the_feature_tokens() -> None:
    """A history token, and in TokenMixer-Large a global token, have no group."""
    groups = ("item_id+age", "content+tag")
    streams = TwoStreamConfig(4, tokenizer="groups", groups=groups)
    config = two_stream_config("tokenmixer", streams=streams)
    batch = random_batch([[[2]]], 2)
    params = jax.eval_shape(TokenMixer(config).init, jax.random.key(0), batch)["params"]
    assert set(params["tokens"]) == {"global", "token_0", "token_1"}
    with pytest.raises(ConfigError, match=r"2 groups for 3 of model.streams.tokens=4"):
        two_stream_config("rankmixer", streams=streams)
