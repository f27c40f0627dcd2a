"""What a run will cost, before it starts: from its configuration and a sample of its data."""

from dataclasses import dataclass

import jax
import numpy as np

from ligr_jax.config import Config
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.pipeline import number_of_steps, plan_for
from ligr_jax.data.records import Records
from ligr_jax.nn.flops import Work, parameter_counts, train_flops
from ligr_jax.nn.ligr import LiGR
from ligr_jax.ops.masks import allowed_pairs, history_mask, session_mask
from ligr_jax.tables.layout import layout
from ligr_jax.train.state import abstract_state, optimizer

_SAMPLE_ROWS = 32


@dataclass(frozen=True)
class Estimate:
    """steps and tokens of a run, its `flops_model`, parameters, and bytes of its training state."""

    steps: int
    tokens: float
    flops: float
    dense: int
    tables: int
    state_bytes: int


def estimate(config: Config, records: Records) -> Estimate:
    """Shape-checks the whole run (nothing is computed) and measures a sample of its rows.

    Raises:
        ValueError: shapes do not fit, or the train split is empty.
    """
    plan = plan_for(records, config, "train")
    if not len(plan):
        raise ValueError(f"{records.directory}: the train split has no impressions")
    steps = number_of_steps(config, plan)
    rows = np.random.default_rng(0).integers(0, len(plan), min(_SAMPLE_ROWS, len(plan)))
    batch = Assembler(records, plan, config.model)(rows)
    tx = optimizer(config, steps, layout(config.model.tables))
    state = abstract_state(LiGR(config.model), tx, batch)
    counts = parameter_counts(config.model, state.params)
    rows_seen = steps * config.optim.batch
    history = history_mask(batch.member, batch.session, config.model.mask)
    setwise = session_mask(batch.member, batch.session)
    work = Work(
        impressions=float((batch.member > 0).sum()) / len(rows) * rows_seen,
        history_pairs=float(allowed_pairs(history)) / len(rows) * rows_seen,
        set_pairs=float(allowed_pairs(setwise)) / len(rows) * rows_seen,
    )
    return Estimate(
        steps=steps,
        tokens=2 * work.impressions,
        flops=train_flops(config.model, work),
        dense=counts["dense"],
        tables=counts["tables"],
        state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    )
