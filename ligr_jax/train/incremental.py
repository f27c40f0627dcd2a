"""Incremental training: a day's data alone, held to what earlier training knew (LiRank 3.6).

    loss + lambda / 2 [alpha (w - w_0)^T H_0 (w - w_0)
                       + (1 - alpha) (w - w_{t-1})^T H_{t-1} (w - w_{t-1})]

from w = alpha w_0 + (1 - alpha) w_{t-1}, where w_0 is the model trained from nothing, w_{t-1} the
newest one, and H the diagonal empirical Fisher of each on its own training data. Both terms
together are one quadratic, up to a constant: importance H = alpha H_0 + (1 - alpha) H_{t-1} about
the mean of w_0 and w_{t-1} weighted by their parts of it (`ligr_jax.train.ewc`). Statistics of
batches start as the mixture of both runs' too, and nothing holds them.

The rest is the training of any run: its data are the impressions between `data.edges`, with all
that came before as history. A row optimizer's accumulators go on from w_{t-1}, since they tell how
much is known of a row; Adam's moments and the schedule start anew.

    ligr train --data DATA --out day-1 --warm-start day-0 --cold-weights cold \\
        data.edges=T0,T1,T2,T2 train.warm.cold_weight=0.1 train.warm.fisher_weight=10
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

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
from ligr_jax.tables.exchange import gather_rows
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.evaluate import Evaluator, restore
from ligr_jax.train.ewc import EwcState
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

_TOGETHER = 16  # gradients of impressions held at a time
# What two models may differ in and still have weights that mean the same.
_FREE = ("prior", "dropout", "dtype", "remat", "unroll", "implementation", "table_init")
_ONE_DEVICE = ("mesh.data=1", "mesh.model=1", "mesh.fsdp=false", "mesh.placement=auto")

Weights = dict[str, Any]  # a model's parameters on the host, whole tables [V, E] by name


def warm_assignments(run: Path, cold: Path | None = None) -> list[str]:
    """What `--warm-start` and `--cold-weights` say: where the runs are, and which runs they are."""
    runs = [run] if cold is None else [run, cold]
    named = [f"train.warm.run={run}", *([f"train.warm.cold_run={cold}"] if cold else [])]
    return [*named, f"train.warm.digest={'-'.join(digest(load_config(r)) for r in runs)}"]


def warm_start(config: Config, layout: Layout, fresh: TrainState) -> TrainState:
    """A fresh state with the weights of earlier runs, and held to them where a penalty is asked.

    Earlier runs are restored on one device, which their tables must fit.

    Raises:
        ConfigError: an earlier run is of another model, has no checkpoint, is not the run that
            `train.warm.digest` names, or the optimizer of the tables cannot hold them.
    """
    _refuse(config)
    warm = config.train.warm
    mean, stats, weighted, importance, rows = None, None, None, None, None
    shares = {warm.run: 1 - warm.cold_weight}  # on the first day both may be one run
    if warm.cold_weight:
        shares[warm.cold_run] = shares.get(warm.cold_run, 0) + warm.cold_weight
    for run, share in shares.items():
        same = load_config(Path(run)).data.digest == config.data.digest
        data = Path(config.data.dir) if same else None  # the data may have moved since
        evaluator, state = restore(Path(run), data, batch=1, assignments=_ONE_DEVICE)
        _require_same_model(config, evaluator.config, run)
        weights = jax.device_get(state.params)
        mean = _add(mean, share, weights)
        stats = _add(stats, share, jax.device_get(state.stats))
        if run == warm.run:
            rows = _accumulators(config, evaluator, state)
        if warm.fisher_weight and share:
            _log.info(f"measuring which weights {run} relies on")
            h = fisher(evaluator, state, warm.examples, config.train.seed)
            importance = _add(importance, share, h)
            weighted = _add(weighted, share, jax.tree.map(np.multiply, h, weights))
        del state, weights
    center = None
    if warm.fisher_weight:
        center = jax.tree.map(
            lambda sum_, h, w: np.where(h > 0, sum_ / np.where(h > 0, h, 1), w),
            weighted,
            importance,
            mean,
        )
    return _placed(layout, fresh, mean, stats, importance, center, rows)


def fisher(evaluator: Evaluator, state: TrainState, examples: int, seed: int) -> Weights:
    """The diagonal empirical Fisher information of a run on its training data.

        H = sum_n w_n (dl_n / dw)^2 / sum_n w_n

    l_n is the cross-entropy of impression n summed over its known actions, w_n its weight; squares
    of gradients of single impressions, not of a batch's. The rank loss is no likelihood of an
    impression, and is left out. Of a table, rows that no sampled impression reaches have 0.

    Args:
        evaluator: of the run, on one device; state: the run's there.
        examples: about how many impressions to take, by whole rows of the plan drawn at random.

    Returns:
        float32 arrays like the parameters, on the host.
    """
    records, config = evaluator.records, evaluator.config
    plan = plan_for(records, config, "train")
    rng = np.random.default_rng(seed)
    assemble = Assembler(records, plan, config.model)
    mapper = UniqueIdMapper(config.model, whole_batch=False)
    total = jax.tree.map(jnp.zeros_like, state.params)
    add = jax.jit(partial(_add_squares, evaluator), donate_argnums=0)
    seen = 0.0
    for row in rng.permutation(len(plan)):
        batch, unique_ids = mapper(assemble(np.array([row])))
        total = add(total, state, batch, {t: d.local for t, d in unique_ids.items()})
        seen += float(batch.weight.sum())
        examples -= int((batch.weight > 0).sum())
        if examples <= 0:
            break
    return jax.tree.map(lambda x: np.asarray(x) / np.float32(max(seen, 1e-9)), total)


def _add_squares(
    evaluator: Evaluator, total: Any, state: TrainState, batch: Batch, own: dict[str, jax.Array]
) -> Any:
    """The total with each impression's weighted squared gradient added; one row of a plan."""
    dense, tables = split_tables(state.params)
    rows = gather_rows(evaluator.layout, tables, own)

    def losses(weights: Any) -> jax.Array:  # [N]
        variables = {"params": weights[0], STATISTICS: state.stats, ROWS: {TABLES: weights[1]}}
        z = evaluator.model.apply(variables, batch)[0].astype(jnp.float32)
        y = batch.labels[0]
        return jnp.where(y >= 0, jax.nn.softplus(z) - z * (y > 0), 0).sum(-1)

    _, pull = jax.vjp(losses, (dense, rows))
    n = batch.weight.shape[1]
    together = min(_TOGETHER, n)
    steps = -(-n // together)
    # Impressions that fill up the last group have no weight.
    one_hot = jnp.pad(jnp.eye(n), ((0, steps * together - n), (0, 0)))
    weight = jnp.pad(batch.weight[0], (0, steps * together - n))

    def add(sums: Any, group: Any) -> tuple[Any, None]:
        ((dense_g, rows_g),) = jax.vmap(pull)(group[0])
        squares = jax.tree.map(
            lambda s, g: s + jnp.einsum("n,n...->...", group[1], g * g), sums, (dense_g, rows_g)
        )
        return squares, None

    zero = jax.tree.map(jnp.zeros_like, (dense, rows))
    groups = (one_hot.reshape(steps, together, n), weight.reshape(steps, together))
    (of_dense, of_rows), _ = jax.lax.scan(add, zero, groups)
    dense_total, table_total = split_tables(total)
    new = jax.tree.map(jnp.add, dense_total, of_dense)
    return {
        **new,
        TABLES: {
            t: x.at[own[t][0]].add(of_rows[t][0], mode="drop") for t, x in table_total.items()
        },
    }


def _refuse(config: Config) -> None:
    warm = config.train.warm
    if jax.process_count() > 1:
        raise ConfigError(
            f"train.warm.run={warm.run}: runs go on from others in one process, and this is one "
            f"of {jax.process_count()}"
        )
    if warm.fisher_weight and config.optim.table_optimizer == "adamw":
        raise ConfigError(
            f"train.warm.fisher_weight={warm.fisher_weight} holds the rows of a batch, and "
            "optim.table_optimizer=adamw moves all rows; choose another, e.g. rowwise_adagrad"
        )
    runs = [r for r in (warm.run, warm.cold_run) if r]
    found = "-".join(digest(load_config(Path(r))) for r in runs)
    if found != warm.digest:
        raise ConfigError(
            f"train.warm.digest={warm.digest!r}, but {' and '.join(runs)} have {found}; start with "
            "--warm-start and --cold-weights, which fill it in"
        )


def _require_same_model(config: Config, other: Config, run: str) -> None:
    ours, theirs = flatten(config.model), flatten(other.model)
    for name in ours | theirs:
        if name not in _FREE and ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"{run} has model.{name}={theirs.get(name)}, this run {ours.get(name)}: weights "
                "go on in the model they were trained in; give the same values"
            )


def _add(total: Any, share: float, tree: Any) -> Any:
    scaled = jax.tree.map(lambda x: np.float32(share) * x, tree)
    return scaled if total is None else jax.tree.map(np.add, total, scaled)


def _accumulators(config: Config, evaluator: Evaluator, state: TrainState) -> Any:
    """What the optimizer of rows knows of each table; None where it is another optimizer."""
    if config.optim.table_optimizer != evaluator.config.optim.table_optimizer:
        return None
    rows = jax.device_get(state.opt_state.get("rows"))
    return rows and {t: s.inner if isinstance(s, EwcState) else s for t, s in rows.items()}


def _placed(
    layout: Layout,
    fresh: TrainState,
    weights: Any,
    stats: Any,
    importance: Any,
    center: Any,
    rows: Any,
) -> TrainState:
    """Host trees, tables by name, as a state that lives where `fresh` does."""

    def packed(tree: Any) -> Any:
        dense, tables = split_tables(tree)
        return {**dense, TABLES: layout.pack(tables)} if tables else dense

    params, opt_state = packed(weights), dict(fresh.opt_state)
    if rows is not None:
        kept = layout.pack(rows)
        opt_state["rows"] = {
            name: s._replace(inner=kept[name]) if isinstance(s, EwcState) else kept[name]
            for name, s in opt_state["rows"].items()
        }
    if importance is not None:
        of_dense, h = split_tables(packed(importance))
        around, c = split_tables(packed(center))
        opt_state["dense"] = (EwcState(of_dense, around), *opt_state["dense"][1:])
        opt_state["rows"] = {
            name: s._replace(fisher=h[name], anchor_params=c[name])
            for name, s in opt_state["rows"].items()
        }
    warm = fresh._replace(params=params, opt_state=opt_state, stats=stats)
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), warm, fresh)
