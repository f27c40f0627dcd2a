"""Experiments: independent of each other, recorded as they print, shown in the docs as recorded."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
RESULTS = EXPERIMENTS / "results"
STUDIES = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
SHARED = {"lib", "peers"}
NOT_MEASURED = {"accelerator", "session_leak", "slopes"}  # as a whole


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield


def read(path: Path) -> dict[str, Any]:
    from lib.results import read_study

    return read_study(path)


# ---- Structure ----


def imported(path: Path) -> set[str]:
    """Return the first part of the name of every module that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


def test_no_experiment_imports_another() -> None:
    files = [*EXPERIMENTS.rglob("*.py")]
    assert {path.parent.name for path in files} >= {"experiments", "lib", "peers"}
    assert {str(p): found for p in files if (found := imported(p) & set(STUDIES))} == {}
    # A shared part does not depend on the races, whose workers run without the library.
    assert [p for p in (EXPERIMENTS / "lib").rglob("*.py") if "peers" in imported(p)] == []


def test_heads_have_the_question_and_the_command() -> None:
    for name in STUDIES:
        head = ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text())) or ""
        question, _, rest = head.partition("\n")
        assert question.endswith("?"), name
        assert f"python experiments/{name}.py" in rest
        assert "Expected: " in rest
        assert "Time: " in rest
        assert len(head.splitlines()) <= 30, f"{name}: numbers belong in results/{name}.json"


# ---- Results ----


def test_every_study_has_a_result_that_states_its_origin() -> None:
    recorded = {path.stem for path in RESULTS.iterdir()}
    # The demo is a study without a script.
    assert recorded == {*STUDIES, "demo"} - NOT_MEASURED
    for name in recorded:
        study = read(RESULTS / f"{name}.json")
        assert study["study"] == name
        assert study["command"] == (
            "make demo" if name == "demo" else f"python experiments/{name}.py"
        )
        if name != "demo":
            assert (EXPERIMENTS / f"{name}.py").read_text().startswith(f'"""{study["question"]}\n')
        assert set(study["versions"]) == {"python", "jax", "numpy", "ligr_jax"}
        assert study["tables"]
        assert all(table.rows for table in study["tables"].values())


def test_the_documentation_shows_the_recorded_tables() -> None:
    """`make results` writes them."""
    from lib.docs import BLOCK, DOCS, filled

    pages = [path for path in sorted(DOCS.glob("*.md")) if BLOCK.search(path.read_text())]
    assert [page.name for page in pages] == ["performance.md", "public-points.md", "results.md"]
    for page in pages:
        text = page.read_text()
        assert text == filled(text), f"{page}: run make results"
        assert text.count("<!-- end -->") == len(BLOCK.findall(text))
    shown = {(m[1], m[2]) for page in pages for m in BLOCK.findall(page.read_text())}
    recorded = [read(path) for path in RESULTS.glob("*.json")]
    tables = {
        ("table", f"{study['study']} {name}") for study in recorded for name in study["tables"]
    }
    assert tables <= shown
    assert {("study", study["study"]) for study in recorded} <= shown


def test_a_study_prints_and_records_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lib.docs import filled
    from lib.results import Column, Study, interval

    study = Study.of("experiments/quantize.py", "What is it?\n\nMore.", seeds=range(2))
    columns = [
        Column("arm"),
        Column("AUC", ".3f", ".1f"),
        Column("change, %", "+.1f"),
        Column("range", ".2f"),
    ]
    rows = [
        ["one", {"value": 0.71234, "plus_minus": 0.25}, interval(-1, -2, 0.04), None],
        ["two", 0.7, 2, {"low": 1, "high": 2.5}],
    ]
    study.add("test", "A caption.", columns, rows)
    study.record(tmp_path / "quantize.json")
    shown = (
        "| arm | AUC | change, % | range |\n|---|---|---|---|\n"
        "| one | 0.712 ± 0.2 | -1.0 [-2.0, +0.0] |  |\n"
        "| two | 0.700 | +2.0 | 1.00 to 2.50 |"
    )
    assert f"A caption.\n\n{shown}\n" in capsys.readouterr().out
    page = "a\n<!-- table quantize test -->\nold\n<!-- end -->\nb"
    current = f"a\n<!-- table quantize test -->\n\n*A caption.*\n\n{shown}\n\n<!-- end -->\nb"
    assert filled(page, tmp_path) == filled(current, tmp_path) == current
    again = read(tmp_path / "quantize.json")
    assert again["tables"]["test"].columns == columns
    assert (again["question"], again["seeds"]) == ("What is it?", [0, 1])
    assert again["recorded"] == "written by the run"
    assert all(again[name] for name in ("date", "device"))
    assert again["versions"]["numpy"] == np.__version__
    with pytest.raises(ValueError, match="4 columns, row"):
        study.add("test", "", columns, [["three", 1]])


def test_changes_are_paired_by_seed_with_a_pooled_deviation() -> None:
    """Against a direct computation; the verdict compares the interval with the paper's sign."""
    from lib.comparison import against, differences, verdict

    base, first, second = [0.5, 0.6, 0.55], [0.55, 0.63, 0.58], [0.5, 0.66, 0.5]
    table = pl.DataFrame(
        {
            "change": ["none"] * 3 + ["a"] * 3 + ["b"] * 3,
            "config/train.seed": [0, 1, 2] * 3,
            "auc": base + first + second,
        }
    )
    ratios = [np.divide(x, base) - 1 for x in (first, second)]
    deviation = np.sqrt((ratios[0].var(ddof=1) + ratios[1].var(ddof=1)) / 2)
    half = stats.t.ppf(0.95, 4) * deviation / np.sqrt(3)
    expected = {n: (r.mean(), r.mean() - half, r.mean() + half) for n, r in zip("ab", ratios)}
    found = differences(table, "auc")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values)
    from_a = against(table, "a", "auc")["b"]
    assert from_a[0] == pytest.approx(100 * np.mean(np.divide(second, first) - 1))
    said = [verdict(s, *x) for s in (1, 0) for x in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1))]
    assert said == ["agrees", "open", "differs", "differs", "agrees", "differs"]


# ---- KuaiRand ----


@pytest.fixture(scope="module")
def kuairand() -> ModuleType:
    pytest.importorskip("sklearn")
    import importlib

    return importlib.import_module("kuairand")


def made_rows(seed: int = 0, n: int = 300) -> Any:
    """Rows of four members in order of time, with two impressions a session, from day -1 on."""
    from lib.kuairand.data import Rows

    rng = np.random.default_rng(seed)
    member = np.sort(rng.integers(0, 4, n))
    first = np.searchsorted(member, member)
    session = (np.arange(n) - first) // 2
    day = np.minimum(session // 5 - 1, 5)
    columns = {"surface": rng.integers(0, 3, n), "actor_id": rng.integers(0, 9, n)}
    labels = {a: rng.integers(-1, 2, n) for a in ("click", "long_dwell", "like")}
    splits = {"train": day < 4, "validation": day == 4, "test": day == 5}
    return Rows(member, day, session, splits, columns, labels)


def test_counts_are_of_strictly_earlier_days_and_sessions(kuairand: ModuleType) -> None:
    from lib.kuairand.baselines import NEWEST, earlier_counts, newest_counts

    rows = made_rows()
    member, surface, session = rows.member, rows.columns["surface"], rows.session
    label = rows.labels["click"]
    _, by_day, known = next(earlier_counts(rows, [member, surface]))
    _, by_session, _ = next(earlier_counts(rows, [member, surface], when=session))
    _, newest, _ = next(newest_counts(rows))
    for i in range(len(member)):
        same = (member == member[i]) & (surface == surface[i])
        before = same & (rows.day < rows.day[i])
        assert by_day[i] == (label[before] > 0).sum()
        assert known[i] == (label[before] >= 0).sum()
        assert by_session[i] == (label[same & (session < session[i])] > 0).sum()
        past = np.flatnonzero((member == member[i]) & (session < session[i]))[-NEWEST:]
        assert newest[i] == (label[past] > 0).sum()


def test_paired_differences_equal_metrics_of_weighted_members(kuairand: ModuleType) -> None:
    from lib.kuairand.judge import _weighted, differences, measure
    from sklearn.metrics import roc_auc_score

    rows = made_rows(1)
    rows.labels["click"][:] = np.abs(rows.labels["click"])
    rng = np.random.default_rng(0)
    ours, other = np.round(rng.normal(size=(2, len(rows.day))), 1)  # with ties
    cells = differences(rows, "click", [ours, ours], other)
    for cell, metric in zip(cells, ("auc", "gauc")):
        gain = measure(rows, "click", ours, "test")[metric]
        gain -= measure(rows, "click", other, "test")[metric]
        assert cell["value"] == pytest.approx(gain)
        assert cell["low"] <= cell["value"] <= cell["high"]
    times = np.array([2, 0, 1, 3])
    auc, _ = _weighted(ours, rows.labels["click"], rows.member, [times])[0]
    wanted = roc_auc_score(rows.labels["click"], ours, sample_weight=times[rows.member])
    assert auc == pytest.approx(wanted)


def test_effects_of_a_day_are_fitted_to_earlier_days(kuairand: ModuleType) -> None:
    from lib.kuairand.effects import Effects, refitted

    from ligr_jax.train.random_effect import fit

    rows = made_rows(2)
    z, label, actor = np.zeros(len(rows.day)), rows.labels["click"], rows.columns["actor_id"]
    scores = refitted(rows, "click", z, Effects((("actor_id", 3.0),)))
    for split, first in (("validation", 4), ("test", 5)):
        day, earlier = rows.splits[split], (rows.day < first) & (label >= 0)
        effects = fit(z[earlier, None], label[earlier, None], actor[earlier], precision=3.0)
        np.testing.assert_allclose(scores[day], effects.of(actor[day])[:, 0])
    assert np.isnan(scores[rows.splits["train"]]).all()


def test_kuairand_runs(kuairand: ModuleType, tmp_path: Path) -> None:
    from lib.kuairand.baselines import rates_baseline
    from lib.kuairand.data import SLICE, Form, prepare_days, read_rows

    if not SLICE.is_dir():
        pytest.skip(f"no slice of KuaiRand in {SLICE}")
    prepared = prepare_days(SLICE, tmp_path / "prepared", Form("none", whole_days=True))
    rows = read_rows(prepared)
    same = np.diff(rows.member) == 0
    np.testing.assert_array_equal(np.diff(rows.session)[same] > 0, np.diff(rows.day)[same] > 0)
    tiny = {
        "train.steps": 2,
        "model.width": 8,
        "model.set_depth": 0,
        "data.seq_len": 16,
        "optim.batch": 64,
    }
    scores = kuairand.ligr(prepared, tmp_path, tiny, ("validation",))
    np.testing.assert_array_equal(~np.isnan(scores["click"]), rows.splits["validation"])
    recorded = read(RESULTS / "kuairand.json")["tables"]["test"]
    heads = [column.name for column in kuairand.columns(["protocol", "model"])]
    assert heads == [c.name for c in recorded.columns]
    cells = kuairand.metric_cells(rows, [rates_baseline(rows)], "test")
    assert cells == pytest.approx(recorded.rows[0][2:], abs=5e-5)


# ---- Perfect hashing ----


def test_perfect_hashing_runs(tmp_path: Path) -> None:
    pytest.importorskip("bbhash", reason="BBHash, which this experiment needs, is not installed")
    out, script = tmp_path / "out.json", EXPERIMENTS / "perfect_hash.py"
    command = [sys.executable, str(script), "--rounds", "1", "--out", str(out)]
    command += ["--keys", "2000", "--lookups", "500", "--record", str(tmp_path / "record.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (report,) = json.loads(out.read_text()).values()
    assert report["perfect"]["bytes"] < 1 < report["checked"]["bytes"] < report["dict"]["bytes"]
    assert [k for k, found in report.items() if found["shared"]] == ["stateless"]
    assert report["dict"]["unknown"] == report["sorted"]["unknown"] == 0
    assert report["checked"]["unknown"] < 0.02 < report["perfect"]["unknown"]
    (recorded,) = read(tmp_path / "record.json")["tables"].values()
    shown = read(RESULTS / "perfect_hash.json")["tables"]["1e+06"]
    assert recorded.columns == shown.columns
    assert [row[0] for row in recorded.rows] == [row[0] for row in shown.rows]


# ---- Diversity ----


def test_diversity_measures_policies_on_a_small_world(tmp_path: Path) -> None:
    """The truth is best, the rule separates actors, and replay agrees with the exact rate."""
    import diversity
    from lib.slates import TOP, random_traffic, replayed, requests_of

    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions
    from ligr_jax.data.sources.canonical import canonical_source
    from ligr_jax.data.world.generate import generate_world

    config = diversity.world_config(members=60, later=1.0)
    generate_world(config, tmp_path / "log", workers=1)
    prepare(canonical_source(tmp_path / "log"), tmp_path / "prepared", PrepareOptions())
    requests = requests_of(config, tmp_path, least=10)
    rows = {row["policy"]: row for row in diversity.measured_references(requests)}
    names = ("random", "ideal point-wise", "ideal set-wise", "largest true gain")
    clicks = [rows[name]["clicks"] for name in names]
    assert clicks == sorted(clicks)
    score = np.random.default_rng(0).random(requests.row_RC.shape)
    order = requests.ranked(score, rules=True)
    row_RK = np.take_along_axis(requests.row_RC, order[:, :TOP], 1)
    actor_RK = requests.response.actor[row_RK]
    separate = (actor_RK[:, 1:] != actor_RK[:, :-1]).all(1)
    assert separate.mean() > 0.9
    assert np.take_along_axis(requests.valid_RC, order[:, :TOP], 1).all()
    assert (requests.response.session[row_RK] == requests.response.session[row_RK[:, :1]]).all()
    replay = replayed(requests, order, random_traffic(requests, 2000))
    assert replay["low"] <= replay["exact"] <= replay["high"]
