"""One training step: a pure function `(state, inputs) -> (state, metrics)`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import PartitionSpec

from ligr_jax.config import ModelConfig, OptimConfig, metric_key
from ligr_jax.data.batch import Batch
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.experts import LOSSES
from ligr_jax.nn.models import attention_pairs
from ligr_jax.ops.losses import attention_rank_loss, binary_cross_entropy, session_numbers
from ligr_jax.ops.pairwise import pair_loss
from ligr_jax.tables.exchange import gather_rows, reduce_row_grads, sync_unique_ids
from ligr_jax.tables.placements import Lists
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.optimizer import Grads, Optimizer, Params, split_tables
from ligr_jax.train.state import TrainState

Metrics = Mapping[str, jax.Array]
Step = Callable[[TrainState, MappedBatch], tuple[TrainState, Metrics]]
# Losses by name, and the field of `OptimConfig` with the weight of each.
LOSS_WEIGHTS = {"bce": "bce_weight", "rank": "rank_weight", "pair": "pair_weight"}


class Weights(NamedTuple):
    """What a step differentiates with respect to.

    Attributes:
        dense: dense parameters; all parameters if tables train densely.
        rows_nUE: rows of the batch's unique ids, float32 [n, u, E] by table; empty if tables train
            densely.
    """

    dense: Params
    rows_nUE: Mapping[str, jax.Array]


class Losses(NamedTuple):
    """Losses of a batch or a micro-batch.

    Attributes:
        total: float32 []; the loss that is differentiated.
        by_action: float32 [A] by loss (`LOSS_WEIGHTS`); a micro-batch has its share of the means.
        stats: new batch statistics of the model; a micro-batch has its share of the means.
    """

    total: jax.Array
    by_action: dict[str, jax.Array]
    stats: Any


# (weights, state, part of the batch, counts of the whole batch, key) -> loss of the part
LossFunction = Callable[[Weights, TrainState, Batch, Any, jax.Array], tuple[jax.Array, Losses]]


def make_step(
    model: nn.Module,
    tx: Optimizer,
    config: OptimConfig,
    key: jax.Array,
    fsdp: bool = False,
) -> Step:
    """Return the training step of a model.

    The loss is `bce_weight` times the sum over actions of the mean binary cross-entropy, plus
    `rank_weight` and `pair_weight` times the sums over actions of the mean Attention Rank loss and
    of the mean pairwise loss of a session. Means are over the whole global batch, so micro-batches
    and devices change only rounding. Losses that modules sow
    into `losses`, and new batch statistics, are means over micro-batches, which do depend on their
    number.

    If tables train sparsely, gradients are taken with respect to the unique rows of the batch. A
    step whose loss or gradient is not finite is counted and not applied.

    Args:
        model: model to train.
        tx: its optimizer.
        config: `accumulate` is the number of micro-batches, the weights are those of the losses.
        key: random key of dropout; each step folds its number in.
        fsdp: whether dense parameters are sharded and have to be gathered for the forward pass.

    Returns:
        A pure function, to be jitted with its state donated.
    """
    loss_fn = _make_loss(model, config, fsdp)

    def counts_of(batch: Batch) -> dict[str, jax.Array]:
        """Return the divisors of the losses of a whole batch."""
        return _loss_sums(jnp.zeros_like(batch.labels, jnp.float32), batch, config)[1]

    def step(state: TrainState, inputs: MappedBatch) -> tuple[TrainState, Metrics]:
        unique_ids = sync_unique_ids(inputs.unique_ids, model.config.tables) if tx.sparse else {}
        weights = _gather_weights(tx, state.params, unique_ids)
        keys = jax.random.split(jax.random.fold_in(key, state.step), config.accumulate)
        losses, weight_grads = _loss_and_grads(
            loss_fn, weights, state, inputs.batch, counts_of(inputs.batch), keys
        )
        grads = _reduce_grads(tx, weight_grads, unique_ids)
        grad_norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(losses.total) & jnp.isfinite(grad_norm)
        params, opt_state = tx.update(
            state.params, state.opt_state, grads, unique_ids, state.step, is_finite
        )
        new_state = _next_state(state, params, opt_state, losses.stats, is_finite)
        metrics = _loss_metrics(model.config, losses, grad_norm)
        metrics |= _skip_metrics(new_state) | _work_metrics(model.config, inputs.batch)
        return new_state, metrics

    return step


def _make_loss(model: nn.Module, config: OptimConfig, fsdp: bool) -> LossFunction:
    """Return the loss of a micro-batch as a function of the weights."""

    def loss_of(
        weights: Weights, state: TrainState, part: Batch, counts: Any, key: jax.Array
    ) -> tuple[jax.Array, Losses]:
        dense = weights.dense
        if fsdp:
            dense = jax.lax.with_sharding_constraint(dense, PartitionSpec())
        variables = {"params": dense, STATISTICS: state.stats}
        if weights.rows_nUE:
            variables[ROWS] = {TABLES: weights.rows_nUE}
        logits_BNA, collections = model.apply(
            variables,
            part,
            deterministic=False,
            rngs={"dropout": key},
            mutable=[STATISTICS, LOSSES],
        )
        sums, _ = _loss_sums(logits_BNA, part, config)
        means = jax.tree.map(lambda s, n: s / jnp.maximum(n, 1e-9), sums, counts)
        total = sum(getattr(config, LOSS_WEIGHTS[name]) * x.sum() for name, x in means.items())
        total += sum(jax.tree.leaves(collections.get(LOSSES, {}))) / config.accumulate
        stats = jax.tree.map(lambda s: s / config.accumulate, collections.get(STATISTICS, {}))
        return total, Losses(total=total, by_action=means, stats=stats)

    return loss_of


def _loss_sums(
    logits_BNA: jax.Array, batch: Batch, config: OptimConfig
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Return the sum of each loss by action, and its divisor, which does not depend on logits.

    The pairwise loss is computed only if it has a weight; the other two are always reported.
    """
    number = session_numbers(batch.member, batch.session)
    of_sessions = (logits_BNA, batch.labels, number, batch.weight > 0)
    losses = {
        "bce": binary_cross_entropy(logits_BNA, batch.labels, batch.weight),
        "rank": attention_rank_loss(*of_sessions),
    }
    if config.pair_weight:
        losses["pair"] = pair_loss(*of_sessions)
    sums, counts = ({name: pair[i] for name, pair in losses.items()} for i in (0, 1))
    return sums, counts


def _gather_weights(tx: Optimizer, params: Params, unique_ids: Lists) -> Weights:
    """Return the dense parameters and the table rows of the batch."""
    if tx.sparse is None:
        return Weights(dense=params, rows_nUE={})
    dense, tables = split_tables(params)
    local = {table: ids.local for table, ids in unique_ids.items()}
    return Weights(dense=dense, rows_nUE=gather_rows(tx.layout, tables, local))


def _loss_and_grads(
    loss_fn: LossFunction,
    weights: Weights,
    state: TrainState,
    batch: Batch,
    counts: Any,
    keys: jax.Array,
) -> tuple[Losses, Weights]:
    """Return losses and gradients of a batch, summed over its micro-batches.

    Row i goes to micro-batch i mod parts, so that each micro-batch is sharded over all devices as
    the batch is.

    Args:
        loss_fn: result of `_make_loss`.
        weights: what to differentiate with respect to.
        state: state before the step.
        batch: the whole batch.
        counts: divisors of the losses of the whole batch.
        keys: one random key per micro-batch.
    """

    def gradient(part: Batch, key: jax.Array) -> tuple[Losses, Weights]:
        differentiate = jax.value_and_grad(loss_fn, has_aux=True)
        (_, losses), grads = differentiate(weights, state, part, counts, key)
        return losses, grads

    parts = len(keys)
    if parts == 1:
        return gradient(batch, keys[0])
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(*part)), None

    shapes = jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], micro), keys[0])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total: tuple[Losses, Weights] = jax.lax.scan(add, zeros, (micro, keys))[0]
    return total


def _reduce_grads(tx: Optimizer, grads: Weights, unique_ids: Lists) -> Grads:
    """Return the gradients with those of rows summed over the batch, by stored array."""
    if not grads.rows_nUE:
        return Grads(dense=grads.dense, rows={})
    return Grads(dense=grads.dense, rows=reduce_row_grads(tx.layout, grads.rows_nUE, unique_ids))


def _next_state(
    state: TrainState, params: Params, opt_state: Any, stats: Any, is_finite: jax.Array
) -> TrainState:
    """Return the state after a step; a skipped step keeps the batch statistics."""
    return TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        bad_in_row=jnp.where(is_finite, 0, state.bad_in_row + 1),
        bad_total=state.bad_total + ~is_finite,
        stats=jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), stats, state.stats),
    )


def _loss_metrics(
    config: ModelConfig, losses: Losses, grad_norm: jax.Array
) -> dict[str, jax.Array]:
    """Return the losses by action, and the norm of the gradients before clipping."""
    by_action = {
        f"{metric_key(action)}/{name}": losses.by_action[name][i]
        for name in LOSS_WEIGHTS
        if name in losses.by_action
        for i, action in enumerate(config.actions)
    }
    return {"loss": losses.total, **by_action, "grad_norm": grad_norm}


def _skip_metrics(state: TrainState) -> dict[str, jax.Array]:
    return {"bad_in_row": state.bad_in_row, "bad_total": state.bad_total}


def _work_metrics(config: ModelConfig, batch: Batch) -> dict[str, jax.Array]:
    """Return the counts that FLOPs and throughput are computed from."""
    return {
        "impressions": (batch.member > 0).sum(dtype=jnp.float32),
        "targets": (batch.weight > 0).sum(dtype=jnp.float32),
        **attention_pairs(config, batch.member, batch.session),
    }
