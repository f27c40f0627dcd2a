"""Runs that train as one program: each has the numbers and the directory of a run alone."""

import contextlib
import functools
import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from ligr_jax.cli import main
from ligr_jax.config import Config, ConfigError, digest
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.directory import Busy, load_config, load_summary, lock
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.tracker import tracking
from ligr_jax.tables import sparse
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.evaluate import evaluate_run
from ligr_jax.train.loop import Preempted, train
from ligr_jax.train.program import Program
from ligr_jax.train.recorder import RunRecorder, TrainingDiverged
from ligr_jax.train.run_batch import RunBatch, RunSlot
from ligr_jax.train.state import TrainState
from ligr_jax.train.vmapped import plan_run_batches, train_vmapped
from tests.conftest import OnMessage
from tests.train.runs import SMALL, small_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

# One device each and dropout: two runs a device, and one of the four places is a copy.
COMMON = (
    "model.dropout=0.1",
    "model.set_depth=0",
    "train.steps=20",
    "train.log_every=1",
    "eval.splits=validation",
    "mesh.data=2",
)
SHORT = (*COMMON, "train.steps=8", "eval.splits=")
SEEDS = (("train.seed=0",), ("train.seed=1",), ("train.seed=2",))
RATES = (
    (),
    ("optim.dense_lr=4e-3", "optim.weight_decay=0.1"),
    ("optim.table_lr=0.1", "optim.dense_lr=2e-3"),
)
RUNS = tuple((*seed, *rates) for seed, rates in zip(SEEDS, RATES))


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def configs_of(prepared: Path, runs: Sequence[Sequence[str]], *common: str) -> list[Config]:
    return [small_config(prepared, *(common or COMMON), *given) for given in runs]


@pytest.fixture(scope="module", autouse=True)
def smooth_updates() -> Iterator[None]:
    """Adam and Adagrad with an epsilon of 1e-3.

    With 1e-8, an entry whose gradient is near 0 moves by a full learning rate in the direction of
    the gradient's rounding error, so runs that agree in every gradient differ in such an entry.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optax, "scale_by_adam", functools.partial(optax.scale_by_adam, eps=1e-3))
        adagrad = functools.partial(sparse.rowwise_adagrad, eps=1e-3)
        patch.setitem(sparse.SPARSE_OPTIMIZERS, "rowwise_adagrad", adagrad)
        yield


@pytest.fixture(scope="module")
def trained(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Config], list[Path]]:
    """Three runs with different seeds and rates, trained together.

    Runs of one seed, which share their batches, are in `test_steps_that_are_not_finite_...`.
    """
    folder = tmp_path_factory.mktemp("together")
    configs = configs_of(prepared, RUNS)
    outs = [folder / str(i) for i in range(len(configs))]
    train_vmapped(configs, outs)
    return configs, outs


@pytest.fixture(scope="module")
def alone(
    trained: tuple[list[Config], list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The same runs, one by one."""
    folder = tmp_path_factory.mktemp("alone")
    outs = [folder / str(i) for i in range(len(trained[0]))]
    for config, out in zip(trained[0], outs):
        train(config, out)
    return outs


@functools.cache
def program_of(data: str, *assignments: str) -> Program:
    return Program(small_config(Path(data), *assignments))


def state_of(run: Path) -> TrainState:
    # Neither seeds nor rates change the shapes of a state.
    program = program_of(load_config(run).data.dir, *COMMON)
    checkpoints = Checkpoints(run / "checkpoints", 2, program.layout)
    restored = checkpoints.restore(program.abstract_state())
    assert restored is not None
    return restored[0]


def assert_same_numbers(run: Path, reference: Path) -> None:
    """Losses and normalized entropies agree to 1e-5, every array of the state to 5e-6.

    Other metrics count ranks or bins, and jump where two scores change places.
    """
    rows, whole = (read_rows(r / "metrics.jsonl") for r in (run, reference))
    assert [r["step"] for r in rows] == [r["step"] for r in whole]
    for row, expected in zip(rows, whole):
        assert row.keys() == expected.keys()
        for key in expected:
            if key.startswith(("train/", "lr/", "flops")) or key.endswith("/ne"):
                assert row[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-7), key
    leaves = [jax.tree_util.tree_leaves_with_path(state_of(r)) for r in (run, reference)]
    for (path, x), (_, y) in zip(*leaves, strict=True):
        np.testing.assert_allclose(x, y, rtol=5e-6, atol=5e-7, err_msg=str(path))


def assert_same_bits(run: Path, reference: Path) -> None:
    for x, y in zip(*(jax.tree.leaves(state_of(r)) for r in (run, reference)), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    timed = {"tokens_per_s", "mfu", "input_wait", "input_wait_seconds", "seconds", "device_seconds"}
    timed = {metric_name(name) for name in timed}
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_rows(r / "metrics.jsonl")]
        for r in (run, reference)
    ]
    assert rows[0] == rows[1]


def interrupted(run: Path, to: Path) -> Path:
    """A copy of a finished run as it was after its checkpoint at step 10."""
    shutil.copytree(run, to)
    (to / "summary.json").unlink()
    shutil.rmtree(to / "checkpoints" / "20")
    return to


def test_every_run_has_the_numbers_it_has_alone(
    trained: tuple[list[Config], list[Path]], alone: list[Path]
) -> None:
    for run, reference in zip(trained[1], alone, strict=True):
        assert_same_numbers(run, reference)
        ours, theirs = load_summary(run), load_summary(reference)
        assert ours is not None
        assert theirs is not None
        assert ours.keys() == theirs.keys()
        assert (ours["together"], theirs["together"]) == (3, 1)
        assert ours["flops_xla"] == pytest.approx(theirs["flops_xla"], rel=0.05)
    states = [jax.tree.leaves(state_of(run).params) for run in trained[1]]
    assert not np.array_equal(states[0][0], states[1][0])


def test_a_stopped_group_goes_on_to_the_same_bits(
    trained: tuple[list[Config], list[Path]],
    tmp_path: Path,
    said: list[str],
    on_message: OnMessage,
) -> None:
    configs, whole = trained
    outs = [tmp_path / out.name for out in whole]

    def stop_at_first_row(line: str) -> None:
        if line.startswith("step") and len(said) < 3:
            os.kill(os.getpid(), signal.SIGTERM)

    on_message(stop_at_first_row)
    with pytest.raises(Preempted) as stopped:
        train_vmapped(configs, outs)
    assert stopped.value.code == PREEMPTED
    assert "stopped by SIGTERM at step 2" in said[-1]
    assert not any(load_summary(out) for out in outs)
    train_vmapped(configs, outs)
    assert "resuming at step 2 of 20: 3 runs" in said
    for run, reference in zip(outs, whole):
        assert_same_bits(run, reference)


def test_runs_move_between_training_alone_and_together(
    prepared: Path,
    trained: tuple[list[Config], list[Path]],
    alone: list[Path],
    tmp_path: Path,
    said: list[str],
) -> None:
    configs, whole = trained
    to_alone = interrupted(whole[1], tmp_path / "from-group")
    train(configs[1], to_alone)
    assert "resuming at step 10 of 20" in said
    assert_same_numbers(to_alone, alone[1])
    fresh = tmp_path / "fresh"
    to_group = interrupted(alone[2], tmp_path / "from-alone")
    finished = whole[1]
    train_vmapped(configs, [fresh, finished, to_group])
    assert "1 of 3 runs are finished" in said
    assert any("different steps (1 at step 0, 1 at step 10)" in line for line in said)
    assert_same_numbers(fresh, alone[0])
    assert_same_numbers(to_group, alone[2])


def test_steps_that_are_not_finite_are_one_runs_alone(prepared: Path, tmp_path: Path) -> None:
    """Of two runs of one seed, which share their batches."""
    wild = ("optim.dense_lr=1e30", "optim.table_lr=1e30")
    configs = configs_of(prepared, [(), wild], *SHORT, "train.max_bad_steps=1000")
    together, apart = ([tmp_path / f"{name}{i}" for i in range(2)] for name in ("group", "lone"))
    train_vmapped(configs, together)
    for config, out in zip(configs, apart):
        train(config, out)
    assert_same_numbers(together[0], apart[0])
    bad = [[(load_summary(out) or {})["bad_steps"] for out in outs] for outs in (together, apart)]
    assert bad[0] == bad[1]
    assert bad[0][0] == 0 < bad[0][1]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state_of(together[1])))


def test_positions_pairs_and_shuffled_sessions_are_trained_and_measured_together(
    prepared: Path, tmp_path: Path
) -> None:
    options = (
        "model.features.dwell_s.outcome=false",
        "model.features.dwell_s.post=true",
        "optim.pair_weight=0.3",
        "data.shuffle_sessions=true",
        "model.mask=causal",
        "model.set_depth=0",
        "train.steps=2",
        "eval.splits=test",
    )
    configs = configs_of(prepared, [(), ("optim.dense_lr=0.1",)], *options)
    outs = [tmp_path / "a", tmp_path / "b"]
    train_vmapped(configs, outs)
    for out in outs:
        together, alone = load_summary(out) or {}, evaluate_run(out, "test")
        assert "test/click/shown_2/ne" in alone
        for name in (name for name in alone if name.endswith("/ne")):
            assert together[name] == pytest.approx(alone[name], rel=1e-5), name
        assert together["leaks"] is True


def test_a_run_that_diverges_does_not_stop_the_others(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["optim.dense_lr=1e30", "optim.table_lr=1e30"]
    outs = [tmp_path / "calm", tmp_path / "wild"]
    entries = [{"out": str(o), "assignments": g} for o, g in zip(outs, ([], wild))]
    (tmp_path / "group.json").write_text(json.dumps(entries))
    command = ["train", "--data", str(prepared), "--together", str(tmp_path / "group.json")]
    command += [*SMALL, *SHORT, "train.max_bad_steps=3"]
    assert main(command) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
    assert "3 steps in a row" in (outs[1] / "error.txt").read_text()
    assert load_summary(outs[1]) is None
    assert load_summary(outs[0]) is not None
    assert not (outs[0] / "error.txt").exists()
    with pytest.raises(TrainingDiverged, match="1 of 1 runs failed"):
        train_vmapped(configs_of(prepared, [wild], *SHORT, "train.max_bad_steps=3"), [outs[1]])
    with lock(outs[1]):
        assert main(command) == 75


def test_a_busy_run_keeps_its_group_from_touching_any(prepared: Path, tmp_path: Path) -> None:
    configs = configs_of(prepared, SEEDS)
    outs = [tmp_path / str(i) for i in range(3)]
    with lock(outs[2]), pytest.raises(Busy):
        train_vmapped(configs, outs)
    assert not list(tmp_path.glob("*/config.json"))
    for out in outs:
        with lock(out):
            pass


def test_every_run_has_a_mirror_of_its_own(prepared: Path, tmp_path: Path) -> None:
    configs = configs_of(prepared, SEEDS[:2], "track.wandb=offline")
    with contextlib.ExitStack() as opened:
        trackers = [
            opened.enter_context(tracking(made(tmp_path / name), config, 0))
            for name, config in zip("ab", configs)
        ]
        for tracker in trackers:
            tracker.log({"step": 1, "train/loss": 0.5})
    for name, config in zip("ab", configs):
        (mirror,) = (tmp_path / name).glob("wandb/offline-run-*")
        record = json.loads((tmp_path / name / "wandb" / "mirrored.json").read_text())
        assert mirror.name.endswith(record["id"])
        assert record["id"].startswith(f"{digest(config)}-")


def test_rates_and_seeds_are_arguments_of_the_program(prepared: Path, tmp_path: Path) -> None:
    """Other ones do not compile again."""

    lone = small_config(prepared, *SHORT, "mesh.data=1")
    records, program = Records(prepared), Program(lone)
    plan = plan_for(records, lone, "train")
    state = program.init_state(Assembler(records, plan, lone.model)(np.array([-1])))

    def program_of(runs: Sequence[Sequence[str]]) -> str:
        configs = configs_of(prepared, runs, *SHORT)
        slots = [
            RunSlot(c, RunRecorder(c, tmp_path, 8, program.layout), state, {"next_index": 0})
            for c in configs
        ]
        batch = RunBatch(slots, program, records, 8)
        return batch.lower_step(batch.stack(slot.state for slot in slots)).as_text()

    a_batch_each, a_batch_for_all = program_of(RUNS[:2]), program_of(RATES[:2])
    assert program_of(RUNS[1:]) == a_batch_each
    assert program_of(RATES[1:]) == a_batch_for_all
    assert a_batch_each != a_batch_for_all


def test_groups_differ_in_nothing_but_seeds_and_rates(prepared: Path) -> None:
    runs = [
        ("train.seed=0",),
        ("model.depth=2",),
        ("train.seed=1", "optim.dense_lr=0.1"),
        ("mesh.model=2",),
        ("model.depth=2", "optim.table_lr=0.5"),
        ("mesh.model=2", "train.seed=1"),
        ("optim.weight_decay=0.1",),
    ]
    configs = configs_of(prepared, runs, "mesh.data=1")
    assert plan_run_batches(configs, max_runs=8) == [[0, 2, 6], [1, 4], [3], [5]]
    assert plan_run_batches(configs, max_runs=2) == [[0, 2], [1, 4], [3], [5], [6]]
    assert plan_run_batches([], max_runs=2) == []


@pytest.mark.parametrize(
    ("runs", "names", "words"),
    [
        ([(), ("model.depth=2",)], "ab", r"model\.depth is 2, not 1; only train\.seed, "),
        ([(), ("optim.clip=2",)], "ab", r"optim\.clip is 2\.0, not 1\.0"),
        ([(), ("train.seed=1",)], "aa", "a directory of its own"),
        ([("mesh.model=2",)], "a", r"mesh\.model=2 shards tables .* set mesh\.model=1"),
        ([("mesh.fsdp=true",)], "a", r"mesh\.fsdp=true shards weights"),
    ],
)
def test_what_cannot_train_together_is_refused(
    prepared: Path, tmp_path: Path, runs: list[tuple[str, ...]], names: str, words: str
) -> None:
    configs = configs_of(prepared, runs)
    with pytest.raises(ConfigError, match=words):
        train_vmapped(configs, [tmp_path / name for name in names])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("{}", "not a list of runs"),
        ('[{"out": "a"}]', "entry 1 is {'out': 'a'}; write"),
        ('[{"out": "a", "assignments": []}, {"assignments": []}]', "entry 2 is"),
        ('[{"out": "a", "assignments": ["model.detph=3"]}]', "nearest: model.depth"),
    ],
)
def test_a_bad_list_of_runs_is_refused(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "group.json").write_text(text)
    command = ["train", "--data", str(prepared), "--together", str(tmp_path / "group.json")]
    assert main(command) == 1
    assert words in capsys.readouterr().err
