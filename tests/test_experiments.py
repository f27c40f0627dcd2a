"""Experiments: counts use strictly earlier days only, and the scripts run."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parents[1] / "experiments" / "kuairand.py"


@pytest.fixture(scope="module")
def kuairand() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiment_kuairand", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts_are_of_strictly_earlier_days(kuairand: ModuleType) -> None:
    rng = np.random.default_rng(0)
    n = 300
    member, surface, day = rng.integers(0, 4, n), rng.integers(0, 3, n), rng.integers(-1, 5, n)
    label = rng.integers(-1, 2, n)
    rows = kuairand.Rows(member, day, {}, {}, {"click": label})
    ((action, positives, known),) = kuairand.earlier_counts(rows, [member, surface])
    assert action == "click"
    for i in range(n):
        before = (member == member[i]) & (surface == surface[i]) & (day < day[i])
        assert positives[i] == (label[before] > 0).sum()
        assert known[i] == (label[before] >= 0).sum()


def test_kuairand_runs(
    kuairand: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kuairand.SLICE.is_dir():
        pytest.skip(f"no slice of KuaiRand in {kuairand.SLICE}")
    prepared = kuairand.prepare_days(kuairand.SLICE, tmp_path / "prepared")
    rows = kuairand.read_rows(prepared)
    monkeypatch.setattr(kuairand, "ACTIONS", ("click",))
    tiny = {
        "train.steps": 2,
        "model.width": 8,
        "model.depth": 1,
        "data.seq_len": 16,
        "optim.batch": 64,
        "model.actions": "click",
    }
    results = {
        "rates": [kuairand.rates_baseline(rows)],
        "LiGR": [kuairand.ligr(prepared, tmp_path, tiny)],
    }
    assert results["LiGR"][0]["test/impressions"] == rows.splits["test"].sum()
    assert 0.6 < results["rates"][0]["test/click/auc"] < 0.7
    assert kuairand.markdown(results).count("| click |") == 2


def test_perfect_hashing_runs(tmp_path: Path) -> None:
    pytest.importorskip("bbhash", reason="BBHash, which this experiment needs, is not installed")
    out, script = tmp_path / "out.json", SCRIPT.with_name("perfect_hash.py")
    command = [sys.executable, str(script), "--rounds", "1", "--out", str(out)]
    command += ["--keys", "2000", "--lookups", "500"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (report,) = json.loads(out.read_text()).values()
    assert report["perfect"]["bytes"] < 1 < report["checked"]["bytes"] < report["dict"]["bytes"]
    assert [k for k, found in report.items() if found["shared"]] == ["stateless"]
    assert report["dict"]["unknown"] == report["sorted"]["unknown"] == 0
    assert report["checked"]["unknown"] < 0.02 < report["perfect"]["unknown"]
