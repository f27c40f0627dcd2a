"""Incremental training: the formula of the penalty, per-example Fisher information, resumption."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ConfigError, digest
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.nn.models import make_model
from ligr_jax.runs.directory import load_config
from ligr_jax.tables.sparse import RowGrads, UpdateScalars, sgd, update_rows
from ligr_jax.tables.table import TABLES
from ligr_jax.train.evaluate import restore
from ligr_jax.train.ewc import EwcState, penalized_rows
from ligr_jax.train.incremental import _ONE_DEVICE, fisher_information, warm_assignments, warm_start
from ligr_jax.train.loop import train
from ligr_jax.train.program import Program
from tests.train.runs import small_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

BASE = (
    "train.steps=20",
    "optim.table_lr=0.1",
    "optim.dense_lr=0.01",
    "model.set_depth=0",
    "model.features=item_id,surface,content",
    "mesh.data=1",
    "eval.splits=",
)


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cold run, and one that went on from it on the last third of the train split."""
    directory = tmp_path_factory.mktemp("runs")
    cold, warm = directory / "cold", directory / "warm"
    split = Records(prepared).manifest.splits
    begin, end = split["train"].start_ms, split["train"].end_ms
    day = f"data.edges={(begin + 2 * end) // 3},{end},{end},{split['test'].end_ms}"
    train(small_config(prepared, *BASE), cold)
    train(small_config(prepared, *BASE, day, *warm_assignments(cold)), warm)
    return cold, warm


def going_on(runs: tuple[Path, Path], prepared: Path, *assignments: str) -> Any:
    cold, warm = runs
    start = warm_assignments(warm, cold)
    return small_config(prepared, *BASE, *start, "train.warm.examples=300", *assignments)


def started(config: Any) -> Any:
    """The state a configuration starts from."""
    program, records = Program(config, 20), Records(config.data.dir)
    plan = plan_for(records, config, "train")
    batch = Assembler(records, plan, config.model)(np.arange(config.optim.batch))
    return warm_start(config, program.layout, program.init_state(batch))


def of(run: Path) -> Any:
    return restore(run, batch=1, assignments=_ONE_DEVICE)


def test_fisher_is_a_mean_of_squared_gradients_of_single_impressions(runs: Any) -> None:
    evaluator, state = of(runs[1])
    records, config = evaluator.records, evaluator.config
    found = fisher_information(evaluator, state, 40, 0)
    plan = plan_for(records, config, "train")
    rows = np.random.default_rng(0).permutation(len(plan))
    assemble, model = Assembler(records, plan, config.model), make_model(config.model)

    def loss(params: Any, batch: Batch, n: jax.Array) -> jax.Array:
        z, y = model.apply({"params": params}, batch)[0, n], batch.labels[0, n]
        return jnp.where(y >= 0, jax.nn.softplus(z) - z * (y > 0), 0).sum()

    gradient = jax.jit(jax.grad(loss))
    total: Any = jax.tree.map(np.zeros_like, state.params)
    of_batch, seen = total, 0
    for row in rows:
        batch = assemble(np.array([row]))
        for n in np.flatnonzero(batch.weight[0] > 0):
            g = jax.device_get(gradient(state.params, batch, n))
            total = jax.tree.map(lambda t, x: t + x * x, total, g)
            of_batch = jax.tree.map(np.add, of_batch, g)
            seen += 1
        if seen >= 40:
            break
    for mine, loop, g in zip(*map(jax.tree.leaves, (found, total, of_batch)), strict=True):
        scale = float(loop.max()) / seen
        np.testing.assert_allclose(mine, loop / seen, rtol=1e-3, atol=1e-5 * scale)
        if scale > 0:  # far from the square of the mean gradient
            assert np.median(mine[mine > 0]) > 3 * np.median((g / seen)[mine > 0] ** 2)


def test_start_and_penalty_are_those_of_the_formula(runs: Any, prepared: Path) -> None:
    alpha, strength = 0.3, 5.0
    asked = (f"train.warm.cold_weight={alpha}", f"train.warm.fisher_weight={strength}")
    state = started(going_on(runs, prepared, *asked))
    (cold, at_cold), (newest, at_newest) = map(of, runs)
    w0, w1 = at_cold.params, at_newest.params
    h0, h1 = (
        fisher_information(cold, at_cold, 300, 0),
        fisher_information(newest, at_newest, 300, 0),
    )
    for w, a, b in zip(*map(jax.tree.leaves, (state.params, w0, w1)), strict=True):
        np.testing.assert_allclose(
            w, alpha * np.asarray(a) + (1 - alpha) * np.asarray(b), atol=1e-6
        )

    @jax.jit
    def penalty(w: Any) -> Any:
        terms = jax.tree.map(
            lambda w, a, b, ha, hb: jnp.sum(
                alpha * ha * (w - a) ** 2 + (1 - alpha) * hb * (w - b) ** 2
            ),
            *(w, w0, w1, h0, h1),
        )
        return strength / 2 * sum(jax.tree.leaves(terms))

    rng = np.random.default_rng(0)
    w = jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(size=x.shape).astype(np.float32), jax.device_get(w1)
    )
    anchors, rows = state.opt_state["dense"][0], state.opt_state["rows"]
    h = {**anchors.fisher, TABLES: {t: s.fisher for t, s in rows.items()}}
    c = {**anchors.anchor_params, TABLES: {t: s.anchor_params for t, s in rows.items()}}
    pull = jax.tree.map(lambda w, h, c: strength * np.asarray(h) * (w - np.asarray(c)), w, h, c)
    for mine, autodiff in zip(*map(jax.tree.leaves, (pull, jax.grad(penalty)(w))), strict=True):
        np.testing.assert_allclose(mine, autodiff, rtol=1e-4, atol=1e-5 * np.abs(autodiff).max())


def test_rows_of_a_batch_are_held_and_others_left_alone() -> None:
    rng = np.random.default_rng(0)
    table, h, c = (jnp.asarray(rng.uniform(1, 2, (6, 2)), jnp.float32) for _ in range(3))
    ids, g, rate = jnp.array([1, 4]), jnp.ones((2, 2)), jnp.float32(0.1)
    moved, kept = update_rows(
        penalized_rows(sgd(), 3.0),
        table,
        EwcState(fisher=h, anchor_params=c),
        RowGrads(ids=ids, grad_UE=g),
        UpdateScalars(rate=rate, step=jnp.int32(0)),
    )
    expected = np.array(table)
    index = np.asarray(ids)
    expected[index] -= 0.1 * (1 + 3.0 * (h * (table - c))[index])
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    np.testing.assert_array_equal(kept.anchor_params, c)


def test_a_stronger_hold_keeps_nearer_to_earlier_weights(
    runs: Any, prepared: Path, tmp_path: Path
) -> None:
    evaluator, before = of(runs[1])
    h = fisher_information(evaluator, before, 300, 0)
    away = []
    for strength in (0, 100):
        config = going_on(runs, prepared, f"train.warm.fisher_weight={strength}")
        train(config, tmp_path / str(strength))
        _, after = of(tmp_path / str(strength))
        terms = jax.tree.map(
            lambda h, a, b: float((h * (np.asarray(a) - np.asarray(b)) ** 2).sum()),
            *(h, after.params, before.params),
        )
        away.append(sum(jax.tree.leaves(terms)))
    assert away[0] > 2 * away[1], away


def test_resumed_on_any_mesh_it_ends_as_if_never_stopped(
    runs: Any, prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    """Also where the earlier runs are gone: what they said is in the checkpoint."""
    moved = tuple(shutil.copytree(r, tmp_path / r.name) for r in runs)
    asked = ("train.warm.fisher_weight=10", "train.warm.cold_weight=0.2", "train.keep=4")
    two = ("mesh.model=2", "mesh.placement=row_wise")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(going_on(moved, prepared, *asked), whole)
    shutil.copytree(whole, stopped)
    (stopped / "summary.json").unlink()
    shutil.rmtree(stopped / "checkpoints" / "20")
    config = going_on(moved, prepared, *asked)
    for run in moved:
        shutil.rmtree(run)
    train(config, stopped)
    assert any("resuming at step 10" in line for line in said)
    split = tmp_path / "split"
    train(going_on(runs, prepared, *asked, *two), split)
    reference = of(whole)[1].params
    for x, y, z in zip(
        *map(jax.tree.leaves, (reference, of(stopped)[1].params, of(split)[1].params))
    ):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_allclose(x, z, atol=2e-3)


def test_the_digest_knows_the_runs_and_not_their_places(
    runs: Any, prepared: Path, tmp_path: Path
) -> None:
    cold, warm = runs
    elsewhere = shutil.copytree(warm, tmp_path / "elsewhere")
    of_both = digest(going_on(runs, prepared))
    assert digest(going_on((cold, elsewhere), prepared)) == of_both
    assert digest(going_on((cold, cold), prepared)) != of_both
    assert load_config(warm).train.warm.digest == digest(load_config(cold))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.warm.digest=0", "train.warm.digest='0'"),
        ("model.depth=2", "model.depth=1, this run 2"),
        ("optim.table_optimizer=adamw", "holds the rows of a batch"),
    ],
)
def test_refused(runs: Any, prepared: Path, assignment: str, message: str, tmp_path: Path) -> None:
    config = going_on(runs, prepared, "train.warm.fisher_weight=1", assignment)
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")


def test_a_hold_needs_something_to_hold_to(prepared: Path) -> None:
    for assignment, remedy in (
        ("train.warm.fisher_weight=1", "train.warm.run"),
        ("train.warm.cold_weight=0.5", "train.warm.cold_run"),
        ("data.edges=3,2,4,5", "four times"),
    ):
        with pytest.raises(ConfigError, match=remedy):
            small_config(prepared, assignment)
