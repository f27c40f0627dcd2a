"""Checks of a batch that was made by hand.

Invalid values would not raise an error in a model: JAX clips row numbers that are out of range, and
sessions in falling order give a wrong attention mask.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.schema import BadInput

if TYPE_CHECKING:
    from ligr_jax.data.batch import Batch

_KINDS = {"i": "integers", "f": "floats"}  # by kind of a NumPy dtype


def check_batch(batch: "Batch", model: ModelConfig) -> None:
    """Check the arrays of a batch against a model; see `Batch.validate`."""
    member = _checked_array(batch.member, "member", "i", None)
    shape = member.shape
    _check_members(member)
    valid = member > 0
    continues = np.zeros(shape, bool)  # whether the previous position has the same member
    continues[:, 1:] = valid[:, 1:] & (member[:, 1:] == member[:, :-1])
    _check_sessions(_checked_array(batch.session, "session", "i", shape), valid, continues)
    _check_times(_checked_array(batch.time, "time", "f", shape), continues)
    for name, feature in model.features.items():
        _check_feature(batch, name, feature, shape)
    labels = _checked_array(batch.labels, "labels", "i", (*shape, len(model.actions)))
    _refuse(labels, (labels < -1) | (labels > 1), "labels", "labels are 1, 0, or -1 if unknown")
    weight = _checked_array(batch.weight, "weight", "f", shape)
    _refuse(weight, ~(np.isfinite(weight) & (weight >= 0)), "weight", "weights are finite and >= 0")
    _refuse(weight, (weight != 0) & ~valid, "weight", "set the weight of padding (member=0) to 0")


def _check_members(member: np.ndarray) -> None:
    """Members are 1, 2, ... in a row, followed by padding."""
    step = np.diff(member, axis=1, prepend=0)
    padding = member == 0
    after_padding = np.zeros(member.shape, bool)
    after_padding[:, 1:] = padding[:, :-1]
    _refuse(
        member,
        (member < 0) | (~padding & ((step < 0) | (step > 1) | after_padding)),
        "member",
        "number the members of a row 1, 2, ... in order, and set padding at its end to 0",
    )


def _check_sessions(session: np.ndarray, valid: np.ndarray, continues: np.ndarray) -> None:
    """Sessions are counted from 0 for each member and do not fall."""
    step = np.diff(session, axis=1, prepend=0)
    _refuse(
        session,
        continues & (step < 0),
        "session",
        "the previous impression of the member has a later session, which gives a wrong attention "
        "mask; sort the impressions of a member by time",
    )
    _refuse(
        session,
        (valid & ~continues & (session != 0)) | (continues & (step > 1)),
        "session",
        "count the sessions of each member in a row 0, 1, 2, ... without gaps",
    )


def _check_times(time: np.ndarray, continues: np.ndarray) -> None:
    """Times are finite and do not fall within a member."""
    _refuse(time, ~np.isfinite(time), "time", "times are hours; set padding to 0")
    step = np.diff(time, axis=1, prepend=0)
    _refuse(
        time,
        continues & (step < 0),
        "time",
        "the previous impression of the member is later; sort the impressions of a member by time",
    )


def _check_feature(batch: "Batch", name: str, feature: Feature, shape: tuple[int, ...]) -> None:
    """The values of a feature have its kind and are in its range."""
    field = {"numeric": "numeric", "vector": "vectors"}.get(feature.kind, "ids")
    values = getattr(batch, field).get(name)
    label = f"{field}[{name!r}]"
    if values is None:
        raise BadInput(
            f"batch.{field} has no {name!r}, a feature of the model; it has "
            f"{sorted(getattr(batch, field))}: add the array, or make the batch by batch_from_frame"
        )
    if field == "numeric":
        x = _checked_array(values, label, "f", shape)
        remedy = "normalize the column to [-1, 1], as batch_from_frame does; NaN means missing"
        _refuse(x, ~np.isnan(x) & ~(np.abs(x) <= 1), label, remedy)
    elif field == "vectors":
        x = _checked_array(values, label, "f", (*shape, feature.width))
        _refuse(x, ~np.isfinite(x), label, "vectors are finite; set a missing vector to zeros")
    else:
        combined = bool(feature.combine)
        rows = _checked_array(values, label, "i", (*shape, feature.ids_each) if combined else shape)
        least = -1 if combined else 0
        _refuse(
            rows,
            (rows < least) | (rows >= feature.rows),
            label,
            f"the table has rows {least}..{feature.rows - 1}"
            f"{', where -1 is no row' if combined else ''}; map ids to rows by batch_from_frame, "
            f"or train with a larger model.features.{name}.rows",
        )


def _checked_array(values: Any, field: str, kind: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return an array of the expected kind and shape; [B, N] if `shape` is None."""
    array = np.asarray(values)
    if array.dtype.kind != kind and not (kind == "i" and array.dtype.kind == "u"):
        raise BadInput(f"batch.{field} has dtype {array.dtype}; convert it to {_KINDS[kind]}")
    if shape is None and array.ndim != 2:
        raise BadInput(f"batch.{field} has shape {list(array.shape)}; give it two axes [B, N]")
    if shape is not None and array.shape != shape:
        raise BadInput(f"batch.{field} has shape {list(array.shape)}; expected {list(shape)}")
    # Unsigned integers would wrap around in differences.
    return array.astype(np.int64) if array.dtype.kind == "u" else array


def _refuse(array: np.ndarray, invalid: np.ndarray, field: str, remedy: str) -> None:
    """Raise `BadInput` for the first invalid value."""
    if invalid.any():
        position = tuple(int(i) for i in np.unravel_index(invalid.argmax(), invalid.shape))
        raise BadInput(f"batch.{field}{list(position)} is {array[position]}: {remedy}")
