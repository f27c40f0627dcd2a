"""Costs of a model before it runs: FLOPs, memory, latency, and the devices that pay for them."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.cost.devices import Device as Device
    from ligr_jax.cost.devices import find_device as find_device
    from ligr_jax.cost.devices import peak_flops as peak_flops
    from ligr_jax.cost.flops import compute_axes as compute_axes
    from ligr_jax.cost.flops import forward_flops as forward_flops
    from ligr_jax.cost.flops import parameter_counts as parameter_counts
    from ligr_jax.cost.flops import train_flops as train_flops
    from ligr_jax.cost.latency import request_latency as request_latency
    from ligr_jax.cost.memory import activation_bytes as activation_bytes
    from ligr_jax.cost.memory import dense_parameters as dense_parameters
    from ligr_jax.cost.memory import state_bytes as state_bytes
    from ligr_jax.cost.memory import table_bytes as table_bytes
    from ligr_jax.cost.traced import traced_activation_bytes as traced_activation_bytes
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Device": "devices",
            "activation_bytes": "memory",
            "compute_axes": "flops",
            "dense_parameters": "memory",
            "find_device": "devices",
            "forward_flops": "flops",
            "parameter_counts": "flops",
            "peak_flops": "devices",
            "request_latency": "latency",
            "state_bytes": "memory",
            "table_bytes": "memory",
            "traced_activation_bytes": "traced",
            "train_flops": "flops",
        },
    )
