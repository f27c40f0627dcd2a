"""The mirror and the real W&B client with a server on loopback: every row arrives exactly once."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from ligr_jax.config import Config, digest
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.directory import load_summary
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.wandb_record import open_record
from tests.train.runs import SMALL
from tests.wandb.server import Run, WandbServer
from tests.xla import flags

pytestmark = pytest.mark.slow

AWAY = "http://127.0.0.1:9"  # no program listens there
SESSION = """
import os, sys
from pathlib import Path
from ligr_jax.config import Config
from ligr_jax.messages import show_messages
from ligr_jax.runs.tracker import Tracker
show_messages()
out, resume, last, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
out.mkdir(exist_ok=True)
tracker = Tracker(out, Config(), resume)
for step in range(resume + 1, last + 1):
    tracker.log({"step": step, "train/loss": 1 / step, "validation/ne": 1 + 1 / step})
if end == "killed":
    os.kill(os.getpid(), 9)
tracker.summarize({"validation/ne": 0.5, "device_seconds": 6.0, "config/model.depth": 2})
tracker.close()
"""

# Continues SESSION from step 3; after step 4, the client's service process is killed.
KILLED = """
import sys, threading
from pathlib import Path
from ligr_jax.config import Config
from ligr_jax.messages import show_messages
from ligr_jax.runs import wandb_client
from ligr_jax.runs.tracker import Tracker
show_messages()
out, is_killed_again = Path(sys.argv[1]), sys.argv[2] == "in every session"
sessions, opened = [], threading.Event()

def kill_service():
    wandb_client.wandb.setup().ensure_service()._proc._process.kill()

original = wandb_client._init
def init(*arguments):
    sessions.append(original(*arguments))
    if is_killed_again and len(sessions) > 1:
        kill_service()
    opened.set()
    return sessions[-1]
wandb_client._init = init
tracker = Tracker(out, Config(), 3)
for step in range(4, 7):
    tracker.log({"step": step, "train/loss": 1 / step})
    if step == 4:
        opened.wait(60)
        kill_service()
tracker.close()
"""

LIVES = {
    "killed, then stopped": ["online 0 6 killed", "online 4 8 ended", "online 8 10 ended"],
    "the server away, then back": ["away 0 4 ended", "away 4 6 killed", "online 5 8 ended"],
    "offline, in segments": ["away 0 3 ended", "away 3 7 killed", "away 5 8 ended", "sync"],
    "gone and back": ["online 0 4 ended", "away 4 6 ended", "sync", "online 6 9 ended", "sync"],
}


@pytest.mark.parametrize("life", LIVES)
def test_every_row_arrives_once_and_in_order(
    life: str, server: WandbServer, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "point"
    for session in LIVES[life]:
        if session == "sync":
            run("-m", "wandb", "sync", out / "wandb")
            require_every_row(server, out)
            continue
        location, *steps, end = session.split()
        changes = {} if location == "online" else {"WANDB_BASE_URL": AWAY}
        status = -signal.SIGKILL if end == "killed" else 0
        run("-c", SESSION, out, *steps, end, status=status, **changes)
    require_every_row(server, out)


def require_every_row(server: WandbServer, out: Path) -> None:
    """Require that the server has all rows of a run that has ended, and nothing else."""
    (stored,) = server.runs.values()
    last = read_rows(out / "metrics.jsonl")[-1]["step"]
    assert [row["step"] for row in stored.history] == list(range(1, last + 1))
    assert [row["_step"] for row in stored.history] == list(range(last))
    assert stored.history[1]["train/loss"] == 0.5
    assert stored.exit_code == 0
    assert stored.config["model"]["depth"] == 2
    # The summary has the last value of each metric and the final numbers.
    assert stored.summary["train/loss"] == 1 / last
    assert stored.summary["validation/ne"] == 0.5
    assert stored.summary["compute/device_seconds"] == 6.0


@pytest.mark.parametrize("is_disabled", [False, True])
def test_system_metrics_are_sent_unless_they_are_disabled(
    is_disabled: bool, server: WandbServer, run: Run, tmp_path: Path
) -> None:
    changes = {"WANDB_X_STATS_SAMPLING_INTERVAL": "0.1"}
    changes |= {"WANDB_X_DISABLE_STATS": "true"} if is_disabled else {}
    waiting = SESSION.replace("tracker.summarize", "import time; time.sleep(3)\ntracker.summarize")
    run("-c", waiting, tmp_path / "point", 0, 2, "ended", **changes)
    (stored,) = server.runs.values()
    assert [row["step"] for row in stored.history] == [1, 2]
    samples = [json.loads(text) for text in stored.lines["wandb-events.jsonl"].values()]
    sent = {name for sample in samples for name in sample if name.startswith("system.")}
    assert any(name.startswith("system.cpu") for name in sent) == (not is_disabled)


@pytest.mark.parametrize("fault", ["killed once", "killed in every session", "refused"])
def test_rows_that_a_broken_client_did_not_send_are_sent_on_the_next_start(
    fault: str, server: WandbServer, run: Run, tmp_path: Path
) -> None:
    """Training ends normally, and no row is stored twice."""
    out = tmp_path / "point"
    run("-c", SESSION, out, 0, 3, "ended")
    (stored,) = server.runs.values()
    if fault == "refused":
        server.faults["file_stream"] = (403, b"permission denied")
        done = run("-c", SESSION, out, 3, 6, "ended")
    else:
        done = run("-c", KILLED, out, fault.removeprefix("killed "))
    warnings = [line for line in done.stderr.splitlines() if "W&B" in line]
    # If both sessions are killed, the first can notice it before the second is killed as well.
    most = 2 if fault == "killed in every session" else 1
    assert 1 <= len(warnings) <= most, warnings
    assert server.url in warnings[0]
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == list(range(1, 7))
    # Where it was killed once, a second session of the same process sent the rows.
    assert len(stored.history) == (6 if fault == "killed once" else 3)
    server.faults.clear()
    run("-c", SESSION, out, 6, 8, "ended")
    assert list(server.runs.values()) == [stored]
    assert [row["step"] for row in stored.history] == list(range(1, 9))


def test_a_moved_directory_keeps_its_run_and_a_copy_gets_its_own(
    server: WandbServer, run: Run, tmp_path: Path
) -> None:
    run("-c", SESSION, tmp_path / "first", 0, 3, "ended")
    (stored,) = server.runs.values()
    (tmp_path / "first").rename(tmp_path / "moved")
    run("-c", SESSION, tmp_path / "moved", 3, 5, "ended", WANDB_BASE_URL=AWAY)
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    done = run("-c", SESSION, tmp_path / "copy", 5, 6, "ended")
    assert "is a copy of" in done.stderr
    run("-c", SESSION, tmp_path / "moved", 5, 7, "ended")
    (copy,) = (r for r in server.runs.values() if r is not stored)
    assert [row["step"] for row in stored.history] == list(range(1, 8))
    assert [row["step"] for row in copy.history] == list(range(1, 7))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"id": 7}', '{"id": "a", "rows": "many"}', '{"id": "a", "deleted": 1}'],
)
def test_a_broken_record_is_replaced(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RunFiles(tmp_path).mirror.parent.mkdir()
    RunFiles(tmp_path).mirror.write_text(text)
    record = open_record(tmp_path, Config(), "")
    assert record.id.startswith(f"{digest(Config())}-")
    assert (record.rows, record.segments, record.deleted) == (0, [], [])
    (message,) = caplog.messages
    assert f"{RunFiles(tmp_path).mirror} cannot be read" in message
    record.write(tmp_path)
    assert json.loads(RunFiles(tmp_path).mirror.read_text())["id"] == record.id


@pytest.mark.parametrize(
    ("key", "mode", "online"), [("", "", False), ("netrc", "", True), ("netrc", "offline", False)]
)
def test_auto_is_online_only_with_a_key(
    key: str, mode: str, online: bool, server: WandbServer, run: Run, tmp_path: Path
) -> None:
    """The other tests of this folder have a key in the environment."""
    if key == "netrc":
        host = server.url.removeprefix("http://")
        line = f"machine {host} login user password {server.environment['WANDB_API_KEY']}\n"
        (tmp_path / "home" / ".netrc").write_text(line)
    run("-c", SESSION, tmp_path / "point", 0, 2, "ended", WANDB_MODE=mode, WANDB_API_KEY="")
    assert len(server.runs) == online
    assert len(list(tmp_path.glob("point/wandb/offline-run-*"))) == (not online)


def test_wandb_can_be_disabled(run: Run, tmp_path: Path) -> None:
    run("-c", SESSION, tmp_path / "point", 0, 2, "ended", WANDB_MODE="disabled")
    assert len(read_rows(tmp_path / "point" / "metrics.jsonl")) == 2
    assert not (tmp_path / "point" / "wandb").exists()


def test_training_without_its_server_gives_the_same_numbers_and_syncs_whole(
    server: WandbServer, run: Run, prepared: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "away"
    settings = [a for a in SMALL if not a.startswith("track.")]
    words = ["-m", "ligr_jax", "train", "--data", prepared, "--out", out, *settings]
    away = run(*words, WANDB_BASE_URL=AWAY, XLA_FLAGS=flags(devices=8))
    (warning,) = (line for line in away.stderr.splitlines() if "W&B" in line)
    assert f"{AWAY}: it does not answer" in warning
    assert f"later: wandb sync {out}/wandb" in warning
    off, summary = load_summary(finished), load_summary(out)
    assert off is not None
    assert summary is not None
    run_specific = ("run", "start_seconds", "seconds", "eval_seconds", "input_wait")
    run_specific += ("save_seconds",)
    timed = ("device_seconds", "input_wait_seconds", "compute/seconds", "compute/device_seconds")
    run_specific += timed
    same = [k for k in off if k not in run_specific and not k.startswith("config/track.")]
    assert {k: off[k] for k in same} == {k: summary[k] for k in same}

    run("-m", "wandb", "sync", out / "wandb")
    (stored,) = server.runs.values()
    rows = read_rows(out / "metrics.jsonl")
    of_the_client = ("_step", "_timestamp", "_runtime", "_wandb")
    assert [{k: v for k, v in r.items() if k not in of_the_client} for r in stored.history] == rows
    numbers = [k for k in same if not k.startswith("config/")]
    sent = {k: stored.summary[metric_name(k)] for k in numbers}
    assert sent == {k: summary[k] for k in numbers}
