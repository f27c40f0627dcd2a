"""A step is pure, independent of micro-batches and devices, and skipped if it is not finite."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from ligr_jax.config import Config, OptimConfig, digest
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.program import Program, key_data
from ligr_jax.train.schedules import rate_schedule
from ligr_jax.train.state import TrainState
from ligr_jax.train.step import make_step
from tests.train.runs import small_config

DENSE, ONE = "optim.table_optimizer=adamw", "mesh.data=1"


def take(config: Config, count: int) -> list[MappedBatch]:
    records = Records(Path(config.data.dir))
    plan = plan_for(records, config, "train")
    iterator = train_batches(records, plan, config, Program(config).process)
    return [next(iterator) for _ in range(count)]


@pytest.fixture(scope="module")
def batches(prepared: Path) -> list[MappedBatch]:
    """For tables that train densely: ids are table rows."""
    return take(small_config(prepared, DENSE), 3)


def at_start(config: Config, batch: MappedBatch) -> TrainState:
    return Program(config, 10).init_state(batch.batch)


_compiled: dict[str, tuple[Program, Any, Any]] = {}


def steps(config: Config, batches: list[MappedBatch]) -> tuple[TrainState, list[float]]:
    """State and losses after a step on each batch, which was made for as many devices.

    A configuration is compiled once.
    """
    first = batches[0]
    if digest(config) not in _compiled:
        program = Program(config, 10)
        init = program.compile_init(first.batch)
        _compiled[digest(config)] = program, init, program.compile_step(program.shard_batch(first))
    program, init, step = _compiled[digest(config)]
    state = init(key_data(config.train.seed), first.batch)
    losses = []
    for inputs in batches:
        state, metrics = step(state, program.shard_batch(inputs))
        losses.append(float(metrics["loss"]))
    return state, losses


def largest_difference(a: TrainState, b: TrainState) -> float:
    gaps = jax.tree.map(
        lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)),
        a.params,
        b.params,
    )
    return max(jax.tree.leaves(gaps))


@pytest.mark.parametrize("way", ["optim.accumulate=4", "mesh.data=8", "mesh.fsdp=true"])
def test_cutting_a_batch_changes_nothing_but_rounding(
    prepared: Path, batches: list[MappedBatch], way: str
) -> None:
    several = (way, "mesh.data=4") if "fsdp" in way else (ONE, way)
    one, cut_up = (
        small_config(prepared, DENSE, "optim.pair_weight=0.5", *changes)
        for changes in ((ONE,), several)
    )
    whole, losses = steps(one, batches)
    cut, cut_losses = steps(cut_up, batches)
    np.testing.assert_allclose(cut_losses, losses, rtol=1e-5)
    # Adam's first steps move every weight by about its rate, whatever the gradient's size, so
    # rounding of a tiny gradient can show; 1e-4 is a hundredth of the tables' rate.
    assert largest_difference(whole, cut) < 1e-4


def test_a_step_that_is_not_finite_is_counted_and_not_applied(
    prepared: Path, batches: list[MappedBatch]
) -> None:
    config = small_config(prepared, DENSE)
    batch = batches[1].batch
    poison = {k: np.full_like(v, np.inf) for k, v in batch.vectors.items()}
    bad = batches[1]._replace(batch=batch._replace(vectors=poison))
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
    prepared: Path, batches: list[MappedBatch]
) -> None:
    still = small_config(prepared, DENSE, "optim.table_lr=0", "optim.warmup=0")
    start = at_start(still, batches[0])
    end, _ = steps(still, batches[:2])
    old, new = start.params, end.params
    np.testing.assert_array_equal(old["tables"]["item_id"], new["tables"]["item_id"])
    kernels = [x["items"]["projection"]["kernel"] for x in (old, new)]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize("decay", ["cosine", "wsd", "none"])
def test_schedules_warm_up_to_the_peak_and_decay_to_zero(decay: str) -> None:
    config = dataclasses.replace(OptimConfig(), warmup=0.1, decay=decay)
    rate = np.array([float(rate_schedule(config, 1.0, 100)(s)) for s in range(100)])
    assert rate[0] == pytest.approx(0.1)
    assert np.all(np.diff(rate[:10]) > 0)
    assert rate.max() == pytest.approx(1.0)
    assert rate[10] == pytest.approx(1.0)
    assert np.all(np.diff(rate[10:]) <= 1e-7)
    assert (rate[-1] < 0.06) == (decay != "none")
    assert decay != "wsd" or np.all(rate[10:80] == 1.0)


def test_labels_weights_and_padding_alone_decide_the_loss(
    prepared: Path, batches: list[MappedBatch]
) -> None:
    """Impressions of weight zero and unknown labels add nothing to the loss."""
    config, batch = small_config(prepared, DENSE), batches[0].batch
    program, state = Program(config), at_start(config, batches[0])
    apply = jax.jit(program.model.apply)
    logits = np.asarray(apply({"params": state.params}, batch), np.float64)
    _, metrics = jax.jit(program.make_step())(state, batches[0])
    known = (batch.weight[..., None] > 0) & (batch.labels >= 0)
    bce = np.logaddexp(0, logits) - logits * (batch.labels > 0)
    for a, action in enumerate(config.model.actions):
        expected = bce[..., a][known[..., a]].mean()
        assert float(metrics[f"{action}/bce"]) == pytest.approx(expected, rel=1e-5)


def test_sparse_gradients_are_the_dense_ones(prepared: Path) -> None:
    """With SGD, a step moves tables by the gradient of whole tables, taken without row lists."""
    sgd = ("optim.table_optimizer=sgd", "optim.warmup=0", "optim.clip=0.1", "optim.decay=none")
    config = small_config(prepared, ONE, *sgd)
    batches = take(config, 1)
    (state, _), before = steps(config, batches), at_start(config, batches[0])
    dense = small_config(prepared, ONE, DENSE, *sgd[1:])
    inputs = take(dense, 1)[0]
    program = Program(dense)
    # Its state is the gradient of the last step.
    keep = optax.GradientTransformation(lambda params: params, lambda g, _, __=None: (g, g))
    tx = dataclasses.replace(program.tx, dense=keep)
    fresh = before._replace(opt_state=tx.init(before.params))
    end, _ = jax.jit(make_step(program.model, tx, dense.optim, jax.random.key(0)))(fresh, inputs)
    gradient = split_tables(end.opt_state["dense"])[1]
    for name, table in split_tables(before.params)[1].items():
        moved = np.asarray(split_tables(state.params)[1][name]) - table
        np.testing.assert_allclose(moved, -config.optim.table_lr * gradient[name], atol=1e-7)
