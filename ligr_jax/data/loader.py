"""Loader processes: how each starts, and the error where one ends.

They run the host's part of the pipeline alone and never start an accelerator.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator

import grain
from absl import flags

from ligr_jax.errors import LigrError
from ligr_jax.stop import SIGNALS, held_signals, release_signals


class LoaderError(LigrError, RuntimeError):
    """A loader process has ended: the message says how, and what to do."""


def in_processes(dataset: grain.IterDataset, workers: int) -> grain.IterDataset:
    """The same elements in the same order, made by processes."""
    if not flags.FLAGS.is_parsed():  # grain reads its flags, and `ligr` has none of absl's
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers)
    return dataset.mp_prefetch(options, worker_init_fn=_start)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While processes start, they hold signals back until they ignore them."""
    with held_signals():
        yield


@contextlib.contextmanager
def loader_errors(workers: int) -> Iterator[None]:
    """Put the end of a process in words.

    Raises:
        LoaderError: a process was killed or has crashed.
    """
    try:
        yield
    except RuntimeError as e:
        if "Worker process was terminated" not in str(e):
            raise
        code = str(e).partition("exit code ")[2].partition(".")[0]
        raise LoaderError(
            f"data.workers={workers}: a loader process ended with status {code} "
            "(-9: killed, often for want of memory); run the same command again to continue, or "
            "set data.workers=0"
        ) from e


def _start(index: int, count: int) -> None:
    """Begin a loader process: the process of the run alone reacts to signals, and outlives it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    release_signals()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # imported by grain, with what the environment said then
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
