"""The grain pipeline: rows of a packing plan, shuffled globally, batched and prefetched.

A batch is a pure function of its number. Global batches therefore do not depend on the number of
workers or processes, and the state of an iterator is one integer.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import grain
import numpy as np

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.loader import (
    load_in_processes,
    loader_errors,
    signals_held_during_start,
    unlink_shared_memory,
)
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.plans import plan_of
from ligr_jax.data.records import Records
from ligr_jax.data.session_shuffle import EpochRows, ShuffledSessions
from ligr_jax.data.unique_ids import MappedBatch, UniqueIdMapper
from ligr_jax.data.weight_decay import weight_decay

THREADS = 2  # that assemble batches in a process
_ENDLESS = 2**62  # rows; more than a run can read


@dataclass(frozen=True)
class Process:
    """One of the processes that share a global batch.

    Attributes:
        index: index of the process, in 0..count-1.
        count: number of processes.
        devices: number of devices of the process.
    """

    index: int = 0
    count: int = 1
    devices: int = 1


class TrainBatches(Iterator[MappedBatch]):
    """Iterator over an infinite sequence of batches, which can start at any batch.

    Its state is one integer and does not depend on the number of workers or hosts, so a run can
    resume with other numbers of them.
    """

    def __init__(self, batches: grain.MapDataset, workers: int) -> None:
        """
        Args:
            batches: batches by number.
            workers: number of loader processes; 0 loads in threads of this process.
        """
        self._batches, self._workers = batches, workers
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> MappedBatch:
        with loader_errors(self._workers):
            batch = next(self._iterator) if self._iterator else self._first()
        if self._workers:
            unlink_shared_memory(batch)
        self._next += 1
        return batch

    def _first(self) -> MappedBatch:
        """Open an iterator and return its first batch."""
        with signals_held_during_start() if self._workers else contextlib.nullcontext():
            self._iterator = self._open()
            batch: MappedBatch = next(self._iterator)
        return batch

    def peek(self) -> MappedBatch:
        """Return the next batch without advancing, computed here and not by loader processes."""
        batch: MappedBatch = self._batches[self._next]
        return batch

    def get_state(self) -> dict[str, int]:
        """Return the number of the next batch."""
        return {"next_index": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continue at the batch of a state from `get_state`."""
        self.close()
        self._next = state["next_index"]

    def close(self) -> None:
        """Stop prefetching; reading another batch starts it again."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def _open(self) -> grain.DatasetIterator:
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=8)
        dataset = self._batches[self._next :].to_iter_dataset(options)
        if self._workers:
            dataset = load_in_processes(dataset, self._workers)
        return iter(dataset)


def train_batches(
    records: Records, plan: PackingPlan, config: Config, process: Process = Process()
) -> TrainBatches:
    """Return an infinite sequence of training batches, shuffled in every epoch.

    Global batch k has the same rows for every number of processes.

    Args:
        records: prepared data.
        plan: plan of the train split.
        config: configuration of the run.
        process: this process, which gets `optim.batch / process.count` rows of a batch.

    Returns:
        Batches with the unique ids of their tables, or without unique ids if the table optimizer is
        dense. With several processes, only the unique ids of this process's devices are computed.

    Raises:
        ConfigError: the plan is empty, or the batch is not divisible by the number of processes.
    """
    if not len(plan):
        raise ConfigError("no selected member has a train impression; raise data.fraction")
    # grain's own infinite repetition overflows its index for batches of one row.
    epochs = _ENDLESS // len(plan)
    rows = grain.MapDataset.range(len(plan)).seed(config.train.seed).shuffle().repeat(epochs)
    decay = weight_decay(config.data, records.manifest)
    assembler = Assembler(records, plan, config.model, decay)
    assemble: Assembler | ShuffledSessions = assembler
    if config.data.shuffle_sessions:
        rows = rows.map_with_index(partial(_of_epoch, len(plan)))
        assemble = ShuffledSessions(assembler, config.train.seed)
    local_rows = rows[process.index :: process.count].batch(_share(config.optim.batch, process))
    batches = local_rows.map(assemble)
    workers = max(0, config.data.workers)  # -1: the trainer chooses, and others need no processes
    if config.optim.table_optimizer == "adamw":
        return TrainBatches(batches.map(_without_unique_ids), workers)
    unique = UniqueIdMapper(config.model, process.devices, whole_batch=process.count == 1)
    return TrainBatches(batches.map(unique), workers)


def _of_epoch(rows: int, number: int, row: int) -> EpochRows:
    """Return a row of a plan of `rows` rows as the `number`-th row that is read."""
    return EpochRows(row=np.asarray(row), epoch=np.asarray(number // rows))


def _without_unique_ids(batch: Batch) -> MappedBatch:
    return MappedBatch(batch=batch, unique_ids={})


def eval_batches(
    records: Records, plan: PackingPlan, config: Config, process: Process = Process()
) -> Iterator[tuple[np.ndarray, MappedBatch]]:
    """Yield every row of a plan once, in order.

    All batches have the same number of rows, a multiple of `process.devices`. Rows of padding fill
    the last batch.

    Args:
        records: prepared data.
        plan: plan of a split.
        config: configuration of the run.
        process: this process.

    Yields:
        Impression numbers (int64 [B, N], -1 in padding), and the batch with the unique ids of each
        table.
    """
    local_batch = -(-(config.eval.batch or config.optim.batch) // process.count)
    size = -(-local_batch // process.devices) * process.devices
    assemble = Assembler(records, plan, config.model)
    map_ids = UniqueIdMapper(config.model, process.devices, whole_batch=False)
    rows = np.arange(process.index, len(plan), process.count)
    # Every process runs the same number of batches; otherwise collectives would deadlock.
    batches = -(-len(plan) // (size * process.count))
    padded = np.pad(rows, (0, batches * size - len(rows)), constant_values=-1)
    dataset = grain.MapDataset.source(padded.reshape(-1, size)).map(
        lambda r: (plan.gather(r)[0], map_ids(assemble(r)))
    )
    yield from dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=4)
    )


def _share(batch: int, process: Process) -> int:
    """Return the number of rows of a global batch that one process reads."""
    if batch % process.count:
        raise ConfigError(
            f"a batch of {batch} rows is not divisible by {process.count} processes; change "
            "optim.batch"
        )
    return batch // process.count


def plan_for(records: Records, config: Config, split: str) -> PackingPlan:
    """Return the packing plan of a split under a configuration.

    `data.fraction` selects members only for training; evaluation takes all members.
    """
    train = split == "train"
    return plan_of(
        records,
        split,
        capacity=config.data.seq_len // 2,
        context=config.data.context,
        fraction=config.data.fraction if train else 1.0,
        seed=config.train.seed if train else 0,
    )
