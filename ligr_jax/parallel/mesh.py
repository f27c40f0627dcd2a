"""Where a run's arrays live: the batch split over devices, weights on all of them."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(batch: int) -> Mesh:
    """A mesh with the axis `data` over as many devices as divide a global batch of `batch` rows."""
    devices = jax.devices()
    return Mesh(np.array(devices[: math.gcd(batch, len(devices))]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_rows(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis, the rows of a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))
