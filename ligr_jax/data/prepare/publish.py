"""A prepared directory is whole or not there, and is not made twice."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import sync
from ligr_jax.data.manifest import Manifest, load_manifest, save_manifest
from ligr_jax.data.schema import BadInput

Progress = Callable[[str], None]


def published(
    out: Path,
    made_by: Mapping[str, Any],
    build: Callable[[Path, Mapping[str, Any]], Manifest],
    say: Progress,
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
    made_by = json.loads(json.dumps(made_by))  # as a manifest has it: tuples are lists
    if (out / "manifest.json").is_file() and not overwrite:
        existing = load_manifest(out)
        _refuse_difference(existing, made_by, out)
        say(f"already prepared: {out}")
        return existing
    work = out / f".partial-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(".partial-*"):
            shutil.rmtree(stale)
        work.mkdir()
        manifest = build(work, made_by)
        _move(manifest, work, out)
    except OSError as e:
        raise BadInput(
            f"cannot write {out}: {e.strerror or e}; make room or choose another --out (nothing "
            "was left behind that looks finished)"
        ) from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _move(manifest: Manifest, work: Path, out: Path) -> None:
    """Moves finished files into place; an old manifest goes first, the new one comes last."""
    (out / "manifest.json").unlink(missing_ok=True)
    for old in [*out.glob("members-*.arrow"), out / "items.arrow"]:
        old.unlink(missing_ok=True)
    for file in _files(manifest):
        sync(work / file)  # the manifest is on disk after all that it names
        os.replace(work / file, out / file)
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
