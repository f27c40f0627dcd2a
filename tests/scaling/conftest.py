"""The report of simulated sweeps, written once for all tests that read it."""

from pathlib import Path

import numpy as np
import pytest

from ligr_jax.scaling.report import write_report
from tests.scaling.simulated import Numbers, summary, write_run, write_sweeps


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Numbers]:
    """The report of four sweeps, one of them with a leak, a bad name and a failure."""
    root = tmp_path_factory.mktemp("sweeps")
    sweeps = write_sweeps(root)
    rng = np.random.default_rng(1)
    row = summary(rng, length=64, depth=16, width=16, ne=0.4) | {"beats_oracle": True}
    write_run(root / "depth" / "leak", row)
    row = summary(rng, length=64, depth=16, width=16, ne=0.88)
    write_run(root / "depth" / "named", row | {"run": "<script>alert(1)</script>"})
    (root / "seq_len" / "bad").mkdir()
    (root / "seq_len" / "bad" / "error.txt").write_text("ValueError: <b>width=65</b>")
    return root / "site", write_report(*sweeps, out=root / "site", resamples=200)
