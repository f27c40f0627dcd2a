"""Laws of HyFormer: a public implementation of its layers, the mean of the history, options."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, HyFormerConfig, ModelConfig, TwoStreamConfig
from ligr_jax.nn.hyformer import HyFormerHistory, range_mean
from ligr_jax.nn.hyformer_layer import HyFormerLayer, LayerKeys, PaperBoost
from ligr_jax.nn.models import make_model
from ligr_jax.nn.per_token import PerTokenMLP
from ligr_jax.nn.streams import PastView, Streams, View, view_of_row
from ligr_jax.ops.attention import KeyValues
from ligr_jax.ops.masks import Mask
from ligr_jax.train.length import pair_shape
from tests.batches import model_config, random_batch
from tests.nn.fixtures import Arrays, check, load_fixture
from tests.nn.models import random_params, reach

pytestmark = pytest.mark.usefixtures("quick_keys")


def small(**changes: Any) -> ModelConfig:
    shape = {"width": 12, "depth": 2, "set_depth": 0, "ffn_factor": 2.0, "position": "none"}
    streams = TwoStreamConfig(tokens=4, queries=2)
    return model_config(**({"kind": "hyformer", "streams": streams} | shape | changes))


def layer_params(p: Arrays) -> Arrays:
    """Return the parameters of `HyFormerLayer` for those of a layer of the fixture."""

    def norm(path: str) -> Arrays:
        return {"scale": p[f"{path}/gain"], "bias": p[f"{path}/bias"]}

    def kernel(*paths: str) -> Arrays:
        return {"kernel": jnp.concatenate([p[f"{path}/kernel"] for path in paths], -1)}

    return {
        "encoder": {
            "attention_norm": norm("sequence/norm"),
            "attention": {
                "qkv": kernel("sequence/q", "sequence/k", "sequence/v"),
                "out": kernel("sequence/out"),
            },
            "ffn_norm": norm("sequence/norm"),
            "ffn": {
                name: kernel(f"sequence/{name}") | {"bias": p[f"sequence/{name}/bias"]}
                for name in ("up", "down")
            },
        },
        "decoder": {
            "query_norm": norm("decode/norm"),
            "history_norm": norm("decode/norm"),
            "query": kernel("decode/q"),
            "key_value": kernel("decode/k", "decode/v"),
            "out": kernel("decode/out"),
        },
        "boost": {
            "mix_norm": norm("boost/mix_norm"),
            "ffn_norm": norm("boost/ffn_norm"),
            "per_token": {
                name: {"kernel": p[f"boost/{name}"], "bias": p[f"boost/{name}_bias"]}
                for name in ("up", "down")
            },
        },
    }


def biases(p: Arrays) -> Arrays:
    """Return the biases of UniRank's attention, by path of the module."""
    joined = {
        "encoder/attention/qkv": ("sequence/q", "sequence/k", "sequence/v"),
        "encoder/attention/out": ("sequence/out",),
        "decoder/query": ("decode/q",),
        "decoder/key_value": ("decode/k", "decode/v"),
        "decoder/out": ("decode/out",),
    }
    return {
        path: jnp.concatenate([p[f"{name}/bias"] for name in names])
        for path, names in joined.items()
    }


def test_two_layers_equal_uniranks() -> None:
    """Its encoder is bidirectional, with ReLU and no norm before its feed-forward layer; padding
    takes part as zero tokens; attention has biases, and GELU is exact."""
    fixture = load_fixture("hyformer_block")
    config = small()
    b, s, _ = fixture.inputs["s"].shape
    mask_BN1 = jnp.pad(fixture.extra["mask"], ((0, 0), (0, 1)))[..., None]
    # The candidate tokens belong to one more impression, after the history tokens.
    valid = jnp.ones((b, s + 1), bool)
    everything = Mask(jnp.zeros((b, s + 1), int), jnp.full((b, s + 1), s), valid)
    view = View(history=everything, ranges=everything)

    def apply(params: Arrays, streams: Streams) -> Streams:
        tree, added = layer_params(params), biases(params)
        ffn = tree["encoder"]["ffn"]

        def variant(
            call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            path = "/".join(context.module.path)
            if context.method_name != "__call__" or not path:
                return call(*args, **kwargs)
            x = args[0]
            if path == "encoder/ffn_norm":
                return x
            if path == "encoder/ffn":
                hidden = nn.relu(x @ ffn["up"]["kernel"] + ffn["up"]["bias"])
                return (hidden @ ffn["down"]["kernel"] + ffn["down"]["bias"]) * mask_BN1
            if path == "boost/per_token":
                exact = PerTokenMLP(24, activation=partial(nn.gelu, approximate=False), parent=None)
                return exact.apply({"params": tree["boost"]["per_token"]}, x)
            out = call(*args, **kwargs)
            if path in added:
                out += added[path]
            return out * mask_BN1 if path == "encoder/attention/out" else out

        with nn.intercept_methods(variant):
            out, _ = HyFormerLayer(config).apply({"params": tree}, streams, view, None, True, False)
        return out

    def layers(inputs: Arrays, params: Arrays) -> Arrays:
        tokens_BMD = jnp.concatenate([inputs["q"], inputs["ns"]], 1)
        streams = Streams(
            history_BND=jnp.pad(inputs["s"], ((0, 0), (0, 1), (0, 0))) * mask_BN1,
            candidates_BNMD=jnp.pad(tokens_BMD[:, None], ((0, 0), (s, 0), (0, 0), (0, 0))),
        )
        for number in range(2):
            of_layer = f"layer{number}/"
            own = {k.removeprefix(of_layer): x for k, x in params.items() if of_layer in k}
            streams = apply(own, streams)
        tokens_BMD = streams.candidates_BNMD[:, s]
        return {"s": streams.history_BND[:, :s], "q": tokens_BMD[:, :2], "ns": tokens_BMD[:, 2:]}

    check(layers, fixture)


def test_the_mean_of_the_history_is_that_of_earlier_sessions() -> None:
    batch = random_batch([[[2, 3, 1], [1, 2]], []], 10)
    rng = np.random.default_rng(0)
    h_BND = rng.normal(size=(2, 10, 12)).astype(np.float32)
    view = view_of_row(small(), jnp.asarray(batch.member), jnp.asarray(batch.session), None)
    ours = range_mean(jnp.asarray(h_BND), view, None)
    for b, i in np.ndindex(2, 10):
        member, session = batch.member[b], batch.session[b]
        seen = (member == member[i]) & (session < session[i]) & (member[i] > 0)
        expected = h_BND[b, seen].astype(np.float64).mean(0) if seen.any() else np.zeros(12)
        np.testing.assert_allclose(ours[b, i], expected, atol=1e-6)

    empty = KeyValues(jnp.zeros(()), jnp.zeros(()))
    kept = HyFormerHistory(jnp.asarray(h_BND)[None], LayerKeys(None, empty))
    end = jnp.asarray([[3], [0]])
    past = View(None, None, past=PastView(length=end, end=end, position=None))
    served = range_mean(None, past, kept)
    np.testing.assert_allclose(served[0, 0], h_BND[0, :3].mean(0), atol=1e-6)
    np.testing.assert_array_equal(served[1], 0)


def test_the_published_mixing_has_one_residual_and_no_norm() -> None:
    x_BNMD = np.random.default_rng(0).normal(size=(1, 2, 6, 12)).astype(np.float32)
    boost = PaperBoost(small())
    params = jax.jit(boost.init, static_argnums=2)(jax.random.key(0), x_BNMD, True)["params"]
    ours = boost.apply({"params": params}, x_BNMD, True)
    up, down = (np.asarray(params["per_token"][n]["kernel"], np.float64) for n in ("up", "down"))
    mixed = x_BNMD.reshape(1, 2, 6, 6, 2).swapaxes(2, 3).reshape(x_BNMD.shape)
    y = np.einsum("bnmd,mdf->bnmf", mixed, up)
    gelu = y / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (y + 0.044715 * y**3)))
    expected = x_BNMD + np.einsum("bnmf,mfd->bnmd", gelu, down)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_without_attention_in_the_encoder_a_logit_sees_the_same_impressions() -> None:
    """The parts are the other encoder and the other mixing, without position encoding."""
    cheap = HyFormerConfig(encoder="swiglu", boost="paper")
    config = small(hyformer=cheap, unroll="no", table_width=4)
    batch = random_batch([[[2, 1, 2], [1, 1]]], 8)
    found = reach(config, random_params(config, batch), batch)
    member, session = batch.member[0], batch.session[0]
    earlier = (member[:, None] == member) & (session[:, None] > session) & (member > 0)
    np.testing.assert_array_equal(found.actions[0, :, 0] > 0, earlier)
    assert all(np.any(p) for p in jax.tree.leaves(found.params))


def test_matrices_start_with_the_fan_in_of_one_token() -> None:
    config = small(width=72, streams=TwoStreamConfig(tokens=6, queries=3))
    batch = random_batch([[[2]]], 2)
    params = jax.jit(make_model(config).init)(jax.random.key(0), batch)["params"]["history"]
    assert params["generator"]["kernel"].shape == (7 * 72, 3 * 72)
    layer = params["stack"]["layers"]
    per_token = layer["boost"]["per_token"]
    assert per_token["up"]["kernel"].shape == (2, 9, 72, config.ffn_width)
    decoder = [layer["decoder"][name] for name in ("query", "key_value", "out")]
    for matrix in (x["kernel"] for x in (params["generator"], *per_token.values(), *decoder)):
        assert np.std(matrix) == pytest.approx(matrix.shape[-2] ** -0.5, rel=0.05)


def test_models_of_all_widths_have_the_same_pairs() -> None:
    """The default width is not a multiple of 5 + 2 tokens."""
    streams = TwoStreamConfig(tokens=5, queries=2)
    narrow, wide = (small(width=width, streams=streams) for width in (14, 70))
    assert pair_shape(narrow) == pair_shape(wide)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 16}, r"width=16 is not divisible by model.streams.tokens=4 plus .*queries=2"),
        ({"streams": TwoStreamConfig(4, windows=(4, 2))}, "has no windows of layers"),
        ({"kind": "ligr_streams", "streams": TwoStreamConfig(4, queries=3)}, "has no queries"),
        ({"ffn": "swiglu"}, r"model\.ffn=swiglu applies to LiGR's block"),
    ],
)
def test_what_does_not_apply_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**changes)
