"""Checkpoints of a run in an object store.

    CHECKPOINTS/60/state/...     files of the state
    CHECKPOINTS/60/digests.json  size and xxh64 of every file; uploaded last

A step without digests.json does not count as a step. So a step becomes visible at once, whatever
was killed before, and a damaged file of it is detected. Only the owner of a run changes its steps.

Several processes write a step together: each one writes the shards of its devices to its local
disk, uploads these files and reports their digests; process 0, which has the lease of the run,
waits for all reports and uploads digests.json. The files lie on the local disk first, because their
digests are computed there, and because orbax and TensorStore would write to the store without the
lease, through clients that repeat fewer requests than ours. No process waits in a collective of the
devices meanwhile, so training continues. A host that is killed leaves the earlier steps.
A restart fetches the newest step on every host, compared with its digests.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from ligr_jax.digests import DamagedFile, digest_file, parse_json, write_json
from ligr_jax.parallel.processes import gather_texts, is_first
from ligr_jax.runs.checkpoint_files import DIGESTS, digests_of_files
from ligr_jax.runs.files import RunFiles
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import (
    ObjectMissing,
    list_objects,
    read_object,
    remove_object,
    write_object,
)
from ligr_jax.store.publish import publish_files, publish_tree, unpublish
from ligr_jax.store.room import is_written
from ligr_jax.store.stage import DamagedObject, stage
from ligr_jax.store.versions import forget_version, is_current

_log = logging.getLogger(__name__)

_THREADS = 8  # files read at the same time
# Orbax writes this file in every process; that of process 0 is kept.
_MARK = "commit_success.txt"


def stored_steps(directory: Path) -> list[int]:
    """Return the complete steps in the store, the newest first.

    Args:
        directory: Directory of the checkpoints in a working copy.
    """
    paths = (PurePosixPath(o.name) for o in list_objects(str(uri_of(directory))))
    complete = {str(p.parent) for p in paths if p.name == DIGESTS}
    return sorted((int(name) for name in complete if name.isdecimal()), reverse=True)


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

    Every process of the run calls it. All take the same step.

    Args:
        run: Directory of the run; nothing is done unless it is in a working copy.

    Returns:
        A message for each damaged step, which is set aside in the store.
    """
    directory = RunFiles(run).checkpoints
    if uri_of(directory) is None:
        return []
    damaged: list[str] = []
    newest = ""
    listed = json.dumps(stored_steps(directory) if is_first() else [])
    for step in json.loads(gather_texts(f"steps/{run.name}", listed)[0]):
        damage = ""
        try:
            _stage_step(directory / str(step))
        except DamagedObject as e:
            damage = str(e)
        damage = next(filter(None, gather_texts(f"staged/{run.name}", damage)), "")
        if not damage:
            newest = str(step)
            break
        if is_first():
            _set_aside(directory / str(step))
        damaged.append(f"checkpoint {step} is damaged ({damage}); it was set aside in the store")
        _log.warning(damaged[-1])
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.is_dir() and path.name != newest:
            shutil.rmtree(path, ignore_errors=True)  # another process of this host removes it too
    return damaged


def publish_step(part: Path, step: Path, keep: int) -> None:
    """Upload a complete step, then remove older steps.

    Args:
        part: Directory that has the files of the step.
        step: Directory of the step in the working copy, which gives the URI.
        keep: Number of steps that the store keeps.
    """
    if uri_of(step) is None:
        return
    publish_tree(part, DIGESTS, step)
    _remove_older(step.parent, keep)


def publish_part(part: Path, step: Path, keep: int, before_last: Callable[[], None]) -> None:
    """Upload the files of a step that this process has written; every process calls it.

    Args:
        part: Directory that has the files; it is empty afterwards.
        step: Directory of the step in the working copy, which gives the URI.
        keep: Number of steps that the store keeps.
        before_last: Called in process 0 when everything but the digests is uploaded.
    """
    digests = digests_of_files(part)
    if not is_first():
        digests = {n: d for n, d in digests.items() if PurePosixPath(n).name != _MARK}
    publish_files(part, digests, step)
    reports = gather_texts(f"uploaded/{step.parent.parent.name}", json.dumps(digests))
    if is_first():
        before_last()
        files = {name: digest for text in reports for name, digest in json.loads(text).items()}
        _complete(part, step, files)
        _remove_older(step.parent, keep)
    for path in part.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _complete(part: Path, step: Path, files: Mapping[str, Any]) -> None:
    """Upload the digests of a step whose files are in the store, without files of earlier tries."""
    for stored in list_objects(str(uri_of(step))):
        if stored.name not in files:
            unpublish(step / stored.name)
    write_json(part / DIGESTS, {"files": dict(sorted(files.items()))})
    publish_files(part, [DIGESTS], step)


def _remove_older(directory: Path, keep: int) -> None:
    """Remove all but the newest steps from the store; damaged steps are kept."""
    kept = {str(number) for number in stored_steps(directory)[:keep]}
    objects = [o.name for o in list_objects(str(uri_of(directory)))]
    objects = [name for name in objects if name.split("/")[0] not in kept]
    damaged = {n.split("/")[0] for n in objects if n.endswith(f"{DIGESTS}.damaged")}
    old = [n for n in objects if n.split("/")[0] not in damaged]
    # Digests first: a step that is removed in part is not a step.
    for name in sorted(old, key=lambda n: (not n.endswith(f"/{DIGESTS}"), n)):
        unpublish(directory / name)


def _stage_step(step: Path) -> None:
    """Fetch a step, compared with its digests, which the working copy gets last.

    Raises:
        DamagedObject: The step is damaged.
        StoreError: An object is missing, or the store does not answer.
    """
    uri = f"{uri_of(step)}/{DIGESTS}"
    found = read_object(uri)
    if found is None:
        raise ObjectMissing(f"{uri}: no such object; run the same command again")
    content, stored = found
    if not is_current(step / DIGESTS, stored):
        (step / DIGESTS).unlink(missing_ok=True)
    saved = _parse_digests(content, uri)
    _forget_damaged(step, saved)
    stage(step, lambda n: n != DIGESTS, {n: d for n, (_, d) in saved.items()}, owned=True)
    missing = next((n for n in saved if not (step / n).is_file()), None)
    if missing is not None:
        raise ObjectMissing(f"{uri_of(step)}/{missing}: no such object; restore it from a copy")
    stage(step, [DIGESTS], owned=True)


def _forget_damaged(step: Path, saved: Mapping[str, tuple[int, str]]) -> None:
    """Make `stage` fetch the files again that have changed on this host's disk."""

    def forget(name: str) -> None:
        path = step / name
        if path.is_file() and digest_file(path) != saved[name][1]:
            forget_version(path)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(forget, saved))


def _parse_digests(content: bytes, uri: str) -> dict[str, tuple[int, str]]:
    try:
        files: dict[str, tuple[int, str]] = parse_json(content, uri, "restore it from a copy")[
            "files"
        ]
    except DamagedFile as e:
        raise DamagedObject(str(e)) from e
    return files


def _set_aside(step: Path) -> None:
    """Rename the digests of a damaged step in the store, so that it no longer counts as one."""
    uri = f"{uri_of(step)}/{DIGESTS}"
    found = read_object(uri)
    if found is not None:
        write_object(f"{uri}.damaged", found[0])
        remove_object(uri)
