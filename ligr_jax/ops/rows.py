"""Rows of a batch on several devices."""

import math
from functools import partial

import jax
from jax.sharding import AxisType, PartitionSpec

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


def top_k_rows(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return `jax.lax.top_k` of scores [..., E], where each device sorts its own rows.

    XLA (of JAX 0.10, on CPUs) gathers all rows for a `top_k` outside of `jax.shard_map`.
    """
    top_k = partial(jax.lax.top_k, k=k)
    scores_NE = scores.reshape(-1, scores.shape[-1])
    axes = row_axes(scores_NE.shape[0])
    if axes:
        by_rows = PartitionSpec(axes)
        top_k = jax.shard_map(top_k, in_specs=by_rows, out_specs=by_rows, check_vma=False)
    values, indices = (x_Nk.reshape(*scores.shape[:-1], k) for x_Nk in top_k(scores_NE))
    return values, indices
