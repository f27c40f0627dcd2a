"""`attend`: one signature for all implementations of attention, chosen by device and length."""

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Literal, cast

import jax
from jax.sharding import PartitionSpec as P

from ligr_jax.ops.attention.blocked import attend_blocked
from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation, RelativeBias
from ligr_jax.ops.masks import Mask
from ligr_jax.ops.rows import row_axes

Implementation = Literal["auto", "dense", "blocked", "gpu", "tpu"]

_log = logging.getLogger(__name__)
# On a CPU, the dense form is as fast up to this many tokens (experiments/attention.py).
_SHORT = 256


def attend(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Compute attention over exactly the pairs that `mask` allows.

        scores = q k^T / sqrt(K) + bias
        softmax: softmax over the allowed keys;  silu, sigmoid: activation(scores) / allowed keys

    The un-normalized activations are divided by the number of allowed keys, so that their scale
    does not grow with the history (HSTU divides by the sequence length; LiGR A.1 compares them).
    Scores and their normalization are float32, whatever the dtype of the inputs. Padding gets zero
    outputs and zero gradients. Under `jax.set_mesh` with axes `data` or `model`, each device
    attends for its own rows.

    Args:
        q_BTHK: [B, T, H, K], queries.
        k_BTGK: [B, T, G, K], keys, with H a multiple of G: consecutive groups of H / G query heads
            share one key head.
        v_BTGK: [B, T, G, K], values.
        mask: the allowed pairs.
        activation: how scores become weights.
        bias: a relative bias of the same tokens, or None.
        implementation: `auto` chooses by device and length;
            `dense` materializes B x H x T x T scores, and is the only one with forward-mode
            derivatives;
            `blocked` is plain XLA with memory linear in T, for every device;
            `gpu` (NVIDIA) and `tpu` are Pallas kernels without a bias. On a CPU the kernels are
            interpreted, which is slow and meant for tests. `gpu` needs a JAX whose Pallas has
            Triton; without it, `auto` takes `blocked`.

    Returns:
        [B, T, H, K], in the dtype of the queries.

    Raises:
        ValueError: the shapes do not match, a kernel without bias is requested with a bias, or
            this version of JAX cannot compile the kernel.
    """
    return attend_with_normalizer(
        q_BTHK,
        k_BTGK,
        v_BTGK,
        mask,
        activation=activation,
        bias=bias,
        implementation=implementation,
    )[0]


def attend_with_normalizer(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend`, and softmax's normalizer, by which results over other keys can be merged.

    Both results have derivatives. Arguments and errors are those of `attend`.

    Args:
        q_BTHK, k_BTGK, v_BTGK, mask: as in `attend`.
        activation: how scores become weights; the normalizer means something for softmax only.
        bias, implementation: as in `attend`.

    Returns:
        The output of `attend`; and float32 [B, T, H], the log of the sum of the exponentials of the
        scores, `LOWEST` for tokens without keys.
    """
    q_shape, k_shape, v_shape = (x.shape for x in (q_BTHK, k_BTGK, v_BTGK))
    if q_shape[:2] != k_shape[:2] or k_shape != v_shape or q_shape[2] % k_shape[2]:
        raise ValueError(
            f"q {q_shape}, k {k_shape} and v {v_shape} do not fit together; expected [B, T, H, K] "
            "and twice [B, T, G, K] with H a multiple of G"
        )
    if implementation == "auto":
        implementation = _choose(jax.default_backend(), q_shape[1], bias is not None)
    if implementation in ("gpu", "tpu") and bias is not None:
        raise ValueError(
            f"implementation={implementation} has no relative bias; use implementation=blocked"
        )

    def on_device(
        q_BTHK: jax.Array,
        k_BTGK: jax.Array,
        v_BTGK: jax.Array,
        mask: Mask,
        bias: RelativeBias | None,
    ) -> tuple[jax.Array, jax.Array]:
        if implementation == "dense":
            return attend_dense(q_BTHK, k_BTGK, v_BTGK, mask, activation, bias)
        if implementation == "blocked":
            return attend_blocked(q_BTHK, k_BTGK, v_BTGK, mask, activation, bias)
        interpret = jax.default_backend() == "cpu"
        kernel = _kernel(implementation)
        return kernel(q_BTHK, k_BTGK, v_BTGK, mask, activation, interpret=interpret)

    return _by_rows(on_device, q_shape[0], bias)(q_BTHK, k_BTGK, v_BTGK, mask, bias)


def _choose(backend: str, length: int, with_bias: bool) -> Implementation:
    if backend == "cpu":
        return "dense" if length <= _SHORT else "blocked"
    if with_bias or backend not in ("gpu", "tpu"):
        return "blocked"
    if backend == "gpu" and not _pallas_has_triton():
        return "blocked"
    return cast(Implementation, backend)


@functools.cache
def _pallas_has_triton() -> bool:
    """Return whether JAX can compile the GPU kernel; if not, say so once.

    JAX 0.11 deprecated Triton in Pallas, and 0.12 still has it.
    """
    if importlib.util.find_spec("jax.experimental.pallas.triton"):
        return True
    _log.warning(
        "JAX %s has no Triton in Pallas: attention on GPUs runs as plain XLA (blocked), "
        "in linear memory but slower than the kernel",
        jax.__version__,
    )
    return False


def _kernel(name: str) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Import a kernel on first use: importing Pallas takes a second, and a CPU does not need it."""
    if name == "gpu":
        if not _pallas_has_triton():
            raise ValueError(
                f"implementation=gpu needs Triton in Pallas, which JAX {jax.__version__} does not "
                "have; use implementation=blocked, or JAX 0.12"
            )
        from ligr_jax.ops.attention.gpu import attend_gpu

        return attend_gpu
    from ligr_jax.ops.attention.tpu import attend_tpu

    return attend_tpu


def _by_rows(
    function: Callable[..., tuple[jax.Array, jax.Array]], rows: int, bias: RelativeBias | None
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Run `function` on each device's rows: XLA cannot partition a loop over rows by itself."""
    axes = row_axes(rows)
    if not axes:
        return function
    by_rows = P(axes)
    bias_spec = bias and RelativeBias(table=P(), position=by_rows)  # type: ignore[arg-type]
    in_specs = (by_rows, by_rows, by_rows, by_rows, bias_spec)
    return jax.shard_map(function, in_specs=in_specs, out_specs=by_rows, check_vma=False)
