"""The peak rate of a device, to express speed as a share of it (MFU)."""

import functools
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s by the makers' data sheets.
_PEAKS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


@functools.cache
def peak_flops(dtype: str) -> float:
    """FLOP/s of one device: from data sheets, or measured by a matrix product."""
    device = jax.local_devices()[0]
    for name, peak in _PEAKS.items():
        if name in device.device_kind:
            return peak
    n = 1024
    x = jax.device_put(jnp.ones((n, n), dtype), device)
    product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        product(x).block_until_ready()
        best = min(best, time.perf_counter() - began)
    # One device of several simulated ones shares the cores; the product used all of them.
    return 2 * n**3 / best / len(jax.local_devices())
