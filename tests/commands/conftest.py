"""Fixtures of tests of commands."""

from typing import Any

import pytest


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports have no functions, and golden requests are not scored."""
    monkeypatch.setattr("ligr_jax.serve.write.lower_operations", lambda *_: ())
    golden: dict[str, Any] = {"requests": 0, "difference_from_model": {"pointwise": 0.0}}
    monkeypatch.setattr("ligr_jax.serve.write._write_golden", lambda *_: golden)
