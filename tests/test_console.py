"""Output and messages without a reader or without room on the disk do not stop a command."""

import os
import subprocess
import sys

import pytest

# Prints more than a pipe holds, starts a file, and prints again.
COMMAND = """
import logging, sys
from ligr_jax.console import make_output_safe
from ligr_jax.messages import show_messages
lost = make_output_safe()
show_messages()
print("first")
print("x" * 1_000_000)
logging.getLogger("ligr_jax.module").info("to stderr")
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    file.write("whole")
    print("last")
sys.exit(7 if lost() else 0)
"""


@pytest.mark.parametrize(
    ("redirection", "status"),
    [("| head -1", 0), ("2>&1 | true", 0), (">&- 2>&-", 0), (">/dev/full 2>/dev/full", 7)],
)
def test_output_never_fails(redirection: str, status: int, tmp_path: os.PathLike[str]) -> None:
    file = os.path.join(tmp_path, "file")
    script = f'"$0" -c "$1" "$2" {redirection}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, COMMAND, file], capture_output=True, text=True
    )
    assert ended.returncode == status
    assert ended.stderr in ("", "to stderr\n")
    with open(file) as f:
        assert f.read() == "whole"


def test_a_pipe_that_closes_does_not_show() -> None:
    """`ligr --help | true`: no traceback, not even while Python ends."""
    script = '"$0" -m ligr_jax "$@" | true; exit ${PIPESTATUS[0]}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, "--help"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
