"""Races against other libraries: both sides get the same work, and the scripts still run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.ops.masks import allowed_pairs, dense_mask, history_mask, session_mask

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TINY = ["--tokens", "64", "--sessions", "8", "--members", "4", "--temporaries", "64"]


@pytest.mark.parametrize("kind", ["history", "in_session"])
@pytest.mark.parametrize("members", [1, 4])
def test_both_sides_mask_equally(kind: str, members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from peers import cases

    case = cases.Case(kind, 128, 8, members, "float32", batch=2)
    mask = (history_mask if kind == "history" else session_mask)(*cases.rows(case))
    assert np.array_equal(cases.dense(case), dense_mask(mask))
    assert cases.allowed_pairs(case) == allowed_pairs(mask) == cases.dense(case).sum()


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("attention.py", [*TINY, "--dtypes", "float32"]),
        ("attention_gpu.py", ["--smoke", "--parts", "step"]),
    ],
)
def test_races_run(script: str, arguments: list[str], tmp_path: Path) -> None:
    out, record = tmp_path / "out.json", tmp_path / "record.json"
    command = [sys.executable, str(EXPERIMENTS / script), "--rounds", "1", "--out", str(out)]
    command += ["--record", str(record), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    report = json.loads(out.read_text())
    seconds = [x["seconds"] for part in ("cases", "step") for x in report.get(part, [])]
    assert seconds
    assert all(seconds)
    # The tables of the races against PyTorch need another environment.
    expected = {"attention.py": {"temporaries"}, "attention_gpu.py": {"step"}}
    assert recorded_columns(record).keys() == expected[script]


def recorded_columns(path: Path) -> dict[str, list[str]]:
    tables = json.loads(path.read_text())["tables"]
    return {table["name"]: [column["name"] for column in table["columns"]] for table in tables}


def test_the_race_of_tables_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(EXPERIMENTS / "tables.py"), "--rounds", "1", "--out", str(out)]
    command += ["--rows", "50", "200", "--lookups", "104", "--tokens", "32", "--depth", "1"]
    command += ["--record", str(tmp_path / "record.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    report = json.loads(out.read_text())
    assert set(report["race"]) == {"zipf 50", "zipf 200", "uniform 50", "uniform 200"}
    assert all(set(times) == {"rowwise", "host", "dense"} for times in report["race"].values())
    assert len(report["mesh"]) == 8
    assert [case["rows"] for case in report["step"]] == [50, 200]
    sent = [b for case in report["mesh"] for b in case["bytes"].values()]
    # The sum of the loss is sent too.
    assert all(0 < b["planned"] <= b["sent"] < b["planned"] + 32 for b in sent)
    recorded = recorded_columns(tmp_path / "record.json")
    shown = recorded_columns(EXPERIMENTS / "results" / "tables.json")
    assert recorded == {name: columns for name, columns in shown.items() if name != "ratios"}
