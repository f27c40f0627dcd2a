"""Segments: runs of equal values in sorted or grouped arrays, in NumPy.

`ligr_jax.ops.masks` has the same on the last axis of JAX arrays.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def starts_segment(*columns: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each row differs from the previous row, bool [n]; true for the first row.

    Args:
        *columns: at least one, each [n]. Rows are equal if all columns are; equal infinities are
            equal, NaNs are not.
    """
    first, *others = (np.asarray(column) for column in columns)
    starts = np.ones(len(first), bool)
    starts[1:] = first[1:] != first[:-1]
    for column in others:
        starts[1:] |= column[1:] != column[:-1]
    return starts


def segments(*columns: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row and the length of each segment; see `starts_segment`.

    Args:
        *columns: at least one, each [n].

    Returns:
        First rows, increasing, and lengths, both int64 [segments]; both are empty if n = 0.
    """
    starts = starts_segment(*columns)
    first = np.flatnonzero(starts)
    return first, np.diff(first, append=len(starts))
