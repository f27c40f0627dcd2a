"""Sweeps whose data and runs are in a store: jobs get URIs, and finished points are found there."""

from pathlib import Path

import pytest
import yaml

from ligr_jax.cli import main
from ligr_jax.runs.directory import save_summary
from ligr_jax.store.mirror import local_path
from tests.store.conftest import OnHost

OUT = "s3://b/launched"


def test_jobs_get_uris_and_finished_points_are_found_on_every_host(
    data: str,
    on_host: OnHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no scheduler is asked
    command = ["launch", "tiny/depth", "--data", data, "--out", OUT, "--target", "jobset"]
    command += ["--image", "registry.example/ligr:1", "--dry-run"]
    on_host("laptop")
    assert main(command) == 0
    first, *others = sorted((tmp_path / "launch" / "tiny-depth").glob("*.yaml"))
    assert others
    text = first.read_text()
    run = first.stem.removeprefix("tiny-depth-")
    assert f'"train", "--data", "{data}", "--out", "{OUT}/{run}", "--digest", "{run}"' in text
    assert str(tmp_path) not in text  # neither a cache nor a folder of this machine
    assert yaml.safe_load(text)["metadata"]["annotations"]["ligr-jax/out"] == OUT

    on_host("pod")
    directory = local_path(f"{OUT}/{run}")
    directory.mkdir(parents=True)
    save_summary(directory, {"status": "finished"})
    on_host("laptop")
    capsys.readouterr()
    assert main(command) == 0
    submitted = f"{len(others) + 1} points, 1 finished; 0 jobs wait or run, {len(others)} to submit"
    assert submitted in capsys.readouterr().out
    assert main([*command, "--hosts", "2", "--name", "pods"]) == 0
    rendered = sorted((tmp_path / "launch" / "pods").glob("*.yaml"))
    assert [yaml.safe_load(p.read_text())["metadata"]["name"] for p in rendered]
    job = yaml.safe_load(rendered[0].read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] == 2
    assert f'"--out", "{OUT}/' in rendered[0].read_text()
