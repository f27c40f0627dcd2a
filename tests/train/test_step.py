"""A step is pure, indifferent to how its batch is cut, and never applies what is not finite."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ligr_jax.config import Config, OptimConfig
from ligr_jax.data.pipeline import TrainBatch, plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.nn.ligr import LiGR
from ligr_jax.parallel.mesh import data_mesh, over_rows, replicated
from ligr_jax.tables.sparse import split
from ligr_jax.train.state import TrainState, init_state, optimizer, schedule
from ligr_jax.train.step import make_step
from tests.train.runs import small_config

DENSE = "optim.table_optimizer=adamw"


def take(config: Config, count: int) -> list[TrainBatch]:
    records = Records(Path(config.data.dir))
    iterator = train_batches(records, plan_for(records, config, "train"), config)
    return [next(iterator) for _ in range(count)]


@pytest.fixture(scope="module")
def batches(prepared: Path) -> list[TrainBatch]:
    """For tables that train densely: ids are table rows."""
    return take(small_config(prepared, DENSE), 3)


def at_start(config: Config, batch: TrainBatch) -> TrainState:
    model, tx = LiGR(config.model), optimizer(config.optim, 10)
    return jax.jit(lambda b: init_state(model, tx, b, config.train.seed))(batch[0])


def steps(
    config: Config, batches: list[TrainBatch], devices: int = 1
) -> tuple[TrainState, list[float]]:
    """State and losses after a step on each batch, on a mesh of `devices`."""
    model, tx = LiGR(config.model), optimizer(config.optim, 10)
    mesh = data_mesh(devices)
    everywhere = replicated(mesh)
    state = jax.device_put(at_start(config, batches[0]), everywhere)
    step = jax.jit(
        make_step(model, tx, config), in_shardings=(everywhere, over_rows(mesh), everywhere)
    )
    losses = []
    for batch, rows in batches:
        state, metrics = step(state, batch, rows)
        losses.append(float(metrics["loss"]))
    return state, losses


def largest_difference(a: TrainState, b: TrainState) -> float:
    gaps = jax.tree.map(
        lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)),
        a.params,
        b.params,
    )
    return max(jax.tree.leaves(gaps))


@pytest.mark.parametrize("way", ["micro-batches", "devices"])
def test_cutting_a_batch_changes_nothing_but_rounding(
    prepared: Path, batches: list[TrainBatch], way: str
) -> None:
    config = small_config(prepared, DENSE)
    whole, losses = steps(config, batches)
    if way == "devices":
        cut, cut_losses = steps(config, batches, devices=8)
    else:
        cut, cut_losses = steps(small_config(prepared, DENSE, "optim.accumulate=4"), batches)
    np.testing.assert_allclose(cut_losses, losses, rtol=1e-5)
    # Adam's first steps move every weight by about its rate, whatever the gradient's size, so
    # rounding of a tiny gradient can show; 1e-4 is a hundredth of the tables' rate.
    assert largest_difference(whole, cut) < 1e-4


def test_a_step_that_is_not_finite_is_counted_and_not_applied(
    prepared: Path, batches: list[TrainBatch]
) -> None:
    config = small_config(prepared, DENSE)
    batch, rows = batches[1]
    poison = {k: np.full_like(v, np.inf) for k, v in batch.vectors.items()}
    bad = (batch._replace(vectors=poison), rows)
    before, _ = steps(config, batches[:1])
    after, losses = steps(config, [batches[0], bad])
    assert not np.isfinite(losses[1])
    assert (int(after.step), int(after.bad_in_row), int(after.bad_total)) == (2, 1, 1)
    for a, b in zip(
        jax.tree.leaves((before.params, before.opt_state)),
        jax.tree.leaves((after.params, after.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    recovered, _ = steps(config, [batches[0], bad, batches[2]])
    assert (int(recovered.bad_in_row), int(recovered.bad_total)) == (0, 1)
    assert largest_difference(recovered, after) > 0


def test_tables_and_dense_weights_have_their_own_rates(
    prepared: Path, batches: list[TrainBatch]
) -> None:
    still = small_config(prepared, DENSE, "optim.table_lr=0", "optim.warmup=0")
    model, tx = LiGR(still.model), optimizer(still.optim, 10)
    start = init_state(model, tx, batches[0][0], still.train.seed)
    end, _ = steps(still, batches[:2])
    old, new = start.params["items"], end.params["items"]
    np.testing.assert_array_equal(
        old["features"]["item_id"]["table"], new["features"]["item_id"]["table"]
    )
    assert not np.array_equal(old["projection"]["kernel"], new["projection"]["kernel"])


@pytest.mark.parametrize("decay", ["cosine", "wsd", "none"])
def test_schedules_warm_up_to_the_peak_and_decay_to_zero(decay: str) -> None:
    config = dataclasses.replace(OptimConfig(), warmup=0.1, decay=decay)
    rate = np.array([float(schedule(config, 1.0, 100)(s)) for s in range(100)])
    assert rate[0] == pytest.approx(0.1)
    assert np.all(np.diff(rate[:10]) > 0)
    assert rate.max() == pytest.approx(1.0)
    assert rate[10] == pytest.approx(1.0)
    assert np.all(np.diff(rate[10:]) <= 1e-7)
    assert (rate[-1] < 0.06) == (decay != "none")
    assert decay != "wsd" or np.all(rate[10:80] == 1.0)


def test_labels_weights_and_padding_alone_decide_the_loss(
    prepared: Path, batches: list[TrainBatch]
) -> None:
    """Impressions of weight zero and actions nobody recorded add nothing to the loss."""
    config, (batch, rows) = small_config(prepared, DENSE), batches[0]
    model = LiGR(config.model)
    params = model.init(jax.random.key(0), batch)["params"]
    logits = np.asarray(model.apply({"params": params}, batch), np.float64)
    _, metrics = jax.jit(make_step(model, optimizer(config.optim, 10), config))(
        TrainState(
            jnp.int32(0), params, optimizer(config.optim, 10).init(params), *[jnp.int32(0)] * 2
        ),
        batch,
        rows,
    )
    known = (batch.weight[..., None] > 0) & (batch.labels >= 0)
    bce = np.logaddexp(0, logits) - logits * (batch.labels > 0)
    for a, action in enumerate(config.model.actions):
        expected = bce[..., a][known[..., a]].mean()
        assert float(metrics[f"{action}/bce"]) == pytest.approx(expected, rel=1e-5)


RULES = ("rowwise_adagrad", "adagrad", "lazy_adam", "sgd")


@pytest.mark.parametrize("rule", RULES)
def test_sparse_tables_train_on_any_cut_alike_and_only_where_looked_up(
    prepared: Path, rule: str
) -> None:
    config = small_config(prepared, f"optim.table_optimizer={rule}")
    batches = take(config, 3)
    start = at_start(config, batches[0])
    whole, losses = steps(config, batches)
    for cut, cut_losses in (
        steps(config, batches, devices=8),
        steps(
            small_config(prepared, "optim.accumulate=4", f"optim.table_optimizer={rule}"), batches
        ),
    ):
        np.testing.assert_allclose(cut_losses, losses, rtol=1e-5)
        assert largest_difference(whole, cut) < 1e-4
    tables = [split(state.params)[1] for state in (start, whole)]
    for name, before in tables[0].items():
        moved = np.flatnonzero((np.asarray(before) != tables[1][name]).any(1))
        looked_up = np.unique(np.concatenate([rows[name] for _, rows in batches]))
        assert set(moved) <= set(looked_up)
        assert len(moved) > 1


def test_sparse_gradients_are_the_dense_ones(prepared: Path) -> None:
    """With SGD, a step moves tables by the gradient of whole tables, taken without row lists."""
    sgd = ("optim.table_optimizer=sgd", "optim.warmup=0", "optim.clip=0.1", "optim.decay=none")
    config = small_config(prepared, *sgd)
    batches = take(config, 1)
    (state, _), before = steps(config, batches), at_start(config, batches[0])
    dense = small_config(prepared, DENSE, *sgd[1:])
    batch, _ = take(dense, 1)[0]
    model, seen = LiGR(config.model), []
    spy = optax.stateless(lambda updates, params: seen.append(updates) or updates)
    tx = dataclasses.replace(optimizer(dense.optim, 10), dense=spy)
    fresh = before._replace(opt_state=tx.init(before.params))
    make_step(model, tx, dense)(fresh, batch, {})
    gradient = split(seen[0])[1]
    for name, table in split(before.params)[1].items():
        moved = np.asarray(split(state.params)[1][name]) - table
        np.testing.assert_allclose(moved, -config.optim.table_lr * gradient[name], atol=1e-7)


def test_a_step_makes_nothing_with_the_rows_of_a_table(prepared: Path) -> None:
    rows = 1_000_000
    config = small_config(
        prepared, "optim.table_optimizer=rowwise_adagrad", f"model.features.item_id.rows={rows}"
    )
    model, tx = LiGR(config.model), optimizer(config.optim, 10)
    ((batch, listed),) = take(config, 1)
    state = jax.eval_shape(lambda b: init_state(model, tx, b, 0), batch)
    step = jax.jit(make_step(model, tx, config), donate_argnums=0)
    compiled = step.lower(state, batch, listed).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * rows
    made = [
        line
        for line in compiled.as_text().splitlines()
        if f"[{rows}" in line.partition("=")[2][:40] and (" copy(" in line or "broadcast(" in line)
    ]
    assert not made
