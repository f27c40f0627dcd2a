"""Laws of split scoring: which candidates the set-wise layers see, and the order that results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ligr_jax.nn.head_inputs import NO_INPUTS
from ligr_jax.nn.serving import Scores, SetInput
from ligr_jax.serve.split import Ranking, ranked

B, C, A, D = 3, 9, 2, 4
VALID = [9, 5, 0]
WEIGHTS = np.array([1.0, 0.25], np.float32)


def scores(seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(B, C, A)), jnp.float32)
    hidden = jnp.asarray(rng.normal(size=(B, C, D)), jnp.float32)
    valid = jnp.arange(C) < jnp.array(VALID)[:, None]
    return Scores(logits, valid, SetInput(hidden, logits, None, NO_INPUTS))


def score_set(inputs: SetInput, valid: jax.Array) -> jax.Array:
    """Add to each candidate what depends on the whole set, as set-wise layers do."""
    hidden = jnp.where(valid[..., None], inputs.hidden_BCD, 0)
    added = 3 * jnp.tanh(hidden * hidden.sum(1, keepdims=True))[..., :A]
    return inputs.logits_BCA + added


def split(given: Scores, top: int) -> Ranking:
    return Ranking(*map(np.asarray, ranked(given, top, jnp.asarray(WEIGHTS), score_set)))


def slow(given: Scores, row: int, top: int) -> tuple[np.ndarray, list[int]]:
    """Return logits and order of the valid candidates of a row."""
    logits = np.array(given.logits_BCA[row])[: VALID[row]]
    pointwise = expit(logits) @ WEIGHTS
    order = sorted(range(len(logits)), key=lambda c: -pointwise[c])
    best, others = sorted(order[:top]), order[top:]
    if best:
        hidden = np.array(given.setwise.hidden_BCD[row])[best]  # type: ignore[union-attr]
        logits[best] += 3 * np.tanh(hidden * hidden.sum(0))[:, :A]
    final = expit(logits) @ WEIGHTS
    return logits, sorted(best, key=lambda c: -final[c]) + others


@pytest.mark.parametrize("top", [0, 1, 3, 6, C, 20])
def test_the_best_are_ordered_among_themselves_and_the_others_keep_their_order(top: int) -> None:
    given = scores()
    ranking = split(given, top)
    for row, count in enumerate(VALID):
        logits, order = slow(given, row, top)
        np.testing.assert_allclose(ranking.logits_BCA[row, :count], logits, atol=1e-6)
        assert ranking.order_BC[row].tolist() == [*order, *range(count, C)]
        assert (ranking.score_BC[row, count:] == -np.inf).all()


@pytest.mark.parametrize("top", [3, C])
def test_the_order_of_the_request_does_not_matter(top: int) -> None:
    given = scores()
    order = np.random.default_rng(1).permutation(C)
    shuffled = jax.tree.map(lambda x: x[:1, order], given)
    ranking, again = split(given, top), split(shuffled, top)
    np.testing.assert_allclose(again.logits_BCA[0], ranking.logits_BCA[0, order], atol=1e-6)
    np.testing.assert_array_equal(order[again.order_BC[0]], ranking.order_BC[0])


def test_a_model_without_set_wise_layers_is_ranked_by_its_point_wise_scores() -> None:
    given = scores()._replace(setwise=None)
    ranking = ranked(given, 3, jnp.asarray(WEIGHTS), None)
    np.testing.assert_array_equal(ranking.logits_BCA, given.logits_BCA)
    assert (np.diff(np.take_along_axis(ranking.score_BC, ranking.order_BC, 1)[0]) <= 0).all()
