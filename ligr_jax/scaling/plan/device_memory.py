"""Memory per device of a planned run, and the options that make it fit."""

import dataclasses
import itertools
from dataclasses import dataclass

from ligr_jax.config import Config
from ligr_jax.cost.devices import Device
from ligr_jax.cost.memory import activation_bytes, dense_parameters, state_bytes, table_bytes

_USABLE = 0.9  # share of a device's memory; the compiler and the allocator need the remainder


@dataclass(frozen=True)
class DeviceMemory:
    """Memory use of one device.

    Attributes:
        config: configuration with the options that reduce memory.
        bytes: bytes of one device by purpose.
        memory: memory of the device in bytes.
    """

    config: Config
    bytes: dict[str, int]
    memory: float

    @property
    def total(self) -> int:
        """Bytes of one device."""
        return sum(self.bytes.values())

    @property
    def fits(self) -> bool:
        """Whether the total is at most 90 % of the device's memory."""
        return self.total <= _USABLE * self.memory


def fit_in_memory(config: Config, device: Device, devices: int) -> DeviceMemory:
    """Find the options with the least overhead that fit a run into memory.

    Options are tried in this order: recomputation of activations, sharding of tables, sharding of
    dense weights (FSDP), micro-batches.

    Args:
        config: configuration of the run.
        device: device with its memory.
        devices: number of devices.

    Returns:
        The first configuration that fits; if none does, the one with the smallest total.
    """
    on_cpu = device.kind == "cpu"
    splits = [k for k in range(1, devices + 1) if devices % k == 0]
    rows = config.optim.batch
    parts = [k for k in range(1, rows + 1) if rows % (k * devices) == 0] or [1]
    tried = []
    # `product` varies the last option fastest, so the costliest option comes first.
    for accumulate, fsdp, ways, remat in itertools.product(
        parts, (False, True), splits, (config.model.remat, True)
    ):
        if fsdp and ways == devices:
            continue  # the data axis has one device, so there is nothing to shard weights over
        changed = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=remat),
            optim=dataclasses.replace(config.optim, accumulate=accumulate),
            mesh=dataclasses.replace(config.mesh, data=devices // ways, model=ways, fsdp=fsdp),
        )
        tried.append(
            DeviceMemory(config=changed, bytes=device_bytes(changed, on_cpu), memory=device.memory)
        )
        if tried[-1].fits:
            return tried[-1]
    return min(tried, key=lambda p: p.total)


def device_bytes(config: Config, on_cpu: bool = False) -> dict[str, int]:
    """Return bytes by purpose of one device of the mesh in `config.mesh`."""
    mesh = config.mesh
    tables = table_bytes(config)
    devices = max(1, mesh.data) * mesh.model
    dense = state_bytes(config) - tables
    gradients = 4 * dense_parameters(config.model)
    gathered = gradients if mesh.fsdp else 0  # with FSDP a step gathers the full weights
    rows = max(1, config.optim.batch // config.optim.accumulate // devices)
    return {
        "dense weights and Adam": dense // (max(1, mesh.data) if mesh.fsdp else 1) + gathered,
        "tables and their optimizer": tables // mesh.model,
        "gradients": gradients,
        "activations": activation_bytes(config, rows, on_cpu),
    }
