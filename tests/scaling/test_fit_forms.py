"""Every form against the law that made the data, an objective written independently, coverage."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import (
    FORMS,
    fit_factors,
    fit_form,
    fit_line,
    fit_loglog,
    fit_power,
    fit_saturating,
)
from ligr_jax.scaling.fit.bootstrap import best_of_budgets, budgets, resample_levels
from ligr_jax.scaling.fit.forms import form_points
from tests.scaling.coverage import (
    ALPHA,
    BETA,
    R_D,
    R_N,
    A,
    B,
    E,
    Study,
    coverage,
    points,
    surface,
    worth,
)

RNG = np.random.default_rng(0)
N, D = points(RNG, 60)
UNIQUE = D / RNG.choice([1, 1, 2, 4, 8, 40], len(D))
FAMILY = np.array(["a", "b", "c"])[RNG.integers(0, 3, len(D))]
FLOORS = {"a": 1.8, "b": 1.9, "c": 2.2}
C = 6 * N * D


def floor(x):
    return np.array([FLOORS[f] for f in FAMILY]) + 1.5 * (x / 1e20) ** -0.25


# Per form: its scales, the metric that a known law gives, and that law's parameters.
EXACT = {
    "families": ({"compute": C}, floor(C), {f"E[{f}]": e for f, e in FLOORS.items()}),
    "rising": (
        {"n": N, "d": D},
        0.8 - 60 * N**-ALPHA - 400 * D**-BETA,
        {"ceiling": 0.8, "A": 60.0, "B": 400.0, "alpha": ALPHA, "beta": BETA},
    ),
    "tied": (
        {"n": N, "d": D},
        E + A * N**-0.3 + B * D**-0.3,
        {"E": E, "A": A, "B": B, "alpha": 0.3, "eta": 0.15},
    ),
    "repeated": (
        {"n": N, "d": D, "unique": UNIQUE},
        surface(*worth(N, D, UNIQUE)),
        {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA, "R_D": R_D, "R_N": R_N},
    ),
    "overfitted": (
        {"n": N, "d": D, "unique": UNIQUE},
        surface(N, D) + 0.05 * (N * (D / UNIQUE - 1) / UNIQUE) ** 0.3,
        {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA, "C": 0.05, "gamma": 0.3},
    ),
}


def noisy(metric, seed=1, noise=5e-3):
    return metric * np.exp(noise * np.random.default_rng(seed).normal(size=len(metric)))


def options(form):
    return {"family": FAMILY} if FORMS[form].differ else {}


@pytest.mark.parametrize("form", EXACT)
def test_exact_law_is_recovered(form):
    scales, metric, known = EXACT[form]
    law = fit_form(FORMS[form], scales, metric, resamples=0, **options(form))
    assert {k: law.params[k] for k in known} == pytest.approx(known, rel=1e-3)
    last = {k: v[-1] for k, v in scales.items()}
    family = {"family": FAMILY[-1]} if FORMS[form].differ else {}
    assert law.predict(**last, **family)[0] == pytest.approx(metric[-1], rel=1e-6)


@pytest.mark.parametrize("form", EXACT)
def test_jacobian_equals_finite_differences(form):
    scales, _, _ = EXACT[form]
    labels = tuple(FLOORS) if FORMS[form].differ else ("",)
    member = np.arange(len(N)) % len(labels)
    inner = form_points(FORMS[form], scales, member, labels)
    inner = inner.centred({k: x[np.isfinite(x)].mean() for k, x in inner.logs.items()})
    theta = np.random.default_rng(2).normal(-0.5, 0.5, len(inner.names))

    def log_metric(t):
        return inner.log_metric(FORMS[form], t[None])[0][0]

    near = approx_fprime(theta, log_metric, 1e-7)
    found = inner.log_metric(FORMS[form], theta[None])[1][0]
    np.testing.assert_allclose(found, near.T, atol=2e-6)


def written_out(form, t, scales):
    """The metric of each form, in the parameters as published (logs of positive ones)."""
    p = np.exp(t)
    if form == "families":
        return p[2:][np.unique(FAMILY, return_inverse=True)[1]] + p[0] * (C / 1e22) ** -p[1]
    n, d, unique = N, D, scales.get("unique", D)
    if form == "tied":
        return p[0] + p[1] * (n / 1e9) ** -p[3] + p[2] * (d / 1e10) ** -p[3]
    gamma = p[0] + p[1] * (n / 1e9) ** -p[3] + p[2] * (d / 1e10) ** -p[4]
    if form == "rising":
        return 1 - gamma
    if form == "overfitted":
        return gamma + p[5] * (n * (d / unique - 1) / unique) ** p[6]
    a, b = p[1] * 1e9 ** p[3], p[2] * 1e10 ** p[4]
    seen = np.minimum(d, unique)
    best = np.minimum(n, (p[3] * a / (p[4] * b) * seen ** p[4]) ** (1 / p[3]))
    n = best * (1 - p[6] * np.expm1(-(n / best - 1) / p[6]))
    d = seen * (1 - p[5] * np.expm1(-(d / seen - 1) / p[5]))
    return p[0] + a * n ** -p[3] + b * d ** -p[4]


STARTS = {
    "families": [1.0, 0.25, 1.8, 1.9, 2.2],
    "rising": [0.2, 0.04, 0.08, ALPHA, BETA],
    "tied": [1.8, 1.0, 2.1, 0.3],
    "repeated": [1.8, 0.34, 0.42, ALPHA, BETA, R_D, R_N],
    "overfitted": [1.8, 0.34, 0.42, ALPHA, BETA, 0.05, 0.3],
}


@pytest.mark.parametrize("form", EXACT)
def test_no_local_search_of_the_written_objective_finds_a_lower_value(form):
    scales, exact, _ = EXACT[form]
    metric = 1 - noisy(1 - exact) if form == "rising" else noisy(exact)
    ours = fit_form(FORMS[form], scales, metric, resamples=0, **options(form))

    def summed_huber(t):
        model = written_out(form, t, scales)
        ratio = (1 - model) / (1 - metric) if form == "rising" else model / metric
        r = np.abs(np.log(ratio))
        return np.where(r <= 1e-3, 0.5 * r * r, 1e-3 * (r - 0.5e-3)).sum()

    rng, start = np.random.default_rng(0), np.log(STARTS[form])
    ends = [
        minimize(summed_huber, start + 0.1 * rng.normal(size=len(start)), method="L-BFGS-B").fun
        for _ in range(3)
    ]
    assert ours.objective <= min(ends) * (1 + 1e-9)
    assert ours.objective >= 0.9 * min(ends)


def test_factor_per_family_is_recovered():
    form = replace(FORMS["surface"], differ="factor")
    factor = {"a": 1.0, "b": 1.2, "c": 0.9}
    relative = np.array([factor[f] / factor[FAMILY[0]] for f in FAMILY])
    law = fit_form(form, {"n": N, "d": D}, relative * surface(N, D), family=FAMILY, resamples=20)
    for name in law.families[1:]:
        known = factor[name] / factor[FAMILY[0]]
        assert law.params[f"factor[{name}]"] == pytest.approx(known, rel=1e-6)
    assert law.params["alpha"] == pytest.approx(ALPHA, rel=1e-4)


def test_frontier_is_the_law_of_the_best_run_of_each_budget():
    c = np.repeat(np.geomspace(1e18, 1e22, 8), 4)
    y = noisy((2 + (c / 1e18) ** -0.2) * np.tile([1.0, 1.1, 1.3, 1.02], 8), noise=2e-3)
    best = np.array([i + np.argmin(y[i : i + 4]) for i in range(0, len(c), 4)])
    law = fit_power(c, y, frontier=True, resamples=30)
    alone = fit_power(c[best], y[best], resamples=0)
    # Logs are centred by all runs, so the searches differ by rounding only.
    assert law.objective == pytest.approx(alone.objective, rel=1e-6)
    assert law.params == pytest.approx(alone.params, rel=1e-3)
    assert law.runs == tuple(f"#{i}" for i in best)
    counts = resample_levels([(budgets(c), 3)], None, 3, 30, 0)[0]
    for count, chosen in zip(counts, best_of_budgets(budgets(c), y, counts)):
        drawn = np.where(count > 0, y, np.inf).reshape(8, 4)
        expected = [i * 4 + row.argmin() for i, row in enumerate(drawn) if np.isfinite(row.min())]
        assert np.flatnonzero(chosen).tolist() == expected
    score = 1 - y / 5
    rises = fit_saturating(c, score, frontier=True, resamples=0)
    assert rises.runs == law.runs
    line = fit_line(c, score, frontier=True, resamples=0)
    assert line.params["slope"] == pytest.approx(np.polyfit(np.log10(c[best]), score[best], 1)[0])


def test_law_of_optima_is_the_weighted_regression_in_logs():
    c, spread = np.geomspace(1e16, 1e20, 9), RNG.uniform(0.05, 0.3, 9)
    best = 0.3 * c**0.5 * np.exp(spread * RNG.normal(size=9))
    law = fit_loglog(c, best, weights=spread**-2, resamples=100)
    slope, level = np.polyfit(np.log(c), np.log(best), 1, w=1 / spread)
    assert law.params["exponent"] == pytest.approx(slope, rel=1e-9)
    assert law.params["coefficient"] == pytest.approx(np.exp(level), rel=1e-8)
    value, low, high = law.predict(1e21)
    assert value == pytest.approx(np.exp(level) * 1e21**slope)
    assert low < value < high


def test_factors_are_least_squares_with_a_level_per_family():
    width, depth = 2.0 ** RNG.integers(4, 9, 60), 2.0 ** RNG.integers(0, 4, 60)
    y = 0.5 + 0.02 * np.log2(width) - 0.003 * np.log2(depth) + 1e-3 * RNG.normal(size=60)
    law = fit_factors({"width": width, "depth": depth}, y, family=FAMILY, resamples=100)
    columns = [np.log2(width), np.log2(depth), *(f == FAMILY for f in FLOORS)]
    slopes = np.linalg.lstsq(np.stack(columns, 1).astype(float), y)[0]
    assert [law.params[k] for k in ("width", "depth")] == pytest.approx(slopes[:2])
    assert law.intervals["depth"][1] < 0 < law.intervals["width"][0]
    shown = slopes @ [10, 3, 0, 1, 0]
    assert law.predict(1024, 8, family="b")[0] == pytest.approx(shown)
    with pytest.raises(BadInput, match="cannot be separated"):
        fit_factors({"width": width, "depth": width**2}, y)


def test_what_rows_do_not_determine_is_refused_in_words():
    two = {"n": N, "d": D}
    with pytest.raises(BadInput, match="all runs are of one family"):
        fit_form(FORMS["families"], {"compute": C}, floor(C), family=["a"] * len(C))
    with pytest.raises(BadInput, match="metric does not rise with D"):
        fit_form(FORMS["rising"], two, 0.8 - 60 * N**-ALPHA - 0.01 * np.log(D), resamples=0)
    with pytest.raises(BadInput, match="loss does not fall with N"):
        fit_form(FORMS["tied"], two, 2 + 0.01 * np.log(N) + B * D**-BETA, resamples=0)
    flat = surface(N, D)
    law = fit_form(FORMS["overfitted"], two | {"unique": UNIQUE}, flat, resamples=0)
    assert any("does not turn up" in w for w in law.warnings)


NORMAL = ["tied", "families", "frontier", "loglog", "factors", "window"]
OTHERS = [("power", "seeds"), ("line", "wide"), ("parabola", "seeds")]


@pytest.mark.parametrize(("form", "kind"), [*((form, "normal") for form in NORMAL), *OTHERS])
def test_intervals_cover(form, kind):
    """Twenty trials find gross errors; docstrings quote the coverage of `coverage.py`."""
    for name, share in coverage(form, kind, trials=20, resamples=60).items():
        assert share >= 0.65, (name, share)


def test_correlated_seeds_widen_the_interval_of_a_law_fitted_in_groups():
    widths = []
    for seed in range(20):
        study = Study(seed, "seeds", 12, 5, resamples=100)
        c = study.rows(study.ladder(1e18, 1e22))
        y = np.log10(c) + study.noise(len(c))
        alone = study.options | {"groups": None}
        spans = [fit_line(c, y, **o).intervals["slope"] for o in (study.options, alone)]
        widths.append([high - low for low, high in spans])
    grouped, single = np.mean(widths, axis=0)
    # Half of the variance in common doubles the variance of a mean of three, and Student's t has
    # 10 degrees of freedom instead of 34, which widens the interval by 14 %.
    assert grouped / single == pytest.approx(1.14 * np.sqrt(2), rel=0.15)


def test_families_have_one_label_per_run_and_predictions_name_one() -> None:
    law = fit_form(FORMS["families"], {"compute": C}, floor(C), family=FAMILY, resamples=0)
    for family in ("", "d"):
        with pytest.raises(BadInput, match=f"family '{family}': the law has the families"):
            law.predict(1e20, family=family)
    with pytest.raises(BadInput, match="59 families for 60 runs"):
        fit_form(FORMS["families"], {"compute": C}, floor(C), family=FAMILY[:-1], resamples=0)
