"""Laws of the pipeline: a batch is a pure function of its number."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ligr_jax.config import Config, ConfigError, DataConfig, EvalConfig, Feature, ModelConfig
from ligr_jax.config import OptimConfig as Optim
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import Process, eval_batches, plan_for, train_batches
from ligr_jax.data.records import Records

BATCH = 4
CONFIG = Config(
    model=ModelConfig(
        features={"item_id": Feature(rows=31, lookup="direct"), "age_days": Feature("numeric")},
        actions=("click", "like"),
    ),
    data=DataConfig(seq_len=48),
    optim=Optim(batch=BATCH, table_optimizer="adamw"),
)


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    return Records(prepared)


@pytest.fixture(scope="module")
def plan(records: Records) -> PackingPlan:
    plan = plan_for(records, CONFIG, "train")
    assert len(plan) % BATCH  # so that batches cross the ends of epochs
    return plan


def rows_of(batch: Batch) -> list[bytes]:
    """Return a key per row that identifies the row."""
    fields = (batch.member, batch.time, batch.ids["item_id"], batch.labels, batch.weight)
    return [b"".join(np.ascontiguousarray(f[r]).tobytes() for f in fields) for r in range(BATCH)]


def take(iterator: Iterator[Any], count: int) -> list[Batch]:
    return [next(iterator)[0] for _ in range(count)]


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b):
        for name, left in x._asdict().items():
            right = getattr(y, name)
            pairs = (
                [(left[k], right[k]) for k in left] if isinstance(left, dict) else [(left, right)]
            )
            for p, q in pairs:
                np.testing.assert_array_equal(p, q)


def test_an_epoch_has_every_row_once_and_the_next_another_order(
    records: Records, plan: PackingPlan
) -> None:
    n = len(plan)
    batches = take(train_batches(records, plan, CONFIG), 2 * n)  # 2 x BATCH epochs
    seen = [key for batch in batches for key in rows_of(batch)]
    epochs = [seen[k * n : (k + 1) * n] for k in range(2 * BATCH)]
    assert len(set(epochs[0])) == n
    assert all(set(e) == set(epochs[0]) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 2 * BATCH


def test_the_seed_decides_the_order(records: Records, plan: PackingPlan) -> None:
    reseeded = replace(CONFIG, train=replace(CONFIG.train, seed=1))
    a, same, other = (
        [key for b in take(train_batches(records, plan, c), 5) for key in rows_of(b)]
        for c in (CONFIG, CONFIG, reseeded)
    )
    assert a == same
    assert a != other


def test_a_restored_iterator_continues_also_across_the_end_of_an_epoch(
    records: Records, plan: PackingPlan
) -> None:
    per_epoch = -(-len(plan) // BATCH)
    for taken in (0, 3, per_epoch - 1, 2 * per_epoch):
        iterator = train_batches(records, plan, CONFIG)
        take(iterator, taken)
        place = iterator.get_state()
        onward = take(iterator, per_epoch)
        again = train_batches(records, plan, CONFIG)
        again.set_state(place)
        assert_equal(take(again, per_epoch), onward)
        # The same iterator, restored.
        iterator.set_state(place)
        assert_equal(take(iterator, 2), onward[:2])


def test_neither_batches_nor_states_depend_on_the_number_of_workers(
    records: Records, plan: PackingPlan
) -> None:
    two = replace(CONFIG, data=replace(CONFIG.data, workers=2))
    count = len(plan) // BATCH + 3
    alone, helped = (train_batches(records, plan, c) for c in (CONFIG, two))
    # Start without workers and continue with two, and vice versa.
    take(alone, 2)
    helped.set_state(alone.get_state())
    ahead = helped.peek()[0]  # before any process starts
    batches = take(helped, count)
    assert_equal([ahead], batches[:1])
    assert_equal(batches, take(alone, count))
    assert helped.get_state() == alone.get_state()
    helped.close()
    again = train_batches(records, plan, CONFIG)
    again.set_state(helped.get_state())
    assert_equal(take(again, 2), take(alone, 2))


def test_batches_of_one_row_have_the_rows_of_larger_batches(
    records: Records, plan: PackingPlan
) -> None:
    single = replace(CONFIG, optim=replace(CONFIG.optim, batch=1))
    first = take(train_batches(records, plan, CONFIG), 1)[0]
    rows = take(train_batches(records, plan, single), BATCH)
    np.testing.assert_array_equal(np.concatenate([b.time for b in rows]), first.time)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in rows]), first.labels)


@pytest.mark.parametrize("count", [2, 4])
def test_a_global_batch_has_the_same_rows_for_any_number_of_processes(
    records: Records, plan: PackingPlan, count: int
) -> None:
    whole = take(train_batches(records, plan, CONFIG), len(plan) // 2)
    shares = [
        take(train_batches(records, plan, CONFIG, Process(k, count)), len(whole))
        for k in range(count)
    ]
    for k, batch in enumerate(whole):
        parts = [share[k] for share in shares]
        assert all(len(p.member) == BATCH // count for p in parts)
        joined = Batch(
            **{
                name: {n: np.concatenate([getattr(p, name)[n] for p in parts]) for n in value}
                if isinstance(value, dict)
                else np.concatenate([getattr(p, name) for p in parts])
                for name, value in batch._asdict().items()
            }
        )
        assert sorted(rows_of(joined)) == sorted(rows_of(batch))


@pytest.mark.parametrize(("size", "count"), [(1, 1), (5, 1), (0, 1), (4, 2), (5, 2), (96, 3)])
def test_evaluation_reads_every_target_once_in_batches_of_one_shape(
    records: Records, size: int, count: int
) -> None:
    config = replace(CONFIG, eval=EvalConfig(batch=size))
    plan = plan_for(records, config, "validation")
    first = records.offsets[:-1] + records.counts[:, :2].sum(1)
    wanted = np.concatenate([f + np.arange(n) for f, n in zip(first, records.counts[:, 2])])
    seen, lengths = [], set()
    for k in range(count):
        batches = list(eval_batches(records, plan, config, Process(k, count)))
        lengths.add(len(batches))
        for index, (batch, unique_ids) in batches:
            assert batch.weight.shape == index.shape == (-(-(size or BATCH) // count), 24)
            assert unique_ids.keys() == config.model.tables.keys()
            seen.append(index[batch.weight > 0])
            real = index >= 0
            np.testing.assert_array_equal(
                batch.labels[real, 0], records.label("click", index[real])
            )
    assert len(lengths) == 1
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), wanted)


def test_a_batch_that_processes_cannot_share_is_refused(
    records: Records, plan: PackingPlan
) -> None:
    with pytest.raises(ConfigError, match="batch of 4 rows is not divisible by 3 processes"):
        train_batches(records, plan, CONFIG, Process(0, 3))


def test_training_without_members_is_refused(records: Records) -> None:
    nothing = np.zeros(0, np.int64)
    empty = PackingPlan(24, nothing, nothing, nothing, np.zeros(1, np.int64))
    with pytest.raises(ConfigError, match=r"no selected member .* raise data.fraction"):
        train_batches(records, empty, CONFIG)
    assert list(eval_batches(records, empty, CONFIG)) == []


def test_evaluation_uses_all_members_for_every_training_fraction(records: Records) -> None:
    tenth = replace(CONFIG, data=replace(CONFIG.data, fraction=0.1))
    assert plan_for(records, tenth, "train").targets < plan_for(records, CONFIG, "train").targets
    everyone = plan_for(records, CONFIG, "test")
    assert plan_for(records, tenth, "test").targets == everyone.targets
    assert everyone.targets == records.manifest.splits["test"].impressions
