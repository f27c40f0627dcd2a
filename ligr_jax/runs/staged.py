"""Working copies of runs in an object store: the files that are fetched before a run is read.

`ligr_jax.runs.stored_steps` has the checkpoints.
"""

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from ligr_jax.lock import is_locked
from ligr_jax.runs.files import (
    CONFIG,
    DATA,
    ERROR,
    FAILURES,
    METRICS,
    PREDICTION_FILES,
    SUMMARY,
    SWEEP,
)
from ligr_jax.store.lease import leased_in, mark_time
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import StoredObject, describe_object, list_objects
from ligr_jax.store.stage import stage, stage_file

_RUN = (CONFIG, DATA, METRICS, SUMMARY, ERROR, FAILURES, "wandb/mirrored.json")
_THREADS = 16  # runs staged at the same time


def stage_run(directory: Path, owned: bool = False) -> None:
    """Fetch the files of a run, without its checkpoints.

    Args:
        directory: Directory of the run; nothing is done unless it is in a working copy.
        owned: Whether this process has locked the run.
    """
    stage(directory, _RUN, owned=owned)


def stage_runs(path: Path, checkpoints: bool = False) -> None:
    """Fetch a sweep, a single run, or a table of runs.

    Args:
        path: Directory or file; nothing is done unless it is in a working copy.
        checkpoints: Whether checkpoints are fetched, and all other files too.
    """
    uri = uri_of(path)
    if uri is None:
        return
    if describe_object(uri):
        stage_file(path)
    else:
        _stage_listed(path, list_objects(uri), checkpoints)


def trained_runs(sweep: Path, names: Iterable[str]) -> set[str]:
    """Return which runs of a sweep a process trains now.

    For an object store, the files of all runs are fetched first. A store is listed once, whatever
    the number of runs.

    Args:
        sweep: Directory of the runs.
        names: Names of runs.
    """
    uri = uri_of(sweep)
    if uri is None:
        return {name for name in names if is_locked(sweep / name)}
    mark_time(sweep)
    listing = list_objects(uri)
    _stage_listed(sweep, listing)
    return leased_in(sweep, listing) & set(names)


def _stage_listed(path: Path, listing: Iterable[StoredObject], checkpoints: bool = False) -> None:
    by_run: dict[str, list[StoredObject]] = {p.name: [] for p in _directories(path)}
    own: list[StoredObject] = []
    for stored in listing:
        run, slash, name = stored.name.partition("/")
        if slash:
            by_run.setdefault(run, []).append(stored._replace(name=name))
        else:
            own.append(stored)
    if any(stored.name == CONFIG for stored in own):  # a single run
        stage(path, None if checkpoints else _RUN)
        return
    wanted = None if checkpoints else _RUN
    stage(path, _is_at_the_top if checkpoints else _is_of_sweep, listing=own)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda run: stage(path / run, wanted, listing=by_run[run]), by_run))


def _is_of_sweep(name: str) -> bool:
    return name == SWEEP or fnmatch(name, PREDICTION_FILES)


def _is_at_the_top(name: str) -> bool:
    return "/" not in name


def _directories(directory: Path) -> Collection[Path]:
    return [p for p in directory.iterdir() if p.is_dir()] if directory.is_dir() else []
