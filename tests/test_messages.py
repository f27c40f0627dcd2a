"""Messages: standard loggers for library users; stderr, and `--quiet`, for the command line."""

import io
import json
import logging
import sys
from pathlib import Path

import pytest

import ligr_jax
from ligr_jax.cli import main
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.messages import end_line, show_messages, silence
from ligr_jax.progress import Progress
from tests.data.logs import write_log

LOGGER = logging.getLogger("ligr_jax.some.module")


def test_a_library_user_configures_the_loggers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path / "log")
    prepare(canonical_source(tmp_path / "log"), tmp_path / "silent")
    assert caplog.messages == []
    with caplog.at_level(logging.INFO, "ligr_jax"):
        prepare(canonical_source(tmp_path / "log"), tmp_path / "logged")
    assert any(message.startswith("read ") for message in caplog.messages)
    assert {name.split(".")[0] for name, _, _ in caplog.record_tuples} == {ligr_jax.__name__}
    assert capsys.readouterr() == ("", "")


def test_the_command_line_separates_results_from_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for a part of a command, whose options argparse parses separately."""
    write_log(tmp_path / "log", vector=4)
    command = ["prepare", str(tmp_path / "log"), "--json", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["directory"] == str(tmp_path / "out")
    assert "read " in err
    assert main([*command, str(tmp_path / "quiet"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["directory"] == str(tmp_path / "quiet")
    assert err == ""
    learn = ["sid", "train", str(tmp_path / "out"), "--out", str(tmp_path / "sid")]
    assert main([*learn, "--method", "rqkmeans", "--codes", "4", "--steps", "1", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'sid'}: model ")
    assert err == ""
    assert main([*learn, "--codes", "5", "--quiet"]) == 1  # errors are printed
    assert "holds another training" in capsys.readouterr().err
    LOGGER.warning("the handler of the command line is gone")
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_rewritten_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    undo = show_messages()
    progress = Progress(3, LOGGER)
    progress.show(1)
    LOGGER.warning("a warning has a line of its own")
    progress.show(3)
    Progress(3, LOGGER).show(1)
    end_line()
    end_line()
    undo()
    assert sys.stderr.getvalue() == (
        "\rstep 1/3\x1b[K\na warning has a line of its own\n\rstep 3/3\x1b[K\n\rstep 1/3\x1b[K\n"
    )


def test_of_several_processes_the_first_one_writes(capsys: pytest.CaptureFixture[str]) -> None:
    undo = show_messages()
    LOGGER.info("read 3 rows")
    silence()  # as `join_processes` does in every other process
    LOGGER.error("read 3 rows")
    undo()
    assert capsys.readouterr() == ("", "read 3 rows\n")
