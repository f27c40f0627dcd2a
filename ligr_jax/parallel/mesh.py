"""The device mesh of a run, and the sharding of its arrays.

The batch is sharded over all devices. Dense weights are replicated, or sharded over `data` (FSDP).
Tables are placed by their layout: sharded over `model`, replicated over `data`.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Config, ConfigError, MeshConfig, OptimConfig
from ligr_jax.data.unique_ids import MappedBatch, UniqueIds
from ligr_jax.tables.layout import AXES, PARTS, Layout


def make_mesh(config: Config) -> Mesh:
    """Return the mesh with the axes `data` x `model` of `config.mesh`.

    With `mesh.data=0` the data axis has the greatest number of devices that divides the batch.

    Args:
        config: Configuration of the run.

    Raises:
        ConfigError: The mesh needs more devices than there are, or does not divide the batch, or
            does not use all devices of several processes.
    """
    devices = jax.devices()
    data, model = mesh_shape(config.mesh, config.optim, len(devices))
    if jax.process_count() > 1 and data * model != len(devices):
        raise ConfigError(
            f"the mesh of {data} x {model} does not use all {len(devices)} devices of "
            f"{jax.process_count()} processes; make {_micro_batch(config.optim)} a multiple of "
            f"{len(devices)}"
        )
    return Mesh(np.array(devices[: data * model]).reshape(data, model), AXES)


def mesh_shape(requested: MeshConfig, optim: OptimConfig, devices: int) -> tuple[int, int]:
    """Return the devices of the axes `data` and `model`; no device is started.

    Args:
        requested: Mesh of the configuration.
        optim: Batch of the configuration.
        devices: Number of available devices.

    Raises:
        ConfigError: The mesh needs more devices than there are, or does not divide the batch.
    """
    rows = optim.batch // optim.accumulate
    least_data = max(requested.data, 1)
    if least_data * requested.model > devices:
        raise ConfigError(
            f"mesh.data={requested.data} x mesh.model={requested.model} needs more than the "
            f"{devices} available devices; lower one of them, or simulate devices on a CPU "
            "with XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    if rows % (least_data * requested.model):
        raise ConfigError(
            f"{_micro_batch(optim)} is not divisible by mesh.data={least_data} x "
            f"mesh.model={requested.model} devices; change optim.batch"
        )
    data = requested.data or math.gcd(rows // requested.model, devices // requested.model)
    return data, requested.model


def _micro_batch(optim: OptimConfig) -> str:
    rows = optim.batch // optim.accumulate
    return f"a micro-batch of {rows} rows (optim.batch / optim.accumulate)"


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of the leading axis, the rows of a batch, over all devices."""
    return NamedSharding(mesh, PARTS)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device has as a whole."""
    return NamedSharding(mesh, P())


def shard_batch(inputs: MappedBatch, mesh: Mesh) -> MappedBatch:
    """Move a batch from the host to the mesh; each process passes its part of the batch.

    Rows of the batch and the unique ids of each part are sharded over all devices. Unique ids of
    the whole batch are replicated.

    Args:
        inputs: The batch and its unique ids, as NumPy arrays.
        mesh: Mesh of the run.
    """
    by_rows = batch_sharding(mesh)
    of_ids = UniqueIds(local=by_rows, unique=replicated(mesh), inverse=by_rows)
    unique_ids = {
        table: UniqueIds(
            *(None if x is None else to_mesh(x, sharding) for x, sharding in zip(ids, of_ids))
        )
        for table, ids in inputs.unique_ids.items()
    }
    return MappedBatch(batch=to_mesh(inputs.batch, by_rows), unique_ids=unique_ids)


def to_mesh(tree: Any, sharding: NamedSharding) -> Any:
    """Move host arrays to the mesh. Each of several processes passes its part of the arrays.

    Args:
        tree: Pytree of NumPy arrays.
        sharding: Sharding of every array.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


# Sharding of the training state: the first rule whose pattern matches the parameter path applies.
_RULES: tuple[tuple[str, Callable[..., P]], ...] = (
    (
        r"(?:params/tables|opt_state/rows)/([^/]+)",
        lambda match, x, layout, _: layout.arrays[match[1]].spec(x.ndim),
    ),
    (r"(?:params|opt_state)/", lambda _, x, layout, fsdp: _split(x, layout.data * fsdp)),
    (r"", lambda *_: P()),
)


def shardings(state: Any, mesh: Mesh, layout: Layout, fsdp: bool = False) -> Any:
    """Return the sharding of each array of a training state.

    Args:
        state: Training state, or its shapes.
        mesh: Mesh of the run.
        layout: Layout of the tables.
        fsdp: Whether dense weights and their optimizer's state are sharded over `data`.

    Returns:
        A pytree like `state`.
    """

    def sharding_of(path: Any, x: Any) -> NamedSharding:
        names = "/".join(
            str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", "")))) for p in path
        )
        for pattern, rule in _RULES:
            match = re.match(pattern, names)
            if match:
                return NamedSharding(mesh, rule(match, x, layout, fsdp))
        raise AssertionError("the last rule matches everything")

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def _split(x: Any, parts: int) -> P:
    """Return the spec that shards the longest divisible axis over `data`; not for vectors."""
    even = [axis for axis in range(x.ndim) if parts > 1 and x.shape[axis] % parts == 0]
    if x.ndim < 2 or not even:
        return P()
    axis = max(even, key=lambda a: x.shape[a])
    return P(*[None] * axis, "data")
