"""Laws of FLOPs: the analytic count equals that of the traced model and of XLA."""

from collections.abc import Iterator
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ligr_jax.config import (
    HyFormerConfig,
    ModelConfig,
    TokenMixerConfig,
    TwoStreamConfig,
    WukongConfig,
)
from ligr_jax.cost.flops import compute_axes, forward_flops, parameter_counts, train_flops
from ligr_jax.data.batch import Batch
from ligr_jax.nn.models import make_model
from ligr_jax.nn.work import Work
from ligr_jax.ops.grouped import FORM_OF_BACKEND
from tests.batches import FEED_SR, HEAD_FEATURES, model_config, random_batch, with_head_features

ROWS = 2
# The widths are large, so that matrix products dominate the elementwise work that XLA counts too.
SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "default": (64, {"width": 256, "heads": 4, "depth": 2, "set_depth": 1}),
    "deep, no set-wise": (32, {"width": 256, "heads": 4, "depth": 4, "set_depth": 0}),
    "swiglu": (32, {"width": 256, "heads": 2, "depth": 1, "set_depth": 2, "ffn": "swiglu"}),
    "no gate": (16, {"width": 256, "heads": 4, "depth": 3, "set_depth": 1, "gate": "none"}),
    "all gates": (16, {"width": 256, "heads": 4, "depth": 2, "set_depth": 1, "gate": "both"}),
    "gates of attention": (16, {"width": 256, "depth": 1, "set_depth": 1, "gate": "cadet"}),
    "no ffn, long": (96, {"width": 192, "heads": 2, "depth": 2, "set_depth": 1, "ffn": "none"}),
    "set-wise alone": (64, {"width": 256, "heads": 4, "depth": 0, "set_depth": 3}),
    "wide ffn": (32, {"width": 128, "heads": 2, "depth": 2, "set_depth": 1, "ffn_factor": 8.0}),
    "two streams": (32, {"kind": "ligr_streams", "width": 256, "heads": 4, "set_depth": 0}),
    "rankmixer": (32, {"kind": "rankmixer", "width": 256, "heads": 4, "set_depth": 0}),
    "tokenmixer, chunks": (
        32,
        {
            "kind": "tokenmixer",
            "width": 256,
            "heads": 4,
            "depth": 3,
            "set_depth": 0,
            "streams": TwoStreamConfig(4, tokenizer="chunk"),
        },
    ),
    "tokenmixer, experts": (
        8,
        {
            "kind": "tokenmixer",
            "width": 64,
            "set_depth": 0,
            "tokenmixer": TokenMixerConfig(experts=4, chosen=2),
        },
    ),
    "ultra": (32, {"kind": "ultra", "width": 256, "heads": 4, "depth": 3, "set_depth": 0}),
    "actions as values": (32, {"actions_as": "values", "width": 256, "depth": 2, "gate": "both"}),
    "late action values": (32, {"actions_as": "late_values", "width": 256, "depth": 1}),
    "late features, cross layers, positions": (
        32,
        {"width": 128, "depth": 1, "features": HEAD_FEATURES, "head": FEED_SR},
    ),
    "hstu, late features": (
        16,
        {"kind": "hstu", "width": 64, "depth": 1, "features": HEAD_FEATURES, "head": FEED_SR},
    ),
    "ligr_streams, late features": (
        16,
        {"kind": "ligr_streams", "width": 64, "depth": 1, "set_depth": 0}
        | {"features": HEAD_FEATURES, "head": FEED_SR},
    ),
    "late features, linear": (8, {"depth": 1, "features": HEAD_FEATURES, "set_depth": 0}),
    "onetrans": (32, {"kind": "onetrans", "width": 256, "heads": 4, "set_depth": 0}),
    "hyformer": (32, {"kind": "hyformer", "width": 250, "heads": 2, "set_depth": 0}),
    "hyformer, cheap encoder": (
        16,
        {
            "kind": "hyformer",
            "width": 96,
            "set_depth": 0,
            "streams": TwoStreamConfig(tokens=5, queries=3),
            "hyformer": HyFormerConfig(encoder="swiglu", boost="paper"),
        },
    ),
    "onetrans, recomputed": (
        8,
        {"kind": "onetrans", "width": 64, "depth": 2, "set_depth": 0}
        | {"streams": TwoStreamConfig(windows=(8, 8), history="recompute")},
    ),
    "hstu": (32, {"kind": "hstu", "width": 256, "heads": 4, "depth": 3, "set_depth": 1}),
    "wukong": (64, {"kind": "wukong", "width": 96, "depth": 3, "set_depth": 0}),
    "wukong, dual path": (
        32,
        {
            "kind": "wukong",
            "width": 128,
            "depth": 2,
            "set_depth": 0,
            "wukong": WukongConfig(5, 7, 4, mlp=(8, 8), head=(), dual_path=True),
        },
    ),
}
# Kinds that mask the candidate tokens of an impression from each other.
CAUSAL_TOKENS = ("onetrans",)


def problem(n: int, changes: dict[str, Any]) -> tuple[ModelConfig, Batch, Any, Work]:
    """Return a model, a batch, the shapes of parameters, and the work of dense attention."""
    config = model_config(unroll="yes", **changes)
    batch = with_head_features(random_batch([[[n]]] * ROWS, n))
    params = jax.eval_shape(make_model(config).init, jax.random.key(0), batch)
    # Pairs of tokens with themselves: in the square, besides it, or in that of one of two layers.
    history = {"tokens": (2 * n) ** 2, "values": n**2 + n, "late_values": n**2 + n / 2}
    # Dense attention computes all pairs, and token mixers have it before their layers.
    layers = 1 if config.kind in ("rankmixer", "tokenmixer") else config.depth
    in_layers = layers * ROWS * n**2
    recomputed = config.streams.history == "recompute"  # a history for each impression
    work = Work(
        impressions=ROWS * n,
        history_pairs=ROWS * history[config.actions_as],
        set_pairs=ROWS * n**2,
        stream_pairs=in_layers * (n if recomputed else 1),
        range_pairs=in_layers,
    )
    return config, batch, params, work


def products(jaxpr: Any, times: int = 1) -> Iterator[int]:
    """Yield the FLOPs of every matrix product of a traced function, repeated for scans."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            shape = eqn.invars[0].aval.shape
            yield times * 2 * prod(eqn.outvars[0].aval.shape) * prod(shape[d] for d in contracted)
        if eqn.primitive.name == "ragged_dot_general":  # every row meets one group
            rows, contracted = eqn.invars[0].aval.shape
            yield times * 2 * rows * contracted * eqn.outvars[0].aval.shape[-1]
        inner = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        for value in eqn.params.values():
            inside = getattr(value, "jaxpr", value)  # of a closed jaxpr, or a jaxpr (remat)
            if hasattr(inside, "eqns"):
                yield from products(inside, inner)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_forward_count_is_every_matrix_product_of_the_traced_model(
    shape: tuple[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORM_OF_BACKEND, "cpu", "ragged")  # padding of other forms does not count
    config, batch, params, work = problem(*shape)

    def forward(p: Any) -> Any:
        return make_model(config).apply(p, batch)

    traced = jax.make_jaxpr(forward)(params)
    counted = forward_flops(config, work)
    if config.kind in CAUSAL_TOKENS:  # products of all M x M pairs, as of dense attention
        m = config.streams.tokens
        counted["own_pairs"] *= 2 * m / (m + 1)
    assert sum(products(traced.jaxpr)) == sum(counted.values())


# One of each kind of layer: for all shapes, the forward pass is counted exactly.
@pytest.mark.parametrize("name", ["default", "no ffn, long", "hstu", "wukong", "wukong, dual path"])
def test_training_count_is_xlas_within_three_percent(name: str) -> None:
    config, batch, params, work = problem(*SHAPES[name])

    def loss(p: Any, b: Batch) -> jax.Array:
        return jnp.sum(jnp.asarray(make_model(config).apply(p, b)))

    step = jax.jit(jax.value_and_grad(loss))
    compiled = step.lower(params, batch).compile()
    assert train_flops(config, work) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.03)


def test_parameter_groups_sum_to_all_parameters() -> None:
    config, _, params, _ = problem(4, {"position": "relative_session", "gate": "both"})
    counts = parameter_counts(config, params["params"])
    total = sum(p.size for p in jax.tree.leaves(params))
    groups = {k: v for k, v in counts.items() if k != "dense"}
    assert sum(groups.values()) == total
    assert counts["dense"] == total - counts["tables"]
    tables = [(f.rows, f.width or config.table_width) for f in config.features.values() if f.rows]
    assert counts["tables"] == sum(v * e for v, e in tables)
    d, f, layers = config.width, config.ffn_width, config.depth
    assert counts["gates"] == layers * (2 + 3) * d * d
    assert counts["ffn"] == layers * (2 * d * f + f + d)
    assert counts["attention"] == layers * (4 * d * d + config.heads * 32)


def test_compute_axes_follow_their_definitions() -> None:
    config = model_config()
    work = Work(10, 200, 30) + Work(5, 100, 20)
    assert work == Work(15, 300, 50)
    axes = compute_axes(config, 1000, work)
    assert axes["flops_paper"] == 1000 * 2 * 15
    assert axes["flops_6nd"] == 6 * axes["flops_paper"]
    assert axes["flops_model"] == 3 * sum(forward_flops(config, work).values())
