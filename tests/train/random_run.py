"""Runs that were never trained, for tests of what reads checkpoints."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config
from ligr_jax.runs.directory import write_or_verify_config
from ligr_jax.runs.files import RunFiles
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.program import Program


def random_run(config: Config, out: Path, step: int = 2) -> Path:
    """Write a run with one checkpoint, whose parameters are random.

    No program is compiled, so this takes a tenth of the time of a run of two steps.
    """
    program = Program(config)
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> jax.Array:
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        values = rng.normal(0, 0.3, leaf.shape) if is_float else np.zeros(leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    state = jax.tree.map(draw, program.abstract_state())
    state = state._replace(
        step=jax.device_put(np.int32(step), state.step.sharding),
        # Variances and sums of squares are among them.
        opt_state=jax.tree.map(jnp.square, state.opt_state),
        stats=jax.tree.map(jnp.square, state.stats),
    )
    out.mkdir(parents=True)
    write_or_verify_config(out, config)
    checkpoints = Checkpoints(RunFiles(out).checkpoints, config.train.keep, program.layout)
    checkpoints.save(step, state, {})
    checkpoints.wait()
    checkpoints.close()
    return out
