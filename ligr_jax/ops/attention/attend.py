"""`attend`: models stand in front of it, implementations behind it."""

from collections.abc import Callable
from typing import Literal

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ligr_jax.ops.attention.blocked import attend_blocked
from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation, RelativeBias
from ligr_jax.ops.masks import Mask

Implementation = Literal["auto", "dense", "blocked"]

# Below, one product of all scores is as fast and has less to start (experiments/attention.py).
_SHORT = 256


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Attention over exactly the pairs `mask` allows.

        scores = q k^T / sqrt(K) + bias
        softmax: softmax over the allowed keys;  silu, sigmoid: activation(scores) / allowed keys

    The un-normalized activations are divided by the number of allowed keys, so that their scale
    does not grow with history (HSTU divides by the sequence length; LiGR A.1 compares them). Scores
    and their normalization are float32 whatever the inputs' type. Padding gives zeros, and no
    gradient. Under `jax.set_mesh` with an axis `data`, each device attends for its own rows.

    Args:
        q: [B, T, H, K].
        k, v: [B, T, G, K], with H a multiple of G: heads in order share keys, H / G at a time.
        implementation: `auto` picks for the device and the length;
            `dense` materializes B x H x T x T scores, and alone has forward-mode derivatives;
            `blocked` is plain XLA with memory linear in T, and runs everywhere.

    Returns:
        [B, T, H, K], in q's type.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if q.shape[:2] != k.shape[:2] or k.shape != v.shape or q.shape[2] % k.shape[2]:
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit together")
    chosen = _choose(q.shape[1]) if implementation == "auto" else implementation
    function = {"dense": attend_dense, "blocked": attend_blocked}[chosen]

    def local(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, bias: RelativeBias | None):
        return function(q, k, v, mask, activation, bias)

    return _by_rows(local, q.shape[0], bias)(q, k, v, mask, bias)


def _choose(length: int) -> Literal["dense", "blocked"]:
    return "dense" if length <= _SHORT else "blocked"


def _by_rows(
    function: Callable[..., jax.Array], rows: int, bias: RelativeBias | None
) -> Callable[..., jax.Array]:
    """`function` on each device's own rows: XLA cannot split a loop over rows by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    if kinds.get("data") != AxisType.Auto or rows % mesh.shape["data"]:
        return function
    split = P("data")
    of_bias = bias and RelativeBias(P(), split, None)  # type: ignore[arg-type]
    specs = (split, split, split, split, of_bias)
    return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)
