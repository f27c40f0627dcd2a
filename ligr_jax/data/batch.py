"""`Batch`: what the pipeline gives and every model takes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Array = Any  # NumPy on the host, JAX on a device


class Batch(NamedTuple):
    """B rows of N impressions; a row packs slices of one or several members, oldest first.

    A named tuple is a pytree, so a batch goes through `jax.jit` as it is. By hand, from NumPy:

        Batch(member=..., session=..., time=..., ids={"item_id": ...}, numeric={}, vectors={},
              labels=..., weight=...)

    member: int32 [B, N], 1, 2, ... for the members of a row in order, 0 in padding (at the end).
    session: int32 [B, N], counted from 0 at the member's oldest session in the row; contiguous.
    time: float32 [B, N], hours since the member's oldest timed impression in the row.
    ids: table rows per feature: int32 [B, N], where row 0 is "missing", or [B, N, L] of those that
        are summed or averaged, -1 for none: of a bag all of them where it is empty or padding; of
        `lookup=qr` two per id, [0, -1] where a single id is missing.
    numeric: float32 [B, N] per feature, normalized to [-1, 1]; NaN is "missing".
    vectors: float32 [B, N, W] per feature; zeros are "missing".
    labels: int8 [B, N, A], 1 or 0, and -1 where nobody recorded the action.
    weight: float32 [B, N], weight in the loss; 0 in context and in padding.
    """

    member: Array
    session: Array
    time: Array
    ids: Mapping[str, Array]
    numeric: Mapping[str, Array]
    vectors: Mapping[str, Array]
    labels: Array
    weight: Array
