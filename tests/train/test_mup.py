"""Laws of muP: the change of activations per step does not depend on width and depth."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig, OptimConfig
from ligr_jax.nn import blocks
from ligr_jax.nn.blocks import FeedForward, Stack
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.models import make_model
from ligr_jax.ops.losses import binary_cross_entropy
from ligr_jax.tables.layout import layout
from ligr_jax.train.optimizer import Optimizer, make_optimizer, split_tables
from tests.batches import model_config, random_batch
from tests.nn.models import logits, random_params

pytestmark = pytest.mark.slow

BATCH = random_batch([[[4] * 4]] * 8, 16)
STEPS = 6
DECAY = 0.1
KINDS = ("ligr", "hstu")


def model_of(rule: str, **shape: Any) -> ModelConfig:
    """A model whose base is 32 wide, with 2 heads, 2 historical layers and a set-wise one."""
    dials = {"width": 32, "heads": 2, "depth": 2, "set_depth": 1}
    base = {f"base_{dial}": value for dial, value in dials.items()}
    return model_config(parametrization=rule, unroll="no", **(base | dials | shape))


def optimizer_of(
    model: ModelConfig, tables: Any = "rowwise_adagrad", dense_lr: float = 2.0**-7
) -> Optimizer:
    settings = OptimConfig(
        dense_lr=dense_lr,
        table_lr=1e-3,
        warmup=0.0,
        decay="none",
        weight_decay=DECAY,
        table_optimizer=tables,
    )
    return make_optimizer(model, settings, STEPS, layout(model.tables))


def train(model: ModelConfig, seed: int | jax.Array) -> tuple[Any, Any, Any]:
    """Parameters before and after a few steps on one batch, and the optimizer's state."""
    tx = optimizer_of(model, "adamw")

    def loss(params: Any) -> jax.Array:
        z = jnp.asarray(make_model(model).apply({"params": params}, BATCH))
        total, weight = binary_cross_entropy(z, BATCH.labels, BATCH.weight)
        return (total / weight).sum()

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        clipped, _ = tx.clip.update(jax.grad(loss)(params), optax.EmptyState())
        updates, state = tx.dense.update(clipped, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = make_model(model).init(jax.random.key(seed), BATCH)["params"]
    (after, state), _ = jax.lax.scan(step, (params, tx.dense.init(params)), length=STEPS)
    return params, after, state


@functools.cache
def trained(rule: str, seed: int, **shape: Any) -> tuple[Any, Any]:
    """Parameters before and after."""
    return jax.device_get(_program(rule, **shape)(seed))


@functools.cache
def _program(rule: str, **shape: Any) -> Any:
    return jax.jit(lambda seed: train(model_of(rule, **shape), seed)[:2])


def dense_ones(model: ModelConfig) -> Any:
    """Kernels of ones; zero for all other dense parameters."""
    shapes = jax.eval_shape(make_model(model).init, jax.random.key(0), BATCH)["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, p: np.full(p.shape, float(path[-1].key == "kernel"), np.float32),
        split_tables(shapes)[0],
    )


def first_update(tx: Any, gradients: Any, params: Any) -> Any:
    update = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])
    return update(gradients, params)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_base_shape_both_parametrizations_are_one_program(kind: str) -> None:
    standard, mup = (
        str(jax.make_jaxpr(functools.partial(train, model_of(rule, kind=kind)))(0))
        for rule in ("standard", "mup")
    )
    assert standard == mup


def test_the_standard_optimizer_is_adamw_and_checkpoints_hold_its_state() -> None:
    for rule in ("standard", "mup"):
        model = model_of(rule)
        params, tx = dense_ones(model), optimizer_of(model).dense
        matrices = jax.tree.map(lambda p: p.ndim > 1, params)
        adamw = optax.adamw(2.0**-7, weight_decay=DECAY, mask=matrices)
        adamw_schedule = optax.adamw(lambda _: 2.0**-7, weight_decay=DECAY, mask=matrices)
        rng = np.random.default_rng(0)
        gradients = jax.tree.map(lambda p, r=rng: r.normal(size=p.shape).astype("f4"), params)
        ours, theirs = (jax.eval_shape(t.init, params) for t in (tx, adamw_schedule))
        assert str(jax.tree.structure(ours)) == str(jax.tree.structure(theirs))
        ours, theirs = (first_update(t, gradients, params) for t in (tx, adamw))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_multipliers_of_the_forward_pass_are_those_of_the_table() -> None:
    """A model with them has the logits of one without, its weights multiplied by hand: by powers of
    two, which round nothing."""
    shape = {"width": 64, "heads": 1, "depth": 4, "set_depth": 2, "position": "learned"}
    params = random_params(model_of("mup", **shape), BATCH)
    by_hand = jax.tree.map(np.array, params)
    for stack, deeper in (("history", 4 / 2), ("setwise", 2 / 1)):
        layers = by_hand[stack]["layers"]
        layers["attention"]["out"]["kernel"] /= deeper
        layers["ffn"]["down"]["kernel"] /= deeper
        layers["ffn"]["down"]["bias"] /= deeper
        layers["attention"]["qkv"]["kernel"][..., :64] /= np.sqrt(64 / 16)  # of queries
    for heads in ("heads", "setwise_heads"):
        by_hand[heads]["logits"]["kernel"] /= 64 / 32
    ours = logits(model_of("mup", **shape), params, BATCH)
    theirs = logits(model_of("standard", **shape), by_hand, BATCH)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    untouched = logits(model_of("standard", **shape), params, BATCH)
    assert float(jnp.abs(untouched - ours).max()) > 0.1


def test_rates_epsilons_and_decay_are_those_of_the_table() -> None:
    """Four times as wide as the base, three times as deep, and twice in its set-wise stack."""
    options = {"gate": "both", "residual_scale": True}
    model = model_of("mup", width=128, depth=6, set_depth=2, **options)
    params, tx = dense_ones(model), optimizer_of(model).dense
    g = 1e-8  # of epsilon's size, so that epsilon shows
    gradients = jax.tree.map(lambda p: np.full(p.shape, g, np.float32), params)
    updates = first_update(tx, gradients, params)
    rate_and_epsilon = {
        "items/projection/kernel": (1, 1 / 4),
        "actions/actions/kernel": (1, 1 / 4),
        "actions/projection/kernel": (1, 1 / 4),
        "positions": (1, 1 / 4),
        "history/layers/gated_attention/norm/scale": (1, 1 / 12),
        "history/layers/gated_attention/gate/kernel": (1 / 4, 1 / 12),
        "history/layers/attention/qkv/kernel": (1 / 4, 1 / 12),
        "history/layers/gated_ffn/residual_scale": (1, 1 / 3),
        "history/layers/attention/key_gate/gate/kernel": (1 / 4, 1 / 12),
        "history/layers/ffn/up/bias": (1, 1 / 12),
        "history/layers/ffn/down/kernel": (1 / 4, 1 / 12),
        "setwise/layers/gated_ffn/gate/kernel": (1 / 4, 1 / 8),
        "setwise/layers/ffn/down/bias": (1, 1 / 8),
        "heads/norm/scale": (1, 1 / 4),
        "heads/logits/kernel": (1, 1 / 4),
        "setwise_heads/logits/kernel": (1, 1 / 4),
        "heads/logits/bias": (1, 1),
    }
    for path, (rate, epsilon) in rate_and_epsilon.items():
        found: Any = updates
        for part in path.split("/"):
            found = found[part]
        decay = DECAY * path.endswith("kernel")  # whose weights are ones
        wanted = -(2.0**-7) * (rate * g / (g + epsilon * 1e-8) + decay)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=path)


def test_fresh_embeddings_of_actions_have_one_size_at_every_width() -> None:
    for rule, deviation in (("mup", 32**-0.5), ("standard", 256**-0.5)):
        params, _ = trained(rule, 0, kind="ligr", width=256)
        assert np.std(params["actions"]["actions"]["kernel"]) == pytest.approx(deviation, rel=0.1)
        gate = params["history"]["layers"]["gated_ffn"]["gate"]["kernel"]
        assert np.std(gate) == pytest.approx(256**-0.5, rel=0.1)


def test_a_base_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"base_width=32 is not divisible by model.base_heads=3"):
        model_of("mup", base_heads=3)
    with pytest.raises(ConfigError, match=r"model.base_depth=0 must be >= 1"):
        model_of("mup", base_depth=0)


def activations(model: ModelConfig, params: Any) -> dict[str, list[jax.Array]]:
    """What the layers of each stack compute, by kind; stacks are run layer by layer."""
    found: dict[str, list[jax.Array]] = {}
    stack = ""

    def note(kind: str, x: jax.Array) -> None:
        found.setdefault(f"{stack} {kind}", []).append(x)

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal stack
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, Stack):
            stack, (h, *rest) = str(module.name), args
            layers = module.variables["params"]["layers"]
            block = module.block(module.config, module.scale, parent=None)
            for i in range(module.depth):
                own = jax.tree.map(lambda p, i=i: p[i], layers)
                h, _ = block.apply({"params": own}, h, *rest)
            note("residual stream", h)
            return h, None
        out = call(*args, **kwargs)
        if isinstance(module, FeedForward):
            note("feed-forward", out)
        elif isinstance(module, Linear) and module.name in ("gate", "out", "uvqk"):
            note(module.name, out)
        return out

    attend = blocks.attend

    def attend_and_record(q: jax.Array, k: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        note("scores", jnp.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5)
        return attend(q, k, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, nn.intercept_methods(record):
        patch.setattr(blocks, "attend", attend_and_record)
        z = jnp.asarray(make_model(model).apply({"params": params}, BATCH))
    return {**found, "logits": [z]}


@functools.cache
def changes(rule: str, **shape: Any) -> dict[str, float]:
    """RMS over layers and two seeds of how far a few steps moved each kind of activation."""
    model = model_of(rule, **shape)

    # Compiled apart from the training, the activations compile once for before and after it.
    activations_of = jax.jit(lambda params: activations(model, params))
    squares: dict[str, list[float]] = {}
    for seed in range(2):
        before, after = map(activations_of, trained(rule, seed, **shape))
        for kind, old in before.items():
            change = np.stack(after[kind]) - np.stack(old)
            squares.setdefault(kind, []).append(float(np.mean(change**2)))
    return {kind: float(np.sqrt(np.mean(s))) for kind, s in squares.items()}


WIDER, DEEPER = {"width": 256, "heads": 16}, {"depth": 8}
LARGER = {"width": 128, "heads": 8, "depth": 4}
LIGR, HSTU = {"kind": "ligr"}, {"kind": "hstu"}
GATES = LIGR | {"gate": "both", "residual_scale": True}


@pytest.mark.parametrize(
    ("kind", "larger", "least", "most"),
    [
        (LIGR, WIDER, 8**-0.1, 8**0.1),
        (LIGR, DEEPER, 4**-0.2, 4**0.2),
        (GATES, LARGER, 4**-0.1 * 2**-0.2, 4**0.1 * 2**0.2),
        (HSTU, WIDER, 8**-0.1, 8**0.1),
        (HSTU, DEEPER, 4**-0.5, 4**0.2),  # its layers' changes agree less: they add up to less
    ],
    ids=["wider", "deeper", "gates, larger", "hstu, wider", "hstu, deeper"],
)
def test_steps_change_every_layer_of_a_large_model_as_they_change_the_bases(
    kind: dict[str, Any], larger: dict[str, int], least: float, most: float
) -> None:
    """Slopes of log RMS against log size are below 0.1 in width and 0.2 in depth."""
    base = changes("mup", **kind)
    for what, rms in changes("mup", **kind, **larger).items():
        assert least < rms / base[what] < most, what


@pytest.mark.parametrize("larger", [WIDER, DEEPER], ids=["wider", "deeper"])
def test_without_mup_steps_change_a_large_model_more(larger: dict[str, int]) -> None:
    base = changes("mup", kind="ligr")
    standard = changes("standard", kind="ligr", **larger)
    for what in ("history residual stream", "history gate"):
        assert standard[what] / base[what] > 2, what


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_wide_heads_move_no_further_than_the_bases(kind: str) -> None:
    """K eight times the base's: by 1 / K^1/2 alone, they would."""
    base, what = changes("mup", kind=kind), "history scores"
    assert changes("mup", kind=kind, width=256)[what] < base[what]
    if kind == "ligr":
        assert changes("standard", kind=kind, width=256)[what] / base[what] > 2
