"""Whether the files of prepared data are what `ligr prepare` wrote: their xxh64 and its manifest's.

A flipped bit in a shard is another id or another label: it makes other losses and no error. So a
process that begins to train, to evaluate or to run a sweep reads every byte once, at about 4 GB/s a
core from memory and otherwise at the speed of the disk.
"""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ligr_jax.data.manifest import Manifest, Shard
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import digest_file
from ligr_jax.errors import file_errors

_log = logging.getLogger(__name__)

_MENTIONED = 2**30  # bytes from which on reading takes a while
_SHOWN = 5  # damaged files named in one message
_verified: set[tuple[object, ...]] = set()  # by name, size and time, in this process


class DamagedData(BadInput):
    """A file of prepared data is not what was written."""


def files_of(manifest: Manifest) -> list[Shard]:
    """The files that a manifest has digests of."""
    return [*manifest.shards, *([manifest.items] if manifest.items else [])]


def damage(path: Path, file: Shard) -> str:
    """What is wrong with a file; "" where nothing is.

    Raises:
        FileError: the file is missing or cannot be read.
    """
    with file_errors("read", path):
        found = digest_file(path)
        size = path.stat().st_size
    if found == file.xxh64:
        return ""
    return f"{path}: xxh64 {found} of {size:,} bytes, the manifest says {file.xxh64}"


def require_undamaged(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its digest, once in a process while no file changes.

    Raises:
        DamagedData: files are not what was written; each is named with both digests.
        FileError: a file is missing or cannot be read.
    """
    files = files_of(manifest)
    with file_errors("read", directory):
        stats = [(directory / f.file).stat() for f in files]
    key = (directory.resolve(), manifest.digest, *((s.st_size, s.st_mtime_ns) for s in stats))
    if key in _verified:
        return
    size, began = sum(s.st_size for s in stats), time.monotonic()
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        found = list(pool.map(lambda file: damage(directory / file.file, file), files))
    damaged = [words for words in found if words]
    if damaged:
        more = f"\n  and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""
        raise DamagedData(
            f"{len(damaged)} of {len(files)} files of {directory} are not what `ligr prepare` "
            "wrote:\n  " + "\n  ".join(damaged[:_SHOWN]) + f"{more}\n"
            f"restore them from a copy, or prepare the data again: `ligr prepare SOURCE --out "
            f"{directory} --overwrite`"
        )
    if size > _MENTIONED:
        seconds = max(1e-3, time.monotonic() - began)
        _log.info(f"verified {size / 1e9:.1f} GB of {directory} ({size / 1e9 / seconds:.1f} GB/s)")
    _verified.add(key)
