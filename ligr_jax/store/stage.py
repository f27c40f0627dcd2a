"""Staging: a working copy in the local cache is made equal to the store, once per host.

The processes of a host share the working copy, and a lock lets one of them fetch. Files that are
equal to their objects are not fetched again. A large object is fetched in blocks; a process that
was killed leaves the blocks it has, and the next one continues with the others.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ligr_jax.errors import file_errors
from ligr_jax.progress import Progress
from ligr_jax.store.mirror import cache_root, record_path, uri_of
from ligr_jax.store.objects import (
    ObjectMissing,
    StoredObject,
    StoreError,
    VersionChanged,
    describe_object,
    list_objects,
    read_range,
)
from ligr_jax.store.room import SPARE, is_written, make_room, staging
from ligr_jax.store.versions import forget_version, is_current, record_version

_log = logging.getLogger(__name__)

_THREADS = 8  # objects fetched at the same time
_BLOCK = 16 * 2**20  # bytes of a request
_MENTIONED = 64 * 2**20  # bytes above which staging is logged


class DamagedObject(StoreError):
    """An object differs from what was written."""


def stage(
    directory: Path,
    wanted: Callable[[str], bool] | Sequence[str] | None = None,
    digests: Mapping[str, str] | None = None,
    owned: bool = False,
    listing: Sequence[StoredObject] | None = None,
) -> None:
    """Make a working copy equal to the store; do nothing for a directory that is not one.

    While another process of this host writes to the directory, its files are newer than the store
    and nothing is fetched.

    Args:
        directory: Directory of a working copy.
        wanted: Names relative to the directory, or a function that selects them; None for all.
            Hidden files are staged only if they are named.
        digests: xxh64 by name, compared while the files are fetched.
        owned: Whether this process has locked the directory.
        listing: Objects of the directory, if the caller has listed them.

    Raises:
        DamagedObject: An object differs from its digest.
        StoreError: The store does not answer, an object vanished, or the disk has no room.
    """
    uri = uri_of(directory)
    if uri is None:
        return
    with staging(directory):
        if not owned and is_written(directory):
            return
        found = _objects(uri, wanted, listing)
        objects = {o.name: o for o in found}
        _remove_vanished(directory, objects, wanted)
        missing = [o for o in objects.values() if not is_current(directory / o.name, o)]
        if missing or owned:  # an owner is about to write
            make_room(sum(stored.size for stored in missing))
        _require_room(directory, missing)
        _fetch_all(directory, uri, missing, digests or {})


def stage_file(path: Path) -> None:
    """Make the working copy of one file equal to its object; remove it if there is none."""
    stage(path.parent, [path.name])


def stage_place(path: Path) -> None:
    """Make the working copy of a file or a whole directory equal to the store."""
    uri = uri_of(path)
    if uri is not None:
        if describe_object(uri):
            stage_file(path)
        else:
            stage(path)


def _objects(
    uri: str,
    wanted: Callable[[str], bool] | Sequence[str] | None,
    listing: Sequence[StoredObject] | None,
) -> Iterator[StoredObject]:
    if wanted is None or callable(wanted):
        objects = list_objects(uri) if listing is None else listing
        visible = (o for o in objects if not _is_hidden(o.name))
        yield from (o for o in visible if wanted is None or wanted(o.name))
    elif listing is not None:
        yield from (o for o in listing if o.name in wanted)
    else:
        for name in wanted:
            if found := describe_object(f"{uri}/{name}"):
                yield found._replace(name=name)


def _remove_vanished(
    directory: Path,
    objects: Mapping[str, StoredObject],
    wanted: Callable[[str], bool] | Sequence[str] | None,
) -> None:
    """Remove files of the working copy whose objects are gone."""
    if wanted is None or callable(wanted):
        paths = [p for p in directory.rglob("*") if p.is_file()] if directory.is_dir() else []
        names = [str(p.relative_to(directory)) for p in paths]
        names = [n for n in names if not _is_hidden(n) and (wanted is None or wanted(n))]
    else:
        names = list(wanted)
    for name in names:
        if name not in objects:
            (directory / name).unlink(missing_ok=True)
            forget_version(directory / name)


def _fetch_all(
    directory: Path, uri: str, objects: Sequence[StoredObject], digests: Mapping[str, str]
) -> None:
    total, began = sum(o.size for o in objects), time.monotonic()
    progress = Progress(total // 2**20, _log, "MiB of " + uri) if total > _MENTIONED else None
    done = 0

    def fetch(stored: StoredObject) -> int:
        path = directory / stored.name
        _fetch(path, f"{uri}/{stored.name}", stored, digests.get(stored.name))
        return stored.size

    with ThreadPoolExecutor(_THREADS) as pool:
        for size in pool.map(fetch, objects):
            done += size
            if progress:
                progress.show(done // 2**20)
    if progress:
        seconds = max(1e-3, time.monotonic() - began)
        _log.info(f"staged {total / 1e9:.2f} GB of {uri} ({total / 1e6 / seconds:,.0f} MB/s)")


def _fetch(path: Path, uri: str, stored: StoredObject, digest: str | None) -> None:
    """Fetch an object; a transfer that does not give the digest is repeated once."""
    part = record_path("partial", path).with_name(f"{path.name}.{_as_name(stored.version)}")
    with file_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2):
            actual = _fetch_blocks(part, uri, stored)
            if digest is None or actual == digest:
                break
            part.unlink()
            if attempt == 2:
                raise DamagedObject(
                    f"{uri}: xxh64 {actual} of {stored.size:,} bytes, but {digest} was written; "
                    "upload it again from a copy, or write it again"
                )
        when = stored.modified.timestamp()
        os.utime(part, (when, when))  # readers of a run see when it was last written
        os.replace(part, path)
        record_version(path, stored.version)


def _fetch_blocks(part: Path, uri: str, stored: StoredObject) -> str:
    """Append the blocks that a partial file lacks; return the digest of the whole."""
    import xxhash  # not at the top: fits read JSON files with only NumPy and SciPy installed

    digest = xxhash.xxh64()
    with part.open("a+b") as file:
        file.seek(0)
        while block := file.read(_BLOCK):
            digest.update(block)
        start = file.seek(0, os.SEEK_END)
        while start < stored.size:
            end = min(start + _BLOCK, stored.size)
            block = _read_block(uri, start, end, stored.version)
            file.write(block)
            digest.update(block)
            start = end
    return digest.hexdigest()


def _read_block(uri: str, start: int, end: int, version: str) -> bytes:
    try:
        return read_range(uri, start, end, version)
    except ObjectMissing as e:
        raise ObjectMissing(
            f"{uri} vanished while it was staged; restore it, or write it again"
        ) from e
    except VersionChanged as e:
        raise StoreError(
            f"{uri} was replaced while it was staged; run the same command again"
        ) from e


def _require_room(directory: Path, objects: Sequence[StoredObject]) -> None:
    size = sum(o.size for o in objects)
    if not size:
        return
    root = cache_root()
    free = shutil.disk_usage(root).free
    if size + SPARE > free:
        raise StoreError(
            f"{uri_of(directory)}: staging needs {size / 1e9:.1f} GB and {root} has "
            f"{free / 1e9:.1f} GB free; make room, or name a larger disk in LIGR_CACHE"
        )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _as_name(version: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in version)
