"""Whole training steps of the library on its devices; every step gets the same batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, DataConfig, Feature, MeshConfig, ModelConfig, OptimConfig
from ligr_jax.cost.devices import peak_flops
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.batch import Batch
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.work import Work
from ligr_jax.train.program import Program
from peers.attention_jax import hello
from peers.cases import Case, impressions
from peers.step_jax import by_path, randomized, shardings
from peers.workers import Calls, serve

ACTIONS = ("click", "long_dwell", "like")
FEATURES = ("actor_id", "item_id")


def main() -> None:
    calls = Calls(jax.block_until_ready, queued=jax.default_backend() != "cpu")

    def prepare(
        key: str,
        case: dict[str, Any],
        model: dict[str, Any],
        table_rows: int,
        devices: int = 1,
        params: str | None = None,
    ) -> dict[str, Any]:
        """Compile and warm a step of a model on rows like the case's.

        Args:
            key: the name of the step.
            case: a `Case`; its batch is that of all devices.
            model: fields of ModelConfig.
            table_rows: rows of each table.
            devices: data-parallel devices.
            params: a file for the randomized parameters by path, for PyTorch's side; None keeps
                the initial ones.

        Returns:
            FLOPs of a step, and what PyTorch's side needs: the configuration, and the loss and
            gradient norm of the first step.
        """
        call, about = steps(Case(**case), model, table_rows, MeshConfig(data=devices), params)
        calls.add(key, call)
        return about

    def prepare_product(key: str, size: int) -> float:
        """Do the same for a product of random bfloat16 matrices: the reachable peak."""
        a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
        product = jax.jit(jnp.dot)
        calls.add(key, lambda: product(a, b))
        return 2.0 * size**3

    serve(
        hello=hello,
        devices=jax.device_count,
        peak=lambda: peak_flops("bfloat16"),
        prepare=prepare,
        prepare_product=prepare_product,
        sample=calls.sample,
        forget=calls.forget,
    )


ONE = MeshConfig(data=1)


def steps(
    case: Case,
    model: dict[str, Any],
    table_rows: int,
    mesh: MeshConfig = ONE,
    params: str | None = None,
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a call that takes one step, and what `prepare` says of it."""
    features = {name: Feature(rows=table_rows) for name in FEATURES}
    config = Config(
        model=ModelConfig(features=features, actions=ACTIONS, dtype=case.dtype, **model),
        data=DataConfig(seq_len=case.tokens),
        optim=OptimConfig(batch=case.batch, decay="none"),
        mesh=mesh,
    )
    program = Program(config, steps=1000)
    map_ids = UniqueIdMapper(config.model, program.process.devices)
    inputs = program.shard_batch(map_ids(batch_of(case, table_rows)))
    state = program.init_state(inputs.batch)
    if params:
        random = randomized(state.params)
        np.savez(params, **by_path(random))
        placed = jax.tree.map(jax.device_put, random, shardings(state.params))
        state = state._replace(params=placed)
    step = program.compile_step(inputs)

    def call() -> Any:
        nonlocal state
        state, metrics = step(state, inputs)
        return metrics

    metrics = jax.device_get(call())
    if not np.isfinite(metrics["loss"]):
        raise FloatingPointError(f"the loss of {model} is {metrics['loss']}")
    names = ("impressions", "history_pairs", "set_pairs")
    work = Work(*(float(metrics[name]) for name in names))
    return call, {
        "flops": train_flops(config.model, work),
        "model": dataclasses.asdict(config.model),
        "ffn_width": config.model.ffn_width,
        "optim": dataclasses.asdict(config.optim),
        "loss": float(metrics["loss"]),
        "grad_norm": float(metrics["grad_norm"]),
    }


def batch_of(case: Case, table_rows: int) -> Batch:
    arrays = impressions(case, len(ACTIONS), FEATURES, table_rows)
    ids = {name: arrays.pop(f"ids/{name}") for name in FEATURES}
    time = np.zeros(arrays["member"].shape, np.float32)
    return Batch(**arrays, ids=ids, time=time, numeric={}, vectors={})


if __name__ == "__main__":
    main()
