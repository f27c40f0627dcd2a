"""The JAX side of the attention races: `attend`, or jax.nn with the dense mask."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, override
from ligr_jax.ops.attention import Implementation, attend
from ligr_jax.ops.masks import dense_mask, history_mask, session_mask
from ligr_jax.parallel.mesh import batch_sharding, make_mesh
from peers.cases import Case, qkvg, rows
from peers.workers import Calls, loaded_allocator, serve

JaxNN = Literal["xla", "cudnn"]  # `jax.nn.dot_product_attention`, with the dense mask
Form = Implementation | JaxNN  # `attend` has the others


def main() -> None:
    calls = Calls(jax.block_until_ready, queued=jax.default_backend() != "cpu")

    def prepare(key: str, case: dict[str, Any], form: Form, backward: bool) -> None:
        call, arrays = jitted(Case(**case), form, backward)
        calls.add(key, lambda: call(*arrays))

    def save(key: str, path: str, rows: int) -> None:
        """Write the output and the gradients of the first rows."""
        np.savez(path, *(np.asarray(x[:rows], np.float32) for x in calls.result(key)))

    serve(
        hello=hello,
        prepare=prepare,
        sample=calls.sample,
        save=save,
        forget=calls.forget,
        temporaries=temporaries,
    )


def hello() -> str:
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    return f"JAX {jax.__version__}, {kind}, preloaded allocator: {loaded_allocator()}"


def temporaries(case: dict[str, Any], form: Form) -> int:
    """Return the bytes of temporaries of one forward and backward call, summed over all devices."""
    call, arrays = jitted(Case(**case), form, backward=True)
    analysis = call.lower(*arrays).compile().memory_analysis()
    result: int = analysis.temp_size_in_bytes * jax.sharding.get_mesh().size
    return result


def jitted(case: Case, form: Form, backward: bool) -> tuple[Any, tuple[Any, ...]]:
    """Return the compiled call and its arguments; the batch is sharded over all devices."""
    mesh = make_mesh(override(Config(), [f"optim.batch={case.batch}"]))
    jax.set_mesh(mesh)
    make = history_mask if case.kind == "history" else session_mask
    mask = make(*map(jnp.asarray, rows(case)))
    form_mask = jax.jit(dense_mask)(mask)[:, None] if form in get_args(JaxNN) else mask
    cast = [x.astype(jnp.dtype(case.dtype)) for x in qkvg(case)]
    arguments = jax.device_put((*cast, form_mask), batch_sharding(mesh))
    step = functools.partial(both_ways if backward else forward, form)
    return jax.jit(step), arguments


def forward(form: Form, q: Any, k: Any, v: Any, g: Any, mask: Any) -> tuple[jax.Array]:
    return (attention(form)(q, k, v, mask),)


def both_ways(form: Form, q: Any, k: Any, v: Any, g: Any, mask: Any) -> tuple[jax.Array, ...]:
    """Return the output and the gradients of queries, keys and values."""
    out, pull = jax.vjp(lambda *qkv: attention(form)(*qkv, mask), q, k, v)
    return out, *pull(g)


def attention(form: Form) -> Callable[..., jax.Array]:
    if form == "xla" or form == "cudnn":
        return lambda q, k, v, mask: jax.nn.dot_product_attention(
            q, k, v, mask=mask, implementation=form
        )
    return functools.partial(attend, implementation=form)


if __name__ == "__main__":
    main()
