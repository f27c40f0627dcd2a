"""Number of steps of a run: from `train.steps`, from a budget in FLOPs, or from epochs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ligr_jax.config import TWO_STREAM_KINDS, Config, ModelConfig, TrainConfig
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.nn.models import attention_pairs
from ligr_jax.nn.work import Work

_SAMPLED = 16_384  # impressions; enough to estimate the pairs of a row to about one percent


def work_of_a_row(model: ModelConfig, records: Records, plan: PackingPlan) -> Work:
    """Return the mean work of a row of the plan, from a sample that is equal in every run.

    Args:
        model: the model, for the impressions that its tokens see.
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
    pairs = _count(pair_shape(model), member, session.astype(np.int32))
    total = Work(float((member > 0).sum()), **{name: float(n) for name, n in pairs.items()})
    return total * (1 / len(rows))


def pair_shape(model: ModelConfig) -> ModelConfig:
    """Return a model with the same attention pairs, equal for models that differ in nothing else.

    Args:
        model: the model.
    """
    tokens = model.streams.tokens
    return ModelConfig(
        kind=model.kind,
        mask=model.mask,
        actions_as=model.actions_as,
        # A multiple of all numbers that a kind may require, equal for all widths of a model.
        width=ModelConfig.heads * tokens * (tokens + model.streams.queries),
        depth=model.depth if model.kind in TWO_STREAM_KINDS else 1,
        set_depth=0 if model.kind in TWO_STREAM_KINDS else ModelConfig.set_depth,
        streams=model.streams,
        ultra=model.ultra,
    )


# `ModelConfig` holds a mapping and cannot be hashed, so programs are kept by its text.
_compiled: dict[str, Callable[..., dict[str, jax.Array]]] = {}


def _count(model: ModelConfig, member_BN: np.ndarray, session_BN: np.ndarray) -> Any:
    """Return the (query, key) pairs of a sample by field of `Work`."""
    count = functools.partial(attention_pairs, model)
    return _compiled.setdefault(repr(model), jax.jit(count))(member_BN, session_BN)


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
    row = work_of_a_row(config.model, records, plan) if config.train.flops else Work()
    return number_of_steps(config.train, config.model, config.optim.batch, len(plan), row)
