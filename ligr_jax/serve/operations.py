"""The operations of `RequestScorer` for a model in this process, compiled or to be exported."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.data.batch import Batch
from ligr_jax.serve.cache import Cache
from ligr_jax.serve.functions import (
    append_history,
    encode_history,
    rank_candidates,
    score_candidates,
    serving_variables,
)
from ligr_jax.serve.request_scorer import Operations
from ligr_jax.serve.split import Ranking

Inputs = tuple[Any, Any, Any]  # dense parameters, batch statistics, rows


def pure_operations(model: nn.Module, top: int) -> Operations:
    """Return the operations of a model as pure functions.

    Args:
        model: the model.
        top: K of split scoring.
    """

    def encode_op(inputs: Inputs, histories: Batch) -> Cache:
        return encode_history(model, serving_variables(*inputs), histories)

    def append_op(inputs: Inputs, cache: Cache, impressions: Batch) -> Cache:
        return append_history(model, serving_variables(*inputs), cache, impressions)

    def score_op(inputs: Inputs, cache: Cache, candidates: Batch) -> jax.Array:
        return score_candidates(model, serving_variables(*inputs), cache, candidates).logits_BCA

    def rank_op(
        inputs: Inputs, cache: Cache, candidates: Batch, weights: jax.Array, top: int = top
    ) -> Ranking:
        return rank_candidates(model, serving_variables(*inputs), cache, candidates, top, weights)

    def session_op(inputs: Inputs, cache: Cache, candidates: Batch, weights: jax.Array) -> Ranking:
        return rank_op(inputs, cache, candidates, weights, top=candidates.member.shape[1])

    def positions_op(inputs: Inputs, cache: Cache, candidates: Batch) -> jax.Array:
        name = model.config.post_feature

        def at(row: jax.Array) -> jax.Array:
            rows = jnp.full_like(candidates.ids[name], row)
            return score_op(inputs, cache, candidates._replace(ids={**candidates.ids, name: rows}))

        # Only what depends on the row is computed once per row: the choice of output layers.
        logits_PBCA: jax.Array = jax.vmap(at)(jnp.arange(1, model.config.post_rows))
        return logits_PBCA

    return Operations(
        encode=encode_op,
        append=append_op,
        score=score_op,
        rank=rank_op,
        session=session_op,
        positions=positions_op,
    )


def compiled_operations(model: nn.Module, top: int) -> Operations:
    """Return the operations of a model, compiled on first use; see `pure_operations`."""
    pure = pure_operations(model, top)
    return Operations(
        encode=jax.jit(pure.encode),
        append=jax.jit(pure.append, donate_argnums=1),
        score=jax.jit(pure.score),
        rank=jax.jit(pure.rank),
        session=jax.jit(pure.session),
        positions=jax.jit(pure.positions),
    )
