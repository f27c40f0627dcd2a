"""What devices can do: peak rate, memory and its bandwidth, from data sheets or measured."""

import difflib
import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from ligr_jax.data.schema import BadInput


class Device(NamedTuple):
    """One device of a kind.

    kind: part of JAX's `device_kind`. flops: dense bfloat16 FLOP/s. memory: bytes.
    bandwidth: of that memory, bytes/s.
    """

    kind: str
    flops: float
    memory: float
    bandwidth: float


# By the makers' data sheets (SXM modules; TPUs per chip). A kind that is part of another comes
# after it: v5p calls itself "TPU v5".
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
    """The device of a name such as `h200`, `tpu-v5e`, or `cpu`: this machine, measured.

    Raises:
        BadInput: no such device; the nearest names are shown.
    """
    check_name(name)
    return _this_machine() if name == "cpu" else DEVICES[name]


def check_name(name: str) -> None:
    """Raises BadInput with the nearest names where `find_device` would; measures nothing."""
    names = [*DEVICES, "cpu"]
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, 3, 0.4)
        raise BadInput(f"no device '{name}'; nearest: {', '.join(near or names)}")


def name_of(kind: str) -> str | None:
    """The name of a device by what JAX calls it, e.g. `NVIDIA H200`; None for one not listed."""
    if kind == "cpu":
        return kind
    return next((name for name, device in DEVICES.items() if device.kind in kind), None)


@functools.cache
def peak_flops(dtype: str) -> float:
    """FLOP/s of one device: from data sheets, or measured by a matrix product."""
    import jax

    name = name_of(jax.local_devices()[0].device_kind)
    if name in DEVICES:
        return DEVICES[name].flops
    # One device of several simulated ones shares the cores; the product used all of them.
    return _product_rate(dtype) / len(jax.local_devices())


def _product_rate(dtype: str) -> float:
    """FLOP/s of a product of matrices, the best of five."""
    import jax  # here: the table above is read where no accelerator is
    import jax.numpy as jnp

    n = 1024
    x = jax.device_put(jnp.ones((n, n), dtype), jax.local_devices()[0])
    product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    return 2 * n**3 / _best_of_five(lambda: product(x).block_until_ready())


def _this_machine() -> Device:
    import numpy as np

    source = np.ones(2**23)
    target = np.empty_like(source)
    seconds = _best_of_five(lambda: np.copyto(target, source))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Device("cpu", _product_rate("float32"), memory, 2 * source.nbytes / seconds)


def _best_of_five(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
