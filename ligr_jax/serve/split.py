"""Split scoring: set-wise layers for the best candidates only (LiGR 4.0.2).

    u_c = sum_a weight_a sigmoid(point-wise logit_ca)
    for the K candidates with the largest u: logits = calibrated(point-wise + set-wise)

The first K places are then ordered by u of these logits; the others follow in their order. With K
at least the number of candidates, the logits are those of training.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.nn.serving import Scores, SetInput


class Ranking(NamedTuple):
    """Ranked candidates of each request.

    logits_BCA: float32 [B, C, A], by candidate; with the set-wise part for the best K.
    score_BC: float32 [B, C], by candidate: the sum of weight x probability; -inf in padding.
    order_BC: int32 [B, C], candidates from the best to the worst; padding is last.
    """

    logits_BCA: jax.Array
    score_BC: jax.Array
    order_BC: jax.Array


def ranked(
    scores: Scores,
    top: int,
    weights: jax.Array,
    score_set: Callable[[SetInput, jax.Array], jax.Array] | None,
) -> Ranking:
    """Rank candidates.

    Args:
        scores: point-wise scores.
        top: K.
        weights: float32 [A].
        score_set: (inputs, valid) of K candidates -> calibrated logits [B, K, A]; None for a model
            without set-wise layers.
    """
    logits_BCA, valid_BC = scores.logits_BCA, scores.valid_BC
    score_BC = combined(logits_BCA, valid_BC, weights)
    k = min(top, valid_BC.shape[1])
    if not k or score_set is None or scores.setwise is None:
        return Ranking(logits_BCA, score_BC, _order(score_BC))

    # The best K, in the order of candidates, so that padding stays at the end.
    best_BK = jnp.sort(jax.lax.top_k(score_BC, k)[1], axis=1)
    rows = jnp.arange(best_BK.shape[0])[:, None]
    inputs = jax.tree.map(lambda x: x[rows, best_BK], scores.setwise)
    logits_BKA = score_set(inputs, valid_BC[rows, best_BK])

    is_best_BC = jnp.zeros_like(valid_BC).at[rows, best_BK].set(True)
    logits_BCA = logits_BCA.at[rows, best_BK].set(logits_BKA)
    score_BC = combined(logits_BCA, valid_BC, weights)
    return Ranking(logits_BCA, score_BC, _order(score_BC, is_best_BC))


def combined(logits_BCA: jax.Array, valid_BC: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the score that orders candidates, float32 [B, C]; -inf in padding."""
    total_BC = (jax.nn.sigmoid(logits_BCA) * weights).sum(-1)
    return jnp.where(valid_BC, total_BC, -jnp.inf)


def _order(score_BC: jax.Array, is_first_BC: jax.Array | None = None) -> jax.Array:
    """Return the order by falling score, equal ones by index; marked candidates come first."""
    keys = (-score_BC,) if is_first_BC is None else (-score_BC, ~is_first_BC)
    return jnp.lexsort(keys, axis=-1).astype(jnp.int32)
