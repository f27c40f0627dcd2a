"""The operations of serving as pure functions, which can be compiled, exported and sharded.

`variables` are those of the model: `params` without tables, batch statistics if any, and the
table rows of the request (`serving_variables`), into which the ids of the batch are indices.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.data.batch import Array, Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.serving import Scores
from ligr_jax.serve.cache import Cache, extended, newest_time, next_session, seen_by
from ligr_jax.serve.split import Ranking, ranked
from ligr_jax.tables.table import ROWS, TABLES

Variables = Mapping[str, Any]


def serving_variables(dense: Any, stats: Any, rows: Mapping[str, Array]) -> Variables:
    """Return the variables of a model for a request.

    Args:
        dense: parameters without tables.
        stats: batch statistics; empty for models without any.
        rows: float32 [1, U, E] by table, the rows that the ids of the batch refer to.
    """
    return {"params": dense, STATISTICS: stats, ROWS: {TABLES: rows}}


def encode_history(model: nn.Module, variables: Variables, histories: Batch) -> Cache:
    """Encode histories by the training program; S is the number of impressions of the batch.

    Args:
        model: the model.
        variables: see `serving_variables`.
        histories: [B, S], one member per row (member=1), padded at the end (member=0).
    """
    kept = model.apply(variables, histories, method="encode")
    return Cache(
        kept=kept,
        session=jnp.asarray(histories.session),
        time=jnp.asarray(histories.time),
        length=(histories.member > 0).sum(1, dtype=jnp.int32),
    )


def append_history(
    model: nn.Module, variables: Variables, cache: Cache, impressions: Batch
) -> Cache:
    """Encode new impressions of the members of a cache.

    Args:
        model: the model.
        variables: see `serving_variables`.
        cache: the histories. Donate it where this function is compiled.
        impressions: [B, M], padded at the end of each row. Sessions and times continue those of the
            cache; the first session may be the last one of the cache.
    """
    history = seen_by(cache, impressions.session, model.config.mask)
    kept = model.apply(variables, impressions, history, method="extend")
    return extended(cache, kept, impressions)


def score_candidates(
    model: nn.Module, variables: Variables, cache: Cache, candidates: Batch
) -> Scores:
    """Return the point-wise scores of the candidates of a request, in one pass.

    Args:
        model: the model.
        variables: see `serving_variables`.
        cache: the histories.
        candidates: [B, C], padded (member=0) at the end of each row; labels and weights are not
            used. The candidates of a row have one session, or -1 for the session after the newest
            one; a time of NaN stands for that of the newest impression.
    """
    session = candidates.session[:, :1]
    session = jnp.where(session < 0, next_session(cache), session)
    candidates = candidates._replace(
        session=jnp.broadcast_to(session, candidates.member.shape),
        time=jnp.where(jnp.isnan(candidates.time), newest_time(cache), candidates.time),
    )
    history = seen_by(cache, session, model.config.mask)
    scores: Any = model.apply(variables, candidates, history, method="score")
    # NaN if more impressions were appended than there was room for.
    fits = (cache.length <= cache.size)[:, None, None]
    logits_BCA = jnp.where(fits, scores.logits_BCA, jnp.nan)
    inputs = scores.setwise
    if inputs is not None:
        inputs = inputs._replace(logits_BCA=jnp.where(fits, inputs.logits_BCA, jnp.nan))
    result: Scores = scores._replace(logits_BCA=logits_BCA, setwise=inputs)
    return result


def add_setwise(
    model: nn.Module, variables: Variables, scores: Scores, top: int, weights: jax.Array
) -> Ranking:
    """Rank candidates: set-wise scores are added for the `top` best by point-wise score.

    Args:
        model: the model.
        variables: see `serving_variables`; no rows of tables are needed.
        scores: point-wise scores.
        top: K; 0 for no set-wise layers.
        weights: float32 [A], of each action's probability in the score that orders candidates.
    """

    def score_set(*args: Any) -> jax.Array:
        logits: Any = model.apply(variables, *args, method="score_set")
        return jnp.asarray(logits)

    return ranked(scores, top, weights, score_set if scores.setwise is not None else None)


def rank_candidates(
    model: nn.Module,
    variables: Variables,
    cache: Cache,
    candidates: Batch,
    top: int,
    weights: jax.Array,
) -> Ranking:
    """Score and rank candidates: both parts of the model in one function (LiGR 4.0.2).

    Arguments are those of `score_candidates` and `add_setwise`.
    """
    scores = score_candidates(model, variables, cache, candidates)
    return add_setwise(model, variables, scores, top, weights)
