"""Working copies of runs in an object store: what is fetched before they are read or continued.

A step of a checkpoint is complete in the store once it has the digests of its files, which are
uploaded last. Only the owner of a run changes it.
"""

import logging
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ligr_jax.digests import read_json
from ligr_jax.runs.checkpoint_files import DIGESTS
from ligr_jax.runs.files import CONFIG, ERROR, METRICS, SUMMARY, SWEEP, RunFiles
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import (
    ObjectMissing,
    StoredObject,
    describe_object,
    list_objects,
    read_object,
    remove_object,
    write_object,
)
from ligr_jax.store.publish import publish_tree, unpublish
from ligr_jax.store.stage import DamagedObject, is_written, stage, stage_file

_log = logging.getLogger(__name__)

_RUN = (CONFIG, METRICS, SUMMARY, ERROR, "wandb/mirrored.json")
_SWEEP = (SWEEP, "prediction.json")
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
        return
    by_run: dict[str, list[StoredObject]] = {p.name: [] for p in _directories(path)}
    own: list[StoredObject] = []
    for stored in list_objects(uri):
        run, slash, name = stored.name.partition("/")
        if slash:
            by_run.setdefault(run, []).append(stored._replace(name=name))
        else:
            own.append(stored)
    if any(stored.name == CONFIG for stored in own):  # a single run
        stage(path, None if checkpoints else _RUN)
        return
    wanted = None if checkpoints else _RUN
    stage(path, _is_at_the_top if checkpoints else _SWEEP, listing=own)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda run: stage(path / run, wanted, listing=by_run[run]), by_run))


def stage_checkpoint(run: Path, step: int | None = None) -> None:
    """Fetch a step of a run for a reader.

    Args:
        run: Directory of the run; nothing is done unless it is in a working copy.
        step: The step; None for the newest.

    Raises:
        DamagedObject: The step is damaged.
    """
    directory = RunFiles(run).checkpoints
    if uri_of(directory) is None or is_written(run):
        return
    steps = stored_steps(directory)
    number = step if step is not None else next(iter(steps), None)
    if number in steps:
        _stage_step(directory / str(number))


def stage_newest(run: Path) -> list[str]:
    """Make the newest intact step the only one of the working copy, for the owner of a run.

    Args:
        run: Directory of the run; nothing is done unless it is in a working copy.

    Returns:
        A message for each damaged step, which is set aside in the store.
    """
    directory = RunFiles(run).checkpoints
    if uri_of(directory) is None:
        return []
    damaged = []
    newest = ""
    for step in stored_steps(directory):
        try:
            _stage_step(directory / str(step))
        except DamagedObject as e:
            _set_aside(directory / str(step))
            damaged.append(f"checkpoint {step} is damaged ({e}); it was set aside in the store")
            _log.warning(damaged[-1])
            continue
        newest = str(step)
        break
    for path in _directories(directory):
        if path.name != newest:
            shutil.rmtree(path)
    return damaged


def stored_steps(directory: Path) -> list[int]:
    """Return the complete steps in the store, the newest first.

    Args:
        directory: Directory of the checkpoints in a working copy.
    """
    paths = (PurePosixPath(o.name) for o in list_objects(str(uri_of(directory))))
    complete = {str(p.parent) for p in paths if p.name == DIGESTS}
    return sorted((int(name) for name in complete if name.isdecimal()), reverse=True)


def publish_step(part: Path, step: Path, keep: int) -> None:
    """Upload a complete step with the rows of metrics up to it, then remove older steps.

    Args:
        part: Directory that has the files of the step.
        step: Directory of the step in the working copy, which gives the URI.
        keep: Number of steps that the store keeps.
    """
    if uri_of(step) is None:
        return
    publish_tree(part, DIGESTS, step)
    kept = {str(number) for number in stored_steps(step.parent)[:keep]}
    uri = uri_of(step.parent)
    objects = [o.name for o in list_objects(str(uri)) if o.name.split("/")[0] not in kept]
    damaged = {n.split("/")[0] for n in objects if n.endswith(f"{DIGESTS}.damaged")}
    old = [n for n in objects if n.split("/")[0] not in damaged]
    # Digests first: a step that is removed in part is not a step.
    for name in sorted(old, key=lambda n: (not n.endswith(f"/{DIGESTS}"), n)):
        unpublish(step.parent / name)


def _stage_step(step: Path) -> None:
    """Fetch a step, compared with its digests, which the working copy has once it is complete."""
    stage(step, [DIGESTS], owned=True)
    saved = read_json(step / DIGESTS, "the digests of a checkpoint cannot be made again")["files"]
    (step / DIGESTS).rename(step / f".{DIGESTS}")
    stage(step, lambda n: n != DIGESTS, {n: d for n, (_, d) in saved.items()}, owned=True)
    missing = next((n for n in saved if not (step / n).is_file()), None)
    if missing is not None:
        raise ObjectMissing(f"{uri_of(step)}/{missing}: no such object; restore it from a copy")
    (step / f".{DIGESTS}").rename(step / DIGESTS)


def _set_aside(step: Path) -> None:
    """Rename the digests of a damaged step in the store, so that it no longer counts as one."""
    uri = f"{uri_of(step)}/{DIGESTS}"
    found = read_object(uri)
    if found is not None:
        write_object(f"{uri}.damaged", found[0])
        remove_object(uri)


def _is_at_the_top(name: str) -> bool:
    return "/" not in name


def _directories(directory: Path) -> Collection[Path]:
    return [p for p in directory.iterdir() if p.is_dir()] if directory.is_dir() else []
