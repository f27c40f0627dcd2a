"""A log of impressions becomes sorted member histories in memory-mapped shards.

Two passes, both in bounded memory. The first reads the log once, checks every row and cuts it into
partitions of members; the second sorts one partition at a time and writes it as a shard. The output
is a pure function of the input's bytes and the options.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.data.manifest import Manifest, load_manifest, save_manifest
from ligr_jax.data.prepare.build import Build, Progress
from ligr_jax.data.prepare.options import (
    PrepareOptions,
)
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import Source


def prepare(
    source: Source,
    out: str | Path,
    options: PrepareOptions | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Prepares `source` in directory `out` and returns the manifest.

    An output already made from the same source with the same options is returned as it is. A run
    that fails leaves no manifest, and an earlier output untouched.

    Raises:
        BadInput: a bad log or bad options, an output made otherwise (without `overwrite`), or a
            directory that cannot be written.
    """
    options, out, say = options or PrepareOptions(), Path(out), progress or (lambda _: None)
    made_by = json.loads(json.dumps({**source.description, "options": options.description()}))
    if (out / "manifest.json").is_file() and not options.overwrite:
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
        manifest = Build(source, options, work, say).run(made_by)
        _publish(manifest, work, out)
    except OSError as e:
        raise BadInput(
            f"cannot write {out}: {e.strerror or e}; make room or choose another --out (nothing "
            "was left behind that looks finished)"
        ) from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _publish(manifest: Manifest, work: Path, out: Path) -> None:
    """Moves finished files into place; an old manifest goes first, the new one comes last."""
    (out / "manifest.json").unlink(missing_ok=True)
    for old in [*out.glob("members-*.arrow"), out / "items.arrow"]:
        old.unlink(missing_ok=True)
    for shard in [*manifest.shards, *([manifest.items] if manifest.items else [])]:
        os.replace(work / shard.file, out / shard.file)
    save_manifest(manifest, out)


def _refuse_difference(existing: Manifest, made_by: Mapping[str, Any], out: Path) -> None:
    differences = list(_differences(existing.source, made_by))
    differences += [f"{s.file} is gone" for s in existing.shards if not (out / s.file).is_file()]
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
