"""Digests of the arrays of a training state, the same on every mesh."""

from typing import Any

import jax
import numpy as np

from ligr_jax.parallel.processes import all_gather

_BLOCK = 2**16  # elements whose digest is found at a time


def digests_of(state: Any) -> dict[str, list[Any]]:
    """Per leaf: digest, dtype, shape. The digest is the same on every mesh, however tables pad."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    here = [sum(_parts(leaf)) % 2**32 for _, leaf in leaves]
    (every,) = all_gather([np.array([here], np.uint64)])  # [processes, leaves]
    return {
        jax.tree_util.keystr(path): [int(digest) % 2**32, str(leaf.dtype), list(leaf.shape)]
        for (path, leaf), digest in zip(leaves, every.sum(axis=0))
    }


def _parts(leaf: jax.Array) -> list[int]:
    """Digests of what this process holds of a leaf. On the host: on a CPU a program for each leaf
    costs more to compile than to run, and many with collectives starve each other of threads."""
    held = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [
        digest_of(np.asarray(shard.data), tuple(s.start or 0 for s in shard.index))
        for shard in held
    ]


def digest_of(x: np.ndarray, first: tuple[int, ...]) -> int:
    """Sum mod 2^32 of all elements' bits, each times an odd number that its place gives.

    So any one change shows, zeros add nothing, and parts of an array add up to the whole.

    first: where `x` begins in its array.
    """
    if x.ndim == 0:
        x, first = x[None], (0,)
    bits = np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")
    rows = max(1, _BLOCK // max(1, bits[:1].size))
    total = 0
    for begin in range(0, len(bits), rows):
        block = bits[begin : begin + rows]
        place = np.zeros((), np.uint32)
        for axis, start in enumerate((first[0] + begin, *first[1:])):
            at = np.arange(start, start + block.shape[axis], dtype=np.uint32)
            place = (place[..., None] ^ at) * np.uint32(0x9E3779B1)
            place ^= place >> np.uint32(15)
        total += int((block.astype(np.uint32) * (place | np.uint32(1))).sum(dtype=np.uint32))
    return total % 2**32


def differences(saved: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Leaves of one tree whose digests differ."""
    return [f"{k} differs from what was saved" for k in found if saved[k][0] != found[k][0]]
