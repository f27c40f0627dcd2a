"""A process that has imported the W&B client and forks for each child that a test starts.

The imports take most of the time of a child. JAX is among them, but no backend has started, and no
library with a pool of threads is.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import types
import warnings
from typing import Any, NamedTuple

PRELOADED = (
    "ligr_jax.runs.mirror",
    "ligr_jax.runs.tracker",
    "wandb.cli.cli",
    "wandb_workspaces.workspaces",
)


class Child(NamedTuple):
    """A child to start: the words after `python`, its environment, directory and output files."""

    words: list[str]
    environment: dict[str, str]
    directory: str
    stdout: str
    stderr: str


class ForkServer:
    """Starts children one after the other."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, child: Child) -> int:
        """Run a child; return its exit status, or the negative number of a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(child) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


def _become(child: Child) -> None:
    """Run the child in this process, which was forked for it."""
    from wandb.sdk.data_types._private import MEDIA_TMP

    signal.alarm(600)  # a busy machine may need minutes; a child that takes ten of them hangs
    os.makedirs(MEDIA_TMP.name, exist_ok=True)  # the exit of an earlier child has removed it
    os.chdir(child.directory)
    os.environ.clear()
    os.environ.update(child.environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, child.stdout), (2, child.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    option, code, *arguments = child.words
    sys.argv = [option if option == "-c" else code, *arguments]
    sys.orig_argv = [sys.executable, *child.words]
    main: Any = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if option == "-c":
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        runpy.run_module(code, run_name="__main__", alter_sys=True)


def _serve() -> None:
    for name in PRELOADED:
        __import__(name)
    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX and later Pythons warn of forks
            child = os.fork()
        if child == 0:
            _become(Child(*json.loads(line)))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
