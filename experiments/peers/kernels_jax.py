"""The kernels of `attend` on this device: against the dense form, and with other tiles."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.ops.attention import Activation, Implementation, attend
from ligr_jax.ops.attention.gpu import Tile, Tiling, attend_gpu, choose_tiling
from ligr_jax.ops.attention.tilings import tiling_name
from ligr_jax.ops.attention.tpu import LARGEST_TILE, attend_tpu
from ligr_jax.ops.masks import Mask, history_mask, session_mask
from peers.attention_jax import hello
from peers.cases import Case, qkvg, rows
from peers.workers import Calls, serve

Sizes = list[list[int]] | int  # a GPU's tiles of forward and backward; a TPU's largest tile


def main() -> None:
    calls = Calls(jax.block_until_ready, queued=jax.default_backend() != "cpu")

    def prepare(key: str, case: dict[str, Any], sizes: Sizes, backward: bool) -> None:
        """Compile and warm the kernel with given tiles."""
        mask, arrays = inputs(Case(**case))
        run = jax.jit(functools.partial(both_ways if backward else forward, kernel(sizes), mask))
        calls.add(key, lambda: run(*arrays))

    serve(
        hello=hello,
        device=lambda: jax.devices()[0].device_kind,
        errors=errors,
        chosen=chosen,
        prepare=prepare,
        sample=calls.sample,
        forget=calls.forget,
    )


def errors(case: dict[str, Any], form: Implementation, activation: Activation) -> list[float]:
    """Return the largest errors of the output and of the gradients of q, k and v.

    They are relative to the largest value, and against the dense form in float32 with products of
    the highest precision.
    """
    mask, arrays = inputs(Case(**case))
    exact = [x.astype(jnp.float32) for x in arrays]

    def run(form: Implementation, arrays: list[jax.Array]) -> tuple[jax.Array, ...]:
        attention = functools.partial(attend, activation=activation, implementation=form)
        result: tuple[jax.Array, ...] = jax.jit(functools.partial(both_ways, attention, mask))(
            *arrays
        )
        return result

    with jax.default_matmul_precision("highest"):
        expected = run("dense", exact)
    pairs = zip(map(np.asarray, expected), run(form, arrays))
    return [float(np.abs(np.asarray(y, np.float32) - x).max() / np.abs(x).max()) for x, y in pairs]


def chosen(case: dict[str, Any]) -> dict[str, Any]:
    """Return the name of the case's tiling, and the sizes that the kernel chooses by itself."""
    c = Case(**case)
    backend = "tpu" if jax.default_backend() == "tpu" else "gpu"
    has_own = c.kind == "history"
    sizes: Sizes = LARGEST_TILE
    if backend == "gpu":
        sizes = [list(tile) for tile in choose_tiling(c.width, c.dtype, has_own)]
    return {"name": tiling_name(backend, has_own, c.dtype, c.width), "sizes": sizes}


def inputs(case: Case) -> tuple[Mask, list[jax.Array]]:
    make = history_mask if case.kind == "history" else session_mask
    mask = make(*map(jnp.asarray, rows(case)))
    return mask, [jnp.asarray(x, jnp.dtype(case.dtype)) for x in qkvg(case)]


def kernel(sizes: Sizes) -> Callable[..., jax.Array]:
    interpret = jax.default_backend() == "cpu"
    if isinstance(sizes, int):
        return lambda q, k, v, mask: attend_tpu(
            q, k, v, mask, "softmax", interpret, largest_tile=sizes
        )[0]
    tiling = Tiling(*(Tile(*tile) for tile in sizes))
    return lambda q, k, v, mask: attend_gpu(q, k, v, mask, "softmax", interpret, tiling)[0]


def forward(attention: Any, mask: Mask, q: Any, k: Any, v: Any, g: Any) -> jax.Array:
    result: jax.Array = attention(q, k, v, mask)
    return result


def both_ways(attention: Any, mask: Mask, q: Any, k: Any, v: Any, g: Any) -> tuple[jax.Array, ...]:
    """Return the output and the gradients of queries, keys and values."""
    out, pull = jax.vjp(lambda *qkv: attention(*qkv, mask), q, k, v)
    return out, *pull(g)


if __name__ == "__main__":
    main()
