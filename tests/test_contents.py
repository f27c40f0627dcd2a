"""A command leaves what another one has written in a directory as it is."""

from pathlib import Path

import pytest

from ligr_jax.cli import main

FOREIGN = {
    "prepared data": "manifest.json",
    "a log": "log.json",
    "a run": "config.json",
    "the runs of a sweep": "sweep.json",
    "an artifact": "current.json",
    "a model of semantic ids": "model.json",
    "an activity store": "activity.sqlite",
}
COMMANDS = {
    "a log": "world --members 10 --out {out}",
    "prepared data": "prepare {log} --out {out} --overwrite",
    "a run": "train --data {data} --out {out} train.steps=1 track.wandb=off",
    "the runs of a sweep": "sweep {sweep} --data {data} --out {out}",
    "a model of semantic ids": "sid train {data} --out {out}",
    "an activity store": "store build {data} --out {out} --overwrite",
}


def test_data_are_not_prepared_among_unrelated_files(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", str(prepared.parent / "log"), "--out", str(tmp_path)]
    for name in (".gitkeep", "members-00000-of-00009.arrow"):  # of an interrupted command
        (tmp_path / name).touch()
    (tmp_path / "lost+found").mkdir()
    for name in ("thesis.tex", "a.txt", "b.txt", "z"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    for overwrite in ([], ["--overwrite"]):
        assert main([*words, *overwrite]) == 1
        said = capsys.readouterr().err
        assert f"{tmp_path} holds other files (a.txt, b.txt, thesis.tex and 1 more)" in said
        assert sorted(tmp_path.iterdir()) == before
    for name in ("thesis.tex", "a.txt", "b.txt", "z"):
        (tmp_path / name).unlink()
    assert main(words) == 0


@pytest.mark.parametrize(("own", "command"), COMMANDS.items())
def test_a_directory_of_another_command_is_refused(
    own: str,
    command: str,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ligr_jax.scaling.sweep.plan_points", lambda *_, **__: [])
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("method: grid\nparameters: {train.seed: {values: [0]}}\n")
    for content, mark in FOREIGN.items():
        if content == own:
            continue
        out = tmp_path / mark
        out.mkdir()
        (out / mark).write_text("{}")
        given = {"out": out, "log": prepared.parent / "log", "data": prepared, "sweep": sweep}
        assert main(command.format(**given).split()) == 1
        assert f"{out} holds {content} ({mark})" in capsys.readouterr().err
        assert [p.name for p in out.iterdir()] == [mark]
        assert (out / mark).read_text() == "{}"
