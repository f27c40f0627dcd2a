"""Peak FLOP/s, memory and bandwidth of devices, from data sheets or measured."""

import difflib
import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from ligr_jax.data.schema import BadInput
from ligr_jax.host_limits import host_memory


class Device(NamedTuple):
    """Specification of a device.

    Attributes:
        kind: part of JAX's `device_kind`.
        flops: dense bfloat16 FLOP/s.
        memory: bytes.
        bandwidth: memory bandwidth in bytes/s.
    """

    kind: str
    flops: float
    memory: float
    bandwidth: float


# From the vendors' data sheets (SXM modules; TPUs per chip). A kind that is a substring of another
# comes after it: JAX calls v5p "TPU v5".
DEVICES = {
    "a100": Device("A100", 312e12, 80e9, 2.04e12),
    "h100": Device("H100", 989e12, 80e9, 3.35e12),
    "h200": Device("H200", 989e12, 141e9, 4.8e12),
    "b200": Device("B200", 2250e12, 180e9, 7.7e12),
    "tpu-v4": Device("TPU v4", 275e12, 32e9, 1.2e12),
    "tpu-v5e": Device("TPU v5 lite", 197e12, 16e9, 0.8e12),
    "tpu-v5p": Device("TPU v5", 459e12, 95e9, 2.76e12),
    "tpu-v6e": Device("TPU v6 lite", 918e12, 32e9, 1.6e12),
}


def find_device(name: str) -> Device:
    """Return the specification of a device.

    Args:
        name: For example `h200` or `tpu-v5e`. `cpu` measures this machine.

    Raises:
        BadInput: The name is unknown. The message has the nearest names.
    """
    check_device_name(name)
    return _this_machine() if name == "cpu" else DEVICES[name]


def check_device_name(name: str) -> None:
    """Check that `find_device` knows a name.

    Raises:
        BadInput: The name is unknown. The message has the nearest names.
    """
    names = [*DEVICES, "cpu"]
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, 3, 0.4)
        raise BadInput(f"no device '{name}'; nearest: {', '.join(near or names)}")


def device_name(kind: str) -> str | None:
    """Return the name for JAX's `device_kind`, e.g. h200 for `NVIDIA H200`; None if unknown."""
    if kind == "cpu":
        return kind
    return next((name for name, device in DEVICES.items() if device.kind in kind), None)


@functools.cache
def peak_flops(dtype: str) -> float:
    """Return the peak FLOP/s of one device.

    Args:
        dtype: Type of a measured matrix product, if the device has no data sheet in `DEVICES`.
    """
    import jax

    name = device_name(jax.local_devices()[0].device_kind)
    if name in DEVICES:
        return DEVICES[name].flops
    # Simulated devices share the cores, and the measured product uses all cores.
    return _product_rate(dtype) / len(jax.local_devices())


def device_memory() -> float:
    """Return the bytes of one device of this process that JAX may use; infinity if unknown."""
    import jax

    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return float(limit)
    # Simulated devices share the memory of the CPU.
    return host_memory() / jax.local_device_count() if jax.default_backend() == "cpu" else math.inf


def _product_rate(dtype: str) -> float:
    """Return the FLOP/s of a matrix product, the best of five."""
    import jax  # not at the top: the table above is used without JAX
    import jax.numpy as jnp

    n = 1024
    x = jax.device_put(jnp.ones((n, n), dtype), jax.local_devices()[0])
    product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    return 2 * n**3 / _best_of_five(lambda: product(x).block_until_ready())


def _this_machine() -> Device:
    """Return the measured specification of this machine."""
    import numpy as np

    source = np.ones(2**23)
    target = np.empty_like(source)
    seconds = _best_of_five(lambda: np.copyto(target, source))
    return Device("cpu", _product_rate("float32"), host_memory(), 2 * source.nbytes / seconds)


def _best_of_five(run: Callable[[], object]) -> float:
    """Return the shortest seconds of five calls."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
