"""The index of prepared data: arrays by member and by session, which readers map into memory.

    index-offsets.npy    int64 [members + 1]  first impression of each member; number of all
    index-counts.npy     int32 [members, 4]   impressions of context, train, validation and test
    index-members.npy    int64 [members]      member ids
    index-sessions.npy   int64 [ends]         0, and the impression number after each session

The processes of a host share the pages of these files, and opening the data takes the same time for
any number of members. All arrays follow from the shards: data without an index, which earlier
releases wrote, give the same arrays, computed in the memory of every process. The index is
therefore not part of the digest of the data.
"""

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ligr_jax.data.manifest import SPLITS, Manifest, Shard
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import digest_file

INDEX = "index-*.npy"  # file names in a prepared directory
_FILES = {name: f"index-{name}.npy" for name in ("offsets", "counts", "members", "sessions")}


class MemberIndex(NamedTuple):
    """The arrays of the index; see the module."""

    offsets: np.ndarray
    counts: np.ndarray
    members: np.ndarray
    sessions: np.ndarray


def write_data_index(directory: Path, manifest: Manifest) -> Manifest:
    """Write the index of shards; memory does not grow with their number.

    Args:
        directory: directory of the shards.
        manifest: manifest that lists the shards.

    Returns:
        The manifest with the files of the index.
    """
    arrays = MemberIndex(
        **{
            name: np.lib.format.open_memmap(directory / _FILES[name], "w+", dtype, shape)
            for name, (shape, dtype) in _specs(directory, manifest).items()
        }
    )
    _fill(arrays, directory, manifest)
    members, impressions = _sizes(manifest)
    files = [
        Shard(file, members, impressions, digest_file(directory / file)) for file in _FILES.values()
    ]
    return dataclasses.replace(manifest, index=tuple(files))


def open_index(directory: Path, manifest: Manifest) -> MemberIndex:
    """Map the index, or compute it if the data have none.

    Raises:
        BadInput: a file is missing, damaged, or of other data.
    """
    if not manifest.index:
        return _computed(directory, manifest)
    arrays = MemberIndex(**{name: _mapped(directory / file) for name, file in _FILES.items()})
    members, impressions = _sizes(manifest)
    sizes = (len(arrays.offsets), len(arrays.counts), len(arrays.members))
    ends = (arrays.offsets[-1], arrays.sessions[-1])
    if sizes != (members + 1, members, members) or ends != (impressions, impressions):
        raise BadInput(
            f"{directory}: the index has other members or impressions than the shards; "
            "prepare the data again"
        )
    return arrays


def open_batch(path: Path) -> pa.RecordBatch:
    """Map a file of one record batch.

    Raises:
        BadInput: the file is missing or damaged.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return reader.get_batch(0)
    except (OSError, pa.ArrowInvalid) as e:
        raise BadInput(f"{path}: cannot be read ({e}); prepare the data again") from e


def release_pages(array: np.ndarray) -> None:
    """Release the pages of a mapped file from the memory of this process; a read maps them again.

    Args:
        array: a view of the file; an array in memory is left alone.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: cannot be read ({e}); prepare the data again") from e


def _computed(directory: Path, manifest: Manifest) -> MemberIndex:
    """Return the index of data that have no files of it."""
    arrays = MemberIndex(
        **{name: np.empty(*spec) for name, spec in _specs(directory, manifest).items()}
    )
    _fill(arrays, directory, manifest)
    return arrays


def _specs(directory: Path, manifest: Manifest) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return the shape and the dtype of each array."""
    members, _ = _sizes(manifest)
    ends = sum(int(_last_of_session(*shard).sum()) for shard in _sessions(directory, manifest))
    return {
        "offsets": ((members + 1,), np.int64),
        "counts": ((members, 1 + len(SPLITS)), np.int32),
        "members": ((members,), np.int64),
        "sessions": ((1 + ends,), np.int64),
    }


def _fill(arrays: MemberIndex, directory: Path, manifest: Manifest) -> None:
    """Write the arrays, shard by shard."""
    arrays.offsets[0] = arrays.sessions[0] = 0
    member = impression = 0
    end = 1
    for shard in manifest.shards:
        batch = open_batch(directory / shard.file)
        rows = slice(member, member + shard.members)
        offsets = _offsets(batch)
        arrays.offsets[1:][rows] = impression + offsets[1:]
        for column, name in enumerate(("context", *SPLITS)):
            arrays.counts[rows, column] = batch[f"n_{name}"].to_numpy()
        arrays.members[rows] = batch["member_id"].to_numpy()
        ends = 1 + np.flatnonzero(_last_of_session(_session(batch), offsets))
        arrays.sessions[end : end + len(ends)] = impression + ends
        member += shard.members
        impression += shard.impressions
        end += len(ends)


def _last_of_session(session: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return whether each impression of a shard is the last one of its session, bool."""
    is_last = np.ones(len(session), bool)
    np.not_equal(session[1:], session[:-1], out=is_last[:-1])
    ends = offsets[1:]
    is_last[ends[ends > 0] - 1] = True
    return is_last


def _sessions(directory: Path, manifest: Manifest) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sessions of the impressions and the offsets of the members, shard by shard."""
    for shard in manifest.shards:
        batch = open_batch(directory / shard.file)
        yield _session(batch), _offsets(batch)


def _session(batch: pa.RecordBatch) -> np.ndarray:
    session: np.ndarray = batch["session"].values.to_numpy()
    return session


def _offsets(batch: pa.RecordBatch) -> np.ndarray:
    offsets: np.ndarray = batch["timestamp_ms"].offsets.to_numpy()
    return offsets


def _sizes(manifest: Manifest) -> tuple[int, int]:
    """Return the numbers of members and of impressions."""
    shards = manifest.shards
    return sum(s.members for s in shards), sum(s.impressions for s in shards)
