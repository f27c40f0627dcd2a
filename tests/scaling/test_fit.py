"""Fits recover known laws, optima are global, intervals cover, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, differential_evolution

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import (
    budgets,
    fit_factors,
    fit_isoflop,
    fit_line,
    fit_loglog,
    fit_power,
    fit_saturating,
    fit_surface,
    leave_out_largest,
    resample,
)
from ligr_jax.scaling.fit.bootstrap import scale_levels
from ligr_jax.scaling.fit.descent import objective
from ligr_jax.scaling.fit.intervals import estimates
from ligr_jax.scaling.fit.powers import box, log_power

C = np.geomspace(1e12, 1e16, 12)


def law(c, e=0.75, a=0.12, alpha=0.22):
    return e + a * (c / 1e12) ** -alpha


def noisy(seed, c=C, noise=1e-3, **known):
    return law(c, **known) * np.exp(noise * np.random.default_rng(seed).normal(size=len(c)))


def power_objective(theta, x, y, w):
    """The summed Huber objective of a power law at one theta, and its gradient."""

    def residuals(t):
        log_l, jac = log_power(t, x)
        return log_l - y, jac

    value, grad = objective(residuals, theta[None], w)
    return value[0], grad[0]


@pytest.mark.parametrize("e", [0.0, 0.5, 0.84])
@pytest.mark.parametrize("alpha", [0.02, 0.15, 0.5])
def test_exact_law_is_recovered(e, alpha):
    fitted = fit_power(C, law(C, e=e, alpha=alpha), floor=0.0 if e == 0 else None, resamples=0)
    assert fitted.params["alpha"] == pytest.approx(alpha, rel=1e-4)
    assert fitted.params["E"] == pytest.approx(e, abs=1e-3)
    assert fitted.params["A"] == pytest.approx(0.12 * 1e12**alpha, rel=2e-2)


def test_intervals_contain_the_law_and_one_outlier_moves_the_fit_little():
    y = noisy(0)
    clean = fit_power(C, y, resamples=200)
    for name, true in (("alpha", 0.22), ("E", 0.75)):
        low, high = clean.intervals[name]
        assert low <= true <= high
    y[5] *= 1.05
    moved = fit_power(C, y, resamples=0)
    low, high = clean.intervals["gain_per_decade"]
    assert low <= moved.params["gain_per_decade"] <= high


def test_gradient_equals_finite_differences():
    x, y = np.log(C) - np.log(C).mean(), np.log(noisy(1))
    w = np.random.default_rng(0).uniform(0, 2, len(x))
    for theta in ([-2.5, -1.0, -0.4], [-3.0, -2.0, -1.0], [-1.0, 0.3, -9.0]):
        theta = np.array(theta)
        _, grad = power_objective(theta, x, y, w)
        near = approx_fprime(theta, lambda t: power_objective(t, x, y, w)[0], 1e-7)
        np.testing.assert_allclose(grad, near, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("seed", "noise"), [(0, 1e-4), (1, 1e-3), (2, 1e-2)])
def test_optimum_is_global(seed, noise):
    y = np.log(noisy(seed, noise=noise))
    x = np.log(C) - np.log(C).mean()
    limits = list(zip(*box(y, None)))

    def objective(t):
        return float(power_objective(t, x, y, np.ones(len(x)))[0])

    searched = differential_evolution(objective, limits, seed=0, tol=1e-10, maxiter=250, popsize=15)
    ours = fit_power(C, np.exp(y), resamples=0).objective
    assert ours <= searched.fun * (1 + 1e-6)


def test_batched_bootstrap_equals_refitting_every_resample():
    y, resamples = noisy(3, noise=2e-3), 40
    batched = fit_power(C, y, resamples=resamples, seed=7)
    counts, _, _ = resample(C, None, 3, resamples, 7)
    for count, draw in zip(counts, batched.draws):
        again = np.repeat(np.arange(len(C)), count.astype(int))
        one = fit_power(C[again], y[again], resamples=0)
        x = np.log(C) - batched.centre
        value = power_objective(draw, x, np.log(y), count)[0]
        assert value == pytest.approx(one.objective, rel=1e-6)


def test_ninety_percent_interval_covers_about_ninety_percent():
    true = law(C[-1] / 10) - law(C[-1])
    hits, trials = 0, 120
    for seed in range(trials):
        low, high = fit_power(C, noisy(seed), resamples=60).intervals["gain_per_decade"]
        hits += low <= true <= high
    assert 0.85 <= hits / trials <= 0.95


def test_interval_of_a_line_through_eight_runs_covers_about_ninety_percent():
    c, hits = np.geomspace(1e12, 1e16, 8), 0
    for seed in range(200):
        y = 0.7 + 0.01 * np.log10(c) + 2e-3 * np.random.default_rng(seed).normal(size=8)
        low, high = fit_line(c, y, resamples=200).intervals["slope"]
        hits += low <= 0.01 <= high
    assert 0.85 <= hits / 200 <= 0.95


def test_gain_of_a_line_is_positive_for_an_improvement():
    y = 0.7 + 0.01 * np.log10(C / 1e12)
    rises = fit_line(C, y, resamples=50)
    assert rises.params["slope"] == pytest.approx(0.01)
    assert rises.intervals["slope"] == pytest.approx((0.01, 0.01))
    assert rises.predict(1e18)[0] == pytest.approx(0.76)
    assert fit_line(C, y, higher_is_better=False, resamples=0).params[
        "gain_per_decade"
    ] == pytest.approx(-0.01)


def test_groups_are_drawn_together_and_draws_are_reproducible():
    groups = np.repeat(["a", "b", "c", "d", "e", "f"], 2)
    counts, units, _ = resample(C, groups, 3, 100, 0)
    assert units == 6
    assert (counts[:, ::2] == counts[:, 1::2]).all()
    first, second = (fit_power(C, noisy(0), groups=groups, resamples=20) for _ in range(2))
    assert first.intervals == second.intervals


def test_left_out_budgets_are_predicted_and_covered():
    c = np.repeat(C, 2)
    rows = leave_out_largest(fit_power, c, noisy(4, c), k=2, resamples=200)
    assert len(rows) == 4
    assert all(r.compute >= C[-2] and r.covered and abs(r.error) < 5e-3 for r in rows)


def test_unidentified_parameters_give_warnings():
    c = np.geomspace(1e12, 1e13, 6)
    short_range = fit_power(c, noisy(0, c, noise=5e-3), resamples=100)
    assert any("not identified" in w for w in short_range.warnings)
    interpolating = fit_power(c[::2], law(c[::2]), resamples=100)
    assert interpolating.intervals == {}
    assert np.isnan(interpolating.predict(1e14)[1])
    assert any("no intervals" in w for w in interpolating.warnings)


@pytest.mark.parametrize(
    ("compute", "metric", "message"),
    [
        ([1e12, 1e13], [0.9, 0.8], "2 runs cannot determine 3"),
        ([1e12] * 4, [0.9, 0.8, 0.7, 0.6], "one compute budget"),
        ([1e12, 1e12, 1e13, 1e13], [0.9, 0.8, 0.7, 0.6], "2 budgets cannot"),
        ([1e12, 1e13, 1e14], [0.9, 0.9, 0.9], "nothing to fit"),
        ([1e12, 1e13, 1e14], [0.9, np.nan, 0.8], "run b: metric is nan"),
        ([1e12, 1e13, 1e14], [0.9, np.inf, 0.8], "run b: metric is inf"),
        ([1e12, 0.0, 1e14], [0.9, 0.85, 0.8], "run b: compute 0 is not"),
        ([1e12, 1e13, 1e14], [0.9, -0.1, -0.2], "run c: metric"),
        ([1e12, 1e13, 1e14], [0.7, 0.8, 0.9], "does not fall"),
    ],
)
def test_degenerate_input_is_refused_with_the_reason(compute, metric, message):
    with pytest.raises(BadInput, match=message):
        fit_power(compute, metric, runs=list("abcd")[: len(compute)])


def test_saturating_curve_is_the_power_law_of_the_gap_to_one():
    auc = 0.82 - 0.15 * (C / 1e12) ** -0.22
    exact = fit_saturating(C, auc, resamples=0)
    assert exact.params["ceiling"] == pytest.approx(0.82, abs=1e-3)
    assert exact.params["alpha"] == pytest.approx(0.22, rel=1e-2)
    assert exact.predict(C)[0] == pytest.approx(auc, abs=1e-5)
    assert exact.params["gain_per_decade"] == pytest.approx(auc[-1] - np.interp(1e15, C, auc), 0.05)
    noise = 1e-3 * np.random.default_rng(0).normal(size=len(C))
    law = fit_saturating(C, auc + noise * (1 - auc), resamples=100)
    low, high = law.intervals["ceiling"]
    assert low <= 0.82 <= high <= 1
    _, low, high = law.predict(1e17)
    assert low <= 0.82 - 0.15 * 1e5**-0.22 <= high


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ([0.7, 0.8, 1.0], "run c: metric 1 is not below 1"),
        ([0.8, 0.75, 0.7], "does not rise"),
        ([0.7, 0.7, 0.7], "the metric is 0.7 in every run"),
    ],
)
def test_metric_that_cannot_saturate_is_refused(metric, message):
    with pytest.raises(BadInput, match=message):
        fit_saturating([1e12, 1e13, 1e14], metric, runs=list("abc"))


def test_an_interval_that_excludes_its_estimate_is_left_out_with_a_note():
    draws = np.random.default_rng(0).normal(size=(200, 2)) * 0.1
    theta = np.array([0.0, 0.5])
    params, spans, notes = estimates(lambda t: {"x": t[..., 0], "y": t[..., 1]}, theta, draws, 0.9)
    assert params == {"x": 0.0, "y": 0.5}
    assert set(spans) == {"x"}
    (note,) = notes
    assert "y has no interval" in note
    assert "excludes the estimate 0.5" in note


def test_no_prediction_has_an_interval_that_excludes_it():
    y = noisy(0, noise=2e-3)
    sizes = {"n": C, "d": np.random.default_rng(0).permutation(C)}
    surface = y + 0.4 * (sizes["d"] / C[0]) ** -0.3
    budget, size = np.repeat(C[:3], 5), np.tile(10.0 ** np.arange(5), 3)
    curve = 2 + (np.log10(size) - 2) ** 2 / 100 + np.random.default_rng(1).normal(0, 1e-3, 15)
    for fitted, points in (
        (fit_power(C, y, resamples=50), [C]),
        (fit_line(C, y, resamples=50), [C]),
        (fit_loglog(C, y, resamples=50), [C]),
        (fit_factors({"C": C}, y, resamples=50), [C]),
        (fit_surface(*sizes.values(), surface, resamples=50), list(sizes.values())),
        (fit_isoflop(budget, size, curve, resamples=50), [C]),
    ):
        value, low, high = fitted.predict(*points)
        assert np.all((low <= value) & (value <= high)), fitted.form
        moved = replace(fitted, draws=fitted.draws + 1.0)  # the resamples have another optimum
        assert moved.predict(*points)[0] == pytest.approx(value)
        assert np.isnan(moved.predict(*points)[1:]).all(), fitted.form
    optimum = replace(
        fit_surface(*sizes.values(), surface, resamples=50), draws=np.ones((5, 5))
    ).optimal(1e20)
    assert np.isnan(optimum["loss"][1:]).all()


def test_dense_values_of_a_scale_are_several_levels():
    dense = np.random.default_rng(0).permutation(np.geomspace(1e12, 1e15, 2000))
    assert budgets(dense).max() == 0  # each is within 2 % of the next one
    level = scale_levels(dense)
    assert 300 < level.max() < 350  # 6.9 in log compute, in steps of 2 %
    assert np.all(np.diff(level[np.argsort(dense)]) >= 0)
    grid = np.repeat(C, 3) * np.tile([0.995, 1, 1.005], len(C))
    np.testing.assert_array_equal(scale_levels(grid), budgets(grid))
    assert fit_line(dense, np.log(dense), resamples=0).params["slope"] == pytest.approx(np.log(10))


@pytest.mark.parametrize("fit", [fit_power, fit_line])
def test_a_negative_number_of_resamples_is_refused(fit):
    with pytest.raises(BadInput, match="resamples=-5"):
        fit(C, noisy(0), resamples=-5)
