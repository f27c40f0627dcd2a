"""Experiments: their counting is honest, and they still run."""

import importlib.util
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
