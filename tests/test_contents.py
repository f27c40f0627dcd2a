"""A command leaves what another one has written in a directory as it is."""

from pathlib import Path

import pytest

from ligr_jax.cli import main

FOREIGN = {
    "prepared data": "manifest.json",
    "a log": "log.json",
    "a run": "config.json",
    "the runs of a sweep": "sweep.json",
    "exported tables": "index.json",
    "a model of semantic ids": "model.json",
}
COMMANDS = {
    "a log": "world --members 10 --out {out}",
    "prepared data": "prepare {log} --out {out} --overwrite",
    "a run": "train --data {data} --out {out} train.steps=1 track.wandb=off",
    "the runs of a sweep": "sweep {sweep} --data {data} --out {out}",
    "a model of semantic ids": "sid train {data} --out {out}",
}


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
