"""Errors of the operating system name the operation, the file and a remedy that fits."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from ligr_jax.atomic import make_directory, read_text, write_atomically
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import FileError, LigrError, file_error, file_errors, is_of_a_file

FULL = {errno.ENOSPC, errno.EDQUOT}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_only_a_full_disk_asks_for_room(number: int) -> None:
    text = str(file_error(OSError(number, os.strerror(number)), "write", "out/run"))
    assert text.startswith("cannot write out/run: ")
    assert ("make room" in text) == (number in FULL)


def test_an_error_names_the_file_that_the_system_names() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")
    assert "cannot use /etc/shadow: permission denied" in str(file_error(denied, "write", "out"))
    part = FileNotFoundError(errno.ENOENT, "No such file", "out/.a.json.7-8.partial")
    assert "cannot write out/a.json: no such file" in str(file_error(part, "write", "out/a.json"))
    below = OSError(errno.EROFS, "Read-only file system", "out/b/c")
    assert "cannot write out/b/c: the file system is read-only" in str(
        file_error(below, "write", "out")
    )


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"the directory .*file/a: a part of the path is a file"):
        make_directory(tmp_path / "file" / "a")
    with pytest.raises(FileError, match=r"the directory .*file: a file of this name exists"):
        make_directory(tmp_path / "file")
    with pytest.raises(FileError, match="the name is too long; choose a shorter one"):
        make_directory(tmp_path / ("x" * 300))
    with pytest.raises(FileError, match=r"cannot write .*gone/a\.json: no such file or directory"):
        write_atomically(tmp_path / "gone" / "a.json", "{}")
    with pytest.raises(FileError, match=r"cannot read .*: it is a directory"):
        read_text(tmp_path)


def test_a_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf\xc2\xb1")  # with a byte order mark
    assert read_text(path) == "±"
    path.write_bytes(b"ab\xb1")
    with pytest.raises(LigrError, match="text: not UTF-8 at byte 2"):
        read_text(path)
    write_atomically(path, "β\udce9")  # the name of a file in another coding
    assert path.read_bytes() == b"\xce\xb2\\udce9"


def test_a_full_disk_in_prepare_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def build(work: Path, made_by: object) -> None:
        (work / "part").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInput, match=r"cannot write .*out: no space .* make room .*not complete"):
        published(out, {}, build)  # type: ignore[arg-type]
    assert not list(out.iterdir())


def test_a_closed_pipe_is_no_error_of_a_file() -> None:
    with pytest.raises(BrokenPipeError), file_errors("write", "out"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert not is_of_a_file(BrokenPipeError(errno.EPIPE, "Broken pipe"))


def test_errors_of_worker_processes_arrive_in_words() -> None:
    sent = pickle.loads(pickle.dumps(FileError("cannot write a: full", errno.ENOSPC)))
    assert str(sent) == "cannot write a: full"
