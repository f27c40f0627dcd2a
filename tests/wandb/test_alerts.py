"""Alerts to the users of a W&B project: divergence, damage, waiting for data."""

import json
import shutil
from pathlib import Path

import pytest

from ligr_jax.exit_status import FAILED
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.tracker import Tracker
from ligr_jax.train import recorder
from ligr_jax.train.loop import train
from tests.train.runs import SMALL, small_config
from tests.wandb.server import Run, WandbServer

pytestmark = pytest.mark.slow

# A run whose process was killed after its first row, and the message of the runner.
GIVEN_UP = """
import os, sys
from pathlib import Path
from ligr_jax.config import Config
from ligr_jax.runs.rows import line_of
from ligr_jax.runs.wandb_alert import send_alert
out = Path(sys.argv[1])
out.mkdir()
if sys.argv[2:]:
    (out / "metrics.jsonl").write_text(line_of({"step": 1, "train/loss": 2.0}))
send_alert(out, Config(), "Retries exhausted", "exit status -9 (failed twice)")
"""


def test_a_diverged_run_has_its_last_row_and_the_reason(
    server: WandbServer, run: Run, prepared: Path, tmp_path: Path
) -> None:
    wild = ["optim.dense_lr=1e30", "optim.table_lr=1e30", "train.max_bad_steps=3"]
    settings = [a for a in SMALL if not a.startswith("track.")]
    words = ["train", "--data", prepared, "--out", tmp_path / "wild", *settings, *wild]
    done = run("-m", "ligr_jax", *words, status=FAILED)
    (stored,) = server.runs.values()
    assert [row["step"] for row in stored.history] == [
        row["step"] for row in read_rows(tmp_path / "wild" / "metrics.jsonl")
    ]
    assert stored.history[-1]["train/bad_in_row"] == 3
    assert stored.summary["status"] == "diverged"
    assert "3 steps in a row" in stored.summary["error"]
    assert stored.alerts == {"Run diverged": stored.summary["error"]}
    assert stored.summary["error"] in done.stderr
    assert stored.exit_code == 1


def test_damage_and_waiting_for_data_are_alerts(
    prepared: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts: list[tuple[str, str]] = []
    monkeypatch.setattr(Tracker, "alert", lambda _, *message: alerts.append(message))
    monkeypatch.setattr(recorder, "_ALERT_AFTER_S", 0.0)
    monkeypatch.setattr(recorder, "LARGEST_INPUT_WAIT", 0.0)
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "summary.json").unlink()
    newest = max((out / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (meta,) = (path for path in newest.rglob("metadata") if path.parent.name == "meta")
    content = json.loads(meta.read_text())
    content["meta"]["totals"]["seconds"] += 1.0
    meta.write_text(json.dumps(content))
    train(small_config(prepared), out)
    assert [title for title, _ in alerts] == ["Checkpoint damaged", "Training waits for data"]
    assert f"checkpoint {newest.name} is damaged" in alerts[0][1]


@pytest.mark.parametrize("rows", [(), ("one",)])
def test_a_point_that_is_given_up_is_an_alert_of_its_run(
    rows: tuple[str, ...], server: WandbServer, run: Run, tmp_path: Path
) -> None:
    """The rows that its killed processes have not sent arrive too."""
    run("-c", GIVEN_UP, tmp_path / "point", *rows, WANDB_RUN_ID="of-another-run")
    (stored,) = server.runs.values()
    assert stored.name != "of-another-run"
    assert stored.alerts == {"Retries exhausted": "exit status -9 (failed twice)"}
    assert [row["step"] for row in stored.history] == [1] * len(rows)
    assert stored.exit_code == FAILED
    if not rows:
        run("-c", GIVEN_UP, tmp_path / "without a key", WANDB_API_KEY="")
        assert len(server.runs) == 1
        assert not (tmp_path / "without a key" / "wandb").exists()
