"""The mesh of a run, and where its arrays live on it.

Every device takes an equal part of each batch. Dense weights are on all of them, or split over
`data`; tables lie as their layout says, split over `model` and alike along `data`.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.distinct import Distinct
from ligr_jax.tables.layout import AXES, PARTS, Layout


def make_mesh(config: Config) -> Mesh:
    """The axes `data` x `model` as `config.mesh` asks; `mesh.data=0` takes what devices are left,
    as many as share out the batch.

    Raises:
        ConfigError: more devices than there are, or a batch that they cannot share equally.
    """
    asked, devices = config.mesh, jax.devices()
    rows = config.optim.batch // config.optim.accumulate
    each = f"a micro-batch of {rows} rows (optim.batch / optim.accumulate)"
    if max(asked.data, 1) * asked.model > len(devices):
        raise ConfigError(
            f"mesh.data={asked.data} x mesh.model={asked.model} asks for more devices than the "
            f"{len(devices)} there are; lower one, or on a CPU simulate more with "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    if rows % (max(asked.data, 1) * asked.model):
        raise ConfigError(
            f"{each} cannot be shared equally by mesh.data={max(asked.data, 1)} x "
            f"mesh.model={asked.model} devices; change optim.batch"
        )
    data = asked.data or math.gcd(rows // asked.model, len(devices) // asked.model)
    if jax.process_count() > 1 and data * asked.model != len(devices):
        raise ConfigError(
            f"the mesh of {data} x {asked.model} leaves out some of the {len(devices)} devices of "
            f"{jax.process_count()} processes; make {each} a multiple of {len(devices)}"
        )
    grid = np.array(devices[: data * asked.model]).reshape(data, asked.model)
    return Mesh(grid, AXES)


def over_rows(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis, the rows of a batch."""
    return NamedSharding(mesh, PARTS)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def of_lists(mesh: Mesh) -> Distinct:
    """Of a table's lists: a device has its own, and all have those of the whole batch."""
    return Distinct(over_rows(mesh), replicated(mesh), over_rows(mesh))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays on the mesh; of several processes, each gives its own part."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


# The first rule whose pattern a path of the training state matches says where it lives.
_RULES: tuple[tuple[str, Callable[..., P]], ...] = (
    (
        r"(?:params/tables|opt_state/rows)/([^/]+)",
        lambda match, x, layout, _: layout.arrays[match[1]].spec(x.ndim),
    ),
    (r"(?:params|opt_state)/", lambda _, x, layout, fsdp: _split(x, layout.data * fsdp)),
    (r"", lambda *_: P()),
)


def shardings(state: Any, mesh: Mesh, layout: Layout, fsdp: bool = False) -> Any:
    """Where each array of a training state, or of its shapes, lives.

    fsdp: dense weights and their optimizer's state are split over `data`.
    """

    def of(path: Any, x: Any) -> NamedSharding:
        names = "/".join(
            str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", "")))) for p in path
        )
        for pattern, rule in _RULES:
            match = re.match(pattern, names)
            if match:
                return NamedSharding(mesh, rule(match, x, layout, fsdp))
        raise AssertionError("the last rule matches everything")

    return jax.tree_util.tree_map_with_path(of, state)


def _split(x: Any, parts: int) -> P:
    """The longest axis that divides evenly goes over `data`; a vector stays whole."""
    even = [axis for axis in range(x.ndim) if parts > 1 and x.shape[axis] % parts == 0]
    if x.ndim < 2 or not even:
        return P()
    axis = max(even, key=lambda a: x.shape[a])
    return P(*[None] * axis, "data")
