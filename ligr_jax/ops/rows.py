"""Rows of a batch on several devices."""

import math

import jax
from jax.sharding import AxisType

_AXES = ("data", "model")


def row_axes(rows: int) -> tuple[str, ...]:
    """Return the axes of the mesh that split the rows of an array, for `jax.shard_map`.

    Under `jax.set_mesh` with axes `data` or `model`, rows are split over all devices. The result is
    empty if there is no such mesh, if the number of rows is not divisible by the number of devices,
    or inside of `jax.shard_map`, where rows are already those of one device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axis_types = dict(zip(mesh.axis_names, mesh.axis_types))
    axes = tuple(a for a in _AXES if axis_types.get(a) == AxisType.Auto)
    return () if rows % math.prod(mesh.shape[a] for a in axes) else axes
