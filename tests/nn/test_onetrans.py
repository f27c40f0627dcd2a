"""Laws of OneTrans: its equations, public implementations of them, initial sizes, and windows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig, OneTransConfig, TwoStreamConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.models import attention_pairs, make_model
from ligr_jax.nn.onetrans import OneTransLayer
from ligr_jax.nn.streams import Streams, View, view_of_row
from ligr_jax.nn.two_stream import StreamStack
from ligr_jax.ops.masks import Mask
from tests.batches import model_config, random_batch
from tests.nn.fixtures import Arrays, check, load_fixture

pytestmark = pytest.mark.usefixtures("quick_keys")


def small(**changes: Any) -> ModelConfig:
    shape = {"width": 8, "depth": 2, "set_depth": 0, "ffn_factor": 2.0, "position": "none"}
    streams = TwoStreamConfig(tokens=3)
    return model_config(kind="onetrans", **({"streams": streams} | shape | changes))


def request_view(padding_BS: np.ndarray, window: int | None = None) -> View:
    """Return the view of rows of S history tokens and one impression with candidate tokens.

    Padding sees itself alone, and no other token sees padding.
    """
    b, s = padding_BS.shape
    index = np.broadcast_to(np.arange(s + 1), (b, s + 1))
    padding = np.pad(padding_BS, ((0, 0), (0, 1)))
    first = np.where(padding_BS, s, index[:, :s]).min(1, keepdims=True)
    seen = (~padding_BS).sum(1, keepdims=True) + first  # the tokens that are not padding
    lo = np.where(padding, index, first)
    hi = np.where(padding, index, np.minimum(index, seen))
    last = np.where(index < s, 0, hi)
    valid = np.ones_like(padding)
    return View(
        history=Mask(jnp.asarray(lo), jnp.asarray(hi), valid, own=index),
        ranges=Mask(jnp.minimum(lo, last), jnp.asarray(last), valid),
        window=None if window is None else jnp.asarray(window),
    )


def request_streams(s_BSD: jax.Array, ns_BMD: jax.Array) -> Streams:
    """Return the streams of S history tokens, and of candidate tokens in one more impression."""
    s = s_BSD.shape[1]
    return Streams(
        history_BND=jnp.pad(s_BSD, ((0, 0), (0, 1), (0, 0))),
        candidates_BNMD=jnp.pad(ns_BMD[:, None], ((0, 0), (s, 0), (0, 0), (0, 0))),
    )


Variant = Callable[[str, jax.Array, jax.Array], jax.Array]


def apply_public(
    config: ModelConfig, kernels: Arrays, streams: Streams, view: View, variant: Variant
) -> Streams:
    """Apply a layer with what a public code computes differently.

    Args:
        config: of the layer.
        kernels: parameters by path, with slashes.
        streams, view: arguments of the layer.
        variant: the output of a module from its path, its input and its own output.
    """
    params: Arrays = {}
    for path, x in kernels.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = x

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if context.method_name != "__call__" or not context.module.path:
            return out
        return variant("/".join(context.module.path), args[0], out)

    with nn.intercept_methods(intercept):
        out, _ = OneTransLayer(config).apply({"params": params}, streams, view, None, True, False)
    return out


def per_token(params: Arrays, names: list[str], kind: str, tokens: int) -> jax.Array:
    """Stack the arrays NAMEm/KIND of tokens m; those of several names are joined."""
    each = [jnp.concatenate([params[f"{n}{m}/{kind}"] for n in names], -1) for m in range(tokens)]
    return jnp.stack(each)


def test_the_layer_equals_taacs() -> None:
    """It has biases."""
    fixture = load_fixture("onetrans_block_rms")
    m, s = fixture.config["M"], fixture.config["S"]

    def layer(inputs: Arrays, params: Arrays) -> jax.Array:
        def arrays(kind: str) -> Arrays:
            return {
                "attention/qkv": params[f"qkv_s/{kind}"],
                "attention/out": params[f"out/{kind}"],
                "attention/per_token": per_token(params, ["q_ns", "k_ns", "v_ns"], kind, m),
                "ffn/up": params[f"up_s/{kind}"],
                "ffn/down": params[f"down_s/{kind}"],
                "ffn/per_token/up": per_token(params, ["up_ns"], kind, m),
                "ffn/per_token/down": per_token(params, ["down_ns"], kind, m),
            }

        kernels = {f"{path}/kernel": x for path, x in arrays("kernel").items()}
        kernels |= {f"{n}/scale": params[f"{n}/gain"] for n in ("attention_norm", "ffn_norm")}
        biases = arrays("bias")
        streams = request_streams(inputs["x"][:, :s], inputs["x"][:, s:])
        view = request_view(fixture.extra["padding"][:, :s])
        out = apply_public(
            small(), kernels, streams, view, lambda path, x, y: y + biases.get(path, 0)
        )
        return jnp.concatenate([out.history_BND[:, :s], out.candidates_BNMD[:, s]], 1)

    check(layer, fixture)


def test_two_layers_with_windows_equal_uniranks_pyramid() -> None:
    """Its second layer keeps half of the history, which only candidate tokens read: the window of
    the second layer. It has LayerNorm, biases, and zero keys of padding."""
    fixture = load_fixture("onetrans_block")
    s = fixture.config["S"]
    config = small(onetrans=OneTransConfig(activation="relu"))
    mask_BN1 = jnp.pad(fixture.extra["mask"], ((0, 0), (0, 1)))[..., None]

    def layers(inputs: Arrays, params: Arrays) -> jax.Array:
        streams = request_streams(inputs["s"], inputs["ns"])
        for number, window in enumerate((s, s // 2)):
            streams = layer(
                {k.removeprefix(f"layer{number}/"): p for k, p in params.items()},
                streams,
                request_view(np.zeros(fixture.extra["mask"].shape, bool), window),
            )
        return streams.candidates_BNMD[:, s]

    def layer(p: Arrays, streams: Streams, view: View) -> Streams:
        kernels = {
            "attention/qkv": jnp.concatenate([p["q_s"], p["k_s"], p["v_s"]], -1),
            "attention/out": p["out"],
            "attention/per_token": jnp.concatenate([p["q_ns"], p["k_ns"], p["v_ns"]], -1),
            "ffn/up": p["up_s/kernel"],
            "ffn/down": p["down_s/kernel"],
            "ffn/per_token/up": p["up_ns"],
            "ffn/per_token/down": p["down_ns"],
        }
        biases = {
            "ffn/up": p["up_s/bias"],
            "ffn/down": p["down_s/bias"],
            "ffn/per_token/up": p["up_ns_bias"],
            "ffn/per_token/down": p["down_ns_bias"],
        }
        tree = {f"{path}/kernel": x for path, x in kernels.items()}
        tree |= {f"{name}/scale": jnp.ones(8) for name in ("attention_norm", "ffn_norm")}

        def variant(path: str, x: jax.Array, y: jax.Array) -> jax.Array:
            if not path.endswith("norm"):
                return y + biases.get(path, 0)
            norm = {"scale": p[f"{path}/gain"], "bias": p[f"{path}/bias"]}
            y = nn.LayerNorm(epsilon=1e-5, parent=None).apply({"params": norm}, x)
            return y * mask_BN1 if path == "attention_norm" and x.ndim == 3 else y

        return apply_public(config, tree, streams, view, variant)

    check(layers, fixture)


def reference(
    params: Any, batch: Batch, h_ND: np.ndarray, c_NMD: np.ndarray, windows: tuple[int, ...]
) -> np.ndarray:
    """Return the candidate tokens [N, M, D] of a row, token by token, in float64, with 2 heads."""
    member, session = batch.member[0], batch.session[0]
    n, m, d = c_NMD.shape

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain

    def attend(q: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
        heads = []
        for part in (slice(0, d // 2), slice(d // 2, d)):
            e = np.exp([q[part] @ k[part] / np.sqrt(d // 2) for k in keys])
            heads.append(sum(w * v[part] for w, v in zip(e / e.sum(), values)))
        return np.concatenate(heads)

    def feed_forward(x: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
        y = x @ up
        return (y / (1 + np.exp(-y))) @ down

    for layer, window in enumerate(windows):
        p = jax.tree.map(lambda x, at=layer: np.asarray(x[at], np.float64), params)
        of_attention, ffn = p["attention"], p["ffn"]
        out, own = of_attention["out"]["kernel"], of_attention["per_token"]["kernel"]
        gain, ffn_gain = p["attention_norm"]["scale"], p["ffn_norm"]["scale"]
        q, k, v = np.split(norm(h_ND, gain) @ of_attention["qkv"]["kernel"], 3, axis=-1)
        new_h, new_c = h_ND.copy(), c_NMD.copy()
        for i in range(n):
            earlier = [j for j in range(i + 1) if member[j] == member[i]]
            seen = earlier[-window:]
            new_h[i] += attend(q[i], [k[j] for j in seen], [v[j] for j in seen]) @ out
            y = norm(new_h[i], ffn_gain)
            new_h[i] += feed_forward(y, ffn["up"]["kernel"], ffn["down"]["kernel"])

            seen = [j for j in earlier if session[j] < session[i]][-window:]
            tokens = [np.split(norm(c_NMD[i, t], gain) @ own[t], 3) for t in range(m)]
            for t in range(m):
                keys = [k[j] for j in seen] + [tokens[u][1] for u in range(t + 1)]
                values = [v[j] for j in seen] + [tokens[u][2] for u in range(t + 1)]
                new_c[i, t] += attend(tokens[t][0], keys, values) @ out
                y = norm(new_c[i, t], ffn_gain)
                up, down = (ffn["per_token"][name]["kernel"][t] for name in ("up", "down"))
                new_c[i, t] += feed_forward(y, up, down)
        h_ND, c_NMD = new_h, new_c
    return c_NMD


def test_layers_with_windows_equal_their_equations() -> None:
    windows = (5, 2)
    config = small(streams=TwoStreamConfig(tokens=3, windows=windows), unroll="no")
    batch = random_batch([[[2, 3, 1, 2], [1, 2]]], 11)
    rng = np.random.default_rng(0)
    h_BND, c_BNMD = rng.normal(size=(1, 11, 8)), rng.normal(size=(1, 11, 3, 8))
    streams = Streams(jnp.asarray(h_BND, jnp.float32), jnp.asarray(c_BNMD, jnp.float32))
    view = view_of_row(config, jnp.asarray(batch.member), jnp.asarray(batch.session), None)
    stack = StreamStack(config, layer=OneTransLayer)
    shapes = jax.eval_shape(
        lambda: stack.init(jax.random.key(0), streams, view, None, True, False)
    )["params"]
    params = jax.tree.map(lambda p: rng.normal(0, 0.5, p.shape).astype(np.float32), shapes)
    run = jax.jit(lambda p: stack.apply({"params": p}, streams, view, None, True, False)[0])
    expected = reference(params["layers"], batch, h_BND[0], c_BNMD[0], windows)
    np.testing.assert_allclose(run(params).candidates_BNMD[0], expected, atol=2e-5, rtol=1e-4)


def test_matrices_start_with_the_fan_in_of_one_token() -> None:
    config = small(width=64, ffn_factor=2.0, streams=TwoStreamConfig(tokens=8))
    batch = random_batch([[[2]]], 2)
    params = jax.jit(make_model(config).init)(jax.random.key(0), batch)["params"]["history"]
    layer = params["layers"]
    per_token = [layer["attention"]["per_token"], *layer["ffn"]["per_token"].values()]
    shared = [layer["attention"]["qkv"], layer["ffn"]["up"], layer["ffn"]["down"]]
    assert per_token[0]["kernel"].shape == (2, 8, 64, 3 * 64)
    for matrix in (x["kernel"] for x in (*per_token, *shared)):
        assert np.std(matrix) == pytest.approx(matrix.shape[-2] ** -0.5, rel=0.05)


def test_pairs_are_those_of_the_windows() -> None:
    config = small(streams=TwoStreamConfig(tokens=3, windows=(4, 2)))
    batch = random_batch([[[2, 3, 1, 2], [1, 2]]], 12)
    counted = attention_pairs(config, jnp.asarray(batch.member), jnp.asarray(batch.session))
    ranks = [*range(8), *range(3)]  # of 8 and 3 impressions, those before
    starts = [0, 0, 2, 2, 2, 5, 6, 6, 0, 1, 1]
    expected = [sum(min(r + 1, w) for r in ranks for w in (4, 2))]
    expected += [sum(min(start, w) for start in starts for w in (4, 2))]
    assert [counted["stream_pairs"], counted["range_pairs"]] == expected


def test_the_linear_schedule_ends_at_the_candidate_tokens() -> None:
    """The paper's sizes: 1190 tokens to 12 in 6 layers; the first and the last are exact."""
    streams = TwoStreamConfig(tokens=12, windows=(1190,), window_schedule="linear")
    assert streams.layer_windows(6) == (1190, 960, 704, 480, 256, 12)
    assert streams.layer_windows(1) == (1190,)
    short = TwoStreamConfig(tokens=4, windows=(20,), window_schedule="linear")
    assert short.layer_windows(4) == (20, 4, 4, 4)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({"windows": (4, 0)}, "must be >= 1"),
        ({"windows": (2, 4)}, "falling order"),
        ({"windows": (8, 4, 2)}, "has 3 windows for model.depth=2"),
        ({"window_schedule": "linear"}, "one number >= model.streams.tokens=8"),
        ({"window_schedule": "linear", "windows": (7,)}, "one number >= model.streams.tokens=8"),
    ],
)
def test_windows_that_do_not_fit_are_refused(streams: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(streams=TwoStreamConfig(**streams))


def test_the_fields_of_ligrs_block_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.ffn=swiglu applies to LiGR's block"):
        small(ffn="swiglu")
