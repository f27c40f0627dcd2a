"""Row-wise middle-max quantization of embedding tables (LiRank 3.13), to 8 or 4 bits.

    n = 2^bits - 1          scale  = (max - min) / n
    h = 2^(bits - 1)        middle = (max h + min (h - 1)) / n = min + h scale
    q = round((x - middle) / scale)  in  -h .. h - 1        x is read back as middle + q scale

The paper prints h where n stands, which would leave half of the codes unused. With n the smallest
and the largest value of a row get the outermost codes, and nothing is read back further than
scale / 2 from what it was. The points of the grid are those of min-max quantization; codes are
signed, and values near the middle, where most are, are sums of small terms.

Scale and middle are float32. float16 ends at 65504, and the middle of a row whose offset is large
against its spread would be off by many steps. All functions take NumPy and JAX arrays and can be
jitted.
"""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # of NumPy or JAX
BITS = (8, 4)
# A smaller step counts as none: some devices flush it, or half of it, to zero.
_SMALLEST = np.float32(2.0**-124)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("codes", "scale", "middle"),
    meta_fields=("width", "bits"),
)
@dataclass(frozen=True)
class QuantizedTable:
    """A table of V rows and E columns in codes; a pytree of three arrays.

    codes: int8 [V, E]; at 4 bits uint8 [V, ceil(E / 2)], even columns in the low halves.
    scale, middle: float32 [V].
    width: E.
    """

    codes: Array
    scale: Array
    middle: Array
    width: int
    bits: int


def quantize(table: Array, bits: int) -> QuantizedTable:
    """Codes of a table [V, E].

    Raises:
        ValueError: another number of bits than 8 or 4, or a row that is not finite. Under jit, that
            row reads back as NaN.
    """
    if bits not in BITS:
        raise ValueError(f"bits={bits}: quantization is to 8 or 4 bits; give one of these")
    xp = _numpy_of(table)
    x = table.astype(xp.float32)
    low, high = x.min(axis=1), x.max(axis=1)
    if not isinstance(table, jax.core.Tracer):
        require_finite(low, high)
    return quantize_between(x, low, high, bits)


def quantize_between(x: Array, low: Array, high: Array, bits: int) -> QuantizedTable:
    """Codes of columns x [V, E] of rows that reach from `low` to `high` [V] over all columns."""
    scale, middle = row_grid(low, high, bits)
    codes = encode(x, low, scale, bits)
    return QuantizedTable(pack(codes) if bits == 4 else codes, scale, middle, x.shape[1], bits)


def dequantize(quantized: QuantizedTable) -> Array:
    """float32 [V, E]."""
    xp, codes = _numpy_of(quantized.codes), quantized.codes
    if quantized.bits == 4:
        codes = unpack(codes, quantized.width)
    return quantized.middle[:, None] + codes.astype(xp.float32) * quantized.scale[:, None]


def lookup_rows(quantized: QuantizedTable, ids: Array) -> Array:
    """Rows of the table, reading no others: ids int [...] in 0..V-1 -> float32 [..., E]."""
    at = ids.reshape(-1)
    q = quantized
    rows = QuantizedTable(q.codes[at], q.scale[at], q.middle[at], q.width, q.bits)
    return dequantize(rows).reshape(*ids.shape, q.width)


def row_grid(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
    """scale and middle, float32 [V], of rows from `low` to `high` [V]; scale 0 where all is one."""
    xp = _numpy_of(low)
    scale = (_half(high) - _half(low)) / _half(2**bits - 1)
    scale = xp.where(scale < _SMALLEST, np.float32(0), scale)
    return scale, low + np.float32(2 ** (bits - 1)) * scale


def encode(x: Array, low: Array, scale: Array, bits: int) -> Array:
    """int8 codes of x [V, E] in -h..h-1; 0 where the scale is.

    Counted from `low`, which is exact, and not from the middle, which is rounded: the outermost
    values get the outermost codes however far a row lies from zero.
    """
    xp, h = _numpy_of(x), 2 ** (bits - 1)
    known = (scale > 0)[:, None]
    step = xp.where(known, scale[:, None], np.float32(1))
    codes = xp.rint((_half(x) - _half(low)[:, None]) / _half(step)) - np.float32(h)
    return xp.where(known, xp.clip(codes, -h, h - 1), np.float32(0)).astype(xp.int8)


def pack(codes: Array) -> Array:
    """Two 4-bit codes a byte: int8 [V, E] -> uint8 [V, ceil(E / 2)]."""
    xp = _numpy_of(codes)
    halves = xp.pad(codes, ((0, 0), (0, codes.shape[1] % 2))).astype(xp.uint8) & np.uint8(15)
    return halves[:, ::2] | (halves[:, 1::2] << np.uint8(4))


def unpack(packed: Array, width: int) -> Array:
    """The inverse of `pack`: uint8 [V, ceil(E / 2)] -> int8 [V, E], E = width."""
    xp = _numpy_of(packed)
    halves = xp.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    codes = halves.reshape(len(packed), -1)[:, :width].astype(xp.int8)
    return (codes ^ np.int8(8)) - np.int8(8)  # carries the sign


def require_finite(low: Array, high: Array, first: int = 0) -> None:
    """Raises ValueError where the range of a row is not finite; `first`: number of the first row.

    A NaN anywhere in a row is its smallest and its largest value.
    """
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"row {first + row} holds values from {low[row]} to {high[row]}; rows must be finite: "
            "take an earlier checkpoint, or train with a lower table rate"
        )


def _half(x: Any) -> Any:
    # Differences of halves do not overflow; halving itself is exact.
    return np.float32(0.5) * x


def _numpy_of(x: Array) -> ModuleType:
    return np if isinstance(x, np.ndarray) else jnp
