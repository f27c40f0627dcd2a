"""Incremental training: new data alone, with a Fisher penalty for earlier data (LiRank 3.6).

    loss + lambda / 2 [alpha (w - w_0)^T H_0 (w - w_0)
                       + (1 - alpha) (w - w_{t-1})^T H_{t-1} (w - w_{t-1})]

Training starts from w = alpha w_0 + (1 - alpha) w_{t-1}. Here w_0 is the cold model, which was
trained from random weights, w_{t-1} the newest model, and H the diagonal empirical Fisher
information of each on its own training data. Up to a constant, both terms together are one
quadratic (`ligr_jax.train.ewc`): its Fisher information is H = alpha H_0 + (1 - alpha) H_{t-1}, and
its anchor is the mean of w_0 and w_{t-1} weighted by their parts of H. Batch statistics start as
the same mixture of both runs and have no penalty.

All else is as in any run. The data are the impressions between `data.edges`, with all earlier ones
as history. The accumulators of a row optimizer continue from w_{t-1}, because they measure how
much is known of each row; Adam's moments and the schedule start from zero.

    ligr train --data DATA --out day-1 --warm-start day-0 --cold-weights cold \\
        data.edges=T0,T1,T2,T2 train.warm.cold_weight=0.1 train.warm.fisher_weight=10
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, ConfigError, digest, flatten
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.runs.directory import load_config
from ligr_jax.store.mirror import local_path, uri_of
from ligr_jax.tables.exchange import gather_rows
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.evaluate import Evaluator, restore
from ligr_jax.train.ewc import EwcState
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

_PER_STEP = 16  # impressions whose gradients are in memory at the same time
# Settings that may differ between two models whose weights have the same meaning.
_MAY_DIFFER = ("prior", "dropout", "dtype", "remat", "unroll", "implementation", "table_init")
_ONE_DEVICE = ("mesh.data=1", "mesh.model=1", "mesh.fsdp=false", "mesh.placement=auto")

HostParams = dict[str, Any]  # parameters on the host, with complete tables [V, E] by name


class Penalty(NamedTuple):
    """The quadratic penalty of earlier runs.

    Attributes:
        fisher: diagonal Fisher information.
        anchor_params: parameters at the minimum of the penalty.
    """

    fisher: HostParams
    anchor_params: HostParams


class WarmWeights(NamedTuple):
    """What earlier runs contribute to the first state of a run, on the host.

    Attributes:
        params: parameters to start from.
        stats: batch statistics to start from.
        row_states: state of the row optimizer by table; None if the optimizers differ.
        penalty: None without a penalty.
    """

    params: HostParams
    stats: Any
    row_states: Any
    penalty: Penalty | None


def warm_assignments(run: Path, cold: Path | None = None) -> list[str]:
    """Return the assignments of `--warm-start` and `--cold-weights`.

    Args:
        run: directory of the newest run.
        cold: directory of the run that was trained from random weights.

    Returns:
        Assignments with the directories and with the digests that identify the runs.
    """
    runs = [run] if cold is None else [run, cold]
    assignments = [f"train.warm.run={uri_of(run) or run}"]
    if cold is not None:
        assignments.append(f"train.warm.cold_run={uri_of(cold) or cold}")
    digests = "-".join(digest(load_config(r)) for r in runs)
    return [*assignments, f"train.warm.digest={digests}"]


def warm_start(config: Config, layout: Layout, state: TrainState) -> TrainState:
    """Return the initial state with the weights of earlier runs, and with a penalty if one is set.

    Earlier runs are restored on one device, so its memory must hold their tables.

    Args:
        config: configuration of the run; see `train.warm`.
        layout: layout of its tables.
        state: its initial state, which gives shapes and shardings.

    Raises:
        ConfigError: an earlier run has another model or no checkpoint, it is not the run that
            `train.warm.digest` identifies, or the table optimizer cannot have a penalty.
    """
    _require_possible(config)
    return _on_devices(layout, state, _combine(config))


def _combine(config: Config) -> WarmWeights:
    """Return the weighted mean of the earlier runs, and their penalty."""
    warm = config.train.warm
    params: Any = None
    stats: Any = None
    row_states: Any = None
    fisher: Any = None
    fisher_params: Any = None  # sum of shares times fisher * params

    # On the first day both runs may be the same directory.
    shares = {warm.run: 1 - warm.cold_weight}
    if warm.cold_weight:
        shares[warm.cold_run] = shares.get(warm.cold_run, 0) + warm.cold_weight

    for run, share in shares.items():
        # The data of an earlier run may have moved since; equal data are where this run's are.
        same_data = load_config(local_path(run)).data.digest == config.data.digest
        data = local_path(config.data.dir) if same_data else None
        evaluator, earlier = restore(local_path(run), data, batch=1, assignments=_ONE_DEVICE)
        _require_same_model(config, evaluator.config, run)
        earlier_params = jax.device_get(earlier.params)
        params = _add_scaled(params, share, earlier_params)
        stats = _add_scaled(stats, share, jax.device_get(earlier.stats))
        if run == warm.run:
            row_states = _row_states(config, evaluator, earlier)
        if warm.fisher_weight and share:
            _log.info(f"measuring the Fisher information of {run}")
            h = fisher_information(evaluator, earlier, warm.examples, config.train.seed)
            fisher = _add_scaled(fisher, share, h)
            weighted = jax.tree.map(np.multiply, h, earlier_params)
            fisher_params = _add_scaled(fisher_params, share, weighted)
        del earlier, earlier_params  # tables of two runs need not fit in memory

    penalty = None
    if warm.fisher_weight:
        # Without Fisher information there is no penalty, and any anchor serves.
        anchor_params = jax.tree.map(
            lambda total, h, w: np.where(h > 0, total / np.where(h > 0, h, 1), w),
            fisher_params,
            fisher,
            params,
        )
        penalty = Penalty(fisher=fisher, anchor_params=anchor_params)
    return WarmWeights(params=params, stats=stats, row_states=row_states, penalty=penalty)


def fisher_information(
    evaluator: Evaluator, state: TrainState, examples: int, seed: int
) -> HostParams:
    """Return the diagonal empirical Fisher information of a run on its training data.

        H = sum_n w_n (dl_n / dw)^2 / sum_n w_n

    l_n is the cross-entropy of impression n, summed over its known actions, and w_n its weight.
    Gradients of single impressions are squared, not gradients of a batch. The rank loss is not the
    likelihood of an impression and is left out. Table rows that no sampled impression looks up have
    zero information.

    Args:
        evaluator: evaluator of the run, on one device.
        state: state of the run on that device.
        examples: approximate number of impressions; complete rows of the packing plan are sampled.
        seed: seed of the sample.

    Returns:
        float32 arrays like the parameters, on the host.
    """
    records, config = evaluator.records, evaluator.config
    plan = plan_for(records, config, "train")
    rng = np.random.default_rng(seed)
    assemble = Assembler(records, plan, config.model)
    map_ids = UniqueIdMapper(config.model, whole_batch=False)
    total = jax.tree.map(jnp.zeros_like, state.params)
    add = jax.jit(partial(_add_squared_grads, evaluator), donate_argnums=0)
    weight_sum = 0.0
    for row in rng.permutation(len(plan)):
        batch, unique_ids = map_ids(assemble(np.array([row])))
        total = add(total, state, batch, {t: ids.local for t, ids in unique_ids.items()})
        weight_sum += float(batch.weight.sum())
        examples -= int((batch.weight > 0).sum())
        if examples <= 0:
            break
    divisor = np.float32(max(weight_sum, 1e-9))
    information: HostParams = jax.tree.map(lambda x: np.asarray(x) / divisor, total)
    return information


def _add_squared_grads(
    evaluator: Evaluator,
    total: Any,
    state: TrainState,
    batch: Batch,
    local: dict[str, jax.Array],
) -> Any:
    """Add the weighted squared gradient of each impression of a batch of one row.

    Args:
        evaluator: evaluator of the run.
        total: sum so far, a pytree like the parameters.
        state: state of the run.
        batch: a batch of one row, whose ids are indices into `local`.
        local: int32 [1, u] by table, unique ids of the batch.
    """
    dense, tables = split_tables(state.params)
    rows_nUE = gather_rows(evaluator.layout, tables, local)

    def losses(weights: Any) -> jax.Array:
        """Return the cross-entropy of each impression, [N]."""
        dense, rows_nUE = weights
        variables = {"params": dense, STATISTICS: state.stats, ROWS: {TABLES: rows_nUE}}
        logits_NA = evaluator.model.apply(variables, batch)[0].astype(jnp.float32)
        labels_NA = batch.labels[0]
        entropy_NA = jax.nn.softplus(logits_NA) - logits_NA * (labels_NA > 0)
        return jnp.where(labels_NA >= 0, entropy_NA, 0).sum(-1)

    # One vector-Jacobian product per impression, `per_step` of them at a time. Impressions that
    # fill the last step have zero weight.
    _, vjp = jax.vjp(losses, (dense, rows_nUE))
    n = batch.weight.shape[1]
    per_step = min(_PER_STEP, n)
    steps = -(-n // per_step)
    one_hot = jnp.pad(jnp.eye(n), ((0, steps * per_step - n), (0, 0)))
    weight = jnp.pad(batch.weight[0], (0, steps * per_step - n))

    def add(sums: Any, impressions: Any) -> tuple[Any, None]:
        cotangents, weights = impressions
        (grads,) = jax.vmap(vjp)(cotangents)
        squares = jax.tree.map(
            lambda s, g: s + jnp.einsum("n,n...->...", weights, g * g), sums, grads
        )
        return squares, None

    zeros = jax.tree.map(jnp.zeros_like, (dense, rows_nUE))
    impressions = (one_hot.reshape(steps, per_step, n), weight.reshape(steps, per_step))
    (dense_sum, rows_sum), _ = jax.lax.scan(add, zeros, impressions)

    # Rows of the batch are added to their tables; padding is out of range and dropped.
    dense_total, table_total = split_tables(total)
    new_tables = {
        t: x.at[local[t][0]].add(rows_sum[t][0], mode="drop") for t, x in table_total.items()
    }
    return {**jax.tree.map(jnp.add, dense_total, dense_sum), TABLES: new_tables}


def _require_possible(config: Config) -> None:
    warm = config.train.warm
    if jax.process_count() > 1:
        raise ConfigError(
            f"train.warm.run={warm.run}: a run starts from another in one process, and this is one "
            f"of {jax.process_count()}"
        )
    if warm.fisher_weight and config.optim.table_optimizer == "adamw":
        raise ConfigError(
            f"train.warm.fisher_weight={warm.fisher_weight} holds the rows of a batch, and "
            "optim.table_optimizer=adamw moves all rows; choose another, e.g. rowwise_adagrad"
        )
    runs = [r for r in (warm.run, warm.cold_run) if r]
    digests = "-".join(digest(load_config(local_path(r))) for r in runs)
    if digests != warm.digest:
        raise ConfigError(
            f"train.warm.digest={warm.digest!r}, but {' and '.join(runs)} have {digests}; start "
            "with --warm-start and --cold-weights, which fill it in"
        )


def _require_same_model(config: Config, other: Config, run: str) -> None:
    ours, theirs = flatten(config.model), flatten(other.model)
    for name in ours | theirs:
        if name not in _MAY_DIFFER and ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"{run} has model.{name}={theirs.get(name)}, this run {ours.get(name)}: weights "
                "continue only in the model they were trained in; give the same values"
            )


def _add_scaled(total: Any, share: float, tree: Any) -> Any:
    scaled = jax.tree.map(lambda x: np.float32(share) * x, tree)
    return scaled if total is None else jax.tree.map(np.add, total, scaled)


def _row_states(config: Config, evaluator: Evaluator, state: TrainState) -> Any:
    """Return the row optimizer's state by table; None if the run has another row optimizer."""
    if config.optim.table_optimizer != evaluator.config.optim.table_optimizer:
        return None
    rows = jax.device_get(state.opt_state.get("rows"))
    return rows and {t: s.inner if isinstance(s, EwcState) else s for t, s in rows.items()}


def _on_devices(layout: Layout, state: TrainState, warm: WarmWeights) -> TrainState:
    """Return warm weights as a state with the shardings of the initial state."""

    def as_stored(params: HostParams) -> HostParams:
        dense, tables = split_tables(params)
        return {**dense, TABLES: layout.pack(tables)} if tables else dense

    opt_state = dict(state.opt_state)
    if warm.row_states is not None:
        stored = layout.pack(warm.row_states)
        opt_state["rows"] = {
            name: s._replace(inner=stored[name]) if isinstance(s, EwcState) else stored[name]
            for name, s in opt_state["rows"].items()
        }
    if warm.penalty is not None:
        dense_fisher, table_fisher = split_tables(as_stored(warm.penalty.fisher))
        dense_anchor, table_anchor = split_tables(as_stored(warm.penalty.anchor_params))
        dense_penalty = EwcState(fisher=dense_fisher, anchor_params=dense_anchor)
        opt_state["dense"] = (dense_penalty, *opt_state["dense"][1:])
        opt_state["rows"] = {
            name: s._replace(fisher=table_fisher[name], anchor_params=table_anchor[name])
            for name, s in opt_state["rows"].items()
        }
    warm_state = state._replace(
        params=as_stored(warm.params), opt_state=opt_state, stats=warm.stats
    )
    placed: TrainState = jax.tree.map(
        lambda x, initial: jax.device_put(x, initial.sharding), warm_state, state
    )
    return placed
