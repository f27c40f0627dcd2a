"""Reading run directories and tables of runs."""

import json

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import DamagedFile
from ligr_jax.runs.directory import save_summary
from ligr_jax.runs.table import column, read_runs, shapes
from ligr_jax.scaling.report.study import study


def write(run, **files):
    run.mkdir()
    for name, text in files.items():
        (run / name.replace("_", ".")).write_text(text)


def test_finished_failed_and_unfinished_runs_are_told_apart(tmp_path):
    first = {"validation/ne": 0.9, "flops_xla": None, "config/train.seed": 0, "config/a": [1]}
    second = {"validation/ne": 1, "flops_xla": 2.5, "config/train.seed": 1, "new": "x"}
    write(tmp_path / "a", summary_json=json.dumps(first), error_txt="an earlier try")
    write(tmp_path / "b", summary_json=json.dumps(second))
    write(tmp_path / "c", error_txt="Traceback\nValueError: width=65\n\n")
    write(tmp_path / "d", config_json="{}", metrics_jsonl='{"step": 20}\n{"step": 4')
    write(tmp_path / "e", summary_json='{"half')
    (tmp_path / "figures").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps({"name": "tiny", "points": [{}] * 7}))
    runs = read_runs(tmp_path)
    assert runs.table["run"].to_list() == ["a", "b"]
    np.testing.assert_array_equal(column(runs.table, "flops_xla"), [np.nan, 2.5])
    assert [name for name, _ in runs.failed] == ["c", "e"]
    assert runs.failed[0][1] == "ValueError: width=65"
    assert runs.unfinished == (("d", "step 20"),)
    assert (runs.name, runs.not_started) == ("tiny", 2)
    assert shapes(runs.table)[0] != shapes(runs.table)[1]  # config/a differs
    assert shapes(runs.table.drop("config/a")) == ["", ""]  # the seed is no part of a shape


def test_tables_of_other_peoples_runs_are_read(tmp_path):
    table = read_runs(_csv(tmp_path)).table
    assert table["run"].to_list() == ["#0", "#1"]
    table.write_parquet(tmp_path / "t.parquet")
    assert read_runs(tmp_path / "t.parquet").table.equals(table)


def _csv(tmp_path):
    (tmp_path / "t.csv").write_text("flops,loss\n1e12,0.9\n1e13,0.8\n")
    return tmp_path / "t.csv"


def test_bad_input_is_named(tmp_path):
    with pytest.raises(BadInput, match="no run directories"):
        read_runs(tmp_path)
    with pytest.raises(BadInput, match="no such sweep"):
        read_runs(tmp_path / "nowhere")
    table = read_runs(_csv(tmp_path)).table
    with pytest.raises(BadInput, match=r"no column 'los'.*loss"):
        column(table, "los")
    with pytest.raises(BadInput, match="not numeric"):
        column(table, "run")
    (tmp_path / "t.txt").write_text("")
    with pytest.raises(BadInput, match="directory or from"):
        read_runs(tmp_path / "t.txt")


@pytest.mark.parametrize("text", ["", "[1]", "7", '{"half', "{}"])
def test_a_run_with_a_damaged_file_is_named_and_enters_no_law(tmp_path, capsys, text):
    """Nor does one that diverged. The others make the law."""
    for i in range(6):
        good = {"validation/ne": 0.5 + 10 ** (3 - i / 4), "flops_model": 10.0 ** (12 + i)}
        write(tmp_path / f"r{i}", summary_json=json.dumps(good))
    write(tmp_path / "broken", summary_json=text)
    write(tmp_path / "lost", summary_json='{"validation/ne": null, "flops_model": 1e18}')
    save_summary(tmp_path / "r0", {"validation/ne": 9.0, "flops_model": 1e12})
    sealed = (tmp_path / "r0" / "summary.json").read_text()
    (tmp_path / "r0" / "summary.json").write_text(sealed.replace("9.0", "1.0"))
    assert main(["fit", str(tmp_path), "--bootstrap", "0", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["points"] == 5
    assert f"left out broken: {tmp_path / 'broken' / 'summary.json'}: " in err
    assert "left out lost: validation/ne is not a finite number" in err
    assert "left out r0" in err
    assert "values have changed" in err


def test_a_damaged_line_of_metrics_is_named_and_its_run_stays(tmp_path):
    write(tmp_path / "a", metrics_jsonl='{"step": 1\n{"step": 2}\n', config_json="{}")
    write(tmp_path / "b", summary_json='{"validation/ne": 0.9, "flops_model": 1.0}')
    (tmp_path / "b" / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n{"step": 3}\n')
    found = read_runs(tmp_path)
    assert found.unfinished[0][1].startswith(f"{tmp_path / 'a' / 'metrics.jsonl'}:1: not a row")
    made = study(found, resamples=0)
    assert made.table.names == ("b",)
    (note,) = [n for n in made.notes if "curve" in n]
    assert f"{tmp_path / 'b' / 'metrics.jsonl'}:2: not a row of metrics (not UTF-8)" in note


@pytest.mark.parametrize("text", ["", "[]", '{"points": 3}', '{"points": [1]}'])
def test_a_damaged_list_of_points_is_named_with_the_remedy(tmp_path, text):
    write(tmp_path / "a", summary_json='{"validation/ne": 0.9}')
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"sweep\.json: .*move it away: `ligr sweep`"):
        read_runs(tmp_path)


def test_several_sweeps_are_one_table_with_each_run_once(tmp_path):
    for sweep, runs in {"a": {"x": 1.0, "same": 3.0}, "b": {"x": 2.0, "same": 3.0}}.items():
        (tmp_path / sweep).mkdir()
        for name, ne in runs.items():
            write(tmp_path / sweep / name, summary_json=json.dumps({"validation/ne": ne}))
    write(tmp_path / "b" / "late", metrics_jsonl='{"step": 7}\n')
    both = read_runs(tmp_path / "a", tmp_path / "b")
    # `same` is one run in two places; the two different runs named `x` stay distinct.
    assert both.table["run"].to_list() == ["same", "a/x", "b/x"]
    assert both.table["sweep"].to_list() == ["a", "a", "b"]
    assert both.directories["b/x"] == tmp_path / "b" / "x"
    assert both.directories["same"] == tmp_path / "a" / "same"
    assert (both.name, both.unfinished) == ("a, b", (("late", "step 7"),))
