"""Arithmetic with bit-identical results on every machine.

Libraries differ in the last bits of exp, sin and pow (SIMD width, FMA), and BLAS in the order of
sums. One such bit can change a random draw. After drawing random numbers, the synthetic world
therefore uses only operations that IEEE 754 rounds exactly (+ - * / sqrt floor) and cumulative
sums, which are sequential. The C library is used only for the rare tails of NumPy's normal and
exponential deviates.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # from fdlibm
TAYLOR = tuple(1.0 / math.factorial(n) for n in range(13))  # |r| < 0.35: error below 2e-16
ID_BITS = 63
ID_MASK = np.uint64(2**ID_BITS - 1)


def stream(seed: int, number: int) -> np.random.Generator:
    """Return an independent random generator, Philox keyed by seed and number."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))


def exp(x: Floats) -> Floats:
    """Return e^x = 2^k e^r, with k = round(x / ln 2), |r| <= ln(2)/2, Taylor series for e^r."""
    k = np.rint(x * (1.0 / math.log(2.0)))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    series = np.full_like(r, TAYLOR[-1])
    for coefficient in TAYLOR[-2::-1]:
        series *= r
        series += coefficient
    return np.ldexp(series, k.astype(np.int32))


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x), with x clipped to ±30."""
    return 1.0 / (1.0 + exp(-np.clip(x, -30.0, 30.0)))


def wave(x: Floats) -> Floats:
    """Return a sine-like wave of period 1 and amplitude 1: 4 g (1 - |g|), g = 2 frac(x) - 1."""
    g = 2.0 * (x - np.floor(x)) - 1.0
    return 4.0 * g * (1.0 - np.abs(g))


def zipf(n: int) -> Floats:
    """Return the weights rank^-3/4 of ranks 1..n, float64 [n].

    Square roots are rounded in the same way on every machine, and `pow` is not.
    """
    root = np.sqrt(np.arange(1.0, n + 1.0))
    result: Floats = 1.0 / (root * np.sqrt(root))
    return result


def from_zero(weights: Floats) -> Floats:
    """Return the cumulative weights with a leading 0, [n + 1]."""
    return np.concatenate([np.zeros(1), np.cumsum(weights)])


def pick(cumulative: Floats, low: Ints, high: Ints, uniform: Floats) -> Ints:
    """Draw indices with probabilities proportional to weights.

    Args:
        cumulative: `from_zero` of all weights.
        low, high: int64 [N], ranges of the draws: low <= index < high.
        uniform: float64 [N], uniform random numbers.

    Returns:
        int64 [N].
    """
    floor = cumulative[low]
    target = floor + uniform * (cumulative[high] - floor)
    index = np.searchsorted(cumulative, target, side="right") - 1
    return np.clip(index, low, high - 1)  # rounding can exceed an end by one


def draw(rng: np.random.Generator, weights: Floats, n: int) -> Ints:
    """Draw n independent indices with probabilities proportional to weights."""
    zeros = np.zeros(n, np.int64)
    return pick(from_zero(weights), zeros, zeros + len(weights), rng.random(n))


def splitmix64(x: Hashes) -> Hashes:
    """Return the finalizer of splitmix64, a bijection of 64 bits with well-mixed outputs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def spread(numbers: Ints, seed: int, purpose: str) -> Ints:
    """Replace numbers by ids that look random, with a bijection of 63 bits.

    Args:
        numbers: int64 [n], not negative.
        seed: seed of the world.
        purpose: what the ids are for; each purpose has a bijection of its own.

    Returns:
        Ids, int64 [n], not negative; equal numbers have equal ids.
    """
    salt = seed * 0x9E3779B97F4A7C15 + int.from_bytes(purpose.encode()) * 0xD1342543DE82EF95
    x = numbers.astype(np.uint64) + np.uint64(salt % 2**ID_BITS)
    for odd in (0x9E3779B97F4A7C15, 0x2545F4914F6CDD1D):
        x = (x * np.uint64(odd)) & ID_MASK
        x ^= x >> np.uint64(32)
    return x.astype(np.int64)


def heavy_deviate(hashes: Hashes) -> Floats:
    """Return a heavy-tailed deviate of mean 0 and variance 1 for each hash: z |z| / sqrt(2.7).

    z is the standardized sum of the four 16-bit parts of the hash (nearly normal, kurtosis 2.7), so
    most deviates are close to zero and few are large.
    """
    parts = [(hashes >> np.uint64(s)) & np.uint64(0xFFFF) for s in (0, 16, 32, 48)]
    total = (parts[0] + parts[1] + parts[2] + parts[3]).astype(np.float64)
    z = (total / 65536.0 - (2.0 - 2.0 / 65536.0)) * math.sqrt(3.0)
    result: Floats = z * np.abs(z) / math.sqrt(2.7)
    return result
