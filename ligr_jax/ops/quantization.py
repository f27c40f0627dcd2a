"""Row-wise middle-max quantization of embedding tables (LiRank 3.13), to 8 or 4 bits.

    n = 2^bits - 1          scale  = (max - min) / n
    h = 2^(bits - 1)        middle = (max h + min (h - 1)) / n = min + h scale
    q = round((x - middle) / scale)  in  -h .. h - 1        x is read back as middle + q scale

The paper prints h in place of n, which would leave half of the codes unused. With n, the smallest
and the largest value of a row get the outermost codes, and the rounding error is at most scale / 2.
The grid is that of min-max quantization; codes are signed, and values near the middle, which are
the most frequent, are sums of small terms.

Scale and middle are float32: float16 ends at 65504, and if a row's offset is large compared with
its spread, a float16 middle would be wrong by many steps. All functions accept NumPy and JAX arrays
and can be jitted.
"""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a NumPy or a JAX array
BITS = (8, 4)
# Smaller steps are treated as zero: some devices flush them, or half of them, to zero.
_SMALLEST = np.float32(2.0**-124)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("codes", "scale", "middle"),
    meta_fields=("width", "bits"),
)
@dataclass(frozen=True)
class QuantizedTable:
    """A quantized table of V rows and E columns; a pytree of three arrays.

    codes: int8 [V, E]; at 4 bits uint8 [V, ceil(E / 2)] with the even columns in the low halves.
    scale, middle: float32 [V]; a value is read back as middle + code x scale.
    width: E.
    bits: 8 or 4.
    """

    codes: Array
    scale: Array
    middle: Array
    width: int
    bits: int


def quantize(table: Array, bits: int) -> QuantizedTable:
    """Quantize a table row by row.

    Args:
        table: float [V, E].
        bits: 8 or 4.

    Raises:
        ValueError: `bits` is neither 8 nor 4, or a row is not finite. Under jit, a row that is not
            finite is read back as NaN.
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
    """Quantize some columns of a table, given the range of whole rows.

    Args:
        x: float32 [V, E], the columns.
        low, high: float32 [V], the smallest and largest value of each row over all columns.
        bits: 8 or 4.
    """
    scale, middle = row_grid(low, high, bits)
    codes = encode(x, low, scale, bits)
    return QuantizedTable(pack(codes) if bits == 4 else codes, scale, middle, x.shape[1], bits)


def dequantize(quantized: QuantizedTable) -> Array:
    """Return the values of a quantized table, float32 [V, E]."""
    xp, codes = _numpy_of(quantized.codes), quantized.codes
    if quantized.bits == 4:
        codes = unpack(codes, quantized.width)
    return quantized.middle[:, None] + codes.astype(xp.float32) * quantized.scale[:, None]


def lookup_rows(quantized: QuantizedTable, ids: Array) -> Array:
    """Return selected rows of a table, without dequantizing others.

    Args:
        quantized: a table of V rows and E columns.
        ids: int [...] in 0..V-1.

    Returns:
        float32 [..., E].
    """
    rows = ids.reshape(-1)
    selected = QuantizedTable(
        codes=quantized.codes[rows],
        scale=quantized.scale[rows],
        middle=quantized.middle[rows],
        width=quantized.width,
        bits=quantized.bits,
    )
    return dequantize(selected).reshape(*ids.shape, quantized.width)


def row_grid(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
    """Return scale and middle of each row, float32 [V]; the scale of a constant row is 0.

    Args:
        low, high: float32 [V], the smallest and largest value of each row.
        bits: 8 or 4.
    """
    xp = _numpy_of(low)
    scale = (_half(high) - _half(low)) / _half(2**bits - 1)
    scale = xp.where(scale < _SMALLEST, np.float32(0), scale)
    return scale, low + np.float32(2 ** (bits - 1)) * scale


def encode(x: Array, low: Array, scale: Array, bits: int) -> Array:
    """Return the codes of x [V, E], int8 in -h..h-1; 0 in constant rows.

    Steps are counted from `low`, which is exact, not from the middle, which is rounded. So the
    outermost values get the outermost codes even if a row is far from zero.

    Args:
        x: float32 [V, E].
        low, scale: float32 [V].
        bits: 8 or 4; h = 2^(bits - 1).
    """
    xp = _numpy_of(x)
    h = 2 ** (bits - 1)
    varies = (scale > 0)[:, None]
    step = xp.where(varies, scale[:, None], np.float32(1))
    codes = xp.rint((_half(x) - _half(low)[:, None]) / _half(step)) - np.float32(h)
    return xp.where(varies, xp.clip(codes, -h, h - 1), np.float32(0)).astype(xp.int8)


def pack(codes: Array) -> Array:
    """Pack two 4-bit codes into a byte: int8 [V, E] -> uint8 [V, ceil(E / 2)]."""
    xp = _numpy_of(codes)
    halves = xp.pad(codes, ((0, 0), (0, codes.shape[1] % 2))).astype(xp.uint8) & np.uint8(15)
    return halves[:, ::2] | (halves[:, 1::2] << np.uint8(4))


def unpack(packed: Array, width: int) -> Array:
    """Invert `pack`: uint8 [V, ceil(E / 2)] -> int8 [V, E], with E = width."""
    xp = _numpy_of(packed)
    halves = xp.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    codes = halves.reshape(len(packed), -1)[:, :width].astype(xp.int8)
    return (codes ^ np.int8(8)) - np.int8(8)  # sign extension


def require_finite(low: Array, high: Array, first: int = 0) -> None:
    """Check that the range of every row is finite.

    A NaN anywhere in a row makes its smallest and its largest value NaN.

    Args:
        low, high: [V], the smallest and largest value of each row.
        first: number of the first row, for the message.

    Raises:
        ValueError: names the first row that is not finite.
    """
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"row {first + row} holds values from {low[row]} to {high[row]}; rows must be finite: "
            "take an earlier checkpoint, or train with a lower table rate"
        )


def _half(x: Any) -> Any:
    """Halve x, which is exact: differences of halves do not overflow."""
    return np.float32(0.5) * x


def _numpy_of(x: Array) -> ModuleType:
    return np if isinstance(x, np.ndarray) else jnp
