"""The device mesh of semantic-id training."""

import math

import jax
import numpy as np
from jax.sharding import Mesh

from ligr_jax.tables.layout import AXES


def data_mesh(rows: int) -> Mesh:
    """Return a mesh of the largest number of local devices that divides `rows`, along `data`."""
    devices = jax.local_devices()
    count = math.gcd(rows, len(devices))
    return Mesh(np.array(devices[:count]).reshape(count, 1), AXES)
