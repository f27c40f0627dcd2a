"""A finished run and its data on a read-only disk can be read by every command that reads."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ligr_jax.cli import main
from tests.train.runs import SMALL

_read_only: list[str] = []  # directories in which this process may not write now
_MODES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.link")


def _refuse_writing(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: EROFS for what would change a read-only directory, whoever runs the test."""
    if not _read_only or (event != "open" and event not in _CHANGES):
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _MODES):
        return
    for path in arguments[:2]:
        text = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else ""
        if text.startswith(tuple(_read_only)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), text)


@pytest.fixture
def disk(prepared: Path, finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A read-only directory with prepared data and a sweep of one run, as they were written."""
    place = tmp_path / "disk"
    shutil.copytree(prepared, place / "data")
    shutil.copytree(finished, place / "sweep" / "run")
    sys.addaudithook(_refuse_writing)  # it stays for good, and does nothing without directories
    _read_only.append(str(place))
    yield place
    _read_only.clear()


def state_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything, for what C++ libraries write without Python."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in directory.rglob("*")}


@pytest.mark.usefixtures("tables_only")
def test_commands_that_read_need_no_permission_to_write(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of(disk)
    run, data, out = disk / "sweep" / "run", disk / "data", tmp_path / "out"
    for words in (
        f"eval {run} --data {data}",
        f"report {disk / 'sweep'} --bootstrap 0 --out {out / 'site'}",
        f"export {run} --data {data} --out {out / 'tables'}",
        f"verify {disk / 'sweep'} {data} {out / 'tables'}",
        f"train --data {data} --out {run} {' '.join(SMALL)}",
    ):
        assert main(words.split()) == 0, words
    capsys.readouterr()
    for words in (
        f"report {disk / 'sweep'} --bootstrap 0",
        f"export {run} --data {data} --out {disk / 'tables'}",
        f"train --data {data} --out {disk / 'new'} {' '.join(SMALL)}",
    ):
        assert main(words.split()) == 1, words
        said = capsys.readouterr().err
        assert "the file system is read-only; choose a path that can be written" in said
    assert state_of(disk) == before
