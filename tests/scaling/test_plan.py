"""Plans recover the rule of simulated sweeps, spend the budget, and refuse bad requests."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import main
from ligr_jax.config import Config, ModelConfig, override
from ligr_jax.cost.devices import DEVICES, Device, device_name, find_device
from ligr_jax.cost.flops import train_flops
from ligr_jax.cost.latency import request_bytes, request_flops
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling.ladder import configure
from ligr_jax.scaling.plan import PlanRequest, make_plan
from ligr_jax.scaling.plan.command import train_words
from ligr_jax.scaling.plan.device_memory import device_bytes, fit_in_memory
from ligr_jax.scaling.plan.recorded import config_of
from tests.scaling import known_rule
from tests.scaling.known_rule import best_shape, work_of
from tests.train.runs import small_config

BUDGET = 1e16


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_rule.ladder(tmp_path_factory.mktemp("ladder"))


def planned(runs: Path, flops: float = BUDGET, **asked: object):
    return make_plan(read_runs(runs).table, PlanRequest(flops, resamples=300, **asked))  # type: ignore[arg-type]


def test_rule_and_law_of_a_ladder_are_recovered_within_their_intervals(runs: Path) -> None:
    plan = planned(runs)
    for name, true in best_shape(BUDGET).items():
        value, low, high = plan.raw[name]
        assert plan.rule.dimensions[name].how == "ladder"
        assert low <= true <= high
        assert value == pytest.approx(true, rel=0.2)
        assert plan.shape[name] == pytest.approx(value, rel=0.15)
    value, low, high = plan.predicted
    assert low <= known_rule.law(BUDGET) <= high
    auc = planned(runs, metric="validation/auc", lower_is_better=False)
    assert auc.law.form == "saturating"
    assert auc.predicted[1] <= 1.2 - known_rule.law(BUDGET) <= auc.predicted[2]
    assert plan.decades == pytest.approx(1.0)
    assert len(plan.rule.frontier) == 9


def test_iso_flop_rule_is_used_if_budgets_have_several_shapes(tmp_path: Path) -> None:
    plan = planned(known_rule.isoflop(tmp_path))
    for name, true in best_shape(BUDGET).items():
        value, low, high = plan.raw[name]
        assert plan.rule.dimensions[name].how == "iso-FLOP"
        assert low <= true <= high
        assert value == pytest.approx(true, rel=0.2)
    assert plan.rule.frontier == tuple(f"r{i}3" for i in range(5))


def test_planned_run_spends_the_budget_on_the_requested_axis(runs: Path) -> None:
    plan = planned(runs)
    assert plan.trained
    config, steps = plan.trained.config, plan.trained.steps
    spent = train_flops(config.model, work_of(config, steps.impressions))
    assert spent == pytest.approx(BUDGET, rel=0.02)
    assert steps.impressions == steps.steps * config.optim.batch * config.data.seq_len / 2 * 0.98
    assert steps.epochs == pytest.approx(steps.impressions / 2 / known_rule.TARGETS)
    paper = planned(runs, 1e13, axis="flops_paper").trained
    assert paper
    assert paper.steps.axes["flops_paper"] == pytest.approx(1e13, rel=0.02)


def test_speed_is_measured_on_the_device_of_the_runs_and_assumed_on_another(runs: Path) -> None:
    own, other = (planned(runs, device=name, devices=8).trained for name in ("h200", "a100"))
    assert own
    assert other
    assert own.seconds == pytest.approx(own.steps.axes["flops_model"] / (8 * 5e10))
    assert "r8" in own.speed.how
    share = other.steps.axes["flops_model"] / (8 * 312e12 * other.seconds)
    assert share == pytest.approx(0.3)
    assert "assumed" in other.speed.how


def test_a_table_copied_elsewhere_gives_the_same_plan(runs: Path, tmp_path: Path) -> None:
    read_runs(runs).table.write_csv(tmp_path / "runs.csv")
    original = planned(runs)
    copied = planned(tmp_path / "runs.csv")
    assert original.trained
    assert copied.trained
    assert original.trained.config == copied.trained.config
    assert original.predicted == copied.predicted


def test_runs_of_other_models_do_not_change_the_plan(runs: Path) -> None:
    table = read_runs(runs).table
    rivals = table.with_columns(
        pl.lit("hstu").alias("config/model.kind"), pl.lit(0.1).alias("validation/ne")
    )
    plan = make_plan(pl.concat([table, rivals]), PlanRequest(BUDGET, resamples=300))
    assert plan.predicted == make_plan(table, PlanRequest(BUDGET, resamples=300)).predicted
    assert "another kind" in plan.warnings[0]


def test_foreign_table_without_configuration_gives_a_plan_without_training(tmp_path: Path) -> None:
    c = np.geomspace(1e18, 1e21, 8)
    rows = zip(c, 2 + (c / 1e18) ** -0.1, 1e8 * (c / 1e18) ** 0.5, 12 * (c / 1e18) ** 0.1)
    lines = ["flops,loss,params_dense,depth", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    plan = planned(tmp_path / "t.csv", 1e22, metric="loss", axis="flops")
    assert plan.shape == {"model.depth": 30, "params_dense": 10_000_000_000}
    assert plan.predicted[0] == pytest.approx(2 + 1e4**-0.1, rel=1e-3)
    assert plan.trained is None
    assert any("do not record" in w for w in plan.warnings)
    # A run without compute is left out by name, and a far plan says so.
    (tmp_path / "t.csv").write_text("\n".join([*lines, ",1.9,1e9,20", "-1,1.9,1e9,20"]))
    again = planned(tmp_path / "t.csv", 1e23, metric="loss", axis="flops", far=True)
    assert again.rule.frontier == plan.rule.frontier
    assert "left out (flops is not a positive number): #8 (nan), #9 (-1)" in again.warnings
    assert any("extrapolates by 2.0 decades" in w for w in again.warnings)


def test_the_command_makes_the_planned_configuration(prepared: Path) -> None:
    changes = [
        "model.features=item_id,age_days",
        "model.features.item_id.rows=99",
        "model.remat=true",
    ]
    config = small_config(prepared, *changes)
    words = train_words(config, prepared, ["model.depth"])
    assert words[:2] == ["--data", str(prepared)]
    assert configure(load_manifest(prepared), prepared, words[2:]) == override(
        config, ["track.wandb=auto"]
    )
    elsewhere = train_words(config, Path("/nowhere"), [])
    assert "model.features.item_id.rows=99" in elsewhere
    assert "model.features.age_days.kind=bucket" in elsewhere


def test_recorded_configurations_come_back(runs: Path) -> None:
    row = read_runs(runs).table.sort("flops_model").to_dicts()[0]
    made = known_rule.config_of(
        best_shape(1e11), **{"train.epochs": str(row["config/train.epochs"])}
    )
    assert config_of(row) == made


def test_plan_as_text_and_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--runs", str(runs), "--flops", "1e16", "--bootstrap", "50"]
    assert main(words) == 0
    said = capsys.readouterr().out
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:4] == ["ligr", "train", "--runs", str(runs)]
    assert main([*words, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert shlex.split(numbers["command"]) == command
    for name, value in numbers["shape"].items():
        assert f"{name}={value}" in command
    assert numbers["law"]["version"]
    assert numbers["frontier"] == [f"r{i}" for i in range(9)]
    assert set(numbers["other_axes"]) == {"flops_paper", "flops_6nd"}
    assert not any(axis["differs"] for axis in numbers["other_axes"].values())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"flops": 1e17}, r"2\.0 decades beyond.*1e\+15.*3\.2e\+16.*--far"),
        ({"flops": 1e10}, r"below the smallest run's 1e\+11"),
        ({"flops": float("nan")}, "below the smallest"),
        ({"axis": "flops_modle"}, r"no column 'flops_modle'.*flops_model"),
        ({"device": "h20"}, "no device 'h20'; nearest: h200"),
        ({"serve_ms": 0.03}, r"T \d+.*the shape for .* fast enough .* loses 0\.0\d+ of valid"),
        ({"serve_ms": 1e-6}, "even with that of the smallest run.*--candidates"),
        ({"flops": 1e11, "devices": 100_000}, "is only 0 steps"),
        ({"serve_ms": 0.0}, "--serve-ms 0 must be above 0"),
        ({"share": 30.0}, r"--mfu 30 must be in \(0, 1\]"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    runs: Path, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(runs, **asked)  # type: ignore[arg-type]


def test_far_plans_beyond_the_reach_of_the_runs(runs: Path) -> None:
    assert planned(runs, 1e17, far=True).decades == pytest.approx(2.0)


def test_runs_that_show_no_growth_are_refused(tmp_path: Path) -> None:
    for i in range(4):
        config = known_rule.config_of(best_shape(1e12), **{"train.seed": str(i)})
        known_rule.write_run(tmp_path / "one", f"r{i}", config, 1e12, 0.8 + i / 100)
        grown = known_rule.config_of(best_shape(10.0 ** (12 + i)))
        known_rule.write_run(tmp_path / "worse", f"r{i}", grown, 10.0 ** (12 + i), 0.8 + i / 100)
    with pytest.raises(BadInput, match="one compute budget"):
        planned(tmp_path / "one")
    with pytest.raises(BadInput, match="no run is better than the smallest, r0"):
        planned(tmp_path / "worse")
    table = read_runs(tmp_path / "one").table
    with pytest.raises(BadInput, match="no finished runs"):
        make_plan(table.clear(), PlanRequest(1e13))


def test_cost_of_a_request_equals_a_count_by_hand() -> None:
    model = ModelConfig(
        features={}, width=4, depth=1, set_depth=1, heads=1, gate="none", ffn="none"
    )
    t, c, d = 6, 3, 4
    layer = 2 * 4 * d * d  # of a token: q, k, v, out
    inputs = 2 * d * 3  # of an impression: which of one action, unknown, none
    history = t * layer + t // 2 * inputs + 4 * d * t * (t + 1) / 2
    scored = c * (layer + inputs + 4 * d * (t + 1) + 2 * d)
    setwise = c * (layer + 4 * d * c + 2 * d)
    assert request_flops(model, t, c) == history + scored + setwise
    assert request_flops(model, t, c, encoded=True) == scored + setwise
    weights = 3 * d + 512 * d + d + 2 * (4 * d * d + 2 * d) + 2 * (3 * d + 1)
    assert request_bytes(model, t, c) == 4 * (weights + 2 * 2 * d * t)
    # Without action tokens, half of the tokens, each with a product more for the action's values.
    model = dataclasses.replace(model, actions_as="values", set_depth=0)
    n = t // 2
    history = n * (layer + 2 * d * d + inputs) + 4 * d * n * (n + 1) / 2
    scored = c * (layer + inputs + 4 * d * (n + 1) + 2 * d)
    assert request_flops(model, t, c) == history + scored
    weights = 3 * d + 512 * d + d + (4 * d * d + 2 * d) + (3 * d + 1) + d * d + 2 * d
    assert request_bytes(model, t, c) == 4 * (weights + 2 * 2 * d * n)


def test_memory_is_saved_by_recomputation_then_sharding_then_micro_batches() -> None:
    config = override(
        known_rule.config_of(best_shape(1e15)),
        ["model.features.item_id.rows=1e6", "optim.batch=512"],
    )

    def within(memory: float) -> Config:
        found = fit_in_memory(config, Device("H200", 1e15, memory, 1e12), 8)
        assert found.fits
        assert found.total <= memory
        return found.config

    roomy = within(1e15)
    assert (roomy.model.remat, roomy.mesh.model, roomy.mesh.fsdp) == (False, 1, False)
    least = sum(device_bytes(override(roomy, ["model.remat=true"])).values()) / 0.9
    recomputed, tight, tightest = (within(share * least) for share in (1.001, 0.99, 0.2))
    assert (recomputed.model.remat, recomputed.mesh.model) == (True, 1)
    assert tight.mesh.model > 1
    assert tightest.optim.accumulate > 1
    assert not fit_in_memory(config, Device("H200", 1e15, 1e3, 1e12), 8).fits


def test_devices_are_recognized_by_jaxs_names() -> None:
    kinds = {"NVIDIA H100 80GB HBM3": "h100", "TPU v5 lite": "tpu-v5e", "TPU v5": "tpu-v5p"}
    assert {k: device_name(k) for k in kinds} == kinds
    assert device_name("Radeon") is None
    assert all(find_device(name) is device for name, device in DEVICES.items())


def test_importing_plans_loads_no_jax() -> None:
    code = (
        "import sys, ligr_jax.commands.plan, ligr_jax.scaling.plan; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
