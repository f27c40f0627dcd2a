"""The coordinate check of every two-stream model: a step moves models of all sizes equally far."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ligr_jax.config import ModelConfig, TokenMixerConfig
from ligr_jax.nn.candidate_tokens import CandidateTokens
from ligr_jax.nn.models import make_model
from ligr_jax.nn.mup import HISTORY
from ligr_jax.ops.losses import binary_cross_entropy
from tests.batches import random_batch
from tests.nn.two_stream_kinds import KINDS, two_stream_config
from tests.train.test_mup import STEPS, optimizer_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

BATCH = random_batch([[[4] * 4]] * 8, 16)
RATE = 2.0**-9  # small, so that the changes of layers add up almost linearly


class Sizes(NamedTuple):
    """Two shapes of a model, and the ratio of their sizes."""

    small: dict[str, int]
    large: dict[str, int]
    ratio: int


# The change of the first layer falls like 1 / l by construction, so the small model has four.
BASE = {"depth": 4}
WIDER = Sizes(BASE, BASE | {"width": 256, "heads": 16}, ratio=8)
DEEPER = Sizes(BASE, {"depth": 32}, ratio=8)
# Sparse experts at this width take minutes; the networks that they replace have the same rates.
DENSE = {"tokenmixer": {"tokenmixer": TokenMixerConfig(residual_interval=3, auxiliary_weight=0.0)}}
# The changes of HSTU's layers agree less, so deep models move less far; see `ligr_jax.nn.mup`.
LOWEST_IN_DEPTH = {"ultra": -0.5}


def model_of(name: str, rule: str, **shape: Any) -> ModelConfig:
    """A model whose base is 32 wide, with 2 heads and 2 layers."""
    dials = {"width": 32, "heads": 2, "depth": 2}
    base = {f"base_{dial}": value for dial, value in dials.items()}
    changes = base | dials | shape | DENSE.get(name, {})
    return two_stream_config(name, parametrization=rule, **changes)


def activations(model: ModelConfig, params: Any) -> dict[str, jax.Array]:
    """Return the candidate tokens, the last layer of both streams, and the logits."""
    found: dict[str, jax.Array] = {}

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, CandidateTokens):
            found["candidate tokens"] = out
        elif context.module.path == (HISTORY,) and context.method_name == "__call__":
            streams = out[0]
            found["candidate stream"] = streams.candidates_BNMD
            found["history stream"] = streams.history_BND
        return out

    with nn.intercept_methods(record):
        found["logits"] = jnp.asarray(make_model(model).apply({"params": params}, BATCH))
    return {name: x for name, x in found.items() if x is not None}


@functools.cache
def changes(name: str, rule: str, **shape: Any) -> dict[str, float]:
    """Return the RMS, over two seeds, of how far a few steps of Adam moved each activation."""
    model = model_of(name, rule, **shape)
    tx = optimizer_of(model, "adamw", dense_lr=RATE)

    def loss(params: Any) -> jax.Array:
        z = jnp.asarray(make_model(model).apply({"params": params}, BATCH))
        total, weight = binary_cross_entropy(z, BATCH.labels, BATCH.weight)
        return (total / weight).sum()

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        clipped, _ = tx.clip.update(jax.grad(loss)(params), optax.EmptyState())
        updates, state = tx.dense.update(clipped, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def moved(seed: jax.Array) -> dict[str, jax.Array]:
        before = make_model(model).init(jax.random.key(seed), BATCH)["params"]
        (after, _), _ = jax.lax.scan(step, (before, tx.dense.init(before)), length=STEPS)
        # Both in one program: compiling is most of the time.
        both = jax.tree.map(lambda *x: jnp.stack(x), before, after)
        found = jax.lax.map(functools.partial(activations, model), both)
        return {what: jnp.mean((x[1] - x[0]) ** 2) for what, x in found.items()}

    squares = [jax.device_get(moved(jnp.asarray(seed))) for seed in range(2)]
    return {what: float(np.sqrt(np.mean([s[what] for s in squares]))) for what in squares[0]}


@pytest.mark.parametrize("sizes", [WIDER, DEEPER], ids=["wider", "deeper"])
@pytest.mark.parametrize("name", [name for name in KINDS if "recomputed" not in name])
def test_steps_move_a_large_model_as_far_as_a_small_one(name: str, sizes: Sizes) -> None:
    """The slope of log RMS against log size is within 0.2 of zero."""
    lowest = LOWEST_IN_DEPTH.get(name, -0.2) if sizes is DEEPER else -0.2
    small = changes(name, "mup", **sizes.small)
    for what, rms in changes(name, "mup", **sizes.large).items():
        slope = np.log(rms / small[what]) / np.log(sizes.ratio)
        assert lowest < slope < 0.2, f"{what}: {slope:.2f}"


@pytest.mark.parametrize("sizes", [WIDER, DEEPER], ids=["wider", "deeper"])
def test_without_mup_the_check_would_fail(sizes: Sizes) -> None:
    small, large = (changes("ligr", "standard", **s) for s in (sizes.small, sizes.large))
    slope = np.log(large["candidate stream"] / small["candidate stream"]) / np.log(sizes.ratio)
    assert slope > 0.4
