"""Serving: encoded histories, one-pass scores of candidates, and split scoring (LiGR 4.0.2).

With NumPy batches, from a run directory, or from an artifact without the code of its model:

    Scorer.from_run(run, step=None, scoring=None)
    load_artifact(directory, version="", allow_expired=False) -> Artifact    the same methods
    scorer.encode(histories: Batch [B, n]) -> Cache
    scorer.append(cache, impressions: Batch [B, n]) -> Cache        consumes its argument
    scorer.score(cache, candidates: Batch [B, c]) -> logits [B, c, A], point-wise
    scorer.rank(cache, candidates: Batch [B, c]) -> Ranking         set-wise for the top K
    scorer.score_session(cache, candidates: Batch [B, c]) -> logits [B, c, A], as in training
    scorer.room(cache) -> int [B];  scorer.capacity;  scorer.restart

As pure functions, to be compiled or exported (`functions`), with model = make_model(config.model):

    serving_variables(dense, stats, rows) -> variables
    encode_history(model, variables, histories) -> Cache
    append_history(model, variables, cache, impressions) -> Cache
    score_candidates(model, variables, cache, candidates) -> Scores
    add_setwise(model, variables, scores, top, weights) -> Ranking
    rank_candidates(model, variables, cache, candidates, top, weights) -> Ranking     both

Rows of caches: `stack_caches(caches)`, `cache_rows(cache, rows)`, `grow_cache(cache, size)`.

Histories of members, without JAX (`ligr_jax.serve.activity`):

    build_store(prepared, directory)
    ActivityStore(directory).batch(members, model, newest) -> Batch [B, newest]

The scores equal those of a training forward pass in which the candidates are the last session.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.serve.activity import ActivityStore as ActivityStore
    from ligr_jax.serve.activity import Appended as Appended
    from ligr_jax.serve.activity_about import ActivityAbout as ActivityAbout
    from ligr_jax.serve.activity_build import build_store as build_store
    from ligr_jax.serve.artifact import Artifact as Artifact
    from ligr_jax.serve.artifact import load_artifact as load_artifact
    from ligr_jax.serve.cache import Cache as Cache
    from ligr_jax.serve.cache import cache_rows as cache_rows
    from ligr_jax.serve.cache import grow_cache as grow_cache
    from ligr_jax.serve.cache import stack_caches as stack_caches
    from ligr_jax.serve.checks import CacheFull as CacheFull
    from ligr_jax.serve.functions import add_setwise as add_setwise
    from ligr_jax.serve.functions import append_history as append_history
    from ligr_jax.serve.functions import encode_history as encode_history
    from ligr_jax.serve.functions import rank_candidates as rank_candidates
    from ligr_jax.serve.functions import score_candidates as score_candidates
    from ligr_jax.serve.functions import serving_variables as serving_variables
    from ligr_jax.serve.request_scorer import RequestScorer as RequestScorer
    from ligr_jax.serve.scorer import Scorer as Scorer
    from ligr_jax.serve.split import Ranking as Ranking
    from ligr_jax.serve.write import export_artifact as export_artifact
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "ActivityAbout": "activity_about",
            "ActivityStore": "activity",
            "Appended": "activity",
            "Artifact": "artifact",
            "build_store": "activity_build",
            "Cache": "cache",
            "CacheFull": "checks",
            "Ranking": "split",
            "RequestScorer": "request_scorer",
            "Scorer": "scorer",
            "append_history": "functions",
            "encode_history": "functions",
            "export_artifact": "write",
            "grow_cache": "cache",
            "load_artifact": "artifact",
            "rank_candidates": "functions",
            "score_candidates": "functions",
            "serving_variables": "functions",
            "add_setwise": "functions",
            "stack_caches": "cache",
            "cache_rows": "cache",
        },
    )
