"""A prepared directory is whole or not there, and is not made twice."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import sync
from ligr_jax.contents import DATA, require_no_other
from ligr_jax.data.manifest import MANIFEST, Manifest, load_manifest, save_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import FileError, file_errors
from ligr_jax.lock import exclusive

_log = logging.getLogger(__name__)

SUMMARY = "prepare.json"  # what was understood of the log, for people


def published(
    out: Path,
    made_by: Mapping[str, Any],
    build: Callable[[Path, Mapping[str, Any]], Manifest],
    overwrite: bool = False,
) -> Manifest:
    """The manifest of `out`, made by `build` unless it is there already.

    Args:
        made_by: what shapes the output: equal values mean equal output. The manifest's `source`.
        build: leaves all files of a manifest in the directory it is given, and returns it.
        overwrite: replace an output that was made otherwise.

    Raises:
        BadInput: an output made otherwise, or a directory that cannot be written.
    """
    require_no_other(out, DATA)
    made_by = json.loads(json.dumps(made_by))  # as a manifest has it: tuples are lists
    existing = None if overwrite else _existing(out, made_by)
    if existing:
        return existing
    work = out / f".partial-{os.getpid()}"
    try:
        with exclusive(out, "is preparing data there"), file_errors("write", out):
            # Another process may have made it between the two looks.
            existing = None if overwrite else _existing(out, made_by)
            if existing:
                return existing
            for stale in out.glob(".partial-*"):  # of a process that was killed
                shutil.rmtree(stale)
            work.mkdir()
            try:
                manifest = build(work, made_by)
                _move(manifest, work, out)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except FileError as e:
        raise BadInput(f"{e} (nothing was left behind that looks finished)") from e
    return manifest


def _existing(out: Path, made_by: Mapping[str, Any]) -> Manifest | None:
    """The manifest of an output that was made of the same; None where there is none."""
    if not (out / MANIFEST).is_file():
        return None
    existing = load_manifest(out)
    _refuse_difference(existing, made_by, out)
    _log.info(f"already prepared: {out}")
    return existing


def _move(manifest: Manifest, work: Path, out: Path) -> None:
    """Moves finished files into place; an old manifest goes first, the new one comes last."""
    (out / MANIFEST).unlink(missing_ok=True)
    for old in [*out.glob("members-*.arrow"), out / "items.arrow", out / SUMMARY]:
        old.unlink(missing_ok=True)
    for file in _files(manifest):
        sync(work / file)  # the manifest is on disk after all that it names
        os.replace(work / file, out / file)
    if (work / SUMMARY).is_file():
        os.replace(work / SUMMARY, out / SUMMARY)
    save_manifest(manifest, out)


def _files(manifest: Manifest) -> list[str]:
    return [s.file for s in (*manifest.shards, manifest.items) if s is not None]


def _refuse_difference(existing: Manifest, made_by: Mapping[str, Any], out: Path) -> None:
    differences = list(_differences(existing.source, made_by))
    differences += [f"{file} is gone" for file in _files(existing) if not (out / file).is_file()]
    if differences:
        raise BadInput(
            f"{out} was prepared otherwise: {'; '.join(differences[:5])}. Choose another --out, or "
            "replace it with --overwrite"
        )


def _differences(there: Any, asked: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in sorted({*there, *asked}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(there.get(key), asked.get(key), inner)
    elif there != asked:
        yield f"{name} is {json.dumps(there)[:120]} there, {json.dumps(asked)[:120]} asked"
