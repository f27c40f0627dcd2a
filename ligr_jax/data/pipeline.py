"""The grain pipeline: rows of a plan, shuffled globally, batched, prefetched.

A batch is a pure function of its number: any number of workers or processes gives the same global
batches, and the state of an iterator is one integer.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grain
import numpy as np

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.loader import in_processes, loader_errors, starting
from ligr_jax.data.packing import PackingPlan, make_packing_plan
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import UniqueIdMapper, UniqueIds

_ENDLESS = 2**62  # rows, more than any run reads


@dataclass(frozen=True)
class Process:
    """This process's place among those that feed one global batch, and its number of devices."""

    index: int = 0
    count: int = 1
    devices: int = 1


# A batch, and by table the lists of rows its ids are places in; none for dense training.
TrainBatch = tuple[Batch, dict[str, UniqueIds]]


class TrainBatches(Iterator[TrainBatch]):
    """Endless batches in order. Its state is one integer, whatever the number of workers or hosts:
    a run goes on with other ones than it began with."""

    def __init__(self, batches: grain.MapDataset, workers: int) -> None:
        self._batches, self._workers = batches, workers
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> TrainBatch:
        with loader_errors(self._workers):
            batch = next(self._iterator) if self._iterator else self._first()
        self._next += 1
        return batch

    def _first(self) -> TrainBatch:
        """The next batch, from a new iterator."""
        with starting() if self._workers else contextlib.nullcontext():
            self._iterator = self._open()
            batch: TrainBatch = next(self._iterator)
        return batch

    def get_state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next_index": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        self.close()
        self._next = state["next_index"]

    def close(self) -> None:
        """Stops what reads ahead; the next batch starts it again."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def _open(self) -> grain.DatasetIterator:
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        dataset = self._batches[self._next :].to_iter_dataset(options)
        if self._workers:
            dataset = in_processes(dataset, self._workers)
        return iter(dataset)


def train_batches(
    records: Records, plan: PackingPlan, config: Config, process: Process = Process()
) -> TrainBatches:
    """Endless training batches of `optim.batch / process.count` rows; a new shuffle every epoch.

    Where tables train sparsely, each comes with its distinct table rows; on several processes, with
    those of this process's devices only.

    Global batch k holds the same rows for every number of processes.

    Raises:
        ConfigError: the plan is empty, or the batch cannot be shared by the processes.
    """
    if not len(plan):
        raise ConfigError("no member kept has a train impression; raise data.fraction")
    # grain's endless length is the largest index: batches of one row would count beyond it.
    epochs = _ENDLESS // len(plan)
    rows = grain.MapDataset.range(len(plan)).seed(config.train.seed).shuffle().repeat(epochs)
    mine = rows[process.index :: process.count].batch(_share(config.optim.batch, process))
    batches = mine.map(Assembler(records, plan, config.model))
    if config.optim.table_optimizer == "adamw":
        return TrainBatches(batches.map(_without_lists), config.data.workers)
    lists = UniqueIdMapper(config.model, process.devices, whole_batch=process.count == 1)
    return TrainBatches(batches.map(lists), config.data.workers)


def _without_lists(batch: Batch) -> TrainBatch:
    return batch, {}


def eval_batches(
    records: Records, plan: PackingPlan, config: Config, process: Process = Process()
) -> Iterator[tuple[np.ndarray, Batch, dict[str, UniqueIds]]]:
    """Every row of the plan once, in order: impression numbers [B, N], batch, and lists of rows.

    The last batch is filled with rows of padding, so that all have one shape; so is each batch,
    where the devices could not share it.
    """
    asked = -(-(config.eval.batch or config.optim.batch) // process.count)
    size = -(-asked // process.devices) * process.devices
    assemble = Assembler(records, plan, config.model)
    lists = UniqueIdMapper(config.model, process.devices, whole_batch=False)
    rows = np.arange(process.index, len(plan), process.count)
    # Processes run the same number of batches, or one would wait for the others for ever.
    batches = -(-len(plan) // (size * process.count))
    filled = np.pad(rows, (0, batches * size - len(rows)), constant_values=-1)
    dataset = grain.MapDataset.source(filled.reshape(-1, size)).map(
        lambda r: (plan.gather(r)[0], *lists(assemble(r)))
    )
    yield from dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))


def _share(batch: int, process: Process) -> int:
    """Rows of a global batch that one process reads."""
    if batch % process.count:
        raise ConfigError(
            f"a batch of {batch} rows is not divisible by {process.count} processes; change "
            "optim.batch"
        )
    return batch // process.count


def plan_for(records: Records, config: Config, split: str) -> PackingPlan:
    """The plan of a split under a configuration; evaluation always takes every member."""
    train = split == "train"
    return make_packing_plan(
        records,
        split,
        capacity=config.data.seq_len // 2,
        context=config.data.context,
        fraction=config.data.fraction if train else 1.0,
        seed=config.train.seed if train else 0,
    )
