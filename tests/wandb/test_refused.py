"""Training continues whatever W&B's server answers, and every row can be sent later."""

import dataclasses
import json
from pathlib import Path

import pytest

from ligr_jax.cli import main
from ligr_jax.config import ConfigError, TrackConfig
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.wandb_check import check_wandb
from ligr_jax.runs.wandb_env import WandbOptions, wandb_options
from tests.train.runs import SMALL
from tests.wandb.server import Run, WandbServer
from tests.wandb.test_mirror import SESSION

REFUSALS: dict[str, tuple[int, bytes] | str] = {
    "permission denied: entity someteam not found": "permission denied: entity someteam not found",
    "project not found": (404, b'{"errors": [{"message": "project not found"}]}'),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_run_trains_and_keeps_its_rows(
    reason: str, server: WandbServer, run: Run, tmp_path: Path
) -> None:
    server.faults["UpsertBucket"] = REFUSALS[reason]
    out = tmp_path / "point"
    done = run("-c", SESSION, out, 0, 3, "ended")
    (warning,) = (line for line in done.stderr.splitlines() if "W&B" in line)
    assert server.url in warning
    assert reason in warning
    assert f"wandb sync {out}/wandb" in warning
    assert server.runs == {}
    server.faults.clear()
    if reason == "project not found":  # one of them, as the client keeps the same files
        run("-m", "wandb", "sync", out / "wandb")
        (stored,) = server.runs.values()
        assert [row["step"] for row in stored.history] == [1, 2, 3]


def test_one_configuration_in_two_directories_is_two_runs(
    server: WandbServer, run: Run, tmp_path: Path
) -> None:
    """Empty variables of the first one count as unset; the client itself refuses some of them."""
    names = "MODE NAME NOTES TAGS RUN_ID RUN_GROUP ENTITY JOB_TYPE RESUME DIR SILENT PROJECT"
    empty = {f"WANDB_{name}": " " for name in names.split()}
    run("-c", f"import os; os.environ |= {empty}\n{SESSION}", tmp_path / "first", 0, 3, "ended")
    run("-c", SESSION, tmp_path / "second", 0, 3, "ended")
    stored = {r.fields["displayName"].split(" T")[0]: r for r in server.runs.values()}
    assert stored.keys() == {"first", "second"}
    for one in stored.values():
        assert [row["step"] for row in one.history] == [1, 2, 3]
        assert one.fields["project"] == "ligr"
        assert one.fields["tags"] == ["ligr"]  # the kind of model
        assert one.fields["groupName"].startswith("T")


def test_names_tags_and_groups_of_the_environment_arrive(
    server: WandbServer, run: Run, tmp_path: Path
) -> None:
    values = {"NAME": "n", "TAGS": "a,b", "RUN_GROUP": "g", "RUN_ID": "mine", "PROJECT": "other"}
    changes = {f"WANDB_{name}": value for name, value in values.items()}
    run("-c", SESSION, tmp_path / "point", 0, 2, "ended", **changes)
    ((name, stored),) = server.runs.items()
    assert name == "mine"
    fields = {"displayName": "n", "tags": ["a", "b", "ligr"], "groupName": "g", "project": "other"}
    assert {key: stored.fields[key] for key in fields} == fields


def test_a_run_deleted_on_the_server_continues_as_another_one(
    server: WandbServer, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "point"
    run("-c", SESSION, out, 0, 2, "ended")
    (before,) = server.runs
    server.runs.clear()
    server.deleted.add(before)
    done = run("-c", SESSION, out, 2, 4, "ended")
    ((after, stored),) = server.runs.items()
    assert f"run {before} continues as run {after}" in done.stderr
    assert [row["step"] for row in stored.history] == [1, 2, 3, 4]
    assert len(read_rows(out / "metrics.jsonl")) == 4


def test_the_environment_provides_options_that_the_configuration_does_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"MODE": "offline", "PROJECT": "p", "ENTITY": "", "RUN_GROUP": "g", "NAME": "n"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    options = wandb_options(TrackConfig())
    assert options == WandbOptions("offline", "WANDB_MODE=offline", "p", "", "g", "n", "")
    explicit = wandb_options(TrackConfig(wandb="off", project="mine", group="own"))
    expected = {"mode": "off", "mode_from": "track.wandb=off", "project": "mine", "group": "own"}
    assert explicit == dataclasses.replace(options, **expected)
    monkeypatch.setenv("WANDB_MODE", "")
    assert wandb_options(TrackConfig()).mode == "auto"


@pytest.mark.parametrize(
    ("variables", "assignment", "words"),
    [
        ({"WANDB_MODE": "sideways"}, "track.wandb=auto", "WANDB_MODE=sideways in the environment"),
        ({"WANDB_MODE": "online"}, "track.wandb=auto", "WANDB_MODE=online needs a key for "),
        ({}, "track.wandb=online", "track.wandb=online needs a key for "),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_train_refuses_a_mode_in_one_line_and_writes_nothing(
    variables: dict[str, str],
    assignment: str,
    words: str,
    together: bool,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    outs = [tmp_path / "a", tmp_path / "b"]
    group = tmp_path / "group.json"
    runs = [{"out": str(out), "assignments": [f"train.seed={k}"]} for k, out in enumerate(outs)]
    group.write_text(json.dumps(runs))
    where = ["--together", str(group)] if together else ["--out", str(outs[0])]
    settings = [a for a in SMALL if not a.startswith("track.")]
    status = main(["train", "--data", str(prepared), *where, *settings, assignment])
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1
    assert line.startswith(f"ligr train: {words}")
    assert not list(tmp_path.glob("*/config.json"))


def test_an_impossible_mode_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "sideways")
    with pytest.raises(ConfigError, match=r"WANDB_MODE=sideways .* choose online, offline"):
        check_wandb(TrackConfig())
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"track.wandb=online needs a key for .*wandb login"):
        check_wandb(TrackConfig(wandb="online"))
