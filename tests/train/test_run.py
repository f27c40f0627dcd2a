"""A run's directory: bound once it holds work, its files named where they are damaged."""

import json
import shutil
from pathlib import Path

import pytest

from ligr_jax.config import ConfigError
from ligr_jax.digests import DamagedFile
from ligr_jax.train.loop import train
from ligr_jax.train.rows import DamagedRows, read_rows, rescue_rows
from ligr_jax.train.run import Busy, adopt, claimed, held, load_config, load_summary
from tests.train.runs import small_config


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, name: str, value: object) -> None:
    """Change a field of a config.json that has no digest."""
    raw = json.loads(path.read_text())
    raw.pop("digest")
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
                train(small_config(prepared), run, lambda _: None)
        (run / name).write_text(saved)


def test_a_run_killed_before_its_summary_writes_the_final_row_once(
    prepared: Path, run: Path, finished: Path
) -> None:
    (run / "summary.json").unlink()
    train(small_config(prepared), run, lambda _: None)
    steps = [[r["step"] for r in read_rows(r / "metrics.jsonl")] for r in (run, finished)]
    assert steps[0] == steps[1]
    again, first = load_summary(run), load_summary(finished)
    assert again is not None
    assert first is not None
    assert again["test/ne"] == first["test/ne"]


def test_a_damaged_row_is_refused_by_readers_and_kept_aside_by_the_trainer(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5, "x": 1}\n{"step": 1\xff0}\n[]\n{"step": 15}\n{"step": 20, "x"')
    before = path.read_bytes()
    with pytest.raises(DamagedRows, match=f"{path}:2: not a row of metrics"):
        read_rows(path)
    said: list[str] = []
    # A row in place of each damaged line: row i stays line i of the mirror.
    rows = [{"step": 5, "x": 1}, {"step": 15}, {"step": 15}, {"step": 15}]
    assert rescue_rows(path, said.append) == rows
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert f"{path}:2: not a row" in said[0]
    assert "and 1 more" in said[0]
    rescue_rows(path, said.append)
    assert (tmp_path / "metrics.jsonl.damaged.2").exists()


def test_a_directory_is_bound_by_its_first_checkpoint_or_row(
    prepared: Path, tmp_path: Path
) -> None:
    """What a first try with other values left there does not stop the second."""
    said: list[str] = []
    first, second = small_config(prepared), small_config(prepared, "model.depth=3")
    adopt(tmp_path, first)
    adopt(tmp_path, second, say=said.append)
    assert load_config(tmp_path) == second
    assert "no checkpoint and no row" in said[0]
    assert "model.depth 2 -> 3" in said[0]
    (tmp_path / "config.json").write_text("")
    adopt(tmp_path, second, say=said.append)
    assert "config.json: the file is empty" in said[1]
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    with pytest.raises(ConfigError, match=r"model\.depth: there 3, asked 2"):
        adopt(tmp_path, first)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"model\.depth: there 3, asked 2"):
        adopt(tmp_path, first)
    (tmp_path / "config.json").write_text("")
    with pytest.raises(DamagedFile, match="is empty"):
        adopt(tmp_path, second)


def test_who_holds_a_directory_is_named(tmp_path: Path) -> None:
    assert not held(tmp_path)
    with claimed(tmp_path):
        (tmp_path / ".lock").chmod(0o444)  # looking needs no permission to write
        assert held(tmp_path)
        owner = r"training this run \(host \S+, process \d+\)"
        with pytest.raises(Busy, match=owner), claimed(tmp_path):
            pass
    assert not held(tmp_path)
