"""From ids to the table rows that a feature looks up, for arrays of any shape."""

import numpy as np

from ligr_jax.config import Feature
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import BadInput
from ligr_jax.ops.hashing import hash_rows, qr_rows


def table_rows(ids: np.ndarray, name: str, feature: Feature) -> np.ndarray:
    """int32 rows, like `ids` [...]; of `qr` [..., 2]. A missing id is row 0, of `qr` [0, -1].

    Raises:
        BadInput: an id that a direct lookup has no row for.
    """
    missing = ids == MISSING
    if feature.lookup == "qr":
        nothing = np.array([0, -1], np.int32)
        return np.where(missing[..., None], nothing, qr_rows(ids, feature.rows))
    if feature.lookup == "hash":
        rows = hash_rows(ids, feature.rows)
    else:
        wrong = ~missing & ((ids < 0) | (ids >= feature.rows - 1))
        if wrong.any():
            raise BadInput(
                f"column {name}: id {ids[wrong][0]} is outside 0..{feature.rows - 2} of a direct "
                f"lookup; raise model.features.{name}.rows or set its lookup=hash"
            )
        rows = ids + 1
    return np.where(missing, 0, rows).astype(np.int32)


def bag_rows(ids: np.ndarray, name: str, feature: Feature) -> np.ndarray:
    """int32 rows of bags, like `ids` [..., L]; of `qr` [..., 2 L]. A missing id is -1, not row 0.

    Raises:
        BadInput: as `table_rows`.
    """
    of_id = 2 if feature.lookup == "qr" else 1
    rows = table_rows(ids, name, feature).reshape(*ids.shape, of_id)
    rows = np.where((ids == MISSING)[..., None], np.int32(-1), rows)
    return rows.reshape(*ids.shape[:-1], ids.shape[-1] * of_id)
