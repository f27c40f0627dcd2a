"""A run directory: when its configuration is fixed, and errors that name damaged files."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.config import ConfigError
from ligr_jax.digests import DamagedFile
from ligr_jax.runs.directory import (
    Busy,
    data_directory,
    is_locked,
    load_config,
    load_summary,
    lock,
    write_or_verify_config,
)
from ligr_jax.runs.rows import DamagedRows, read_rows, rescue_rows
from ligr_jax.runs.tracker import JsonLines
from ligr_jax.train import save_clock
from ligr_jax.train.loop import train
from tests.train.runs import small_config


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, name: str, value: object) -> None:
    """Change a field of a config.json that has no digest."""
    raw = json.loads(path.read_text())
    raw.pop("digest", None)
    *groups, leaf = name.split(".")
    group = raw
    for part in groups:
        group = group[part]
    group[leaf] = value
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("optim.momentum", 0.9, r"OptimConfig has no fields \['momentum'\]"),
        ("model.width", "16", "model.width is '16', expected a whole number"),
        ("model.width", True, "model.width is True, expected a whole number"),
        ("optim.clip", None, "optim.clip is None, expected a number"),
        ("optim.decay", "linear", "optim.decay is 'linear', expected one of cosine, wsd, none"),
        ("model.actions", "click", "model.actions is 'click', expected a list"),
        ("model.features", [], r"model.features is \[\], expected an object"),
        ("model", 3, "model is 3, expected an object"),
        ("optim.batch", 0, "optim.batch=0 must be >= 1"),
    ],
)
def test_what_a_user_edits_in_config_json_is_named_with_the_file(
    run: Path, name: str, value: object, words: str
) -> None:
    edit(run / "config.json", name, value)
    with pytest.raises(ConfigError, match=f"{run}/config.json: {words}.*; restore it from a copy"):
        load_config(run)


def test_a_damaged_file_of_a_run_is_named_with_the_remedy(prepared: Path, run: Path) -> None:
    for name in ("summary.json", "config.json"):
        saved = (run / name).read_text()
        for text in ("", saved[:-40], "[]", saved.replace("40", "41")):
            (run / name).write_text(text)
            with pytest.raises(DamagedFile, match=f"{run / name}: .*away and start the `ligr tr"):
                train(small_config(prepared), run)
        (run / name).write_text(saved)


def test_a_run_killed_before_its_summary_writes_the_final_row_once(
    prepared: Path, run: Path, finished: Path
) -> None:
    (run / "summary.json").unlink()
    train(small_config(prepared), run)
    steps = [[r["step"] for r in read_rows(r / "metrics.jsonl")] for r in (run, finished)]
    assert steps[0] == steps[1]
    again, first = load_summary(run), load_summary(finished)
    assert again is not None
    assert first is not None
    assert again["test/ne"] == first["test/ne"]


def test_a_damaged_row_is_refused_by_readers_and_kept_aside_by_the_trainer(
    tmp_path: Path, said: list[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5, "x": 1}\n{"step": 1\xff0}\n[]\n{"step": 15}\n{"step": 20, "x"')
    before = path.read_bytes()
    with pytest.raises(DamagedRows, match=f"{path}:2: not a row of metrics"):
        read_rows(path)
    # A row in place of each damaged line: row i stays line i of the mirror.
    rows = [{"step": 5, "x": 1}, {"step": 15}, {"step": 15}, {"step": 15}]
    assert rescue_rows(path) == rows
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert f"{path}:2: not a row" in said[0]
    assert "and 1 more" in said[0]
    rescue_rows(path)
    assert (tmp_path / "metrics.jsonl.damaged.2").exists()


def test_a_changed_digit_of_a_row_is_noticed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "metrics.jsonl"
    text, rows = path.read_text(), read_rows(path)
    lines = text.splitlines(keepends=True)
    assert "digest" not in rows[0]

    def refused(change: Callable[[str], str]) -> None:
        path.write_text("".join([lines[0], change(lines[1]), *lines[2:]]))
        with pytest.raises(DamagedRows, match=f"{path}:2: not a row of metrics .its values have"):
            read_rows(path)

    refused(lambda line: re.sub(r"\d(?=[,}])", lambda d: str((int(d[0]) + 1) % 10), line, count=1))
    refused(lambda line: line.replace('"digest"', '"digesu"'))
    assert main(["verify", str(run)]) == 1
    assert f"DAMAGED metrics       {path}: {path}:2: not a row" in capsys.readouterr().out
    kept = rescue_rows(path)
    assert kept == [rows[0], {"step": rows[2]["step"]}, *rows[2:]]
    # Rows of an earlier release, and those of a resumed run that keeps some of them.
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_rows(path) == rows
    log = JsonLines(run, resume_step=20)
    log.log({"step": 25})
    log.close(0)
    assert read_rows(path) == [*(r for r in rows if r["step"] <= 20), {"step": 25}]
    assert path.read_text().count('"digest"') == len(read_rows(path))


def test_a_directory_is_bound_by_its_first_checkpoint_or_row(
    prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    """What a first try with other values left there does not stop the second."""
    first, second = small_config(prepared), small_config(prepared, "model.depth=3")
    write_or_verify_config(tmp_path, first)
    write_or_verify_config(tmp_path, second)
    assert load_config(tmp_path) == second
    assert "no checkpoint and no row" in said[0]
    assert "model.depth 1 -> 3" in said[0]
    (tmp_path / "config.json").write_text("")
    write_or_verify_config(tmp_path, second)
    assert "config.json: the file is empty" in said[1]
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    with pytest.raises(ConfigError, match=r"model\.depth: the run has 3, requested 1"):
        write_or_verify_config(tmp_path, first)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"model\.depth: the run has 3, requested 1"):
        write_or_verify_config(tmp_path, first)
    (tmp_path / "config.json").write_text("")
    with pytest.raises(DamagedFile, match="is empty"):
        write_or_verify_config(tmp_path, second)


def test_who_holds_a_directory_is_named(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with lock(tmp_path):
        (tmp_path / ".lock").chmod(0o444)  # looking needs no permission to write
        assert is_locked(tmp_path)
        owner = r"training this run \(host \S+, process \d+\)"
        with pytest.raises(Busy, match=owner), lock(tmp_path):
            pass
    assert not is_locked(tmp_path)


def test_what_changes_no_number_may_change_on_resume(
    prepared: Path, run: Path, finished: Path, said: list[str]
) -> None:
    """How often to log and to save, how many checkpoints to keep, and where the data are."""
    moved = run.parent / "moved"
    moved.symlink_to(prepared)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "40")
    changed = ("train.log_every=1", "train.checkpoint_minutes=1e-9", "train.keep=4")
    train(small_config(moved, *changed), run)
    updated = next(line for line in said if "config.json is updated" in line)
    for words in ("train.log_every 5 -> 1", "train.keep 2 -> 4", "train.checkpoint_minutes 10.0"):
        assert words in updated
    assert load_config(run).train.log_every == 1
    steps = [r["step"] for r in read_rows(run / "metrics.jsonl")]
    assert steps[-12:] == [*range(30, 41), 40]
    # Every step is due, and the same numbers come out.
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["37", "38", "39", "40"]
    again, first = load_summary(run), load_summary(finished)
    assert again is not None
    assert first is not None
    assert [again[k] for k in ("test/ne", "flops_model")] == [
        first[k] for k in ("test/ne", "flops_model")
    ]


def test_data_are_named_once_and_found_where_they_have_moved(
    prepared: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepared.parent)
    assert small_config(Path(prepared.name)).data.dir == str(prepared.resolve())
    for named in (f"data.dir={run}", "data.digest=0"):
        with pytest.raises(ConfigError, match=f"{named}, but .*{prepared}.*--data|leave data.dig"):
            small_config(prepared, named)
    edit(run / "config.json", "data.dir", "/gone")
    assert main(["eval", str(run)]) == 1
    assert "/gone, which has no manifest.json now; if the data have moved" in (
        capsys.readouterr().err
    )
    assert data_directory(run, load_config(run), prepared) == prepared
    edit(run / "config.json", "data.dir", "prepared")  # as earlier releases stored it
    monkeypatch.chdir(run)
    (run / "prepared").symlink_to(prepared)
    assert data_directory(run, load_config(run)) == Path("prepared")
    monkeypatch.chdir("/")
    assert data_directory(run, load_config(run)) == run / "prepared"


def test_processes_save_by_the_clock_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the others' clocks are, all save at the same steps."""
    shared: dict[str, str] = {}
    now = [0.0]
    monkeypatch.setattr(save_clock.time, "monotonic", lambda: now[0])

    def run_of(is_first: bool, seconds: float) -> list[int]:
        def broadcast_from_first(name: str, text: str) -> str:
            return shared.setdefault(name, text) if is_first else shared[name]

        monkeypatch.setattr(save_clock, "broadcast_from_first", broadcast_from_first)
        monkeypatch.setattr(save_clock, "_clocks", itertools.count())
        clock, saved = save_clock.SaveClock(1.0, first=100), []
        for step in range(101, 1101):
            now[0] += seconds
            if clock.due(step):
                saved.append(step)
                clock.saved()
        return saved

    saved = run_of(is_first=True, seconds=0.5)
    assert saved == run_of(is_first=False, seconds=0.01)
    waits = np.diff([100, *saved]) * 0.5
    assert len(saved) in (7, 8)
    assert ((waits >= 60) & (waits <= 71)).all()
    assert len(shared) < 60  # process 0 is asked every ten seconds
