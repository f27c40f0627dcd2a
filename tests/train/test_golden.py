"""Golden numbers: a change that moves training losses does not go unnoticed.

Losses of the run that many tests share are kept per minor version of JAX. After a change that is
meant to move them, write the file again:

    LIGR_GOLDEN=write python -m pytest tests/train/test_golden.py
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from ligr_jax.runs.rows import read_rows

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden"
# Machines differ in the order of sums; 40 steps make 1e-6 to a few 1e-5 of it.
TOLERANCE = 2e-4


def test_losses_are_those_that_were_checked_in(finished: Path) -> None:
    rows = read_rows(finished / "metrics.jsonl")
    losses = {str(r["step"]): r["train/loss"] for r in rows if "train/loss" in r}
    measured = losses | {name: rows[-1][name] for name in ("validation/ne", "test/ne")}
    path = GOLDEN / f"jax-{'.'.join(version('jax').split('.')[:2])}.json"
    if os.environ.get("LIGR_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(measured, indent=1) + "\n")
    if not path.exists():
        pytest.skip(f"no golden losses of JAX {version('jax')}; LIGR_GOLDEN=write writes them")
    assert measured == pytest.approx(json.loads(path.read_text()), rel=TOLERANCE)
