"""Does computing only the chosen experts take the share of the time that its FLOPs promise?

    python experiments/sparse_experts.py

A training step of a mixture alone, value and gradients of all parameters and inputs: 8,192 rows,
one MLP layer D -> F for each of E experts, float32 or bfloat16. `dense` computes all experts and
weighs those that are not chosen by zero; `sparse` is `SparseExperts`. Rows are split over one
simulated device per core. Both take turns; a time is the median over the rounds, a ratio the median
of the rounds' ratios with its quartiles. FLOPs are those that the two analytic counts give, and the
padding of blocks is not among them. Gradients are compared before timing.

Expected: 1.4 to 11 times as fast as dense, 0.5 to 1.1 of the ratio of FLOPs. Numbers:
experiments/results/sparse_experts.json. Time: 5 minutes.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, alternate, quartiles, ratio

from ligr_jax.parallel.host import use_all_cores

SIZES = ((128, 256), (256, 512))
COUNTS = (4, 8, 16)
CHOSEN = (1, 2)
DTYPES = ("float32", "bfloat16")


def main() -> None:
    use_all_cores()  # before JAX starts
    args, neighbours = arguments(), Neighbours()
    study = Study.of(__file__, __doc__, (0,))
    columns = [
        Column("D x F"),
        Column("dtype"),
        Column("E", "d"),
        Column("chosen", "d"),
        Column("dense, ms", ".1f"),
        Column("sparse, ms", ".1f"),
        Column("dense over sparse", ".2f"),
        Column("the same in FLOPs", ".2f"),
    ]
    dials = itertools.product(SIZES, DTYPES, COUNTS, CHOSEN)
    rows = [race(*dial, args.rows, args.rounds) for dial in dials]
    caption = (
        f"A training step of a mixture of {args.rows:,} rows; medians, quartiles of the ratio."
    )
    study.add("step", caption, columns, rows)
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--rows", type=int, default=8192, help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=11, help="[%(default)s]")
    return parser.parse_args()


def race(
    size: tuple[int, int], dtype: str, count: int, chosen: int, examples: int, rounds: int
) -> list[Cell]:
    """Return a row of the table."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    from ligr_jax.nn.experts import Experts, SparseExperts, mix, sparse_flops, top_softmax
    from ligr_jax.nn.mlp import mlp_flops

    width, out = size
    settings = {"count": count, "widths": (out,), "dtype": jnp.dtype(dtype)}
    module = SparseExperts(chosen=chosen, **settings)  # type: ignore[arg-type]
    all_experts = Experts(**settings)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, width)).astype(np.float32)
    valid = np.ones(examples, bool)
    params = jax.jit(module.init)(jax.random.key(0), x[:8], valid[:8])["params"]
    params["gate"]["kernel"] = rng.normal(size=(width, count)).astype(np.float32)

    def sparse(params: Any, x: jax.Array) -> Any:
        return module.apply({"params": params}, x, jnp.ones(len(x), bool))

    def dense(params: Any, x: jax.Array) -> jax.Array:
        values, indices = top_softmax(x @ params["gate"]["kernel"], chosen)
        weights = mix(values, jax.nn.one_hot(indices, count))
        variables = {"params": {"networks": params["experts"]}}
        outputs = jnp.asarray(all_experts.apply(variables, x))
        return mix(weights, outputs)

    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(
            (params, x), (NamedSharding(mesh, P()), NamedSharding(mesh, P("data")))
        )

        def step(layer: Callable[..., Any]) -> Callable[[], Any]:
            def loss(params: Any, x: jax.Array) -> Any:
                return (layer(params, x).astype(jnp.float32) ** 2).sum()

            compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*placed).compile()

            def run() -> Any:
                return jax.block_until_ready(compiled(*placed))

            return run

        steps = {"dense": step(dense), "sparse": step(sparse)}
        for a, b in zip(*(jax.tree.leaves(run()) for run in steps.values())):
            tolerance = 1e-4 if dtype == "float32" else 2e-2
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())
        seconds = alternate({name: timer(run) for name, run in steps.items()}, rounds)
    low, middle, high = ratio(seconds["dense"], seconds["sparse"])
    gate = 2 * 2 * width * count
    flops = count * (mlp_flops(width, (out,), gated=False) + 2 * out) + gate
    return [
        f"{width} x {out}",
        dtype,
        count,
        chosen,
        *(1e3 * quartiles(seconds[name])[1] for name in steps),
        interval(middle, low, high),
        flops / sparse_flops(width, count, chosen, (out,), gated=False),
    ]


def timer(run: Callable[[], Any]) -> Callable[[], float]:
    def sample() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return sample


if __name__ == "__main__":
    main()
