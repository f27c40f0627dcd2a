"""Digests of the arrays of a training state, the same on every mesh."""

from typing import Any

import jax
import numpy as np

from ligr_jax.parallel.processes import all_gather

_BLOCK = 2**16  # elements per block of the computation


def digests_of(state: Any) -> dict[str, list[Any]]:
    """Return digest, dtype and shape of each leaf. Digests do not depend on mesh and padding."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    here = [sum(_parts(leaf)) % 2**32 for _, leaf in leaves]
    (every,) = all_gather([np.array([here], np.uint64)])  # [processes, leaves]
    return {
        jax.tree_util.keystr(path): [int(digest) % 2**32, str(leaf.dtype), list(leaf.shape)]
        for (path, leaf), digest in zip(leaves, every.sum(axis=0))
    }


def _parts(leaf: jax.Array) -> list[int]:
    """Return the digests of this process's shards of a leaf, computed on the host.

    On a CPU, a program for each leaf would cost more to compile than to run, and many programs with
    collectives would take each other's threads.
    """
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [
        digest_of(np.asarray(shard.data), tuple(s.start or 0 for s in shard.index))
        for shard in shards
    ]


def digest_of(x: np.ndarray, first: tuple[int, ...]) -> int:
    """Return the sum mod 2^32 of the bits of all elements, weighted by their positions.

    Each weight is odd, so any single change is detected. Zeros add nothing, and the digests of the
    parts of an array add up to the digest of the array.

    Args:
        x: a part of an array.
        first: position of its first element in the array.
    """
    if x.ndim == 0:
        x, first = x[None], (0,)
    bits = np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")
    rows = max(1, _BLOCK // max(1, bits[:1].size))
    total = 0
    for begin in range(0, len(bits), rows):
        block = bits[begin : begin + rows]
        weight = np.zeros((), np.uint32)
        for axis, start in enumerate((first[0] + begin, *first[1:])):
            index = np.arange(start, start + block.shape[axis], dtype=np.uint32)
            weight = (weight[..., None] ^ index) * np.uint32(0x9E3779B1)
            weight ^= weight >> np.uint32(15)
        total += int((block.astype(np.uint32) * (weight | np.uint32(1))).sum(dtype=np.uint32))
    return total % 2**32


def differences(saved: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Return a message for each leaf whose digest differs."""
    return [f"{k} differs from what was saved" for k in found if saved[k][0] != found[k][0]]
