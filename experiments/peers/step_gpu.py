"""Whole training steps of the library on one accelerator; every step gets the same batch."""

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
from peers.cases import Case, rows
from peers.workers import Calls, serve

ACTIONS = ("click", "long_dwell", "like")
FEATURES = ("item_id", "actor_id")


def main() -> None:
    calls = Calls(jax.block_until_ready, queued=jax.default_backend() != "cpu")

    def prepare(key: str, case: dict[str, Any], model: dict[str, Any], table_rows: int) -> float:
        """Compile and warm a step of a model on rows like the case's; return its FLOPs."""
        call, flops = steps(Case(**case), model, table_rows)
        calls.add(key, call)
        return flops

    def prepare_product(key: str, size: int) -> float:
        """Do the same for a product of random bfloat16 matrices: the reachable peak."""
        a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
        product = jax.jit(jnp.dot)
        calls.add(key, lambda: product(a, b))
        return 2.0 * size**3

    serve(
        hello=hello,
        peak=lambda: peak_flops("bfloat16"),
        prepare=prepare,
        prepare_product=prepare_product,
        sample=calls.sample,
        forget=calls.forget,
    )


ONE = MeshConfig(data=1)


def steps(
    case: Case, model: dict[str, Any], table_rows: int, mesh: MeshConfig = ONE
) -> tuple[Any, float]:
    """Return a call that takes one step, and its FLOPs (forward times three, without padding)."""
    features = {name: Feature(rows=table_rows) for name in FEATURES}
    config = Config(
        model=ModelConfig(features=features, actions=ACTIONS, dtype=case.dtype, **model),
        data=DataConfig(seq_len=case.tokens),
        optim=OptimConfig(batch=case.batch, decay="none"),
        mesh=mesh,
    )
    program = Program(config, steps=1000)
    map_ids = UniqueIdMapper(config.model, program.process.devices)
    inputs = program.shard_batch(map_ids(random_batch(case, table_rows)))
    state = program.init_state(inputs.batch)
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
    return call, train_flops(config.model, work)


def random_batch(case: Case, table_rows: int) -> Batch:
    rng = np.random.default_rng(0)
    member, session = rows(case)
    shape = member.shape
    ids = {name: rng.integers(1, table_rows, shape, dtype=np.int32) for name in FEATURES}
    return Batch(
        member=member,
        session=session,
        time=np.zeros(shape, np.float32),
        ids=ids,
        numeric={},
        vectors={},
        labels=rng.integers(0, 2, (*shape, len(ACTIONS)), dtype=np.int8),
        weight=np.ones(shape, np.float32),
    )


if __name__ == "__main__":
    main()
