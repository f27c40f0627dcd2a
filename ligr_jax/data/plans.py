"""Packing plans of large data, stored on the host and mapped by all of its processes.

A plan is a pure function of the data and of a few settings. Data of many members take seconds and
gigabytes to plan, so the first process of a host that needs a plan writes it to a file, and the
others wait for this file and map it: other processes of the run, loader processes, and later runs.

The files are in LIGR_CACHE, or ligr_jax in XDG_CACHE_HOME or ~/.cache. The most recently used ones
are kept; any of them may be deleted.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from ligr_jax.atomic import make_directory
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.packing_plan import PackingPlan, read_plan, write_plan
from ligr_jax.data.records import Records
from ligr_jax.errors import LigrError

_log = logging.getLogger(__name__)

CACHE = "LIGR_CACHE"  # environment variable: a directory on a local disk
STORED_FROM = 1_000_000  # members; planning fewer takes less than a second
_KEPT = 16  # plans
# Increase it with every change of a plan or of its file: files of other versions are not read.
_VERSION = 1


def plan_of(
    records: Records, split: str, capacity: int, context: float, fraction: float, seed: int
) -> PackingPlan:
    """Return a packing plan, from its file if the data have many members.

    Args:
        records: prepared data.
        split, capacity, context, fraction, seed: see `make_packing_plan`.
    """

    def make() -> PackingPlan:
        return make_packing_plan(records, split, capacity, context, fraction, seed)

    if len(records.member_ids) < STORED_FROM:
        return make()
    settings = [records.digest, records.edges, split, capacity, context, fraction, seed]
    return stored_plan(cache_directory() / "plans", settings, make)


def cache_directory() -> Path:
    """Return the directory of files that can be computed again."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ligr_jax"


def stored_plan(directory: Path, settings: object, make: Callable[[], PackingPlan]) -> PackingPlan:
    """Return the plan of some settings; one process makes it, and all map its file.

    Args:
        directory: directory of the files; if it cannot be written, the plan stays in memory.
        settings: JSON value that determines the plan.
        make: computes the plan.
    """
    text = json.dumps([_VERSION, settings])
    path = directory / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy"
    with contextlib.suppress(OSError, ValueError):
        return read_plan(path)
    try:
        make_directory(directory)
        with path.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(OSError, ValueError):  # made while this process waited
                return read_plan(path)
            began = time.monotonic()
            plan = make()
            write_plan(path, plan)
            _log.info(f"packing plan of {len(plan):,} rows in {time.monotonic() - began:.1f} s")
            _remove_old(directory)
            return read_plan(path)
    except (OSError, LigrError) as e:
        _log.warning(f"the packing plan stays in memory: {e}; set {CACHE} to a local directory")
        return make()


def _remove_old(directory: Path) -> None:
    """Remove the plans that were not used for the longest time; processes may still map them."""
    used = {}
    for path in directory.glob("*.npy"):
        with contextlib.suppress(OSError):  # another process removed it
            used[path] = path.stat().st_mtime
    for path in sorted(used, key=lambda p: used[p])[:-_KEPT]:
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
