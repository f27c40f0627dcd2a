"""One training step: a pure function `(state, batch, lists) -> (state, metrics)`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import PartitionSpec

from ligr_jax.config import Config, metric_key
from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.experts import LOSSES
from ligr_jax.ops.losses import attention_rank_loss, binary_cross_entropy, session_numbers
from ligr_jax.ops.masks import allowed_pairs, history_mask, session_mask
from ligr_jax.tables.exchange import gather_rows, reduce_row_grads, sync_unique_ids
from ligr_jax.tables.placements import Lists
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.state import Optimizer, TrainState, split

Metrics = Mapping[str, jax.Array]
Step = Callable[[TrainState, Batch, Lists], tuple[TrainState, Metrics]]


def make_step(
    model: nn.Module, tx: Optimizer, config: Config, key: jax.Array | None = None
) -> Step:
    """The step of a configuration: loss, gradients in micro-batches, update where all is finite.

    Loss = sum over actions of mean binary cross-entropy + rank_weight * sum over actions of mean
    Attention Rank loss. Means are over the whole global batch, whatever its micro-batches or
    devices, so splitting it changes nothing but rounding. Where tables train sparsely, the batch's
    ids are places in `lists`, and gradients are taken with respect to the rows listed alone.

    What modules sow into `losses` is added; it and the new statistics of batches are means over
    micro-batches, which a split does change.

    key: of dropout, by default that of `train.seed`.
    """
    key = jax.random.key(config.train.seed) if key is None else key
    parts = config.optim.accumulate

    def step(state: TrainState, batch: Batch, lists: Lists) -> tuple[TrainState, Metrics]:
        counts = _sums(jnp.zeros_like(batch.labels, jnp.float32), batch)[1]
        weights, looked_up = state.params, {}
        if tx.rule:
            weights, tables = split(state.params)
            lists = sync_unique_ids(lists, config.model.tables)
            looked_up = gather_rows(tx.layout, tables, {t: d.local for t, d in lists.items()})

        def loss_of(weights: Any, part: Batch, part_key: jax.Array) -> tuple[jax.Array, Any]:
            dense, rows = weights
            if config.mesh.fsdp:
                dense = jax.lax.with_sharding_constraint(dense, PartitionSpec())
            given = {"params": dense, STATISTICS: state.stats}
            given |= {ROWS: {TABLES: rows}} if rows else {}
            logits, left = model.apply(
                given,
                part,
                deterministic=False,
                rngs={"dropout": part_key},
                mutable=[STATISTICS, LOSSES],
            )
            sums, _ = _sums(logits, part)
            means = jax.tree.map(lambda s, n: s / jnp.maximum(n, 1e-9), sums, counts)
            loss = means["bce"].sum() + config.optim.rank_weight * means["rank"].sum()
            loss += sum(jax.tree.leaves(left.get(LOSSES, {}))) / parts
            stats = jax.tree.map(lambda s: s / parts, left.get(STATISTICS, {}))
            return loss, (means, stats)

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        keys = jax.random.split(jax.random.fold_in(key, state.step), parts)
        if parts == 1:
            (loss, (means, stats)), grads = gradient((weights, looked_up), batch, keys[0])
        else:
            (loss, (means, stats)), grads = _accumulate(gradient, (weights, looked_up), batch, keys)
        if looked_up:
            grads = (grads[0], reduce_row_grads(tx.layout, grads[1], lists))
        norm = optax.tree.norm(grads)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        params, opt_state = tx.update(state, grads, lists, good)
        new = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            bad_in_row=jnp.where(good, 0, state.bad_in_row + 1),
            bad_total=state.bad_total + ~good,
            stats=jax.tree.map(lambda s, old: jnp.where(good, s, old), stats, state.stats),
        )
        return new, _metrics(config, batch, loss, means, norm, new)

    return step


def _sums(logits: jax.Array, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Sums of both losses and what they are divided by, per action; the latter ignores `logits`."""
    bce, weight = binary_cross_entropy(logits, batch.labels, batch.weight)
    number = session_numbers(batch.member, batch.session)
    rank, sessions = attention_rank_loss(logits, batch.labels, number, batch.weight > 0)
    return {"bce": bce, "rank": rank}, {"bce": weight, "rank": sessions}


def _accumulate(
    gradient: Callable[..., Any], params: Any, batch: Batch, keys: jax.Array
) -> tuple[Any, Any]:
    """Sums values and gradients over micro-batches; row i goes to part i mod parts, so that each
    part is spread over all devices like the batch itself."""
    parts = len(keys)
    cut = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    like = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], cut), keys[0])
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
    return jax.lax.scan(add, zero, (cut, keys))[0]


def _metrics(
    config: Config, batch: Batch, loss: jax.Array, means: Any, norm: jax.Array, new: TrainState
) -> Metrics:
    actions = config.model.actions
    real = batch.member > 0
    return {
        "loss": loss,
        **{f"{metric_key(a)}/bce": means["bce"][i] for i, a in enumerate(actions)},
        **{f"{metric_key(a)}/rank": means["rank"][i] for i, a in enumerate(actions)},
        "grad_norm": norm,
        "bad_in_row": new.bad_in_row,
        "bad_total": new.bad_total,
        "impressions": real.sum(dtype=jnp.float32),
        "targets": (batch.weight > 0).sum(dtype=jnp.float32),
        "history_pairs": allowed_pairs(
            history_mask(batch.member, batch.session, config.model.mask)
        ),
        "set_pairs": allowed_pairs(session_mask(batch.member, batch.session)),
    }
