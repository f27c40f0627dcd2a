"""Launching: stable names, files that schedulers accept, and only what is missing is submitted."""

import json
import shlex
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

from ligr_jax.cli import main
from ligr_jax.config import ConfigError, config_from_json, digest
from ligr_jax.data.manifest import load_manifest
from ligr_jax.launch.client import SchedulerError
from ligr_jax.launch.grace import choose_grace
from ligr_jax.launch.jobs import default_name, require_name
from ligr_jax.launch.kubernetes import JobSet
from ligr_jax.launch.launcher import launch
from ligr_jax.launch.manifest import LaunchConflict, read_launch, read_launches
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.runs.directory import save_summary
from ligr_jax.scaling.estimate import Estimator, rough_flops
from ligr_jax.scaling.fit.registered import read_registered
from ligr_jax.scaling.sweep import read_sweep, resolve_points

IMAGE = "registry.example/ligr:1"


def options(prepared: Path, out: Path, target: str, **values: Any) -> LaunchOptions:
    given = {"name": "tiny-depth", "sweeps": ("tiny/depth",), **values}
    files = out / "launch" / given["name"]
    return LaunchOptions(target=target, data=str(prepared), out=str(out), files=files, **given)


def documents(out: Path, name: str = "tiny-depth") -> list[dict[str, Any]]:
    return [yaml.safe_load(p.read_text()) for p in sorted((out / "launch" / name).glob("*.yaml"))]


class Client:
    """A client of a scheduler: it records its arguments and prints a fixed answer."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir()
        monkeypatch.setenv("PATH", str(directory), prepend=":")
        self._directory = directory

    def install(self, program: str, answer: str) -> None:
        calls, path = self._directory / f"{program}.calls", self._directory / program
        (self._directory / f"{program}.answer").write_text(answer)
        path.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\ncase "$*" in *queue*|*get*|"--me"*) '
            f"cat {self._directory}/{program}.answer;; esac\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def calls(self, program: str) -> list[str]:
        """Return the calls since the last look."""
        path = self._directory / f"{program}.calls"
        lines = path.read_text().splitlines()
        path.unlink()
        return lines


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(tmp_path / "bin", monkeypatch)


def test_jobs_keep_their_names_and_points_when_a_sweep_grows(
    prepared: Path, tmp_path: Path
) -> None:
    first = options(prepared, tmp_path, "slurm", sweeps=("tiny/depth",), name="study", group=2)
    launch(first, dry_run=True)
    before = read_launch(first.files)
    grown = options(
        prepared, tmp_path, "slurm", sweeps=("tiny/seeds", "tiny/depth"), name="study", group=2
    )
    launch(grown, dry_run=True)
    (after,) = read_launches(tmp_path)
    assert before is not None
    assert after.jobs[: len(before.jobs)] == before.jobs
    assert [job.index for job in after.jobs] == list(range(len(after.jobs)))
    specs = [spec for name in grown.sweeps for spec in read_sweep(Path(name))]
    wanted = {point.name for point in resolve_points(specs, prepared)}
    runs = [run for job in after.jobs for run in job.points]
    assert len(runs) == len(set(runs))
    assert set(runs) == wanted == {entry["run"] for entry in after.points}
    assert max(len(job.points) for job in after.jobs) == 2
    for run in runs:
        text = (grown.files / "points" / f"{run}.json").read_text()
        assert digest(config_from_json(text)) == run


def test_a_job_trains_what_was_launched_and_nothing_else(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words of a job in the array, read by a shell, give the configuration of its point."""
    given = options(prepared, tmp_path, "slurm", devices=0, assignments=("track.entity=a b",))
    lines = launch(given, dry_run=True)
    script = (given.files / "tiny-depth.sbatch").read_text()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    plan = read_launch(given.files)
    assert plan is not None
    assert f"--array=0-{len(plan.jobs) - 1} --comment={tmp_path} " in lines[-1]
    (words,) = (line for line in script.splitlines() if line.startswith("  1) arguments=("))
    words = shlex.split(words.removeprefix("  1) arguments=(").removesuffix(") ;;"))
    assert f"{tmp_path}/{plan.jobs[1].points[0]}" in words
    at = words.index("--out")
    show = [*words[:at], *words[at + 2 :], "--show"]
    assert main(show) == 0
    assert "track.entity=a b" in capsys.readouterr().out
    assert main([*show, "model.dropout=0.5"]) == 1
    assert "it was launched as" in capsys.readouterr().err


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_jobset_keeps_every_field_in_the_typed_models(
    hosts: int, prepared: Path, tmp_path: Path
) -> None:
    """The schema of Kubernetes validates the Job inside, the models of JobSet all around it."""
    launch(
        options(
            prepared,
            tmp_path,
            "jobset",
            image=IMAGE,
            queue="research",
            hosts=hosts,
            devices=8,
            cpus=90,
            accelerator="NVIDIA-H100-80GB-HBM3",
            grace_s=77,
        ),
        dry_run=True,
    )
    jobsets = documents(tmp_path)
    assert len(jobsets) == 3
    for jobset in jobsets:
        model = JobsetV1alpha2JobSet.from_dict(jobset)
        assert model is not None
        assert model.to_dict() == jobset
        assert model.spec is not None
        assert model.spec.failure_policy is not None
        names = [rule.name for rule in model.spec.failure_policy.rules or ()]
        assert names == ["failed", "preempted"]
        assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        name = jobset["metadata"]["name"]
        assert len(f"{name}-main-0-{hosts - 1}-abcde") <= 63
        template = jobset["spec"]["replicatedJobs"][0]["template"]
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, **template}
        kubernetes_validate.validate(job, "1.30", strict=True)
        pod = job["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == 77
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
        environment = {v["name"]: v.get("value") for v in container["env"]}
        assert ("JAX_NUM_PROCESSES" in environment) == (hosts > 1)
        if hosts > 1:
            assert environment["JAX_COORDINATOR_ADDRESS"].startswith(f"{name}-main-0-0.{name}:")


def test_a_trainjob_keeps_every_field_in_the_typed_models(prepared: Path, tmp_path: Path) -> None:
    given = options(prepared, tmp_path, "trainjob", image=IMAGE, hosts=2, devices=8, queue="q")
    launch(given, dry_run=True)
    for trainjob in documents(tmp_path):
        model = TrainerV1alpha1TrainJob.from_dict(trainjob)
        assert model is not None
        assert model.to_dict() == trainjob
        assert trainjob["spec"]["runtimeRef"]["name"] == "jax-distributed"
        assert trainjob["spec"]["trainer"]["numNodes"] == 2


def test_a_tpu_slice_is_selected_by_type_and_topology(prepared: Path, tmp_path: Path) -> None:
    accelerator = "tpu-v6e-slice:2x4"
    given = {"image": IMAGE, "devices": 4, "hosts": 2}
    launch(options(prepared, tmp_path, "jobset", accelerator=accelerator, **given), dry_run=True)
    template = documents(tmp_path)[0]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert template["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    (container,) = template["spec"]["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}
    assert not any(v["name"].startswith("XLA_") for v in container["env"])


def test_only_jobs_that_are_neither_finished_nor_queued_are_submitted(
    prepared: Path, tmp_path: Path, client: Client
) -> None:
    given = options(prepared, tmp_path, "jobset", image=IMAGE, sweeps=("tiny/seq_len",))
    client.install("kubectl", '{"items": []}')
    launch(given)
    plan = read_launch(given.files)
    assert plan is not None
    names = [job.name for job in plan.jobs]
    get, delete, create = client.calls("kubectl")
    assert "--selector=ligr-jax/launch=tiny-depth" in get
    assert delete.split()[-len(names) :] == names
    assert create.count("--filename=") == len(names)

    def item(name: str, condition: str, out: str = str(tmp_path)) -> dict[str, Any]:
        conditions = [{"type": condition, "status": "True"}]
        annotations = {"ligr-jax/out": out}
        metadata = {"name": name, "annotations": annotations}
        return {"metadata": metadata, "status": {"conditions": conditions}}

    save_run = tmp_path / plan.jobs[0].points[0]
    save_run.mkdir()
    save_summary(save_run, {"seconds": 1.0})
    items = [item(names[0], "Completed"), item(names[1], "Failed"), item(names[2], "Suspended")]
    client.install("kubectl", json.dumps({"items": items}))
    (line,) = launch(given)
    assert "1 finished; 1 jobs wait or run" in line
    _, delete, create = client.calls("kubectl")
    wanted = [names[1], *names[3:]]  # the failed one, and those that do not exist
    assert delete.split()[-len(wanted) :] == wanted
    assert create.count("--filename=") == len(wanted)
    # The same names in another directory of runs.
    client.install("kubectl", json.dumps({"items": [item(names[3], "Suspended", "/other")]}))
    with pytest.raises(LaunchConflict, match="of another sweep \\(/other\\); choose another"):
        launch(given)


def test_the_largest_run_of_a_ladder_is_predicted_before_it_is_submitted(
    prepared: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed of its shape would reveal the result, so it waits too."""
    specs = read_sweep(Path("tiny/ladder"))
    sweep = tmp_path / "one more seed.yaml"
    sweep.write_text(
        "method: grid\nparameters: {preset: {value: demo-7}, train.seed: {value: 5}}\n"
    )
    sweeps = ("tiny/ladder", str(sweep))
    given = options(prepared, tmp_path, "jobset", image=IMAGE, sweeps=sweeps)
    estimator = Estimator(prepared)
    flops = {p.name: estimator.flops(p.config) for p in resolve_points(specs, prepared)}
    *others, largest = sorted(flops, key=lambda run: flops[run])
    client.install("kubectl", '{"items": []}')
    first, held_back = launch(given)
    assert f"0 jobs wait or run, {len(others)} to submit" in first
    assert held_back.startswith(f"held back: tiny-depth-{largest}, tiny-depth-")
    assert f"first, and {len(others)} of the runs that predict it have not finished" in held_back
    assert largest not in "".join(client.calls("kubectl"))
    for run in others:
        (tmp_path / run).mkdir()
        numbers = {"validation/ne": 0.7 + (flops[run] / 1e6) ** -0.2, "flops_model": flops[run]}
        save_summary(tmp_path / run, numbers)
    submitted: list[Sequence[str]] = []

    def submit(_: JobSet, command: Sequence[str]) -> str:
        assert (tmp_path / "prediction.json").exists()
        submitted.append(command)
        return ""

    monkeypatch.setattr(JobSet, "submit", submit)
    launch(given, dry_run=True)
    assert not (tmp_path / "prediction.json").exists()
    assert "2 to submit" in launch(given)[0]
    assert submitted[-1][-2].endswith(f"{largest}.yaml")
    written = read_registered(tmp_path / "prediction.json")
    assert written["run"] == largest
    assert written["predicted"] == pytest.approx(0.7 + (flops[largest] / 1e6) ** -0.2, abs=1e-3)


def test_the_largest_run_is_submitted_at_once_if_asked(
    prepared: Path, tmp_path: Path, said: list[str], client: Client
) -> None:
    """Then the runs that have finished predict it; here there are none."""
    sweeps = ("tiny/ladder",)
    given = options(prepared, tmp_path, "slurm", sweeps=sweeps, submit_largest=True)
    for program in ("squeue", "scontrol", "sbatch"):
        client.install(program, "")
    (line,) = launch(given)
    assert "8 to submit" in line
    assert any("no prediction of the largest run" in text for text in said)
    assert not (tmp_path / "prediction.json").exists()


def test_the_manifest_of_the_data_orders_a_ladder(prepared: Path) -> None:
    estimator, manifest = Estimator(prepared), load_manifest(prepared)
    for name in ("tiny/ladder", "paper/ladder"):
        configs = [p.config for p in resolve_points(read_sweep(Path(name)), prepared)]
        by_manifest = [rough_flops(config, manifest) for config in configs]
        counted = [estimator.flops(config) for config in configs]
        assert np.array_equal(np.argsort(by_manifest), np.argsort(counted))


def test_the_time_to_save_is_that_of_finished_runs_scaled_to_the_largest_job(
    prepared: Path, tmp_path: Path
) -> None:
    def grace(**values: Any) -> tuple[int, str]:
        given = options(prepared, tmp_path, "slurm", sweeps=("tiny/ladder",), **values)
        launch(given, dry_run=True)
        plan = read_launch(given.files)
        assert plan is not None
        script = (given.files / "tiny-depth.sbatch").read_text()
        assert f"# ({plan.grace_source}).\n#SBATCH --signal=B:TERM@{plan.grace_s}\n" in script
        return plan.grace_s, plan.grace_source

    assert grace() == (120, "default: no finished run has saved")
    points = resolve_points(read_sweep(Path("tiny/ladder")), prepared)
    small, middle = points[0].name, points[4].name
    for run, seconds in ((small, 50.0), (middle, 40.0)):
        (tmp_path / run).mkdir()
        save_summary(tmp_path / run, {"save_seconds": seconds})
    seconds, source = grace()
    ratio = (seconds - 60) / 2 / 40
    assert f"run {middle} saved in 40.0 s, times {ratio:.1f} for the largest job" in source
    assert 2 < ratio < 8  # the last rung is twice as wide, and its tables too
    # A job that is smaller than the largest finished run.
    assert grace(only=("preset=demo-1",)) == (
        160,
        f"2 x 50.0 s + 60 s: run {small} saved in 50.0 s",
    )
    assert grace(grace_s=7) == (7, "--grace-s")
    # A job of an earlier launch, with a point of a sweep that is not launched again.
    configs = {points[0].name: points[0].config}
    assert choose_grace(0, [(small, "another")], configs, tmp_path).seconds == 160


def test_jobs_of_skypilot_are_found_by_name_and_owner(
    prepared: Path, tmp_path: Path, client: Client
) -> None:
    given = options(prepared, tmp_path, "skypilot", image=IMAGE, accelerator="H100", spot=True)
    client.install("sky", "[]")
    launch(given)
    plan = read_launch(given.files)
    assert plan is not None
    assert len(client.calls("sky")) == 1 + len(plan.jobs)
    task = (given.files / f"{plan.jobs[0].name}.yaml").read_text()
    row = {"job_name": plan.jobs[0].name, "status": "RECOVERING", "user_yaml": task}
    client.install("sky", json.dumps([row]))
    launch(given)
    assert len(client.calls("sky")) == len(plan.jobs)
    other = {**row, "user_yaml": task.replace(str(tmp_path), "/other")}
    client.install("sky", json.dumps([other]))
    with pytest.raises(LaunchConflict, match="another sweep"):
        launch(given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "jobset"], "needs --image"),
        (
            ["--target", "local", "--partition", "gpu"],
            "--partition has no meaning for --target",
        ),
        (["--target", "local", "--hosts", "2"], "leave out --hosts"),
        (["--target", "slurm", "--hosts", "2", "--group", "2"], "leave one of them out"),
        (["--target", "slurm", "--name", "A_b"], "--name A_b: give at most 32 of a-z"),
        (["--target", "skypilot", "--image", "i"], "needs --accelerator"),
        (["--target", "jobset", "--image", "i", "--accelerator", "tpu-v6e-slice"], "a topology"),
        (["--target", "slurm", "--template", "T"], "T, line 2: Expected an expression"),
        (["--target", "slurm", "--template", "U"], "'nodes' is undefined; the names are acc"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: Sequence[str],
    said: str,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("T").write_text("#!/bin/bash\n{{ }}\n")
    Path("U").write_text("{{ nodes }}\n")
    command = ["launch", "tiny/depth", "--data", str(prepared), "--out", "runs", "--dry-run"]
    assert main([*command, *words]) in (1, 2)
    assert said in capsys.readouterr().err


def test_one_name_belongs_to_one_sweep_and_one_target(prepared: Path, tmp_path: Path) -> None:
    launch(options(prepared, tmp_path, "slurm"), dry_run=True)
    with pytest.raises(LaunchConflict, match="target=slurm, requested jobset; choose another"):
        launch(options(prepared, tmp_path, "jobset", image=IMAGE), dry_run=True)
    assert default_name("tiny/ladder") == "tiny-ladder"
    assert default_name("my sweeps/2nd_try.yaml") == "sweep-2nd-try"
    require_name(default_name("x" * 99))


def test_a_client_that_is_missing_or_fails_is_named(
    prepared: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.install("squeue", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    given = options(prepared, tmp_path / "runs", "slurm")
    with pytest.raises(SchedulerError, match="`sbatch` is not on PATH; run `ligr launch` on a log"):
        launch(given)
    assert not given.files.exists()


def test_a_template_prints_and_renders_after_an_edit(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["launch", "--print", "slurm"])
    edited = tmp_path / "my.sbatch"
    edited.write_text(capsys.readouterr().out.replace("set -u\n", "set -u\nmodule load cuda\n"))
    given = options(prepared, tmp_path, "slurm", template=edited, accelerator="h100", devices=8)
    launch(given, dry_run=True)
    script = (given.files / "tiny-depth.sbatch").read_text()
    assert "\nmodule load cuda\n" in script
    assert "\n#SBATCH --gpus-per-node=h100:8\n" in script


def test_a_point_that_cannot_run_is_named(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"point .* model\.width=0: "):
        launch(options(prepared, tmp_path, "slurm", assignments=("model.width=0",)), dry_run=True)


def test_this_machine_gets_one_sweep_command(prepared: Path, tmp_path: Path) -> None:
    """The runner of the sweep itself predicts the largest run, so none is held back."""
    given = options(prepared, tmp_path, "local", sweeps=("tiny/ladder",), jobs=2, group=3)
    (_, command) = launch(given, dry_run=True)
    assert command == f"sh {given.files / 'tiny-depth.sh'}"
    script = (given.files / "tiny-depth.sh").read_text()
    assert f"sweep tiny/ladder --data {prepared} --out {tmp_path} --jobs 2 --together 3" in script
