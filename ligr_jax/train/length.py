"""Number of steps of a run: from `train.steps`, from a budget in FLOPs, or from epochs."""

import functools
from dataclasses import astuple

import jax
import numpy as np

from ligr_jax.config import Config, ModelConfig, TrainConfig
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.nn.work import Work
from ligr_jax.ops.masks import MaskKind, allowed_pairs, history_mask, session_mask

_SAMPLED = 16_384  # impressions; enough to estimate the pairs of a row to about one percent


def work_of_a_row(mask: MaskKind, records: Records, plan: PackingPlan) -> Work:
    """Return the mean work of a row of the plan, from a sample that is equal in every run.

    Args:
        mask: `model.mask`, which impressions a token sees.
        records: prepared data.
        plan: plan of a split.
    """
    sample = int(np.clip(_SAMPLED // plan.capacity, 16, 2048))
    rows = np.random.default_rng(0).integers(0, len(plan), sample)
    if len(plan) <= sample:
        rows = np.arange(len(plan))
    index, member, _ = plan.gather(rows)
    # Masks only compare session numbers of neighbors, so the numbers need not start from 0.
    session = np.where(member > 0, records.take("session", np.maximum(index, 0)), 0)
    history_pairs, set_pairs = _pairs(member, session.astype(np.int32), mask)
    total = Work(float((member > 0).sum()), float(history_pairs), float(set_pairs))
    return Work(*(x / len(rows) for x in astuple(total)))


@functools.partial(jax.jit, static_argnames="mask")
def _pairs(member_BN: jax.Array, session_BN: jax.Array, mask: MaskKind) -> list[jax.Array]:
    """Return the (query, key) pairs of the historical and of the set-wise layers, float32 []."""
    masks = (history_mask(member_BN, session_BN, mask), session_mask(member_BN, session_BN))
    return [allowed_pairs(m) for m in masks]


def number_of_steps(
    train: TrainConfig, model: ModelConfig, batch: int, rows: int, row: Work
) -> int:
    """Return the number of steps of a run.

    It is `train.steps` if set, else the number that `train.flops` allows, else `train.epochs` times
    the rows of the plan.

    Args:
        train: length of the run.
        model: model, whose FLOPs a budget limits; used only with `train.flops`.
        batch: rows of a step.
        rows: rows of the train split.
        row: mean work of a row; used only with `train.flops`.
    """
    if train.steps:
        return train.steps
    trained = train.flops / train_flops(model, row) if train.flops else train.epochs * rows
    return max(1, round(trained / batch))


def steps_of(config: Config, records: Records, plan: PackingPlan) -> int:
    """Return the number of steps of a run.

    Args:
        config: configuration of the run.
        records: prepared data.
        plan: plan of the train split.

    Raises:
        BadInput: the plan has no rows.
    """
    if not len(plan):
        raise BadInput(
            f"{records.directory}: the train split has no impressions; choose other data.edges, or "
            "other split boundaries of `ligr prepare`"
        )
    row = work_of_a_row(config.model.mask, records, plan) if config.train.flops else Work()
    return number_of_steps(config.train, config.model, config.optim.batch, len(plan), row)
