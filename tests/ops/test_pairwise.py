"""Laws of the pairwise loss: its equation, its gradient, and what must not count."""

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.ops.pairwise import pair_loss
from tests.ops.test_losses import Arrays, problem

_value_and_grad = jax.jit(
    jax.value_and_grad(
        lambda *arrays: (lambda x: (x[0].sum(), x))(pair_loss(*arrays)), has_aux=True
    )
)


def slow_pair_loss(
    scores: np.ndarray, labels: np.ndarray, session: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum over sessions of the mean over their pairs, and the number of sessions."""
    loss, count = np.zeros(scores.shape[-1]), np.zeros(scores.shape[-1])
    for b, a in np.ndindex(len(scores), scores.shape[-1]):
        for s in np.unique(session[b]):
            items = (session[b] == s) & mask[b] & (labels[b, :, a] >= 0)
            z, y = scores[b, items, a].astype(np.float64), labels[b, items, a]
            pairs = [
                np.logaddexp(0, z[j] - z[i]) for i, j in np.ndindex(len(z), len(z)) if y[i] > y[j]
            ]
            if pairs:
                loss[a] += np.mean(pairs)
                count[a] += 1
    return loss, count


def ours(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (_, (loss, count)), gradient = _value_and_grad(*map(jnp.asarray, arrays))
    return np.asarray(loss), np.asarray(count), np.asarray(gradient)


def test_loss_equals_a_slow_reference() -> None:
    for seed in range(5):
        for scale in (1.0, 30.0):
            arrays = problem(seed, scale=scale)
            loss, count, _ = ours(arrays)
            wanted, sessions = slow_pair_loss(*arrays)
            np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(count, sessions)
            assert sessions.any()


def test_gradient_equals_finite_differences() -> None:
    scores, labels, session, mask = problem(3)
    wanted, h = np.zeros(scores.shape), 1e-5
    for i in np.ndindex(scores.shape):
        up, down = scores.astype(np.float64), scores.astype(np.float64)
        up[i] += h
        down[i] -= h
        pair = [slow_pair_loss(z, labels, session, mask)[0].sum() for z in (up, down)]
        wanted[i] = (pair[0] - pair[1]) / (2 * h)
    np.testing.assert_allclose(ours((scores, labels, session, mask))[2], wanted, atol=1e-5)


def test_unknown_labels_and_masked_impressions_have_no_effect() -> None:
    scores, labels, session, mask = problem(4)
    loss, count, gradient = ours((scores, labels, session, mask))
    unused = (labels < 0) | ~mask[..., None]
    assert unused.any()
    assert not gradient[unused].any()
    changed = ours((np.where(unused, np.float32(1e30), scores), labels, session, mask))
    for before, after in zip((loss, count, gradient), changed):
        np.testing.assert_array_equal(before, after)


def test_large_scores_and_sessions_without_a_pair_are_finite() -> None:
    scores, labels, session, mask = problem(5)
    loss, _, gradient = ours((np.sign(scores) * np.float32(1e30), labels, session, mask))
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()
    loss, count, gradient = ours((scores, np.minimum(labels, 0), session, mask))
    assert not loss.any()
    assert not count.any()
    assert not gradient.any()


def test_no_array_is_larger_than_rows_times_twice_their_length() -> None:
    b, n, a = 2, 512, 3
    shapes = (
        jax.ShapeDtypeStruct((b, n, a), jnp.float32),
        jax.ShapeDtypeStruct((b, n, a), jnp.int8),
        jax.ShapeDtypeStruct((b, n), jnp.int32),
        jax.ShapeDtypeStruct((b, n), jnp.bool_),
    )
    compiled = _value_and_grad.lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * b * n * n
