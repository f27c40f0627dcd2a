"""LiRank's models in the training loop: batch statistics are part of the training state."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.runs.directory import load_config, load_summary
from ligr_jax.train.evaluate import restore
from ligr_jax.train.incremental import warm_assignments, warm_start
from ligr_jax.train.loop import train
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.program import Program
from ligr_jax.train.vmapped import train_vmapped
from tests.train.runs import SMALL, small_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

FEED = (
    "preset=lirank-feed",
    "model.features=item_id,age_days,dwell_s,content",
    "model.features.age_days.kind=numeric",
    "model.head.widths=16",
    "model.lirank.history=6",
    "model.lirank.history_width=4",
    "model.lirank.history_layers=1",
    "model.lirank.rank=4",
    "model.lirank.mlp=8",
    "model.lirank.experts=3",
    "train.steps=20",
    "mesh.data=1",
)
# Without dropout or noise a step is a function of its batch alone.
PLAIN = ("model.lirank.experts=0", "optim.table_optimizer=adamw", "optim.warmup=0")


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the command."""
    out = tmp_path_factory.mktemp("runs") / "feed"
    preset = ["--preset", FEED[0].partition("=")[2]]
    assert (
        main(["train", "--data", str(prepared), "--out", str(out), *preset, *SMALL, *FEED[1:]]) == 0
    )
    return out


def test_the_preset_trains_and_is_measured(finished: Path) -> None:
    summary = load_summary(finished)
    assert summary is not None
    assert 0.5 < summary["validation/ne"] < 1.1
    assert not summary["beats_oracle"]
    stats = jax.tree.leaves(restore(finished)[1].stats)
    assert len(stats) == 2
    for x in stats:
        assert np.isfinite(x).all()
        assert not np.isin(x, (0, 1)).any()  # where they start


def test_a_resumed_run_ends_with_the_same_bits(
    finished: Path, tmp_path: Path, said: list[str]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "checkpoints" / "20")
    train(load_config(again), again)
    assert "resuming at step 10 of 20" in said
    ours, theirs = (restore(run)[1] for run in (again, finished))
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(x, y)


def test_together_each_run_has_the_statistics_it_has_alone(
    finished: Path, prepared: Path, tmp_path: Path
) -> None:
    given = [*SMALL, *FEED]
    configs = [small_config(prepared, *given, f"train.seed={seed}") for seed in (0, 1)]
    outs = [tmp_path / "a", tmp_path / "b"]
    train_vmapped(configs, outs)
    alone, ours, other = (restore(run)[1] for run in (finished, *outs))
    for x, y in zip(jax.tree.leaves(ours.stats), jax.tree.leaves(alone.stats), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4)
    for x, y in zip(jax.tree.leaves(ours.stats), jax.tree.leaves(other.stats), strict=True):
        assert not np.array_equal(x, y)
    one, whole = load_summary(outs[0]), load_summary(finished)
    assert one is not None
    assert whole is not None
    assert one["validation/ne"] == pytest.approx(whole["validation/ne"], rel=1e-3)


def test_incremental_training_goes_on_from_the_statistics_too(
    finished: Path, prepared: Path
) -> None:
    """Also measuring what to hold, which reads the earlier run's statistics."""
    asked = ("train.warm.fisher_weight=1", "train.warm.cold_weight=0.5", "train.warm.examples=20")
    config = small_config(prepared, *FEED, *warm_assignments(finished, finished), *asked)
    program, records = Program(config, 20), Records(prepared)
    plan = plan_for(records, config, "train")
    fresh = program.init_state(Assembler(records, plan, config.model)(np.arange(8)))
    warm = warm_start(config, program.layout, fresh)
    earlier = restore(finished)[1]
    for x, y in zip(jax.tree.leaves(warm.stats), jax.tree.leaves(earlier.stats), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_weight_decay_is_of_matrices_alone(prepared: Path) -> None:
    """Not of curves of calibration, whose slopes of 1 say nothing, nor of experts' stacked biases:
    both are 2-D arrays too."""
    config = small_config(prepared, *FEED, "optim.weight_decay=0.1")
    program = Program(config, 10)
    shapes, _ = split_tables(program.abstract_state().params)
    ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    still = jax.tree.map(np.zeros_like, ones)
    dense = program.tx.dense
    moved = jax.jit(lambda p: dense.update(still, dense.init(p), p)[0])(ones)
    for path, x in jax.tree_util.tree_leaves_with_path(moved):
        assert np.any(x) == (path[-1].key == "kernel"), path


@pytest.mark.parametrize("mesh", ["mesh.model=1", "mesh.model=2;mesh.placement=column_wise"])
def test_effects_of_items_start_as_zero_wherever_tables_lie(prepared: Path, mesh: str) -> None:
    assignments = (*FEED, "model.lirank.wide=item_id", *mesh.split(";"))
    config = small_config(prepared, *assignments)
    program, records = Program(config, 10), Records(prepared)
    batches = train_batches(records, plan_for(records, config, "train"), config, program.process)
    batch, _ = next(batches)
    batches.close()
    tables = split_tables(program.init_state(batch).params)[1]
    rows = np.asarray(program.layout.unpack(tables)["item_id"])
    assert rows[:, : -len(config.model.actions)].all()
    assert not rows[:, -len(config.model.actions) :].any()


def test_a_mesh_has_the_statistics_of_one_device(prepared: Path) -> None:
    """They are of the whole global batch, not of each device's part."""
    found = []
    for mesh in ("mesh.data=1", "mesh.data=2"):
        config = small_config(prepared, *FEED, *PLAIN, mesh)
        program, records = Program(config, 10), Records(prepared)
        plan = plan_for(records, config, "train")
        batches = train_batches(records, plan, config, program.process)
        inputs = program.shard_batch(next(batches))
        batches.close()
        step = program.compile_step(inputs)
        found.append(step(program.init_state(inputs.batch), inputs))
    (one, loss), (several, same) = found
    assert float(loss["loss"]) == pytest.approx(float(same["loss"]), rel=1e-5)
    for x, y in zip(jax.tree.leaves(one.stats), jax.tree.leaves(several.stats), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_statistics_are_means_over_micro_batches_and_a_bad_step_leaves_them(
    prepared: Path, parts: int
) -> None:
    config = small_config(prepared, *FEED, *PLAIN, f"optim.accumulate={parts}")
    program = Program(config, 10)
    records = Records(prepared)
    batches = train_batches(records, plan_for(records, config, "train"), config, program.process)
    inputs = next(batches)
    batch = inputs.batch
    batches.close()
    state = program.init_state(batch)
    step = program.compile_step(program.shard_batch(inputs))
    age = batch.numeric["age_days"]
    there = ~np.isnan(age) & (batch.member > 0)
    means = [age[i::parts][there[i::parts]].mean() for i in range(parts)]
    after, _ = step(state, program.shard_batch(inputs))
    moved = np.asarray(after.stats["batch_norm"]["mean"])
    np.testing.assert_allclose(moved, [0.01 * np.mean(means)], rtol=1e-4)
    bad = batch._replace(vectors={k: np.full_like(v, np.inf) for k, v in batch.vectors.items()})
    last, metrics = step(after, program.shard_batch(inputs._replace(batch=bad)))
    assert int(metrics["bad_total"]) == 1
    np.testing.assert_array_equal(last.stats["batch_norm"]["mean"], moved)
