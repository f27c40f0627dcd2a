"""Parts of a report: architectures, the ladder, dimensions, budgets, predictions."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling.fit import fit_power, preregister
from ligr_jax.scaling.report.arms import architectures, rungs
from ligr_jax.scaling.report.budgets import frontier_rows, iso_flop_grid
from ligr_jax.scaling.report.checks import input_notes, split_notes
from ligr_jax.scaling.report.dimensions import gains, lines
from ligr_jax.scaling.report.forecasts import registered
from ligr_jax.scaling.report.laws import ladder
from ligr_jax.scaling.report.tables import _floor
from tests.scaling.simulated import ladder_ne, summary, write_run, write_sweeps


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> RunTable:
    return RunTable(read_runs(*write_sweeps(tmp_path_factory.mktemp("sweeps"))).table)


def of_sweep(table: RunTable, sweep: str) -> RunTable:
    return RunTable(table.frame.filter(sweep=sweep))


def test_architectures_differ_in_non_numeric_settings(table: RunTable) -> None:
    assert set(architectures(table)) == {"ligr", "hstu"}
    same = RunTable(table.frame.filter(pl.col("config/model.kind") == "ligr"))
    assert set(architectures(same)) == {""}  # only sizes and sweeps differ
    gate = pl.Series("config/model.gate", ["none", "sigmoid"] * (len(table) // 2) + ["none"])
    named = set(architectures(RunTable(table.frame.with_columns(gate))))
    # Named by the settings that differ from the most frequent value.
    assert named == {"base", "gate sigmoid", "kind hstu", "kind hstu, gate sigmoid"}
    other = pl.DataFrame({"sweep": ["a", "b"], "loss": [1.0, 2.0]})
    assert architectures(RunTable(other)) == ["a", "b"]  # a table without configuration: the sweep


def test_rungs_pair_the_runs_of_two_architectures_by_size_and_seed(table: RunTable) -> None:
    part = of_sweep(table, "architecture")
    # A setting that is constant within each architecture is not part of the label.
    follows = pl.col("config/model.kind").replace_strict({"ligr": 0.0, "hstu": 0.1})
    part = RunTable(part.frame.with_columns(follows.alias("config/model.dropout")))
    label = rungs(part, architectures(part))
    by_name = dict(zip(part.names, label))
    assert by_name["ligr2-1"] == by_name["hstu2-1"]
    assert len(set(label)) == len(part) / 2


def test_laws_are_fitted_to_the_ladder_alone(table: RunTable) -> None:
    rows = ladder(table, architectures(table), "flops_model")
    assert set(table.take(rows).first_sweeps) == {"architecture"}
    assert len(rows) == 24


def test_lines_vary_one_dimension_only(table: RunTable) -> None:
    runs = {line.dimension: set(table.take(line.rows).names) for line in lines(table)}
    assert runs["T"] == {f"T{t}" for t in (64, 128, 256, 512, 1024)} | {"depth2"}
    assert runs["depth"] == {f"depth{d}" for d in (1, 2, 4, 8)} | {"T64"}
    assert "width" not in runs  # in the iso-FLOP grid, tokens change with width
    # So they do where the number of steps follows from a budget of FLOPs.
    budgeted = of_sweep(table, "isoflop").frame.with_columns(
        pl.lit(0).alias("config/train.steps"), pl.col("flops_model").alias("config/train.flops")
    )
    assert lines(RunTable(budgeted)) == []
    assert gains(RunTable(budgeted), "validation/ne", "flops_model", 20).reason


def test_gain_per_decade_is_gain_over_cost_and_depends_on_the_axis(
    table: RunTable,
) -> None:
    model = gains(table, "validation/ne", "flops_model", resamples=200)
    rows = {row.dimension: row for row in model.rows}
    assert (model.how, model.best, model.answer) == ("apart", "depth", ("depth",))
    assert rows["depth"].cost == pytest.approx(2)
    assert rows["depth"].per_decade == pytest.approx(0.010 / np.log10(2), rel=0.03)
    low, high = rows["depth"].per_decade_interval or (0, 0)
    assert low < 0.010 / np.log10(2) < high
    # 72 L D^2 + 18 L D T per token, D = 16: the mean of five costs, by regression on log2 T.
    t = np.array([64, 64, 128, 256, 512, 1024])
    cost = np.polyfit(np.log2(t), np.log10(72 * 16 + 18 * t), 1)[0]
    assert rows["T"].per_decade == pytest.approx(0.004 / cost, rel=0.05)
    paper = gains(table, "validation/ne", "flops_paper", resamples=200)
    rows = {row.dimension: row for row in paper.rows}
    assert (rows["T"].cost, rows["T"].per_decade) == (pytest.approx(1), None)
    assert (paper.best, paper.answer) == ("depth", ("T",))  # nearly free comes first


def test_dimensions_that_grow_together_are_not_separated(table: RunTable) -> None:
    found = gains(of_sweep(table, "architecture"), "validation/ne", "flops_model", 50)
    assert found.best == ""
    assert found.inseparable == ("T", "depth", "width")


def test_a_full_grid_is_regressed_where_no_line_is_long_enough() -> None:
    rng = np.random.default_rng(0)
    rows = [
        summary(rng, length=t, depth=d, width=w, ne=0.9 - 0.01 * np.log2(d) - 0.002 * np.log2(w))
        for t in (64, 128)
        for d in (1, 4)
        for w in (32, 64)
    ]
    found = gains(RunTable(pl.DataFrame(rows)), "validation/ne", "flops_paper", resamples=100)
    by_name = {row.dimension: row for row in found.rows}
    assert (found.how, found.best) == ("together", "depth")
    assert by_name["width"].per_decade == pytest.approx(0.002 / np.log10(4), abs=3e-4)


def test_a_constant_axis_has_no_gains(table: RunTable) -> None:
    fraction = pl.lit(0.4).alias("config/data.fraction")
    flat = RunTable(of_sweep(table, "seq_len").frame.with_columns(fraction))
    found = gains(flat, "validation/ne", "flops_paper", resamples=20)
    assert found.best == ""
    assert "only T varies" in found.reason


def test_budgets_of_an_iso_flop_grid_are_found_by_compute(table: RunTable) -> None:
    part = of_sweep(table, "isoflop")
    grid = iso_flop_grid(part, "flops_model")
    assert grid is not None
    np.testing.assert_allclose(np.unique(grid.budget.round(-8)), [1e11, 4e11])
    assert len(grid.rows) == 10
    assert iso_flop_grid(of_sweep(table, "architecture"), "flops_model") is None
    assert iso_flop_grid(part.where(part.flops_model < 2e11), "flops_model") is None


def test_frontier_keeps_runs_that_no_cheaper_run_beats() -> None:
    compute = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 0.0])
    metric = np.array([0.7, 0.9, 0.8, 0.85, 0.7, 0.1])
    assert frontier_rows(compute, metric) == [1, 2, 0]


def test_preregistered_prediction_is_scored_after_the_run(tmp_path: Path) -> None:
    compute = np.geomspace(1e10, 1e12, 6)
    law = fit_power(compute, ladder_ne(compute), resamples=50)
    target = summary(np.random.default_rng(0), length=160, width=160, ne=0.0)
    preregister(tmp_path / "prediction.json", law, target["flops_model"], "validation/ne")
    write_run(tmp_path / "small", summary(np.random.default_rng(0), ne=0.9))
    assert registered(read_runs(tmp_path), "validation/ne") == []
    target["validation/ne"] = observed = float(ladder_ne(target["flops_model"])) + 0.05
    write_run(tmp_path / "large", target)
    ((_, how, outcome, beforehand),) = registered(read_runs(tmp_path), "validation/ne")
    assert beforehand
    assert how.startswith("written 20")
    assert (outcome.run, outcome.observed) == ("large", observed)
    assert outcome.error == pytest.approx(-0.05, abs=1e-3)
    assert not outcome.covered
    (tmp_path / "prediction.json").write_text("[]")
    with pytest.raises(BadInput, match=r"prediction.json: not a registered prediction"):
        registered(read_runs(tmp_path), "validation/ne")


def test_runs_that_waited_for_input_are_named(table: RunTable) -> None:
    wait = np.zeros(len(table))
    quiet = RunTable(table.frame.with_columns(input_wait=pl.Series(wait + 0.05)))
    wait[[1, 3]] = 0.2, 0.061
    slow = RunTable(table.frame.with_columns(input_wait=pl.Series(wait)))
    found = [input_notes(SimpleNamespace(table=t)) for t in (table, quiet, slow)]  # type: ignore[arg-type]
    assert found[:2] == [[], []]
    (note,) = found[2]
    assert f"2 of {len(table)} runs" in note
    assert f"{table.names[1]} for 20%" in note


def test_runs_whose_data_is_not_split_by_time_are_counted(table: RunTable) -> None:
    flags = [True, *[None] * (len(table) - 1)]
    marked = RunTable(table.frame.with_columns(not_split_by_time=pl.Series(flags)))
    found = [split_notes(SimpleNamespace(table=t)) for t in (table, marked)]  # type: ignore[arg-type]
    assert found[0] == []
    assert f"1 of {len(table)} runs have data that is not split by time" in found[1][0]


def test_a_floor_that_is_zero_in_all_resamples_is_not_shown_as_certain() -> None:
    compute = np.geomspace(1e10, 1e12, 8)
    straight = fit_power(compute, 1.5 - 0.02 * np.log(compute), resamples=50)  # bends downwards
    assert straight.intervals["E"] == (0.0, 0.0)
    assert _floor(straight) == "0 in all resamples, not identified"
    curved = fit_power(compute, 0.5 + (compute / 1e10) ** -0.3, resamples=50)
    assert _floor(curved).startswith("0.5000 [")
