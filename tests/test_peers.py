"""Races against other libraries: both sides get the same work, and the scripts still run."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def run(
    script: str, arguments: list[str], folder: Path, env: dict[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """Run a race without PyTorch; return its report, and the names of the recorded tables."""
    out, record = folder / "out.json", folder / "record.json"
    command = [sys.executable, str(EXPERIMENTS / script), "--rounds", "1", "--out", str(out)]
    command += ["--record", str(record), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=env)
    return json.loads(out.read_text()), set(recorded_columns(record))


def test_the_race_of_attention_runs(tmp_path: Path, child_env: dict[str, str]) -> None:
    report, tables = run("attention.py", [*TINY, "--dtypes", "float32"], tmp_path, child_env)
    assert report["cases"]
    assert all(case["seconds"] for case in report["cases"])
    assert tables == {"temporaries"}  # those of the race need PyTorch


def test_the_measurements_of_an_accelerator_run_on_a_cpu(
    tmp_path: Path, child_env: dict[str, str]
) -> None:
    report, tables = run("accelerator.py", ["--smoke"], tmp_path, child_env)
    assert tables == {"check", "tilings", "attention", "step", "tables"}
    assert {case["form"] for case in report["check"]} == {"auto", "blocked"}
    (step,) = report["step"]
    assert step["flops"] > 0
    assert step["failed"] == {}
    stored = json.loads((tmp_path / "tilings.json").read_text())
    assert stored == {"cpu": {case["name"]: case["sizes"] for case in report["tune"]}}


def test_a_part_of_the_measurements_leaves_out_what_it_has_no_time_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from peers.accelerator.parts import SMOKE, Run

    over = Run(SMOKE, torch=None, rounds=1, env={}, until=time.monotonic() - 1)
    assert list(over.in_time("abc")) == ["a"]
    assert "out of time: 2 cases left out" in capsys.readouterr().out
    assert list(dataclasses.replace(over, until=time.monotonic() + 60).in_time("abc")) == [*"abc"]


def recorded_columns(path: Path) -> dict[str, list[str]]:
    tables = json.loads(path.read_text())["tables"]
    return {table["name"]: [column["name"] for column in table["columns"]] for table in tables}


def test_the_race_of_requests_runs(tmp_path: Path) -> None:
    tiny = ["--sizes", "32x8", "--width", "16", "--depth", "1", "--rounds", "1"]
    command = [sys.executable, str(EXPERIMENTS / "serving.py"), *tiny, "--out", str(tmp_path)]
    record = tmp_path / "record.json"
    subprocess.run(
        [*command, "--record", str(record)], check=True, capture_output=True, timeout=300
    )
    assert set(recorded_columns(record)) == {"requests", "load"}


def test_waiting_times_are_those_of_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import serving

    rng = np.random.default_rng(0)
    service, gaps = rng.exponential(0.9, 500), rng.exponential(1.0, 500)
    free, waits = 0.0, []
    for arrival, seconds in zip(np.cumsum(gaps) - gaps[0], service):
        waits.append(max(0.0, free - arrival))
        free = max(free, arrival) + seconds
    np.testing.assert_allclose(serving.waiting(service, gaps), waits, atol=1e-9)
    assert serving.largest_rate([0.1], [0.1], hit_rate=1.0) == 0.0


def test_the_race_of_tables_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(EXPERIMENTS / "tables.py"), "--rounds", "1", "--out", str(out)]
    command += ["--rows", "50", "200", "--mesh-rows", "50", "--lookups", "104"]
    command += ["--tokens", "32", "--depth", "1", "--meshes", "1x2"]
    command += ["--record", str(tmp_path / "record.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    report = json.loads(out.read_text())
    assert set(report["race"]) == {"zipf 50", "zipf 200", "uniform 50", "uniform 200"}
    assert all(set(times) == {"rowwise", "host", "dense"} for times in report["race"].values())
    assert len(report["mesh"]) == 4
    assert [case["rows"] for case in report["step"]] == [50]
    sent = [b for case in report["mesh"] for b in case["bytes"].values()]
    # The sum of the loss is sent too.
    assert all(0 < b["planned"] <= b["sent"] < b["planned"] + 32 for b in sent)
    recorded = recorded_columns(tmp_path / "record.json")
    shown = recorded_columns(EXPERIMENTS / "results" / "tables.json")
    shown["step"] = [name for name in shown["step"] if name in ("V", "1 x 2, ms")]
    assert recorded == {name: columns for name, columns in shown.items() if name != "ratios"}
