"""The devices that share the rows of a batch."""

import math

import jax
import numpy as np
from jax.sharding import Mesh

from ligr_jax.tables.layout import AXES


def data_mesh(rows: int) -> Mesh:
    """As many of this process's devices as share out `rows` equally, along `data`."""
    devices = jax.local_devices()
    count = math.gcd(rows, len(devices))
    return Mesh(np.array(devices[:count]).reshape(count, 1), AXES)
