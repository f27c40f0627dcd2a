"""Atomic creation of a prepared directory, which is skipped if the output is up to date."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import sync
from ligr_jax.contents import DATA, require_no_other, require_only
from ligr_jax.data.index import INDEX, write_data_index
from ligr_jax.data.manifest import MANIFEST, SHARDS, Manifest, load_manifest, save_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.data.verify import files_of
from ligr_jax.errors import FileError, file_errors
from ligr_jax.lock import exclusive
from ligr_jax.store.publish import published_tree
from ligr_jax.store.stage import stage

_log = logging.getLogger(__name__)

SUMMARY = "prepare.json"  # summary of the log for human readers
_OUTPUT = (MANIFEST, SUMMARY, SHARDS, "items.arrow", INDEX)


def published(
    out: Path,
    made_by: Mapping[str, Any],
    build: Callable[[Path, Mapping[str, Any]], Manifest],
    overwrite: bool = False,
) -> Manifest:
    """Build a prepared directory, unless it is up to date.

    Args:
        out: output directory.
        made_by: everything that determines the output; `source` of its manifest.
        build: receives a working directory and `made_by`, writes all files except the manifest to
            the working directory, and returns the manifest.
        overwrite: replace an output with another `made_by`.

    Returns:
        The manifest of the output.

    Raises:
        BadInput: the output has another `made_by`, or the directory cannot be written.
    """
    stage(out)
    require_no_other(out, DATA)
    require_only(out, DATA, _OUTPUT)
    made_by = json.loads(json.dumps(made_by))  # comparable with a manifest: tuples become lists
    existing = None if overwrite else _existing(out, made_by)
    if existing:
        return existing
    work = out / f".partial-{os.getpid()}"
    try:
        with exclusive(out, "is preparing data there"), file_errors("write", out):
            # Another process may have finished the output before this one got the lock.
            stage(out, owned=True)
            existing = None if overwrite else _existing(out, made_by)
            if existing:
                return existing
            for stale in out.glob(".partial-*"):  # left by a process that was killed
                shutil.rmtree(stale)
            work.mkdir()
            try:
                with published_tree(out, MANIFEST):
                    manifest = write_data_index(work, build(work, made_by))
                    _move(manifest, work, out)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except FileError as e:
        raise BadInput(f"{e} (the output is not complete and has no manifest)") from e
    return manifest


def _existing(out: Path, made_by: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of an output that is up to date, or None if there is no output."""
    if not (out / MANIFEST).is_file():
        return None
    existing = load_manifest(out)
    _refuse_difference(existing, made_by, out)
    _log.info(f"already prepared: {out}")
    return existing


def _move(manifest: Manifest, work: Path, out: Path) -> None:
    """Move finished files to the output: remove the old manifest first, write the new one last."""
    (out / MANIFEST).unlink(missing_ok=True)
    for old in [*out.glob(SHARDS), out / "items.arrow", *out.glob(INDEX), out / SUMMARY]:
        old.unlink(missing_ok=True)
    for file in _files(manifest):
        sync(work / file)  # files must be on disk before the manifest that lists them
        os.replace(work / file, out / file)
    if (work / SUMMARY).is_file():
        os.replace(work / SUMMARY, out / SUMMARY)
    save_manifest(manifest, out)


def _files(manifest: Manifest) -> list[str]:
    return [s.file for s in files_of(manifest)]


def _refuse_difference(existing: Manifest, made_by: Mapping[str, Any], out: Path) -> None:
    """Raise `BadInput` if the output has other inputs or lacks files."""
    differences = list(_differences(existing.source, made_by))
    differences += [f"{file} is missing" for file in _files(existing) if not (out / file).is_file()]
    if differences:
        raise BadInput(
            f"{out} was prepared from other inputs: {'; '.join(differences[:5])}. Choose another "
            "--out, or replace the output with --overwrite"
        )


def _differences(existing: Any, requested: Any, name: str = "") -> Iterator[str]:
    """Yield a description of every leaf in which two JSON values differ."""
    if isinstance(existing, dict) and isinstance(requested, dict):
        for key in sorted({*existing, *requested}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(existing.get(key), requested.get(key), inner)
    elif existing != requested:
        old, new = json.dumps(existing)[:120], json.dumps(requested)[:120]
        yield f"{name} is {old} in the output and {new} in the request"
