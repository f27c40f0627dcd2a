"""The operations of a model as functions of an artifact, one for each size of their arrays.

    encode_N    histories of N impressions
    append_M    M new impressions, for caches of any size
    score_C     point-wise logits of C candidates, for caches of any size
    rank_C      split scoring of C candidates
    session_C   logits of C candidates that are one session, as in training; only of models with
                set-wise layers, and else those of rank_C
    positions_C point-wise logits of C candidates at every row of the post feature; only of models
                with one

The number of rows, the size of a cache and the numbers of unique ids are symbolic. Arguments and
results are tuples and dictionaries of arrays, so that no class of a model is needed to load them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from ligr_jax.config import ModelConfig, ScoringConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.padding import padding_batch
from ligr_jax.nn.models import make_model
from ligr_jax.serve.cache import Cache
from ligr_jax.serve.operations import pure_operations
from ligr_jax.serve.stablehlo import Function, export_function

_ROWS = 2  # of the example that gives the shapes of a cache


def lower_operations(
    model: ModelConfig,
    dense: Any,
    stats: Any,
    scoring: ScoringConfig,
    capacity: int,
    candidates: int,
) -> Iterator[tuple[str, int, export.Exported]]:
    """Lower all operations.

    Args:
        model: configuration of the model.
        dense: dense parameters.
        stats: batch statistics.
        scoring: settings of split scoring, and the smallest size of an array.
        capacity: largest number of impressions of a cache.
        candidates: largest number of candidates.

    Yields:
        Name of the operation, size, and the exported function.

    Raises:
        ArtifactError: an operation cannot be exported; see `export_function`.
    """
    model = portable(model)
    operations = pure_operations(make_model(model), scoring.set_top)
    cache, treedef = _cache_shapes(model, operations.encode, dense, stats)
    histories = sorted({min(size, capacity) for size in sizes_up_to(capacity, scoring)})
    impressions = sizes_up_to(capacity, scoring)
    candidate_sizes = sizes_up_to(candidates, scoring)
    functions: dict[str, tuple[Function, list[int], bool]] = {
        "encode": (_encode(operations.encode), histories, False),
        "append": (_append(operations.append, treedef), impressions, True),
        "score": (_score(operations.score, treedef), candidate_sizes, True),
        "rank": (_rank(operations.rank, treedef), candidate_sizes, True),
    }
    if model.post_feature:
        functions["positions"] = _score(operations.positions, treedef), candidate_sizes, True
    if model.set_depth:
        functions["session"] = _rank(operations.session, treedef), candidate_sizes, True
    for name, (function, sizes, with_cache) in functions.items():
        for size in sizes:
            scope = export.SymbolicScope()
            (b,) = export.symbolic_shape("b", scope=scope)
            args: list[Any] = [_inputs(model, dense, stats, scope)]
            if with_cache:
                (s,) = export.symbolic_shape("s", scope=scope)
                args.append(_sized(cache, b, s))
            args.append(_batch(model, b, size))
            if name in ("rank", "session"):
                args.append(jax.ShapeDtypeStruct((len(model.actions),), jnp.float32))
            yield name, size, export_function(f"{name}_{size}", function, tuple(args))


def portable(model: ModelConfig) -> ModelConfig:
    """Return the configuration with attention as plain XLA, which every platform can run."""
    plain = model.implementation in ("dense", "blocked")
    if plain or (model.implementation == "auto" and jax.default_backend() == "cpu"):
        return model
    return dataclasses.replace(model, implementation="blocked")


def sizes_up_to(count: int, scoring: ScoringConfig) -> list[int]:
    """Return the sizes of arrays for up to `count` impressions or candidates."""
    sizes = [scoring.smallest]
    while sizes[-1] < count:
        sizes.append(2 * sizes[-1])
    return sizes


def _encode(encode: Function) -> Function:
    def function(inputs: Any, batch: Any) -> Any:
        return flat_cache(encode(inputs, Batch(**batch)))

    return function


def _append(append: Function, treedef: Any) -> Function:
    def function(inputs: Any, cache: Any, batch: Any) -> Any:
        return flat_cache(append(inputs, _whole(cache, treedef), Batch(**batch)))

    return function


def _score(score: Function, treedef: Any) -> Function:
    def function(inputs: Any, cache: Any, batch: Any) -> Any:
        return score(inputs, _whole(cache, treedef), Batch(**batch))

    return function


def _rank(rank: Function, treedef: Any) -> Function:
    def function(inputs: Any, cache: Any, batch: Any, weights: Any) -> Any:
        return tuple(rank(inputs, _whole(cache, treedef), Batch(**batch), weights))

    return function


def flat_cache(cache: Cache) -> dict[str, Any]:
    """Return a cache as a dictionary, with what the model keeps as a tuple of arrays."""
    return cache._replace(kept=tuple(jax.tree.leaves(cache.kept)))._asdict()


def _whole(cache: dict[str, Any], treedef: Any) -> Cache:
    return Cache(**{**cache, "kept": jax.tree.unflatten(treedef, cache["kept"])})


def _inputs(model: ModelConfig, dense: Any, stats: Any, scope: export.SymbolicScope) -> Any:
    rows = {}
    for number, (table, (_, width)) in enumerate(model.tables.items()):
        (u,) = export.symbolic_shape(f"u{number}", scope=scope)
        rows[table] = jax.ShapeDtypeStruct((1, u, width), jnp.float32)
    return (*jax.tree.map(_shape, (dense, stats)), rows)


def _batch(model: ModelConfig, rows: Any, size: int) -> dict[str, Any]:
    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, size, *x.shape[2:]), x.dtype)

    result: dict[str, Any] = jax.tree.map(shape, padding_batch(model, 1, 1)._asdict())
    return result


def _cache_shapes(
    model: ModelConfig, encode: Function, dense: Any, stats: Any
) -> tuple[dict[str, Any], Any]:
    """Return the shapes of a flat cache, and the structure of what the model keeps."""
    batch = padding_batch(model, _ROWS, 1)
    rows = {
        table: jax.ShapeDtypeStruct((1, 1, width), jnp.float32)
        for table, (_, width) in model.tables.items()
    }
    cache = jax.eval_shape(encode, (*jax.tree.map(_shape, (dense, stats)), rows), batch)
    return flat_cache(cache), jax.tree.structure(cache.kept)


def _sized(cache: dict[str, Any], rows: Any, size: Any) -> dict[str, Any]:
    """Return the shapes of a flat cache of `rows` rows and `size` impressions."""

    def shape(x: Any, axis: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*x.shape[:axis], rows, size, *x.shape[axis + 2 :]), x.dtype)

    return {
        "kept": tuple(shape(x, axis=1) for x in cache["kept"]),
        "session": shape(cache["session"], axis=0),
        "time": shape(cache["time"], axis=0),
        "length": jax.ShapeDtypeStruct((rows,), cache["length"].dtype),
    }


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
