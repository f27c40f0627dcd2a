"""Laws of the isotonic map: its printed equation, monotonicity, the identity for slopes of 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.isotonic import isotonic_map

LOW, STEP, BUCKETS = -17.0, 0.5, 50
RNG = np.random.default_rng(0)


def printed(y: float, slopes: np.ndarray) -> float:
    """Return eq. 1 of LiRank, shifted by the lower bound, with an explicit sum."""
    y = float(np.clip(y, LOW, LOW + STEP * len(slopes)))
    k = min(int(np.floor((y - LOW) / STEP)), len(slopes) - 1)
    return sum(slopes[:k]) * STEP + slopes[k] * (y - LOW - STEP * k) + LOW


def test_it_equals_the_printed_equation_for_the_selected_curve() -> None:
    slopes = RNG.exponential(size=(3, BUCKETS)).astype(np.float32)
    y = RNG.uniform(-20, 11, (200, 3)).astype(np.float32)
    y[:2] = [[LOW], [LOW + STEP * BUCKETS]]
    curve = RNG.integers(0, 3, y.shape)
    expected = [printed(v, slopes[c].astype(float)) for v, c in zip(y.ravel(), curve.ravel())]
    result = isotonic_map(jnp.asarray(y), jnp.asarray(slopes), LOW, STEP, jnp.asarray(curve))
    np.testing.assert_allclose(result.ravel(), expected, atol=1e-4)


def test_slopes_of_one_are_the_identity_between_the_ends() -> None:
    y = np.linspace(LOW, LOW + STEP * BUCKETS, 1001, dtype=np.float32)
    result = isotonic_map(jnp.asarray(y), jnp.ones((1, BUCKETS)), LOW, STEP)
    np.testing.assert_allclose(result, y, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_it_never_swaps_two_logits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slopes = np.maximum(rng.normal(size=(1, BUCKETS)), 0)  # half of them flat
    y = np.sort(rng.uniform(-20, 11, 5000)).astype(np.float32)
    result = np.asarray(isotonic_map(jnp.asarray(y), jnp.asarray(slopes), LOW, STEP))
    assert (np.diff(result) > -1e-5).all()


def test_gradients_equal_those_of_the_equation() -> None:
    """By y it is the slope of its bucket; by a slope, the part of its bucket below y."""
    slopes = RNG.exponential(size=(1, BUCKETS)).astype(np.float32)
    y = jnp.asarray(LOW + STEP * 7.25)
    of_y, of_slopes = jax.grad(lambda *a: isotonic_map(*a, LOW, STEP), argnums=(0, 1))(y, slopes)
    assert float(of_y) == pytest.approx(float(slopes[0, 7]), rel=1e-5)
    expected = STEP * np.clip(7.25 - np.arange(BUCKETS), 0, 1)
    np.testing.assert_allclose(of_slopes[0], expected, atol=1e-5)
