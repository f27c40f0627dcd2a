"""Where a planned run fits: memory of each device, and what to switch on so that it does."""

import dataclasses
import itertools
from dataclasses import dataclass

from ligr_jax.config import Config
from ligr_jax.parallel.peak import Device
from ligr_jax.scaling.memory import activation_bytes, dense_parameters, state_bytes, table_bytes

_USABLE = 0.9  # of a device's memory; compilers and the allocator keep the rest


@dataclass(frozen=True)
class Place:
    """Bytes of one device by what holds them, and the configuration that makes them fit."""

    config: Config
    bytes: dict[str, int]
    memory: float

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    @property
    def fits(self) -> bool:
        return self.total <= _USABLE * self.memory


def place(config: Config, device: Device, devices: int) -> Place:
    """The least that fits: recomputation first, then tables split over devices, dense weights
    split, micro-batches. Where nothing does, the smallest there is, with `fits` false.
    """
    on_cpu = device.kind == "cpu"
    splits = [k for k in range(1, devices + 1) if devices % k == 0]
    rows = config.optim.batch
    parts = [k for k in range(1, rows + 1) if rows % (k * devices) == 0] or [1]
    tried = []
    for accumulate, fsdp, ways, remat in itertools.product(
        parts, (False, True), splits, (config.model.remat, True)
    ):
        if fsdp and ways == devices:
            continue  # no devices left along `data`
        changed = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=remat),
            optim=dataclasses.replace(config.optim, accumulate=accumulate),
            mesh=dataclasses.replace(config.mesh, data=devices // ways, model=ways, fsdp=fsdp),
        )
        tried.append(Place(changed, device_bytes(changed, on_cpu), device.memory))
        if tried[-1].fits:
            return tried[-1]
    return min(tried, key=lambda p: p.total)


def device_bytes(config: Config, on_cpu: bool = False) -> dict[str, int]:
    """Bytes of one device of the mesh that `config.mesh` describes."""
    mesh, tables = config.mesh, table_bytes(config)
    devices = max(1, mesh.data) * mesh.model
    dense = state_bytes(config) - tables
    gradients = 4 * dense_parameters(config.model)
    gathered = gradients if mesh.fsdp else 0  # weights of a step, whole
    rows = max(1, config.optim.batch // config.optim.accumulate // devices)
    return {
        "dense weights and Adam": dense // (max(1, mesh.data) if mesh.fsdp else 1) + gathered,
        "tables and their optimizer": tables // mesh.model,
        "gradients": gradients,
        "activations": activation_bytes(config, rows, on_cpu),
    }
