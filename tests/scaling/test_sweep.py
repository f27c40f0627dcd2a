"""Sweeps: shipped files are valid for W&B and for `ligr`; runners share a directory and resume."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from ligr_jax.cli import main
from ligr_jax.config import ConfigError
from ligr_jax.data.manifest import load_manifest
from ligr_jax.exit_status import DONE, FAILED, PREEMPTED
from ligr_jax.parallel.cluster import expects_peers, without_cluster
from ligr_jax.parallel.probe import Devices
from ligr_jax.progress import clock
from ligr_jax.runs.directory import is_locked, load_summary, lock, save_summary
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.state import read_state
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling import runner, shipped
from ligr_jax.scaling.fit.registered import score
from ligr_jax.scaling.ladder import KUAIRAND, PRESETS, configure
from ligr_jax.scaling.predict import (
    largest_of_ladder,
    largest_of_ladders,
    other_rungs,
    predict_largest,
)
from ligr_jax.scaling.record_points import record_points
from ligr_jax.scaling.runner import _Scheduler, run_sweep
from ligr_jax.scaling.sweep import (
    PointSpec,
    calibrate_seconds,
    format_points,
    plan_points,
    read_sweep,
    select_points,
)
from tests.train.runs import SMALL

pytestmark = pytest.mark.slow

SWEEPS = Path(__file__).parents[2] / "sweeps"
# A model of few layers and tables, for the processes that a test starts.
TINY = (*SMALL, "model.features=item_id,dwell_s", "model.set_depth=0", "eval.splits=validation")


@pytest.mark.parametrize("path", sorted(SWEEPS.rglob("*.yaml")), ids=lambda p: str(p)[-24:-5])
def test_shipped_files_fit_the_schema_of_wandb(path: Path) -> None:
    package = importlib.util.find_spec("sweeps")
    assert package is not None
    assert package.origin is not None
    schema = json.loads((Path(package.origin).parent / "config" / "schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    assert read_sweep(path)


def test_shipped_files_are_what_the_code_writes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", "--print", "tiny/ladder"])
    assert capsys.readouterr().out == (SWEEPS / "tiny" / "ladder.yaml").read_text()
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "--print", "tiny/lader"])
    written = {str(p.relative_to(SWEEPS))[:-5]: p.read_text() for p in SWEEPS.rglob("*.yaml")}
    assert written == {path: shipped.sweep_text(path) for path in shipped.shipped_sweeps()}
    for path in written:
        assert read_sweep(Path(path)) == read_sweep(SWEEPS / f"{path}.yaml")
    forms = {path.partition("/")[0]: set() for path in written}
    for path in written:
        form, _, study = path.partition("/")
        forms[form].add(study)
    real = {study for study in forms["tiny"] if study.startswith("kuairand-")}
    assert forms["tiny"] - real == forms["paper"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("name: x", "needs `parameters`"),
        ("method: bayes\nparameters: {a: {value: 1}}", "method=bayes"),
        ("method: grid\nparameters: {a: {min: 1}}", "parameter a needs"),
    ],
)
def test_bad_sweep_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_sweep(tmp_path / "s.yaml")


def test_dials_follow_and_what_is_said_outright_wins(prepared: Path) -> None:
    manifest = load_manifest(prepared)

    def dials(*assignments: str) -> tuple[int, int, int]:
        config = configure(manifest, prepared, assignments)
        return config.optim.batch, config.model.heads, config.model.width

    assert dials("preset=demo-4") == (16, 1, 24)
    assert dials("preset=demo-4", "data.seq_len=256", "model.width=64") == (4, 4, 64)
    assert dials("preset=demo-4", "change=model.width=48;optim.batch=5") == (5, 3, 48)
    assert dials("preset=demo-5", "optim.batch=5", "batch_tokens=960") == (10, 2, 32)
    with pytest.raises(ConfigError, match="no preset 'demo-99'"):
        dials("preset=demo-99")
    with pytest.raises(ConfigError, match="batch_tokens=many"):
        dials("batch_tokens=many")
    for name in PRESETS:
        if name in KUAIRAND.presets():  # they name features of that data set
            with pytest.raises(ConfigError, match=r"choose from .*'item_id'"):
                configure(manifest, prepared, [f"preset={name}"])
        else:
            assert configure(manifest, prepared, [f"preset={name}"])


def test_priors_follow_the_actions(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    both = configure(manifest, prepared).model
    assert len(both.actions) == 2
    one = configure(manifest, prepared, [f"model.actions={both.actions[1]}"]).model
    assert one.prior == both.prior[1:]
    given = configure(
        manifest, prepared, ["model.prior=0.25", f"model.actions={both.actions[1]}"]
    ).model
    assert given.prior == (0.25,)


def grid(*assignments: str) -> list[PointSpec]:
    return [PointSpec(("test",), (a,)) for a in assignments]


def test_a_point_of_two_sweeps_is_one_run(prepared: Path) -> None:
    specs = [PointSpec(("a",), ("model.width=32",)), PointSpec(("b",), ("change=model.width=32",))]
    (point,) = plan_points(specs, prepared, SMALL[1:])
    assert point.sweeps == ("a", "b")
    assert select_points([point], ["b"]) == [point]
    with pytest.raises(ConfigError, match="no point matches"):
        select_points([point], ["model.width=33"])


def test_a_budget_is_spent_within_two_percent(prepared: Path, tmp_path: Path) -> None:
    """`train.flops` sets the number of steps; the FLOPs counted during training agree with it."""
    small = [a for a in TINY if not a.startswith("train.steps")]
    (point,) = plan_points(grid("train.flops=2e8"), prepared, small)
    assert point.cost.flops == pytest.approx(2e8, rel=0.02)
    assert main(["train", "--data", str(prepared), "--out", str(tmp_path), *point.assignments]) == 0
    summary = load_summary(tmp_path)
    assert summary is not None
    assert summary["flops_model"] == pytest.approx(2e8, rel=0.02)
    with pytest.raises(ConfigError, match="both define the length"):
        plan_points(grid("train.flops=2e8"), prepared, SMALL)


def test_a_bad_point_fails_before_the_first_one_starts(prepared: Path) -> None:
    with pytest.raises(ConfigError, match=r"point model\.width=31"):
        plan_points(grid("model.width=32", "model.width=31"), prepared)
    splits = load_manifest(prepared).splits
    begin, end = splits["train"].start_ms, splits["test"].end_ms
    empty = f"data.edges={begin},{splits['train'].end_ms},{splits['train'].end_ms},{end}"
    with pytest.raises(
        ConfigError, match=r"point train\.eval_every=2 .*validation split, which has"
    ):
        plan_points(grid("train.eval_every=2"), prepared, [empty])


@pytest.mark.parametrize("together", [1, 2])
def test_a_sweep_from_points_to_page(
    together: int,
    prepared: Path,
    tmp_path: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: list[str],
) -> None:
    """Of two points one diverges: the other one finishes, is reported, and is not trained again.

    The failed point is tried as often as requested, over all runners and calls.
    """
    monkeypatch.setattr("os.environ", child_env)
    alerts: list[tuple[Path, str]] = []
    monkeypatch.setattr(
        runner, "send_alert", lambda run, _, *message: alerts.append((run, message[0]))
    )
    short = [*TINY, "train.steps=10", "train.max_bad_steps=2"]
    points = plan_points(grid("optim.dense_lr=1e-3", "optim.dense_lr=1e30"), prepared, short)
    assert run_sweep(points, prepared, tmp_path, 2, together, retries=2 - together) == FAILED
    good, bad = (next(p for p in points if f"={lr}" in p.assignments[0]) for lr in ("1e-3", "1e30"))
    assert any(line.startswith(f"failed: {bad.name}: ") for line in said)
    assert "steps in a row" in (tmp_path / bad.name / "error.txt").read_text()
    assert len((tmp_path / bad.name / "failures.txt").read_text().splitlines()) == 3 - together
    before = modified(tmp_path / bad.name)
    assert run_sweep([bad], prepared, tmp_path, 1, retries=2 - together) == FAILED
    assert modified(tmp_path / bad.name) == before
    assert f"correct the cause, then --retries {3 - together} tries it again" in said[-1]
    assert alerts == [(tmp_path / bad.name, "Retries exhausted")]
    assert read_state(tmp_path / bad.name).failures == 3 - together
    runs = read_runs(tmp_path)
    assert runs.table["run"].to_list() == [good.name]
    counted = json.loads((tmp_path / good.name / "summary.json").read_text())
    assert good.cost.flops == pytest.approx(counted["flops_model"], rel=0.02)
    assert good.cost.tokens == pytest.approx(counted["tokens"], rel=0.02)
    assert counted["together"] == together
    took = counted["start_seconds"] + counted["seconds"] + counted["eval_seconds"]
    assert calibrate_seconds([good], tmp_path)[0].cost.seconds == pytest.approx(took)
    listed = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert {p["run"] for p in listed} == {good.name, bad.name}
    assert run_sweep([good], prepared, tmp_path, 1) == DONE
    assert any("finished before" in line for line in said)
    assert main(["report", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert good.name in (tmp_path / "report.html").read_text()


def test_a_damaged_summary_stops_no_sweep_and_a_finished_one_is_only_read(
    prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    points = plan_points(grid("train.seed=1", "train.seed=2"), prepared, SMALL)
    for point in points:
        (tmp_path / point.name).mkdir()
        save_summary(tmp_path / point.name, {"seconds": 1.0})
    assert run_sweep(points, prepared, tmp_path, 1) == DONE
    before = modified(tmp_path)
    assert run_sweep(points, prepared, tmp_path, 1) == DONE  # nothing is written
    assert before == modified(tmp_path)
    (tmp_path / points[0].name / "summary.json").write_text("")
    assert len(calibrate_seconds(points, tmp_path)) == 2
    assert run_sweep(points, prepared, tmp_path, 1) == FAILED
    assert f"{points[0].name}/summary.json: the file is empty" in said[-1]
    assert any("[2/2]" in line and "finished before" in line for line in said[-3:])


def test_a_runner_takes_over_what_a_killed_one_left(
    prepared: Path,
    tmp_path: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    """No point is trained twice, and the interrupted run continues from its checkpoint."""
    child_env = {k: v for k, v in child_env.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    monkeypatch.setattr("os.environ", child_env)
    file = tmp_path / "two.yaml"
    values = {"optim.dense_lr": {"values": [1e-3, 2e-3]}}
    file.write_text(yaml.safe_dump({"method": "grid", "parameters": values}))
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "ligr_jax", "sweep", str(file), "--data", str(prepared)]
    command += ["--out", str(out), *TINY, "train.steps=100", "train.checkpoint_every=20"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen(command, env=child_env, start_new_session=True, **pipes)
    try:
        _wait(lambda: list(out.glob("*/checkpoints/40*")), first)
        run = next(out.glob("*/checkpoints/40*")).parents[1]
        # The runner and the process that trains for it, both at once, as a machine dies.
        trainer = _child_of(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        os.kill(trainer, signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    assert main(command[3:]) == DONE, said
    runs = read_runs(out)
    assert len(runs.table) == 2
    assert "resuming at step" in (run / "log.txt").read_text()
    for directory in (out / name for name in runs.table["run"]):
        steps = [row["step"] for row in read_rows(directory / "metrics.jsonl")]
        assert len(set(steps[:-1])) == len(steps[:-1])  # the last row is the evaluation
        assert (directory / "log.txt").read_text().count("step 100/100") == 1

    # Programs are compiled once for all runs; damaged files in the cache change no number.
    programs = list((out / ".compiled").glob("*-cache"))
    assert programs
    for path in programs:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = ["--out", str(tmp_path / "again"), "--compilation-cache", str(out / ".compiled")]
    assert main([*command[3:], *again, "--only", run.name]) == DONE
    assert losses(tmp_path / "again" / run.name) == losses(run)


def test_a_runner_waits_for_a_point_that_another_trains(
    prepared: Path,
    tmp_path: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    monkeypatch.setattr("os.environ", child_env)
    points = plan_points(grid("model.depth=1"), prepared, [*TINY, "train.steps=5"])
    with lock(tmp_path / points[0].name):
        assert is_locked(tmp_path / points[0].name)
        release = threading.Thread(target=run_sweep, args=(points, prepared, tmp_path, 1))
        release.start()
        _wait(lambda: any("another runner" in line for line in said))
        assert not (tmp_path / points[0].name / "log.txt").exists()
    release.join(timeout=300)
    assert (tmp_path / points[0].name / "summary.json").exists()


def test_largest_rung_is_predicted_once_from_the_others(
    prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    """The law is fitted to the ladder and its other seeds, not to other sweeps."""
    rungs = [(8, 1), (8, 2), (12, 2), (16, 2), (24, 2), (32, 2)]
    ladder = [(f"model.width={w}", f"model.depth={d}") for w, d in rungs]
    specs = [PointSpec(("ladder",), (*rung, "train.seed=0")) for rung in ladder]
    specs += [PointSpec(("seeds",), (*rung, "train.seed=1")) for rung in ladder[:3]]
    specs += [PointSpec(("width",), ("model.width=64",))]  # the largest, but of no ladder
    fixed = [a for a in SMALL if not a.startswith(("model.width", "model.depth"))]
    points = plan_points(specs, prepared, fixed)
    largest = largest_of_ladder(points, lambda p: p.cost.flops)
    assert largest is not None
    assert largest.config.model.width == 32
    for p in points:
        (tmp_path / p.name).mkdir()
        ne = 0.7 + (p.cost.flops / 1e6) ** -0.2 if p.sweeps != ("width",) else 5.0
        numbers = {"validation/ne": 0.1 if p is largest else ne, "flops_model": p.cost.flops}
        (tmp_path / p.name / "summary.json").write_text(json.dumps(numbers))
    path = tmp_path / "prediction.json"
    predict_largest(largest, points, path, largest.cost.flops)
    written = (tmp_path / "prediction.json").read_text()
    assert score(tmp_path / "prediction.json", 0.0).predicted == pytest.approx(
        0.7 + (largest.cost.flops / 1e6) ** -0.2, abs=1e-3
    )
    assert len(json.loads(written)["law"]["runs"]) == 8
    predict_largest(largest, points, path, largest.cost.flops)
    assert (tmp_path / "prediction.json").read_text() == written
    predict_largest(largest, points, tmp_path / "other" / "prediction.json", largest.cost.flops)
    assert "no prediction" in said[-1]
    assert not (tmp_path / "other").exists()
    width = [p for p in points if p.sweeps == ("width",)]
    assert largest_of_ladder(width, lambda p: p.cost.flops) is None


def test_the_largest_run_of_each_architecture_is_predicted_from_its_own_runs(
    prepared: Path,
) -> None:
    rungs = [(8, 1), (8, 2), (12, 2), (16, 2), (24, 2)]
    kinds = ("ligr", "hstu")
    specs = [
        PointSpec(("all",), (f"model.width={w}", f"model.depth={d}", f"model.kind={kind}"))
        for w, d in rungs
        for kind in kinds
    ]
    fixed = [a for a in SMALL if not a.startswith(("model.width", "model.depth"))]
    points = plan_points(specs, prepared, fixed)
    largest = largest_of_ladders(points, lambda p: p.cost.flops)
    assert {p.config.model.kind for p in largest.values()} == set(kinds)
    assert set(largest) == {f"prediction-{p.name}.json" for p in largest.values()}
    for run in largest.values():
        used = other_rungs(run, points)
        assert {p.config.model.kind for p in used} == {run.config.model.kind}
        assert len(used) == 4


RUNNER = """
import os, sys
from ligr_jax.cli import main
from ligr_jax.commands import sweep
from ligr_jax.parallel import probe
command, fake = sys.argv[1:], probe.Devices("gpu", "NVIDIA H100 80GB HBM3", 8, 989e12, 60e9)
honest, probe.probe = probe.probe, lambda dtype: fake
assert main([*command, "--dry-run"]) == 0
assert os.environ["JAX_PLATFORMS"] == "nonexistent"
probe.probe = honest
assert main([*command, "--dry-run"]) == 1
"""


def test_the_runner_starts_no_accelerator(
    prepared: Path, tmp_path: Path, child_env: dict[str, str]
) -> None:
    """Without an accelerator only the child that needs one fails, in an unchanged environment."""
    file = tmp_path / "one.yaml"
    file.write_text("method: grid\nparameters: {model.depth: {value: 1}}\n")
    command = [sys.executable, "-c", RUNNER, "sweep", str(file), "--data", str(prepared)]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path), *SMALL],
        env={**child_env, "JAX_PLATFORMS": "nonexistent"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 points" in ended.stdout
    assert "input: the devices want up to " in ended.stdout
    (line,) = ended.stderr.splitlines()
    assert "cannot start JAX on this machine's devices" in line
    assert "check JAX_PLATFORMS=nonexistent" in line


def test_a_child_does_not_join_the_cluster_of_its_runner() -> None:
    given = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cuda", "PATH": "/"}
    place = {
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "1",
        "JAX_COORDINATOR_ADDRESS": "host:1",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
        "OMPI_COMM_WORLD_RANK": "1",
        "PMI_RANK": "1",
        "TPU_WORKER_HOSTNAMES": "a,b",
    }
    assert without_cluster(given | place) == given
    assert expects_peers(given | place)
    assert not expects_peers(given)


def test_a_signal_stops_a_sweep_whose_points_save(
    prepared: Path, tmp_path: Path, child_env: dict[str, str]
) -> None:
    """The exit status is 85, the message is one line, and no point counts as failed."""
    file = tmp_path / "two.yaml"
    file.write_text("method: grid\nparameters: {optim.dense_lr: {values: [1e-3, 2e-3]}}\n")
    command = [sys.executable, "-m", "ligr_jax", "sweep", str(file), "--data", str(prepared)]
    command += [
        "--out",
        str(tmp_path),
        *TINY,
        "train.steps=100000",
        "train.checkpoint_every=100000",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runner = subprocess.Popen(command, env=child_env, **pipes)
    assert runner.stderr is not None
    lines = iter(runner.stderr.readline, "")
    assert any(": step " in line for line in lines)
    runner.send_signal(signal.SIGINT)
    results, said = runner.communicate(timeout=300)
    assert runner.returncode == PREEMPTED, said
    assert results == ""
    assert said.splitlines()[-1].startswith(
        "stopped by SIGINT with 0 of 2 points finished and 1 saved part-way"
    )
    assert "FAILED" not in said
    assert not list(tmp_path.glob("*/error.txt"))
    assert len({path.parent for path in tmp_path.glob("*/checkpoints/[0-9]*")}) == 1


def modified(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_rows(run / "metrics.jsonl") if "train/loss" in row]


def test_a_point_that_cannot_fit_is_marked_and_refused_before_any_starts(
    prepared: Path, tmp_path: Path
) -> None:
    def devices(dtype: str) -> Devices:
        return Devices("gpu", "NVIDIA A100", 4, 1e12, memory=2.0**26)  # 64 MiB each

    table = "model.features.item_id.rows=4000000"  # 61 MiB, and 15 MiB of the optimizer
    cases = {
        "train.seed=0": (),
        "train.seed=1": (table,),
        "train.seed=2": (table, "mesh.model=4", "mesh.placement=row_wise"),
        "train.seed=3": ("model.width=1024",),
        "train.seed=4": ("mesh.model=8",),
    }
    specs = [PointSpec(("test",), (seed, *more)) for seed, more in cases.items()]
    fixed = [a for a in SMALL if not a.startswith("model.width")]
    points = plan_points(specs, prepared, fixed, devices)
    problems = {p.assignments[0]: p.problem for p in points if p.problem}
    assert sorted(problems) == ["train.seed=1", "train.seed=3", "train.seed=4"]
    assert "item_id" in problems["train.seed=1"]
    assert "weights and optimizer need" in problems["train.seed=3"]
    assert "needs more than the 4 available devices" in problems["train.seed=4"]
    assert all(f"{p.name} cannot run here: " in format_points(points) for p in points if p.problem)
    with pytest.raises(ConfigError, match=r"3 of 5 points cannot train(.|\n)*train\.seed=3"):
        run_sweep(points, prepared, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_another_runner_reads_the_sizes_of_points_and_traces_no_model(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = grid("model.width=8", "model.width=16")
    points = plan_points(specs, prepared, SMALL[1:], out=tmp_path)
    record_points(points, tmp_path)
    monkeypatch.setattr("ligr_jax.scaling.estimate.abstract_state", pytest.fail)
    assert plan_points(specs, prepared, SMALL[1:], out=tmp_path) == points


def test_the_time_left_counts_the_processes_of_all_runners(prepared: Path, tmp_path: Path) -> None:
    points = plan_points(grid("train.seed=0", "train.seed=1", "train.seed=2"), prepared, SMALL)
    points = [replace(p, cost=replace(p.cost, seconds=3600.0)) for p in points]
    scheduler = _Scheduler(points, prepared, tmp_path, together=1, retries=0)
    scheduler._actual_s = scheduler._estimated_s = 3600.0  # of a point that has just finished
    assert scheduler._time_left() == f"; about {clock(3 * 3600.0)} left for the sweep"
    with lock(tmp_path / points[1].name):
        assert scheduler._time_left() == f"; about {clock(1.5 * 3600.0)} left for the sweep"


def _wait(ready, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline, "waited four minutes"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def _child_of(pid: int) -> int:
    """Return the only child of a process; any thread may have started it."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    (child,) = [int(word) for text in lists for word in text.read_text().split()]
    return child
