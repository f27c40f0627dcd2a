"""Does the host make as many tokens per second as the devices train on? How many loader processes?

    wanted = MFU * peak FLOP/s of the devices / FLOPs per token
    made   = tokens that one core assembles per second, measured with a few batches

Threads of the training process suffice for most models. Loader processes are for the rest: they do
not share the lock of the interpreter, but copy each batch to shared memory, which is measured too.
"""

import math
import mmap
import time
from dataclasses import dataclass

import jax
import numpy as np

from ligr_jax.config import Config, ModelConfig
from ligr_jax.cost.devices import peak_flops
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import THREADS
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch, UniqueIdMapper
from ligr_jax.host_limits import host_cores
from ligr_jax.nn.work import Work
from ligr_jax.train.length import work_of_a_row

MFU = 0.4  # a good share of the peak for these models on accelerators
_HEADROOM = 1.5  # tokens made over tokens wanted
_RESERVED = 2  # cores of a process for dispatch and for the runtime of the accelerator
_BATCHES = 3


@dataclass(frozen=True)
class Feed:
    """Speeds of one training process.

    Attributes:
        wanted: tokens per second that its devices train on at an MFU of `MFU`.
        made: tokens per second that one core makes.
        made_by_loader: tokens per second that the core of a loader process makes and copies.
        cores: number of cores of the process.
    """

    wanted: float
    made: float
    made_by_loader: float
    cores: int

    @property
    def workers(self) -> int:
        """The number of loader processes for `data.workers=-1` on an accelerator.

        On a CPU there are none, because they would take cores from the step.
        """
        needed = _HEADROOM * self.wanted
        if needed <= min(THREADS, self.cores) * self.made:
            return 0
        processes = math.ceil(needed / self.made_by_loader)
        return max(0, min(processes, self.cores - _RESERVED))

    def line(self) -> str:
        """Return the speeds in words."""
        return (
            f"input: the devices of a process want {self.wanted:.2g} tokens/s at {MFU:.0%} MFU; "
            f"one core makes {self.made:.2g} tokens/s (measured), the process has {self.cores} "
            f"core{'s' * (self.cores != 1)}"
        )


def tokens_wanted(model: ModelConfig, work: Work, flops_per_s: float) -> float:
    """Return the tokens per second that devices train on.

    Args:
        model: the model.
        work: any amount of its work.
        flops_per_s: peak of all devices.
    """
    return MFU * flops_per_s * 2 * work.impressions / train_flops(model, work)


def tokens_made(
    records: Records, plan: PackingPlan, config: Config, devices: int
) -> tuple[float, float]:
    """Measure the tokens per second that one core makes.

    Args:
        records: prepared data.
        plan: plan of the train split.
        config: configuration of the run.
        devices: number of devices that the rows of a batch are sharded over.

    Returns:
        The speed in the training process, and in a loader process, which copies its batches.
    """
    assemble = Assembler(records, plan, config.model)
    map_ids = UniqueIdMapper(config.model, devices)
    rows = np.random.default_rng(0).integers(0, len(plan), (1 + _BATCHES, config.optim.batch))
    making, copying = [], []
    for batch_rows in rows:  # the first batch opens files and is not counted
        began = time.thread_time()
        mapped = map_ids(assemble(batch_rows))
        made = time.thread_time()
        _copy_to_shared_memory(mapped)
        making.append(made - began)
        copying.append(time.thread_time() - made)
    tokens = 2 * int((mapped.batch.member > 0).sum())
    making_s, copying_s = (float(np.median(seconds[1:])) for seconds in (making, copying))
    return tokens / max(1e-6, making_s), tokens / max(1e-6, making_s + copying_s)


def _copy_to_shared_memory(batch: MappedBatch) -> None:
    """Copy the arrays of a batch to new shared memory, each to its own, like a loader process."""
    for array in jax.tree.leaves(batch):
        if array.nbytes:
            memory = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype)
            np.copyto(memory.reshape(array.shape), array)


def measure_feed(
    records: Records, plan: PackingPlan, config: Config, devices: int, processes: int
) -> Feed:
    """Measure the speeds of this process.

    Args:
        records: prepared data.
        plan: plan of the train split.
        config: configuration of the run.
        devices: number of devices of this process.
        processes: number of processes that share this host.
    """
    flops_per_s = devices * peak_flops(config.model.dtype)
    work = work_of_a_row(config.model, records, plan)
    made, made_by_loader = tokens_made(records, plan, config, devices)
    return Feed(
        wanted=tokens_wanted(config.model, work, flops_per_s),
        made=made,
        made_by_loader=made_by_loader,
        cores=max(1, host_cores() // processes),
    )
