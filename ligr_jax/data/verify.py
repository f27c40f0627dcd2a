"""Verification of prepared files against the digests in the manifest.

A flipped bit in a shard changes an id or a label and raises no error, only other losses. A process
that trains, evaluates or runs a sweep therefore reads every byte once before it starts, at about
4 GB/s per core from memory, or at the speed of the disk.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ligr_jax.data.manifest import Manifest, Shard, stage_data
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import digest_file
from ligr_jax.errors import file_errors
from ligr_jax.host_limits import host_cores

_log = logging.getLogger(__name__)

_MENTIONED = 2**30  # bytes above which the duration is reported
_SHOWN = 5  # damaged files named in one message
_verified: set[tuple[object, ...]] = set()  # path, digest, sizes and times of verified data


class DamagedData(BadInput):
    """A file of prepared data differs from what `prepare` wrote."""


def files_of(manifest: Manifest) -> list[Shard]:
    """Return the files that a manifest has digests of."""
    return [*manifest.shards, *([manifest.items] if manifest.items else []), *manifest.index]


def damage(path: Path, file: Shard) -> str:
    """Describe the damage of a file; "" if the file is intact.

    Args:
        path: path of the file.
        file: its entry in the manifest.

    Raises:
        FileError: the file is missing or cannot be read.
    """
    with file_errors("read", path):
        digest = digest_file(path)
        size = path.stat().st_size
    if digest == file.xxh64:
        return ""
    return f"{path}: xxh64 {digest} of {size:,} bytes, but the manifest has {file.xxh64}"


def require_undamaged(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its digest; files that did not change are read once per process.

    Args:
        directory: prepared directory.
        manifest: its manifest.

    Raises:
        DamagedData: files differ from their digests; the message has both digests.
        FileError: a file is missing or cannot be read.
    """
    stage_data(directory)
    files = files_of(manifest)
    with file_errors("read", directory):
        stats = [(directory / f.file).stat() for f in files]
    key = (directory.resolve(), manifest.digest, *((s.st_size, s.st_mtime_ns) for s in stats))
    if key in _verified:
        return
    size, began = sum(s.st_size for s in stats), time.monotonic()
    with ThreadPoolExecutor(min(8, 2 * host_cores())) as pool:
        descriptions = list(pool.map(lambda file: damage(directory / file.file, file), files))
    damaged = [description for description in descriptions if description]
    if damaged:
        more = f"\n  and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""
        raise DamagedData(
            f"{len(damaged)} of {len(files)} files of {directory} differ from what `ligr prepare` "
            "wrote:\n  " + "\n  ".join(damaged[:_SHOWN]) + f"{more}\n"
            f"restore them from a copy, or prepare the data again: `ligr prepare SOURCE --out "
            f"{directory} --overwrite`"
        )
    if size > _MENTIONED:
        seconds = max(1e-3, time.monotonic() - began)
        _log.info(f"verified {size / 1e9:.1f} GB of {directory} ({size / 1e9 / seconds:.1f} GB/s)")
    _verified.add(key)
