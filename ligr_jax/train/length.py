"""How long a run is: steps from `train.steps`, from a budget in FLOPs, or from epochs."""

from dataclasses import astuple

import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.packing import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.nn.work import Work
from ligr_jax.ops.masks import allowed_pairs, history_mask, session_mask

_SAMPLED = 16_384  # impressions: enough to know the pairs of a row within about one percent


def work_of_a_row(config: Config, records: Records, plan: PackingPlan) -> Work:
    """Mean work of a row of the plan, from a sample of its rows that every run draws alike."""
    wanted = int(np.clip(_SAMPLED // plan.capacity, 16, 2048))
    rows = np.random.default_rng(0).integers(0, len(plan), wanted)
    if len(plan) <= wanted:
        rows = np.arange(len(plan))
    index, member, _ = plan.gather(rows)
    # Any number of a session will do: masks only compare neighbours.
    session = np.where(member > 0, records.take("session", np.maximum(index, 0)), 0)
    places = jnp.asarray(member), jnp.asarray(session, jnp.int32)
    pairs = allowed_pairs(history_mask(*places, config.model.mask))
    within = allowed_pairs(session_mask(*places))
    total = Work(float((member > 0).sum()), float(pairs), float(within))
    return Work(*(x / len(rows) for x in astuple(total)))


def number_of_steps(config: Config, plan: PackingPlan, row: Work) -> int:
    """`train.steps`, or as many as `train.flops` pays for, or `train.epochs` over the plan's rows.

    row: work of a row, read only where there is a budget.
    """
    c, batch = config.train, config.optim.batch
    if c.steps:
        return c.steps
    rows = c.flops / train_flops(config.model, row) if c.flops else c.epochs * len(plan)
    return max(1, round(rows / batch))


def steps_of(config: Config, records: Records, plan: PackingPlan) -> int:
    """Steps of a run over a plan.

    Raises:
        BadInput: the plan has no rows.
    """
    if not len(plan):
        raise BadInput(
            f"{records.directory}: the train split has no impressions; choose other data.edges, or "
            "other split boundaries of `ligr prepare`"
        )
    row = work_of_a_row(config, records, plan) if config.train.flops else Work()
    return number_of_steps(config, plan, row)
