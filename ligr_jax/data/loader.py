"""Start of loader processes, and the error when one of them dies.

Loader processes run only the host's part of the pipeline. They never initialize an accelerator.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grain
from absl import flags

from ligr_jax.errors import LigrError
from ligr_jax.stop import SIGNALS, signals_blocked, unblock_signals


class LoaderError(LigrError, RuntimeError):
    """A loader process died. The message gives its exit status and the remedy."""


def load_in_processes(dataset: grain.IterDataset, workers: int) -> grain.IterDataset:
    """Compute the elements of a dataset in processes; elements and order do not change."""
    if not flags.FLAGS.is_parsed():  # grain reads absl flags, which `ligr` does not parse
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers)
    return dataset.mp_prefetch(options, worker_init_fn=_start)


def unlink_shared_memory(batch: Any) -> None:
    """Remove the names of a batch's shared memory, which lasts as long as its arrays.

    grain removes a name in a thread, when the array is deleted. A process that ends before that
    thread has run leaves the name behind, and the resource tracker of Python warns.

    Args:
        batch: arrays in tuples and dictionaries.
    """
    if isinstance(batch, tuple):
        for part in batch:
            unlink_shared_memory(part)
    elif isinstance(batch, dict):
        unlink_shared_memory(tuple(batch.values()))
    elif getattr(batch, "shm", None) is not None:
        batch.shm.unlink()
        batch._unlink_on_del = False


@contextlib.contextmanager
def signals_held_during_start() -> Iterator[None]:
    """Hold signals back while processes start, because until `_start` they do not ignore them."""
    with signals_blocked():
        yield


@contextlib.contextmanager
def loader_errors(workers: int) -> Iterator[None]:
    """Turn grain's error about a dead process into a `LoaderError`.

    Args:
        workers: number of loader processes, for the message.

    Raises:
        LoaderError: a process was killed or crashed.
    """
    try:
        yield
    except RuntimeError as e:
        if "Worker process was terminated" not in str(e):
            raise
        code = str(e).partition("exit code ")[2].partition(".")[0]
        raise LoaderError(
            f"data.workers={workers}: a loader process ended with status {code} "
            "(-9: killed, often because the machine ran out of memory); run the same command "
            "again to continue, or set data.workers=0"
        ) from e


def _start(index: int, count: int) -> None:
    """Initialize a loader process, which ignores signals and ends with its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # grain imported it before JAX_PLATFORMS was set
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Wait for the parent process to end, then exit."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
