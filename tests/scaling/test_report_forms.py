"""The form of the law that a report prefers, and what it says of runs and columns left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import Runs, read_runs
from ligr_jax.scaling.fit import noise_floor
from ligr_jax.scaling.report import figures, study, summary_lines
from ligr_jax.scaling.report.choices import Choice, compare_forms
from ligr_jax.scaling.report.page import page
from ligr_jax.scaling.report.panels import panels

NE = "validation/ne"
SD = 0.002  # of a run, between seeds
Metric = Callable[[float, float, float], float]


def ladder(metric: Metric, budgets: int = 8, arm: str = "ligr", seeds: int = 3) -> pl.DataFrame:
    """Return runs over two decades of FLOPs; the largest three budgets have one seed each."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(budgets):
        n = 3e3 * 50 ** (k / 7)
        d = 2e5 * 3 ** (k / 7) * (1.4 if k % 2 else 1.0)
        for seed in range(seeds if k < budgets - 3 else 1):
            row = {"run": f"{arm}{k}-{seed}", "architecture": arm, "sweep": "s", "sweeps": "s"}
            row |= {"config/model.width": k, "config/train.seed": seed}
            row |= {"flops_model": 6 * n * d, "params_dense": n, "tokens": d}
            rows.append(row | {NE: metric(6 * n * d, n, d) + SD * rng.normal()})
    return pl.DataFrame(rows)


def power_law(c: float, n: float, d: float) -> float:
    return 0.85 + 0.15 * (c / 3.6e9) ** -0.3


def bent(c: float, n: float, d: float) -> float:
    """A loss that falls faster in the last half, which no power with a floor does."""
    decades = np.log10(c / 3.6e9)
    return float(1 - 0.01 * decades - 0.02 * max(0.0, decades - 1.2))


def chosen(frame: pl.DataFrame, noise: bool = True) -> list[Choice]:
    table = RunTable(frame)
    floor = noise_floor(table.numbers(NE), table.shapes()) if noise else None
    arms = frame["architecture"].to_list()
    options = {"lower": True, "oracle": 0.7, "resamples": 20}
    return compare_forms(table, arms, NE, "flops_model", floor, **options)


def test_a_power_law_is_kept_where_it_holds_and_not_where_it_does_not() -> None:
    (kept,) = chosen(ladder(power_law))
    assert kept.preferred is kept.default
    assert kept.unexplained is not None
    assert kept.unexplained > 0.05
    (other,) = chosen(ladder(bent))
    assert other.preferred.candidate.name == "straight line"
    assert other.preferred.error + 1 < other.default.error
    assert other.unexplained is not None
    assert other.unexplained < 1e-3
    assert other.signs[0] == other.signs[-1] == "−"
    assert "+" in other.signs
    errors = {score.candidate.name: score.largest for score in other.scores}
    # Both predict a smaller fall than that of the last half; a power with a floor flattens more.
    assert errors["power law"] > errors["straight line"] > 2 * SD
    assert other.curves is not None
    value, low, high = other.curves.preferred
    assert np.all((low <= value) & (value <= high))


def test_the_error_is_in_standard_deviations_of_the_seeds() -> None:
    """Runs whose largest budget is off by 10 standard deviations have about that error."""
    frame = ladder(power_law)
    largest = pl.col("flops_model") == pl.col("flops_model").max()
    (choice,) = chosen(frame.with_columns(pl.col(NE) + pl.when(largest).then(10 * SD).otherwise(0)))
    assert choice.noise == pytest.approx(SD, rel=0.5)
    assert choice.default.largest == pytest.approx(-10 * SD, rel=0.3)
    assert choice.noise is not None
    # Two predictions of the largest budget, one of the next: the mean square of 1 and 1 / 2.
    expected = np.sqrt(0.75) * 10 * SD / choice.noise
    assert choice.default.error == pytest.approx(expected, rel=0.3)


def test_architectures_share_an_exponent_and_scales_may_be_n_and_d() -> None:
    behind = ladder(lambda c, n, d: power_law(c, n, d) + 0.03, arm="hstu")
    both = chosen(pl.concat([ladder(power_law), behind]))
    assert [choice.arm for choice in both] == ["ligr", "hstu"]
    for choice in both:
        (common,) = (s for s in choice.scores if s.candidate.families)
        assert common.error < choice.default.error + 1
    (surface,) = chosen(ladder(lambda c, n, d: 0.8 + 0.1 * (n / 3e3) ** -0.6 + (d / 2e5) ** -0.9))
    assert surface.preferred.candidate.scales == ("params_dense", "tokens")


def test_a_largest_budget_that_spoils_the_law_is_a_reason() -> None:
    """The law without the largest budget exists, and that of all runs is refused."""
    frame = ladder(power_law)
    largest = pl.col("flops_model") == pl.col("flops_model").max()
    (choice,) = chosen(frame.with_columns(pl.col(NE) + pl.when(largest).then(1).otherwise(0)))
    assert choice.scores == ()
    assert "does not fall with compute" in choice.reason


def test_the_page_says_why_forms_are_not_compared_or_not_preferred() -> None:
    few = study(Runs(ladder(power_law, budgets=5), name="t"), resamples=20)
    assert "5 budgets; 6 are needed" in page(few, [], summary_lines(few))
    unknown = study(Runs(ladder(power_law, seeds=1), name="t"), resamples=20)
    text = page(unknown, [], summary_lines(unknown))
    assert "no form is preferred, because the noise between seeds is unknown" in text
    assert "(preferred)" not in text


def test_the_page_shows_the_preferred_form() -> None:
    found = study(Runs(ladder(bent), name="t"), resamples=20)
    lines = summary_lines(found)
    assert any("a straight line predicts the largest budgets better" in line for line in lines)
    drawn = [figure for figure in panels(found) if figure.section == "forms"]
    assert [figure.name for figure in drawn] == ["forms"]
    assert "the preferred straight line (level + slope log10 C)" in drawn[0].caption
    residuals = drawn[0].figure.axes[1]
    assert residuals.get_ylabel() == "residual, sd of seeds"
    text = page(found, drawn, lines)
    assert "straight line (preferred)" in text
    assert "form a pattern that seeds do not explain" in text


def test_wide_bands_do_not_flatten_the_runs() -> None:
    x = np.geomspace(1e9, 1e11, 5)
    y = np.linspace(1.0, 0.9, 5)
    series = figures.Series("a", x, y, range(5), predict=lambda c: (0.95 + 0 * c, -9 + c, 9 + c))
    main = figures.against_compute([series], axis="C", label="NE").axes[0]
    assert main.get_ylim() == pytest.approx((0.888, 1.012))


def test_left_out_runs_and_columns_are_named_with_their_cells(tmp_path: Path) -> None:
    frame = ladder(power_law).drop("sweep", "sweeps")
    auc = pl.Series("validation/click/auc", ["0.7"] * (len(frame) - 1) + ["seventy"])
    bare = frame.with_columns(
        flops_model=pl.when(run="ligr0-0").then(None).otherwise("flops_model")
    )
    twice = pl.concat([bare, bare.tail(1)])
    twice.with_columns(pl.concat([auc, auc.tail(1)])).write_csv(tmp_path / "runs.csv")
    found = study(read_runs(tmp_path / "runs.csv"), resamples=20)
    notes = "\n".join(found.notes)
    assert "column 'validation/click/auc': 'seventy' is not a number" in notes
    assert f"runs.csv, row {len(frame)}" in notes
    assert "1 of 19 rows repeat another row" in notes
    assert "left out of the laws, without flops_model: ligr0-0" in notes
    bad = frame.with_columns(pl.col(NE).cast(pl.String))
    bad[3, NE] = "n.v."
    bad.write_csv(tmp_path / "bad.csv")
    with pytest.raises(BadInput, match=r"bad.csv, row 4, column 'validation/ne': 'n.v.' is not a"):
        study(read_runs(tmp_path / "bad.csv"))
