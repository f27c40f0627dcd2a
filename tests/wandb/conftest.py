"""Fixtures of tests with the real W&B client: a server on loopback and processes that use it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wandb.fork_server import Child, ForkServer
from tests.wandb.server import Run, WandbServer, wandb_server


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as server:
        yield server
        assert server.errors == []


@pytest.fixture(scope="session")
def fork_server(child_env: dict[str, str]) -> Iterator[ForkServer]:
    server = ForkServer({**child_env, "WANDB_ERROR_REPORTING": "false"})
    yield server
    server.stop()


@pytest.fixture
def run(
    server: WandbServer, tmp_path: Path, child_env: dict[str, str], fork_server: ForkServer
) -> Run:
    """A function that runs Python in a separate home, with a key for the server and no other."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in child_env.items() if not k.startswith("WANDB")}
    env = {**kept, **server.environment, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    env |= {"LIGR_ALLOCATOR": "none"}  # a process that replaced itself would import again

    def run(*words: object, status: int = 0, **changes: str) -> "subprocess.CompletedProcess[str]":
        given = [str(word) for word in words]
        child_env = {k: v for k, v in (env | changes).items() if v}
        if "PYTHONPATH" in changes:  # other modules than those of the fork server
            command = [sys.executable, *given]
            done = subprocess.run(command, env=child_env, cwd=home, capture_output=True, text=True)
        else:
            out, err = tmp_path / "stdout", tmp_path / "stderr"
            code = fork_server.run(Child(given, child_env, str(home), str(out), str(err)))
            done = subprocess.CompletedProcess(given, code, out.read_text(), err.read_text())
        assert done.returncode == status, f"{given}\n{done.stdout}\n{done.stderr}"
        return done

    return run
