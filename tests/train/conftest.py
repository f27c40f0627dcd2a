"""A run that tests of run directories copy."""

from pathlib import Path

import pytest

from ligr_jax.train.loop import train
from tests.train.runs import small_config


@pytest.fixture(scope="session")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(small_config(prepared), out, lambda _: None)
    return out
