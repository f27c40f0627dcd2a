"""A step is pure, indifferent to how its batch is cut, and never applies what is not finite."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import Config, OptimConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.nn.ligr import LiGR
from ligr_jax.parallel.mesh import data_mesh, over_rows, replicated
from ligr_jax.train.state import TrainState, init_state, optimizer, schedule
from ligr_jax.train.step import make_step
from tests.train.runs import small_config


@pytest.fixture(scope="module")
def batches(prepared: Path) -> list[Batch]:
    records, config = Records(prepared), small_config(prepared)
    iterator = train_batches(records, plan_for(records, config, "train"), config)
    return [next(iterator) for _ in range(3)]


def steps(config: Config, batches: list[Batch], devices: int = 1) -> tuple[TrainState, list[float]]:
    """State and losses after a step on each batch, on a mesh of `devices`."""
    model, tx = LiGR(config.model), optimizer(config.optim, 10)
    mesh = data_mesh(devices)
    state = jax.jit(
        lambda b: init_state(model, tx, b, config.train.seed), out_shardings=replicated(mesh)
    )(batches[0])
    step = jax.jit(make_step(model, tx, config), in_shardings=(replicated(mesh), over_rows(mesh)))
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
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
    prepared: Path, batches: list[Batch], way: str
) -> None:
    config = small_config(prepared)
    whole, losses = steps(config, batches)
    if way == "devices":
        cut, cut_losses = steps(config, batches, devices=8)
    else:
        cut, cut_losses = steps(small_config(prepared, "optim.accumulate=4"), batches)
    np.testing.assert_allclose(cut_losses, losses, rtol=1e-5)
    # Adam's first steps move every weight by about its rate, whatever the gradient's size, so
    # rounding of a tiny gradient can show; 1e-4 is a hundredth of the tables' rate.
    assert largest_difference(whole, cut) < 1e-4


def test_a_step_that_is_not_finite_is_counted_and_not_applied(
    prepared: Path, batches: list[Batch]
) -> None:
    config = small_config(prepared)
    poison = {k: np.full_like(v, np.inf) for k, v in batches[1].vectors.items()}
    bad = batches[1]._replace(vectors=poison)
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
    prepared: Path, batches: list[Batch]
) -> None:
    still = small_config(prepared, "optim.table_lr=0", "optim.warmup=0")
    model, tx = LiGR(still.model), optimizer(still.optim, 10)
    start = init_state(model, tx, batches[0], still.train.seed)
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
    prepared: Path, batches: list[Batch]
) -> None:
    """Impressions of weight zero and actions nobody recorded add nothing to the loss."""
    config, batch = small_config(prepared), batches[0]
    model = LiGR(config.model)
    params = model.init(jax.random.key(0), batch)["params"]
    logits = np.asarray(model.apply({"params": params}, batch), np.float64)
    _, metrics = jax.jit(make_step(model, optimizer(config.optim, 10), config))(
        TrainState(
            jnp.int32(0), params, optimizer(config.optim, 10).init(params), *[jnp.int32(0)] * 2
        ),
        batch,
    )
    known = (batch.weight[..., None] > 0) & (batch.labels >= 0)
    bce = np.logaddexp(0, logits) - logits * (batch.labels > 0)
    for a, action in enumerate(config.model.actions):
        expected = bce[..., a][known[..., a]].mean()
        assert float(metrics[f"{action}/bce"]) == pytest.approx(expected, rel=1e-5)
