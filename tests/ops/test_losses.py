"""Laws of the losses: they equal their equations, and ignore what must not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from ligr_jax.ops.losses import attention_rank_loss, binary_cross_entropy, session_numbers
from tests.batches import random_batch, random_layout

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def problem(seed: int, grades: int = 2, scale: float = 1.0) -> Arrays:
    """Return scores, labels (some unknown), sessions of packed rows, and a mask with gaps."""
    rng = np.random.default_rng(seed)
    batch = random_batch(random_layout(rng, 6, 12), 12)
    shape = (*batch.member.shape, 3)
    labels = rng.integers(0, grades, shape).astype(np.int8)
    labels[rng.random(shape) < 0.15] = -1
    labels[rng.random(shape[:2]) < 0.4] = 0
    session = np.asarray(session_numbers(batch.member, batch.session))
    mask = (batch.member > 0) & (rng.random(shape[:2]) < 0.9)
    return scale * rng.normal(size=shape).astype(np.float32), labels, session, mask


def slow_rank_loss(
    scores: np.ndarray, labels: np.ndarray, session: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of -sum_i a_i log p_i over sessions, and the number of counted sessions."""
    loss, count = np.zeros(scores.shape[-1]), np.zeros(scores.shape[-1])
    for b, a in np.ndindex(len(scores), scores.shape[-1]):
        for s in np.unique(session[b]):
            items = (session[b] == s) & mask[b] & (labels[b, :, a] >= 0)
            z, y = scores[b, items, a].astype(np.float64), labels[b, items, a].astype(np.float64)
            if (y > 0).any():
                psi = np.where(y > 0, np.exp(y), 0)
                log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
                loss[a] -= (psi / psi.sum()) @ log_p
                count[a] += 1
    return loss, count


def test_cross_entropy_equals_scikit_learn_with_weights_and_without_unknown_labels() -> None:
    scores, labels, _, mask = problem(1, scale=3.0)
    weight = np.random.default_rng(2).uniform(0, 2, mask.shape) * mask
    loss, total = binary_cross_entropy(scores, labels, weight)
    for a in range(3):
        known = (labels[..., a] >= 0) & mask
        p = 1 / (1 + np.exp(-scores[known, a].astype(np.float64)))
        wanted = log_loss(labels[known, a], p, sample_weight=weight[known])
        np.testing.assert_allclose(loss[a] / total[a], wanted, rtol=1e-5)
        np.testing.assert_allclose(total[a], weight[known].sum(), rtol=1e-6)


@pytest.mark.parametrize(("grades", "scale"), [(2, 1.0), (4, 1.0), (3, 30.0)])
def test_rank_loss_equals_a_slow_reference(grades: int, scale: float) -> None:
    for seed in range(5):
        arrays = problem(seed, grades, scale)
        loss, count = attention_rank_loss(*map(jnp.asarray, arrays))
        wanted, sessions = slow_rank_loss(*arrays)
        np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(count, sessions)
        assert (sessions > 0).all()


def test_rank_gradient_equals_finite_differences() -> None:
    scores, labels, session, mask = problem(3, grades=3)
    gradient = jax.grad(lambda z: attention_rank_loss(z, labels, session, mask)[0].sum())(
        jnp.asarray(scores)
    )
    wanted, h = np.zeros(scores.shape), 1e-5
    for i in np.ndindex(scores.shape):
        up, down = scores.astype(np.float64), scores.astype(np.float64)
        up[i] += h
        down[i] -= h
        pair = [slow_rank_loss(z, labels, session, mask)[0].sum() for z in (up, down)]
        wanted[i] = (pair[0] - pair[1]) / (2 * h)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, -1, 0, -1], [-1, -1, -1, -1]],
    ids=["no positive", "none known to be positive", "all unknown"],
)
def test_a_session_without_a_positive_has_no_loss_and_no_gradient(labels: list[int]) -> None:
    y = jnp.asarray(labels, jnp.int8)[None, :, None]
    session, mask = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    z = jnp.asarray([3.0, -2.0, 0.5, 1.0])[None, :, None]
    (loss, count), pull = jax.vjp(lambda z: attention_rank_loss(z, y, session, mask), z)
    assert loss == 0
    assert count == 0
    assert (pull((jnp.ones(1), jnp.zeros(1)))[0] == 0).all()


def test_a_session_of_one_item_has_no_loss_and_no_gradient() -> None:
    y = jnp.ones((1, 3, 1), jnp.int8)
    session, mask = jnp.arange(3)[None], jnp.ones((1, 3), bool)
    z = jnp.asarray([50.0, -7.0, 0.3])[None, :, None]
    loss, gradient = jax.value_and_grad(lambda z: attention_rank_loss(z, y, session, mask)[0][0])(z)
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_large_scores_never_give_a_nan(size: float) -> None:
    scores, labels, session, mask = problem(5)
    weight = mask.astype(np.float32)

    def both(z: jax.Array) -> jax.Array:
        rank = attention_rank_loss(z, labels, session, mask)[0]
        return rank.sum() + binary_cross_entropy(z, labels, weight)[0].sum()

    loss, gradient = jax.value_and_grad(both)(jnp.sign(scores) * size)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_sessions_of_a_row_are_numbered_in_order() -> None:
    batch = random_batch([[[2, 1], [1, 1]], []], 7)
    number = session_numbers(batch.member, batch.session)
    np.testing.assert_array_equal(number, [[0, 0, 1, 2, 3, 4, 4], [0] * 7])
