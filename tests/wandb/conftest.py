"""Fixtures of tests with the real W&B client: a server on loopback and processes that use it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wandb.server import Run, WandbServer, wandb_server


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as server:
        yield server
        assert server.errors == []


@pytest.fixture
def run(server: WandbServer, tmp_path: Path, child_env: dict[str, str]) -> Run:
    """A function that runs Python in a separate home, with a key for the server and no other."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in child_env.items() if not k.startswith("WANDB")}
    env = {**kept, **server.environment, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}

    # A busy machine may need minutes; a child that takes ten of them hangs.
    def run(*words: object, status: int = 0, **changes: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *map(str, words)]
        child_env = {k: v for k, v in (env | changes).items() if v}
        done = subprocess.run(
            command, env=child_env, cwd=home, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run
