"""Tracking: the JSON lines are the truth, W&B is a mirror that never asks and never waits."""

import json
import time
from pathlib import Path

import pytest

from ligr_jax.train.track import JsonLines, Tracker, read_rows
from tests.train.runs import small_config


def test_a_resumed_run_writes_later_rows_again(tmp_path: Path) -> None:
    first = JsonLines(tmp_path, resume_step=0)
    for step in (5, 10, 15):
        first.log({"step": step, "x": float("nan") if step == 5 else step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 20, "x"')  # cut short by a kill
    assert [r["step"] for r in read_rows(tmp_path / "metrics.jsonl")] == [5, 10, 15]
    second = JsonLines(tmp_path, resume_step=10)
    second.log({"step": 15, "x": 16})
    second.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 5, "x": None}, {"step": 10, "x": 10}, {"step": 15, "x": 16}]


def test_without_a_key_wandb_writes_to_the_run_directory(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    config = small_config(prepared, "track.wandb=auto")
    tracker = Tracker(tmp_path, config, resume_step=10)
    tracker.log({"step": 10, "train/loss": 2.0})  # mirrored by the run's earlier life
    tracker.log({"step": 15, "train/loss": 1.0})
    tracker.summarize({"validation/ne": 0.9})
    tracker.close()
    (mirror,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    # W&B's own process writes the file; on a busy machine it may take a moment after `finish`.
    limit = time.monotonic() + 60
    while b"validation/ne" not in mirror.read_bytes() and time.monotonic() < limit:
        time.sleep(0.1)
    content = mirror.read_bytes()
    assert b"model.depth" in content  # the configuration, flat
    assert b"validation/ne" in content
