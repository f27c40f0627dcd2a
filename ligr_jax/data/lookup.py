"""Table rows of ids, by the `lookup` of a feature."""

import numpy as np

from ligr_jax.config import Feature
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import BadInput
from ligr_jax.ops.hashing import hash_rows, qr_rows


def table_rows(ids: np.ndarray, name: str, feature: Feature) -> np.ndarray:
    """Return the table rows of single ids.

    Args:
        ids: int64 array of any shape; `MISSING` stands for a missing id.
        name: name of the feature, for messages.
        feature: configuration of the feature.

    Returns:
        int32 array of the shape of `ids`, where row 0 means "missing". With `lookup=qr`,
        [*ids.shape, 2], where [0, -1] means "missing".

    Raises:
        BadInput: an id has no row in a table with `lookup=direct`.
    """
    missing = ids == MISSING
    if feature.lookup == "qr":
        return np.where(missing[..., None], missing_row(feature), qr_rows(ids, feature.rows))
    if feature.lookup == "hash":
        rows = hash_rows(ids, feature.rows)
    else:
        invalid = ~missing & ((ids < 0) | (ids >= feature.rows - 1))
        if invalid.any():
            raise BadInput(
                f"column {name}: id {ids[invalid][0]} is outside 0..{feature.rows - 2} of a direct "
                f"lookup; raise model.features.{name}.rows or set its lookup=hash"
            )
        rows = (ids + 1).astype(np.int32)
    rows[missing] = 0
    return rows


def missing_row(feature: Feature) -> np.ndarray:
    """Return the table row, or with `lookup=qr` the two rows, of a missing id; int32."""
    return np.array([0, -1] if feature.lookup == "qr" else 0, np.int32)


def bag_rows(ids: np.ndarray, name: str, feature: Feature) -> np.ndarray:
    """Return the table rows of bags of ids.

    Args:
        ids: int64 [..., L], ids of each bag, padded with `MISSING`.
        name: name of the feature, for messages.
        feature: configuration of the feature.

    Returns:
        int32 [..., L], or [..., 2 L] with `lookup=qr`. A missing id has row -1, which is not looked
        up.

    Raises:
        BadInput: an id has no row in a table with `lookup=direct`.
    """
    rows_per_id = 2 if feature.lookup == "qr" else 1
    rows = table_rows(ids, name, feature).reshape(*ids.shape, rows_per_id)
    rows = np.where((ids == MISSING)[..., None], np.int32(-1), rows)
    return rows.reshape(*ids.shape[:-1], ids.shape[-1] * rows_per_id)
