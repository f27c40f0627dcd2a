"""Laws of middle-max quantization, compared with its grid in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.quantization import (
    QuantizedTable,
    dequantize,
    lookup_rows,
    pack,
    quantize,
    unpack,
)

EPS = 2.0**-23  # of float32
ROWS = {
    "normal": lambda rng: rng.normal(size=(300, 33)),
    "skewed": lambda rng: rng.exponential(size=(300, 32)),
    "far from zero": lambda rng: 1e6 + rng.normal(size=(300, 32)),
    "huge": lambda rng: rng.uniform(-3e38, 3e38, size=(300, 32)),
    "tiny": lambda rng: 1e-32 * rng.normal(size=(300, 32)),
    "subnormal": lambda rng: 1e-39 * rng.normal(size=(300, 32)),
    "two columns": lambda rng: rng.normal(size=(300, 2)),
}


@pytest.mark.parametrize("backend", ["numpy", "jit"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ROWS)
def test_the_rounding_error_is_at_most_half_a_step(kind: str, bits: int, backend: str) -> None:
    x = ROWS[kind](np.random.default_rng(0)).astype(np.float32)
    back = jax.jit(lambda t: dequantize(quantize(t, bits)))
    read = dequantize(quantize(x, bits)) if backend == "numpy" else back(x)
    exact = x.astype(np.float64)
    step = np.ptp(exact, axis=1) / (2**bits - 1)
    # The rounding of x itself; a row whose step is below the range of float32 becomes constant.
    rounding = 2 * EPS * np.abs(exact).max(1) + (2**bits - 1) * 2.0**-124 * (step < 2.0**-123)
    assert (np.abs(read - exact) <= (step / 2 + rounding)[:, None]).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_scale_middle_and_codes_equal_the_papers_with_n_as_denominator(bits: int) -> None:
    x = np.random.default_rng(5).normal(size=(200, 16)).astype(np.float32)
    quantized, exact = quantize(x, bits), x.astype(np.float64)
    high, low, n, h = exact.max(1), exact.min(1), 2**bits - 1, 2 ** (bits - 1)
    scale, middle = (high - low) / n, (high * h + low * (h - 1)) / n
    np.testing.assert_allclose(quantized.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(quantized.middle, middle, atol=1e-6)
    codes = quantized.codes if bits == 8 else unpack(quantized.codes, 16)
    steps = (exact - middle[:, None]) / scale[:, None]
    assert np.abs(codes - steps).max() < 0.5 + 1e-4


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", sorted(set(ROWS) - {"subnormal"}))
def test_the_extremes_of_a_row_have_the_outermost_codes(kind: str, bits: int) -> None:
    x = ROWS[kind](np.random.default_rng(1)).astype(np.float32)
    codes = quantize(x, bits).codes
    codes = unpack(codes, x.shape[1]) if bits == 4 else codes
    h, rows = 2 ** (bits - 1), np.arange(len(x))
    assert (codes[rows, x.argmin(1)] == -h).all()
    assert (codes[rows, x.argmax(1)] == h - 1).all()
    assert codes.dtype == np.int8


@pytest.mark.parametrize("bits", [8, 4])
def test_constant_rows_are_exact(bits: int) -> None:
    values = np.float32([0, -0.1, 1 / 3, 3.4e38, -1e-30, 1e-45])
    for width in (1, 5):
        x = np.repeat(values[:, None], width, axis=1)
        np.testing.assert_array_equal(dequantize(quantize(x, bits)), x)


def min_max(x: np.ndarray, bits: int) -> np.ndarray:
    """Return x after min-max quantization: unsigned codes, float32 minimum and scale."""
    low, n = x.min(1, keepdims=True), np.float32(2**bits - 1)
    scale = (x.max(1, keepdims=True) - low) / n
    return low + np.rint((x - low) / scale) * scale


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("width", [32, 128])
def test_errors_on_normal_rows_equal_those_of_min_max_and_of_theory(width: int, bits: int) -> None:
    """Both have the same grid, so in float32 they differ by rounding only."""
    x = np.random.default_rng(2).normal(size=(4000, width)).astype(np.float32)
    read, theirs = dequantize(quantize(x, bits)), min_max(x, bits)

    def rmse(y: np.ndarray) -> float:
        return float(np.sqrt(np.mean((y.astype(np.float64) - x) ** 2)))

    assert rmse(read) <= rmse(theirs) * (1 + 1e-4)
    # A uniform error in a step has RMSE step / sqrt 12; the extremes of rows are exact.
    step = np.ptp(x.astype(np.float64), axis=1) / (2**bits - 1)
    theory = np.sqrt(np.mean(step**2) / 12 * (1 - 2 / width))
    assert rmse(read) == pytest.approx(theory, rel=0.02)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_lookup_returns_rows_of_the_dequantized_table(bits: int) -> None:
    x = jnp.asarray(np.random.default_rng(3).normal(size=(50, 7)), jnp.float32)
    quantized = quantize(x, bits)
    ids = jnp.asarray([[3, 0], [49, 3]])
    whole = jax.jit(dequantize)(quantized)
    np.testing.assert_array_equal(jax.jit(lookup_rows)(quantized, ids), whole[ids])
    host = QuantizedTable(*map(np.asarray, jax.tree.leaves(quantized)), width=7, bits=bits)
    # XLA may fuse the multiplication and the addition; NumPy does not.
    np.testing.assert_allclose(
        lookup_rows(host, np.asarray(ids)), lookup_rows(quantized, ids), atol=1e-6
    )


def test_packing_of_four_bits_is_lossless() -> None:
    for width in (1, 6, 7):
        codes = np.random.default_rng(4).integers(-8, 8, size=(100, width)).astype(np.int8)
        packed = pack(codes)
        assert packed.shape == (100, -(-width // 2))
        np.testing.assert_array_equal(unpack(packed, width), codes)


@pytest.mark.parametrize(("bits", "saved"), [(8, 0.70), (4, 0.85)])
def test_size_including_scale_and_middle(bits: int, saved: float) -> None:
    shape = jax.ShapeDtypeStruct((10_000_000, 128), jnp.float32)
    made = jax.eval_shape(functools.partial(quantize, bits=bits), shape)
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(made))
    assert size < (1 - saved) * shape.size * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_rows_are_refused_or_read_back_as_nan(bad: float) -> None:
    x = np.ones((5, 4), np.float32)
    x[3, 2] = bad
    for table in (x, jnp.asarray(x)):
        with pytest.raises(ValueError, match=r"row 3 .* earlier checkpoint"):
            quantize(table, 8)
    read = np.asarray(jax.jit(lambda t: dequantize(quantize(t, 8)))(x))
    assert np.isnan(read[3]).all()
    assert (np.delete(read, 3, 0) == 1).all()


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="bits=5"):
        quantize(np.ones((2, 2), np.float32), 5)
