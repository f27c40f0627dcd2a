"""`attend`: models stand in front of it, implementations behind it."""

import math
from collections.abc import Callable
from typing import Literal, cast

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ligr_jax.ops.attention.blocked import attend_blocked
from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation, RelativeBias
from ligr_jax.ops.masks import Mask

Implementation = Literal["auto", "dense", "blocked", "gpu", "tpu"]

# On a CPU: below, one product of all scores is as fast (experiments/attention.py).
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
    gradient. Under `jax.set_mesh` with axes `data` or `model`, each device attends for its own
    rows.

    Args:
        q: [B, T, H, K].
        k, v: [B, T, G, K], with H a multiple of G: heads in order share keys, H / G at a time.
        implementation: `auto` picks for the device and the length;
            `dense` materializes B x H x T x T scores, and alone has forward-mode derivatives;
            `blocked` is plain XLA with memory linear in T, and runs everywhere;
            `gpu` (NVIDIA) and `tpu` are kernels of the same, without a bias; on a CPU they are
            interpreted: slow, for tests.

    Returns:
        [B, T, H, K], in q's type.

    Raises:
        ValueError: shapes that do not fit together, or a kernel asked for that has no bias.
    """
    if q.shape[:2] != k.shape[:2] or k.shape != v.shape or q.shape[2] % k.shape[2]:
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit together")
    if implementation == "auto":
        implementation = _choose(jax.default_backend(), q.shape[1], bias is not None)
    if implementation in ("gpu", "tpu") and bias is not None:
        raise ValueError(
            f"implementation={implementation} has no relative bias; implementation=blocked has"
        )

    def on_device(
        q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, bias: RelativeBias | None
    ) -> jax.Array:
        if implementation == "dense":
            return attend_dense(q, k, v, mask, activation, bias)
        if implementation == "blocked":
            return attend_blocked(q, k, v, mask, activation, bias)
        return _kernel(implementation)(
            q, k, v, mask, activation, interpret=jax.default_backend() == "cpu"
        )

    return _by_rows(on_device, q.shape[0], bias)(q, k, v, mask, bias)


def _choose(backend: str, length: int, with_bias: bool) -> Implementation:
    if backend == "cpu":
        return "dense" if length <= _SHORT else "blocked"
    if with_bias or backend not in ("gpu", "tpu"):
        return "blocked"
    return cast(Implementation, backend)


def _kernel(name: str) -> Callable[..., jax.Array]:
    """Imported when it is used: Pallas takes a second, and a CPU does without."""
    if name == "gpu":
        from ligr_jax.ops.attention.gpu import attend_gpu

        return attend_gpu
    from ligr_jax.ops.attention.tpu import attend_tpu

    return attend_tpu


def _by_rows(
    function: Callable[..., jax.Array], rows: int, bias: RelativeBias | None
) -> Callable[..., jax.Array]:
    """`function` on each device's own rows: XLA cannot split a loop over rows by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    axes = tuple(a for a in ("data", "model") if kinds.get(a) == AxisType.Auto)
    if not axes or rows % math.prod(mesh.shape[a] for a in axes):
        return function
    split = P(axes)
    of_bias = bias and RelativeBias(P(), split, None)  # type: ignore[arg-type]
    specs = (split, split, split, split, of_bias)
    return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)
