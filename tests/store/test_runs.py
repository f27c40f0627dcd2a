"""Runs in a store: trained, killed, continued on another host, read and exported there."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ligr_jax.cli import main
from ligr_jax.data.manifest import load_manifest
from ligr_jax.exit_status import BUSY
from ligr_jax.runs.directory import load_summary
from ligr_jax.runs.rows import read_rows
from ligr_jax.scaling.ladder import configure
from ligr_jax.store.mirror import local_path
from ligr_jax.train.loop import Trainer, train
from tests.store.conftest import OnHost
from tests.store.s3 import S3
from tests.train.runs import SMALL

pytestmark = pytest.mark.slow
RUN = "s3://b/runs/one"
# Values of rows and summaries that are times.
_TIMES = ("seconds", "per_s", "mfu", "wait", "start", "device_seconds", "data.dir", "run")


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not any(t in k for t in _TIMES)}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [numbers(row) for row in read_rows(path)]


def rows_of_bytes(content: bytes) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in content.decode().splitlines()]
    return [numbers({k: v for k, v in row.items() if k != "digest"}) for row in rows]


@pytest.mark.usefixtures("copied_functions")
def test_a_run_that_lost_its_host_continues_on_another_to_the_same_numbers(
    data: str,
    finished: Path,
    s3: S3,
    on_host: OnHost,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: list[str],
) -> None:
    """Its first process publishes nothing once another has its lease, and faults change nothing."""
    monkeypatch.setenv("LIGR_LEASE_S", "0.2")
    monkeypatch.setenv("LIGR_LEASE_BEATS", "10")
    requests = 0

    def some(method: str, path: str) -> str:
        nonlocal requests
        requests += 1
        faults = {0: "503", 3: "503" if method == "PUT" else "lost", 5: "cut", 7: "slow"}
        return faults.get(requests % 11, "")

    original = Trainer.read
    taken: dict[str, bytes] = {}

    def read(self: Trainer, number: int, metrics: Any) -> None:
        if number == 23:
            self.wait()
            s3.write("b/runs/one/.lock", b'{"owner": "another"}')
            taken.update(s3.below("b/runs/"))
            time.sleep(0.5)  # the next renewal finds it
        original(self, number, metrics)

    monkeypatch.setattr(Trainer, "read", read)
    on_host("first")
    train_words = f"train --data {data} --out {RUN} {' '.join(SMALL)}"
    with s3.failing(some):
        assert main(train_words.split()) == BUSY
    assert "another process has taken over this directory" in capsys.readouterr().err
    assert s3.below("b/runs/") == taken
    steps = {n.split("/")[2] for n in taken if n.startswith("one/checkpoints")}
    assert steps == {"10", "20"}
    assert rows_of_bytes(taken["one/metrics.jsonl"])[-1]["step"] == 20
    monkeypatch.setattr(Trainer, "read", original)

    # The other process is gone too, and the newest checkpoint is damaged.
    s3.objects["b/runs/one/.lock"] = s3.objects["b/runs/one/.lock"]._replace(time=0)
    s3.damage(next(k for k in s3.objects if k.startswith("b/runs/one/checkpoints/20/state/d/")))
    on_host("second")
    with s3.failing(some):
        train(configure(load_manifest(local_path(data)), data, SMALL), local_path(RUN))
    assert any("checkpoint 20 is damaged (s3://b/runs/one/check" in line for line in said)
    assert any(line.startswith("resuming at step 10") for line in said)
    expected = rows_of(finished / "metrics.jsonl")
    assert rows_of(local_path(RUN) / "metrics.jsonl") == expected
    assert rows_of_bytes(s3.below("b/runs/one/")["metrics.jsonl"]) == expected
    summary, whole = load_summary(local_path(RUN)), load_summary(finished)
    assert summary is not None
    assert whole is not None
    assert numbers(summary) == numbers(whole)
    assert json.loads(s3.objects["b/runs/one/config.json"].content)["data"]["dir"] == data

    # Readers on a third host change nothing, and show URIs.
    on_host("reader")
    before = {k: v for k, v in s3.objects.items() if ".lock" not in k}
    for words in (
        "report s3://b/runs --bootstrap 0 --out s3://b/page",
        f"export {RUN} --out s3://b/tables --candidates 16",
        f"predict {RUN} --out s3://b/predictions.parquet",
        f"status {RUN}",
        f"verify {RUN} s3://b/tables s3://b/data",
        train_words,
    ):
        assert main(words.split()) == 0, (words, capsys.readouterr())
    output = capsys.readouterr()
    assert str(local_path("s3://b")) not in output.out + output.err
    assert before.items() <= s3.objects.items()
    # A service on a fourth host fetches the artifact and gives the scores of the export.
    on_host("service")
    assert main(["check", "s3://b/tables"]) == 0, capsys.readouterr()
    assert "golden requests are equal bit by bit" in capsys.readouterr().out
    written = ("page/report.html", "page/figures/training.png", "tables/current.json")
    assert {f"b/{name}" for name in (*written, "predictions.parquet")} <= s3.objects.keys()

    # A file of the checkpoint that has changed on a host's disk is fetched again.
    on_host("reader")
    cached = next((local_path(RUN) / "checkpoints" / "40" / "state" / "d").iterdir())
    times = cached.stat()
    cached.write_bytes(bytes(times.st_size))
    os.utime(cached, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert main(f"predict {RUN} --out s3://b/again.parquet".split()) == 0
    assert s3.objects["b/again.parquet"].content == s3.objects["b/predictions.parquet"].content
