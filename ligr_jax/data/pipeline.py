"""The grain pipeline: rows of a plan, shuffled globally, batched, prefetched.

A batch is a pure function of its number: any number of workers or processes gives the same global
batches, and the state of an iterator is one integer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import grain
import numpy as np

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.plan import Plan, make_plan
from ligr_jax.data.records import Records


@dataclass(frozen=True)
class Process:
    """This process's place among those that feed one global batch."""

    index: int = 0
    count: int = 1


def train_batches(
    records: Records, plan: Plan, config: Config, process: Process = Process()
) -> grain.DatasetIterator:
    """Endless training batches of `optim.batch / process.count` rows; a new shuffle every epoch.

    The iterator's `get_state()` / `set_state()` hold its place. Global batch k holds the same rows
    for every number of processes.
    """
    rows = grain.MapDataset.range(len(plan)).seed(config.train.seed).shuffle().repeat()
    mine = rows[process.index :: process.count].batch(_share(config.optim.batch, process))
    batches = mine.map(Assembler(records, plan, config.model))
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8))
    if config.data.workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.data.workers))
    return iter(dataset)


def eval_batches(
    records: Records, plan: Plan, config: Config, process: Process = Process()
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every row of the plan once, in order, with the impression numbers [B, N] of each batch.

    The last batch is filled with rows of padding, so that all have one shape.
    """
    size = _share(config.eval.batch or config.optim.batch, process)
    assemble = Assembler(records, plan, config.model)
    rows = np.arange(process.index, len(plan), process.count)
    # Processes run the same number of batches, or one would wait for the others for ever.
    batches = -(-len(plan) // (size * process.count))
    filled = np.pad(rows, (0, batches * size - len(rows)), constant_values=-1)
    dataset = grain.MapDataset.source(filled.reshape(-1, size)).map(
        lambda r: (plan.gather(r)[0], assemble(r))
    )
    yield from dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))


def _share(batch: int, process: Process) -> int:
    """Rows of a global batch that one process reads."""
    if batch % process.count:
        raise ConfigError(
            f"a batch of {batch} rows is not divisible by {process.count} processes; change "
            "optim.batch or eval.batch"
        )
    return batch // process.count


def plan_for(records: Records, config: Config, split: str) -> Plan:
    """The plan of a split under a configuration; evaluation always takes every member."""
    train = split == "train"
    return make_plan(
        records,
        split,
        capacity=config.data.seq_len // 2,
        context=config.data.context,
        fraction=config.data.fraction if train else 1.0,
        seed=config.train.seed if train else 0,
    )


def number_of_steps(config: Config, plan: Plan) -> int:
    """`train.steps`, or what `train.epochs` over the plan's rows makes."""
    epoch = len(plan) / config.optim.batch
    return config.train.steps or max(1, round(config.train.epochs * epoch))
