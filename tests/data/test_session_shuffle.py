"""Laws of shuffled sessions: a permutation within each session, another one in every epoch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ligr_jax.config import Config
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import Process, plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.nn.models import make_model
from ligr_jax.ops.losses import session_numbers
from tests.data.test_pipeline import BATCH, CONFIG, assert_equal, take
from tests.nn.models import random_params

SHUFFLED = replace(CONFIG, data=replace(CONFIG.data, shuffle_sessions=True))


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    return Records(prepared)


@pytest.fixture(scope="module")
def plan(records: Records) -> PackingPlan:
    return plan_for(records, CONFIG, "train")


def columns(batch: Batch) -> list[np.ndarray]:
    """Return all values of impressions but times, [B, N] or [B, N, A] each."""
    return [np.asarray(x) for x in jax.tree.leaves(batch._replace(time=()))]


def in_order(batch: Batch) -> list[np.ndarray]:
    """Return the values of the impressions, sorted within their sessions."""
    session = np.asarray(session_numbers(batch.member, batch.session))
    labels = batch.labels.transpose(2, 0, 1)
    age = np.nan_to_num(batch.numeric["age_days"])
    keys = (*labels, batch.ids["item_id"], age, batch.weight, session)
    order = np.lexsort(keys, axis=-1)
    return [
        np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)
        for x in columns(batch)
    ]


def test_sessions_are_permuted_and_nothing_else_changes(
    records: Records, plan: PackingPlan
) -> None:
    shuffled, plain = (take(train_batches(records, plan, c), 6) for c in (SHUFFLED, CONFIG))
    moved = 0
    for ours, theirs in zip(shuffled, plain):
        for x, y in zip(in_order(ours), in_order(theirs)):
            np.testing.assert_array_equal(x, y)
        for name in ("member", "session", "time"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        ours.validate(CONFIG.model)
        moved += (ours.ids["item_id"] != theirs.ids["item_id"]).sum()
    assert moved > 100


def test_every_epoch_has_another_order_and_a_batch_depends_on_its_number_alone(
    records: Records, plan: PackingPlan
) -> None:
    per_epoch = len(plan)  # of BATCH epochs
    batches = take(train_batches(records, plan, SHUFFLED), per_epoch)
    seen: dict[bytes, list[bytes]] = {}
    for batch in batches:
        for sorted_row, row in zip(in_order(batch)[2], batch.ids["item_id"]):
            seen.setdefault(sorted_row.tobytes(), []).append(row.tobytes())
    epochs = [orders for orders in seen.values() if len(orders) == BATCH]
    assert np.mean([len(set(orders)) == BATCH for orders in epochs]) > 0.8

    again = train_batches(records, plan, SHUFFLED)
    again.set_state({"next_index": per_epoch - 3})
    assert_equal(take(again, 3), batches[-3:])
    halves = [train_batches(records, plan, SHUFFLED, Process(k, 2)) for k in range(2)]
    for batch, parts in zip(batches, zip(*(take(half, per_epoch) for half in halves))):
        for k, part in enumerate(parts):
            for x, y in zip(columns(batch), columns(part)):
                np.testing.assert_array_equal(x[k::2], y)
    reseeded = replace(SHUFFLED, train=replace(SHUFFLED.train, seed=1))
    assert not np.array_equal(
        take(train_batches(records, plan, reseeded), 1)[0].labels, batches[0].labels
    )


@pytest.mark.parametrize("mask", ["session", "causal"])
def test_actions_of_the_own_session_reach_a_logit_under_the_causal_mask_alone(
    records: Records, plan: PackingPlan, mask: Any
) -> None:
    config: Config = replace(
        SHUFFLED,
        model=replace(CONFIG.model, mask=mask, width=8, depth=1, set_depth=0, unroll="no"),
    )
    (batch,) = take(train_batches(records, plan, config), 1)
    batch = jax.tree.map(np.asarray, batch)
    params = random_params(config.model, batch)
    apply = jax.jit(make_model(config.model).apply)
    number = np.asarray(session_numbers(batch.member, batch.session))
    before = np.asarray(apply({"params": params}, batch))
    reached = 0
    for session in np.unique(number[0, batch.member[0] > 0]):
        own = number[0] == session
        labels = batch.labels.copy()
        labels[0, own] = 1 - np.maximum(labels[0, own], 0)
        after = np.asarray(apply({"params": params}, batch._replace(labels=labels)))
        reached += (after != before)[0, own].sum()
    assert (reached > 0) == (mask == "causal")
