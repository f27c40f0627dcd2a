"""How far quantized tables can move a logit: the quantization step times the model's sensitivity.

Rounding moves a value of row u by at most e_u = scale_u / 2. Along the segment from the exact rows
x to the quantized rows q, by the mean value theorem,

    |logit(q) - logit(x)| <= max over the segment of  sum over u, e of |d logit / d row[u, e]| e_u

The maximum is taken over `POINTS` points of the segment, ends included. Logits are computed in
float32: rounding of bfloat16 activations can move a logit further than tables do.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.data.batch import Batch
from ligr_jax.data.positions import in_newest_session
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.models import make_model
from ligr_jax.serve.artifact import Artifact
from ligr_jax.serve.functions import serving_variables
from ligr_jax.serve.lowering import portable
from ligr_jax.serve.run_state import SparseRows

LIMIT = 8  # logits of a request whose movement is bounded: those that move most
POINTS = 3
Rows = Mapping[str, Any]


class Movement(NamedTuple):
    """Movement of logits by quantized tables.

    Attributes:
        measured: float32 [n], |logit(q) - logit(x)|.
        bound: float32 [n], the bound of each.
    """

    measured: Any
    bound: Any


def quantization_report(
    artifact: Artifact, windows: Batch, exact: Mapping[str, SparseRows]
) -> dict[str, float]:
    """Return the largest movement of a logit by quantized tables, and the bound of that logit.

    The logits are those of the training program for the newest session of each window.

    Args:
        artifact: the artifact.
        windows: rows of one member each.
        exact: rows of the tables as trained.

    Returns:
        `measured`, the largest movement; `bound`, the bound of the same logit; and `share`, the
        largest movement as a share of its bound over all logits that were looked at.
    """
    model = artifact.model
    module = make_model(dataclasses.replace(portable(model), dtype="float32"))
    mapper = UniqueIdMapper(model, whole_batch=False)

    @jax.jit
    def move(dense: Any, stats: Any, batch: Batch, chosen: Any, *rows: Rows) -> Movement:
        def logits(rows: Rows) -> jax.Array:
            logits_BNA: Any = module.apply(serving_variables(dense, stats, rows), batch)
            return jnp.where(chosen[..., None], logits_BNA, 0.0).reshape(-1)

        return quantization_movement(logits, *rows)

    moved = []
    for row in range(len(windows.member)):
        window = jax.tree.map(lambda x, row=row: x[row : row + 1], windows)
        mapped = mapper(window)
        rows: list[dict[str, np.ndarray]] = [{}, {}, {}]
        for table, ids in mapped.unique_ids.items():
            local = np.minimum(ids.local, model.tables[table].rows - 1)
            rows[0][table] = exact[table].read(local)
            rows[1][table] = artifact.tables.rows(table, local)
            rows[2][table] = artifact.tables.steps(table, local)
        dense, stats = artifact.dense_variables
        chosen = in_newest_session(window)
        moved.append(move(dense, stats, mapped.batch, chosen, *rows))
    measured, bound = (np.concatenate(x) for x in zip(*jax.device_get(moved)))
    worst = int(measured.argmax())
    share = measured / np.maximum(bound, np.finfo(np.float32).tiny)
    return {
        "measured": float(measured[worst]),
        "bound": float(bound[worst]),
        "share": float(share.max()),
    }


def quantization_movement(
    logits: Callable[[Rows], jax.Array], exact: Rows, quantized: Rows, steps: Rows
) -> Movement:
    """Measure the `LIMIT` logits that move most, and bound their movement.

    Args:
        logits: maps rows to logits [n]; reverse-mode differentiable.
        exact: float32 [1, u, E] by table, rows as trained.
        quantized: the rows as read back.
        steps: float32 [1, u] by table, the quantization step of each row.
    """
    # The rows as read back are rounded to float32, so an error can exceed half a step by an ulp.
    errors = {
        name: jnp.maximum(0.5 * steps[name][..., None], jnp.abs(quantized[name] - exact[name]))
        for name in exact
    }
    moved = jnp.abs(logits(quantized) - logits(exact))
    index = jax.lax.top_k(moved, min(LIMIT, moved.shape[0]))[1]

    def bound_at(share: jax.Array) -> jax.Array:
        rows = jax.tree.map(lambda x, q: x + share * (q - x), exact, quantized)
        _, pull = jax.vjp(logits, rows)

        def bound_of(i: jax.Array) -> jax.Array:
            (gradient,) = pull(jnp.zeros_like(moved).at[i].set(1.0))
            terms = [(jnp.abs(gradient[name]) * errors[name]).sum() for name in sorted(errors)]
            return jnp.stack(terms).sum()

        bounds: jax.Array = jax.lax.map(bound_of, index)
        return bounds

    bounds = jax.lax.map(bound_at, jnp.linspace(0.0, 1.0, POINTS))
    return Movement(measured=moved[index], bound=bounds.max(axis=0))
