"""`ligr report --watch`: a page for each new result, from the first run to the end of the sweep."""

import time
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.digests import write_json
from ligr_jax.exit_status import DONE, FAILED
from ligr_jax.runs.directory import write_error
from tests.scaling.simulated import ladder_ne, summary, write_run


def test_the_page_follows_a_sweep_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "sweep", tmp_path / "sweep" / "report.html"
    rng = np.random.default_rng(0)
    pages: list[str | None] = []

    def train_one(seconds: float) -> None:
        """Instead of a pause: the sweep begins, two points finish, one fails."""
        assert seconds >= 5
        pages.append(page.read_text() if page.exists() else None)
        pages_before = len(pages)
        if pages_before == 1:
            out.mkdir()
            write_json(out / "sweep.json", {"points": [{"run": f"r{k}"} for k in range(3)]})
        elif pages_before in (2, 4):
            row = summary(rng, depth=pages_before, ne=0.9)
            row["validation/ne"] = float(ladder_ne(row["flops_model"]))
            write_run(out / f"r{pages_before // 2 - 1}", row)
        elif pages_before == 5:
            (out / "r2").mkdir()
            (out / "r2" / "config.json").write_text("{}")
            write_error(out / "r2", "diverged")

    monkeypatch.setattr(time, "sleep", train_one)
    command = ["report", str(out), "--watch", "--every", "5", "--bootstrap", "0"]
    assert main(command) == DONE
    assert str(page) in capsys.readouterr().out
    # Nothing, nothing, one run, no change: no new page, two runs; then the end of the sweep.
    first, second = pages[2], pages[4]
    assert pages == [None, None, first, first, second]
    assert first is not None
    assert second is not None
    assert '<body data-reload="5">' in first
    assert "Runs: 1 finished, 2 not started." in first
    assert "Runs: 2 finished, 1 not started." in second
    last = page.read_text()
    assert "data-reload" not in last.partition("<script>")[0]
    assert "Runs: 2 finished, 1 failed<" in last

    (tmp_path / "runs.csv").write_text("flops,loss\n1,2\n")
    assert main(["report", str(tmp_path / "runs.csv"), "--out", str(out), "--watch"]) == FAILED
    assert "a table does not change" in capsys.readouterr().err
