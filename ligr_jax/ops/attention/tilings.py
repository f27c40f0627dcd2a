"""Tile sizes of the kernels that were measured on a device, in a file of the package.

`experiments/accelerator.py` measures them and writes the file. A device without an entry gets the
sizes that the kernel chooses by itself. Sizes change the order of sums, and with it results within
rounding; so they are a file under version control, and not a cache of each user.

The file is JSON: device kind -> kernel, mask, dtype and K -> sizes, such as
`{"NVIDIA H100 80GB HBM3": {"gpu history bfloat16 64": [[128, 64, 4, 3], [64, 64, 4, 2]]}}`.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ligr_jax.atomic import write_atomically

FILE = Path(__file__).with_name("tilings.json")


def tiling_name(kernel: str, has_own: bool, dtype: jax.typing.DTypeLike, width: int) -> str:
    """Return the name of a tiling.

    Args:
        kernel: `gpu` or `tpu`.
        has_own: whether the mask has own edges, i.e. is a history mask.
        dtype: of queries, keys and values.
        width: K, before padding.
    """
    mask = "history" if has_own else "in-session"
    return f"{kernel} {mask} {jnp.dtype(dtype).name} {width}"


def stored_tiling(name: str) -> Any:
    """Return the sizes measured on this process's kind of device, or None."""
    return _read(FILE).get(jax.devices()[0].device_kind, {}).get(name)


def store_tilings(device_kind: str, tilings: dict[str, Any], path: Path) -> None:
    """Replace the entries of a device that were measured again, and keep all others.

    Args:
        device_kind: JAX's name of the device.
        tilings: sizes by `tiling_name`.
        path: the file.
    """
    stored = _read(path)
    devices = {**stored, device_kind: {**stored.get(device_kind, {}), **tilings}}
    write_atomically(path, json.dumps(devices, indent=1, sort_keys=True) + "\n")
    _read.cache_clear()


@functools.cache
def _read(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
