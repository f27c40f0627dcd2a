"""Laws of histories that are encoded once per request."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ConfigError, ModelConfig, TwoStreamConfig
from ligr_jax.nn.models import attention_pairs, make_model
from ligr_jax.nn.onetrans import OneTransLayer
from ligr_jax.nn.recompute import recompute_layers
from ligr_jax.nn.streams import Streams, view_of_row
from ligr_jax.nn.two_stream import StreamStack
from ligr_jax.ops.attention import cached
from tests.batches import model_config, random_batch
from tests.nn.models import random_params
from tests.nn.test_onetrans import request_streams, request_view

pytestmark = pytest.mark.usefixtures("quick_keys")

N = 12
BATCH = random_batch([[[2, 3, 1, 2], [1, 2]]], N, unknown=0.1)
LONGEST = 6  # impressions before the last session of the first member


def small(windows: tuple[int, ...], history: Any = "recompute", **changes: Any) -> ModelConfig:
    shape = {"width": 8, "depth": len(windows), "set_depth": 0, "table_width": 4, "unroll": "no"}
    streams = TwoStreamConfig(tokens=2, windows=windows, history=history)
    return model_config(kind="onetrans", streams=streams, **(shape | changes))


def output(config: ModelConfig, variables: Any, streams: Streams) -> jax.Array:
    """Return the candidate tokens after the layers of a model, [1, N, M, D]."""

    def apply(layers: StreamStack) -> Streams:
        position = jnp.asarray(BATCH.session)
        view = view_of_row(config, jnp.asarray(BATCH.member), position, position)
        if config.streams.history == "recompute":
            return recompute_layers(layers, config, streams, view, None, True)[0]
        return layers(streams, view, None, True, False)[0]

    stack = StreamStack(config, layer=OneTransLayer)
    found: Streams = stack.apply(variables, method=apply)
    assert found.candidates_BNMD is not None
    return found.candidates_BNMD


def random_input(config: ModelConfig) -> tuple[Any, Streams]:
    """Return variables of the layers of a model, and streams."""
    rng = np.random.default_rng(0)
    params = jax.eval_shape(make_model(config).init, jax.random.key(0), BATCH)["params"]["history"]

    def normal(scale: float, *shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, scale, shape).astype(np.float32))

    variables = {"params": jax.tree.map(lambda p: normal(0.5, *p.shape), params)}
    return variables, Streams(normal(1, 1, N, 8), normal(1, 1, N, 2, 8))


def test_without_a_cut_it_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients; the history is attended to in parts that overlap."""
    monkeypatch.setattr(cached, "_WINDOW", 4)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=(1, N, 2, 8)), jnp.float32)
    direction *= (BATCH.member > 0)[..., None, None]
    found = []
    for history in ("causal", "recompute"):
        config = small((LONGEST, LONGEST), history, position="relative_session")

        def loss(variables: Any, streams: Streams, c: ModelConfig = config) -> jax.Array:
            return (output(c, variables, streams) * direction).sum()

        found.append(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*random_input(config)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max()), *found)


def test_tokens_older_than_the_cut_do_not_exist() -> None:
    """The layers equal single layers on arrays of the newest w_l tokens; one pass does not."""
    windows = (5, 3, 2)
    config, member = small(windows, position="none"), np.asarray(BATCH.member[0])
    variables, streams = random_input(config)
    found, sliding = (
        np.asarray(jax.jit(partial(output, c))(variables, streams))
        for c in (config, small(windows, "causal", position="none"))
    )

    layer = jax.jit(OneTransLayer(config).apply, static_argnums=(4, 5))
    for i in (3, 7):  # after 2 and after 6 impressions
        session = BATCH.session[0]
        earlier = np.flatnonzero((member == member[i]) & (session < session[i]))
        h_BSD, c_BMD = streams.history_BND[:, earlier], streams.candidates_BNMD[:, i]
        for number, window in enumerate(windows):
            h_BSD = h_BSD[:, -window:]
            s = h_BSD.shape[1]
            params = jax.tree.map(lambda p, at=number: p[at], variables["params"]["layers"])
            both, seen = request_streams(h_BSD, c_BMD), request_view(np.zeros((1, s), bool))
            out, _ = layer({"params": params}, both, seen, None, True, False)
            h_BSD, c_BMD = out.history_BND[:, :s], out.candidates_BNMD[:, s]
        np.testing.assert_allclose(found[0, i], c_BMD[0], atol=2e-5, rtol=1e-4)
    assert np.abs(found - sliding)[0, 7].max() > 1e-2


def test_dropout_differs_between_requests_and_keys() -> None:
    """Candidates of one session with equal items have one history, and not the same logits."""
    config = small((4,), dropout=0.5)
    batch = random_batch([[[3, 2]]], 5)
    batch = jax.tree.map(lambda x: np.concatenate([x[:, :4], x[:, 3:4]], 1), batch)
    variables = {"params": random_params(config, batch)}
    run = jax.jit(
        lambda key: make_model(config).apply(variables, batch, False, rngs={"dropout": key})
    )
    first, again, other = (np.asarray(run(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    assert np.abs(first[0, 3] - first[0, 4]).max() > 1e-2


def test_pairs_are_those_of_a_history_per_impression() -> None:
    counted = attention_pairs(small((4, 2)), jnp.asarray(BATCH.member), jnp.asarray(BATCH.session))
    starts = [0, 0, 2, 2, 2, 5, 6, 6, 0, 1, 1]
    tokens = [min(start, w) for start in starts for w in (4, 2)]
    assert counted["range_pairs"] == sum(tokens)
    assert counted["stream_pairs"] == sum(n * (n + 1) / 2 for n in tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ligr_streams"}, r"model\.kind=ligr_streams has no form.*set history to causal"),
        ({"depth": 3}, "has 2 windows for model.depth=3"),
    ],
)
def test_what_does_not_apply_is_refused(changes: Any, message: str) -> None:
    streams = TwoStreamConfig(windows=(4, 2), history="recompute")
    with pytest.raises(ConfigError, match=message):
        model_config(**({"kind": "onetrans", "set_depth": 0, "streams": streams} | changes))


def test_a_request_needs_a_bound() -> None:
    with pytest.raises(ConfigError, match=r"history=recompute needs model\.streams\.windows"):
        TwoStreamConfig(history="recompute")
