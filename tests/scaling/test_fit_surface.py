"""Surface over parameters and data: known surfaces, global optima, coverage, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, differential_evolution, minimize, minimize_scalar

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import FORMS, effective_data, fit_form, fit_surface
from ligr_jax.scaling.fit.bootstrap import budgets, resample_levels
from ligr_jax.scaling.fit.forms import form_points

E, A, B, ALPHA, BETA = 1.8, 480.0, 2085.0, 0.35, 0.37
EXPONENT = BETA / (ALPHA + BETA)


def surface(n, d):
    return E + A * n**-ALPHA + B * d**-BETA


def points(seed, m=240, noise=0.01, outliers=0):
    """Runs like those of Hoffmann et al.: log-uniform sizes and budgets, lognormal noise."""
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), m))
    compute = np.exp(rng.uniform(np.log(6e18), np.log(3e21), m))
    d = np.clip(compute / (6 * n), 3e8, 1e12)
    loss = surface(n, d) * np.exp(noise * rng.normal(size=m))
    loss[rng.integers(0, m, outliers)] *= 1.15
    return n, d, loss


def summed_huber(theta, n, d, loss, w=1.0):
    """The published objective; theta (5, ...) = a, b, e, log alpha, log beta."""
    a, b, e, alpha, beta = (t[..., None] for t in (*theta[:3], *np.exp(theta[3:])))
    terms = [a - alpha * np.log(n), b - beta * np.log(d), e]
    r = np.abs(np.logaddexp(np.logaddexp(*terms[:2]), terms[2]) - np.log(loss))
    return (w * np.where(r <= 1e-3, 0.5 * r * r, 1e-3 * (r - 0.5e-3))).sum(-1)


def published_coordinates(law, theta):
    a, b, log_alpha, log_beta, e = theta
    n, d = law.centre["n"], law.centre["d"]
    shift = a + np.exp(log_alpha) * n, b + np.exp(log_beta) * d
    return np.array([*shift, e, log_alpha, log_beta])


def test_exact_surface_is_recovered():
    n, d, loss = points(0, m=60, noise=0)
    found = fit_surface(n, d, loss, resamples=0).params
    known = {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA, "a": EXPONENT, "b": 1 - EXPONENT}
    for name, value in known.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name


def test_optimum_is_global():
    data = points(0, outliers=6)
    ours = fit_surface(*data, resamples=0).objective
    box = [(-2, 20), (-2, 20), (-3, 1), (-3, 0.7), (-3, 0.7)]
    searched = differential_evolution(
        summed_huber, box, args=data, seed=0, tol=1e-10, popsize=8, maxiter=600,
        vectorized=True, updating="deferred", polish=False,
    )  # fmt: skip
    assert ours == pytest.approx(searched.fun, rel=1e-6)
    rng, tight = np.random.default_rng(0), {"ftol": 1e-15, "gtol": 1e-12, "maxfun": 10000}
    ends = [
        minimize(
            summed_huber,
            [
                np.log(A) + rng.normal(),
                np.log(B) + rng.normal(),
                *rng.uniform([-0.5, -1.5, -1.5], [0.7, 0, 0]),
            ],
            args=data,
            method="L-BFGS-B",
            options=tight,
        ).fun
        for _ in range(5)
    ]
    assert ours <= min(ends) * (1 + 1e-9)


@pytest.mark.parametrize("repeated", [False, True])
def test_jacobian_equals_finite_differences(repeated):
    n, d, _ = points(2, m=7)
    form = replace(FORMS["surface"], decays=("R_D",) if repeated else ())
    scales = {"n": n, "d": d} | ({"unique": d / np.arange(1, 8)} if repeated else {})
    inner = form_points(form, scales, np.zeros(7, int), ("",)).centred({"n": 21.0, "d": 23.0})
    theta = np.array(
        [-1.0, -1.5, np.log(0.4), np.log(0.3), 0.5, np.log(6.0)][: 6 if repeated else 5]
    )
    near = approx_fprime(theta, lambda t: inner.log_metric(form, t[None])[0][0], 1e-7)
    np.testing.assert_allclose(inner.log_metric(form, theta[None])[1][0], near.T, atol=1e-6)


def test_batched_bootstrap_equals_refitting_every_resample():
    n, d, loss = points(3, m=60, noise=0.005, outliers=2)
    law = fit_surface(n, d, loss, resamples=25, seed=3)
    levels = [(budgets(n), 3), (budgets(d), 3), (np.arange(60), 5)]
    counts, _, _ = resample_levels(levels, None, 5, 25, 3)
    for count, draw in zip(counts, law.draws):
        i = np.repeat(np.arange(60), count.astype(int))
        alone = fit_surface(n[i], d[i], loss[i], resamples=0).objective
        value = summed_huber(published_coordinates(law, draw), n, d, loss, count)
        assert value == pytest.approx(alone, rel=1e-5)


def test_ninety_percent_intervals_cover_about_ninety_percent():
    n_far, d_far, compute, trials = 1e11, 1e12, 1e23, 200
    best = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (compute / 6) ** EXPONENT
    hits = dict.fromkeys(("alpha", "beta", "a", "prediction", "optimal n"), 0)
    for seed in range(trials):
        law = fit_surface(*points(5000 + seed, m=36, noise=5e-3), resamples=60, seed=seed)
        for name, true in (("alpha", ALPHA), ("beta", BETA), ("a", EXPONENT)):
            hits[name] += law.intervals[name][0] <= true <= law.intervals[name][1]
        _, low, high = law.predict(n_far, d_far)
        hits["prediction"] += bool(low <= surface(n_far, d_far) <= high)
        _, low, high = law.optimal(compute)["n"]
        hits["optimal n"] += bool(low <= best <= high)
    for name, count in hits.items():
        assert 0.85 <= count / trials <= 0.95, (name, count / trials)


def test_optimal_shape_minimizes_the_loss():
    law = fit_surface(*points(4), resamples=40)
    best = law.optimal([1e21, 1e24])
    for k, compute in enumerate((1e21, 1e24)):

        def loss(z, compute=compute):
            return float(law.predict(10**z, compute / 6 / 10**z)[0])

        least = minimize_scalar(loss, bounds=(7, 13), method="bounded", options={"xatol": 1e-9})
        assert np.log10(best["n"][0][k]) == pytest.approx(least.x, abs=1e-4)
        assert best["loss"][0][k] == pytest.approx(least.fun, rel=1e-9)
        assert best["n"][0][k] * best["d"][0][k] * 6 == pytest.approx(compute)
        assert best["n"][1][k] < best["n"][0][k] < best["n"][2][k]


def test_effective_data_of_repeats():
    assert effective_data(100.0, 100.0, 15.4) == 100.0
    assert effective_data(50.0, 100.0, 15.4) == 50.0
    assert effective_data(400.0, 100.0, 1e9) == pytest.approx(400.0)
    assert effective_data(400.0, 100.0, 3.0) == pytest.approx(100 + 300 * (1 - np.exp(-1.0)))


def test_decay_of_repeats_is_recovered():
    rng, decay = np.random.default_rng(0), 15.4
    n, d = np.exp(rng.uniform(np.log([[4e7], [3e8]]), np.log([[1.6e10], [1e12]]), (2, 60)))
    unique = d / rng.choice([1, 1, 2, 4, 8, 16, 40], 60)
    loss = surface(n, effective_data(d, unique, decay))
    exact = fit_surface(n, d, loss, unique=unique, resamples=0).params
    assert exact["R_D"] == pytest.approx(decay, rel=1e-3)
    assert exact["beta"] == pytest.approx(BETA, rel=1e-3)
    noisy = loss * np.exp(0.003 * rng.normal(size=60))
    law = fit_surface(n, d, noisy, unique=unique, resamples=50)
    low, high = law.intervals["R_D"]
    assert low < decay < high < 3 * low
    _, low, high = law.predict(1e10, 4e11, unique=1e10)
    assert low < surface(1e10, effective_data(4e11, 1e10, decay)) < high
    assert law.predict(1e10, 4e11)[0] < law.predict(1e10, 4e11, unique=1e10)[0]


def test_outliers_move_the_fit_little():
    clean, dirty = (fit_surface(*points(6, noise=0.003, outliers=k), resamples=0) for k in (0, 8))
    assert dirty.params["a"] == pytest.approx(clean.params["a"], abs=0.01)
    assert dirty.params["E"] == pytest.approx(clean.params["E"], abs=0.02)


def test_unidentified_parameters_give_warnings():
    rng = np.random.default_rng(0)
    n = np.geomspace(4e7, 1.6e10, 30)
    d = 20 * n * np.exp(0.03 * rng.normal(size=30))  # nearly tied to n: only one line is observed
    law = fit_surface(n, d, surface(n, d) * np.exp(0.005 * rng.normal(size=30)), resamples=60)
    assert any("not identified" in w for w in law.warnings)
    (on, _), low, high = law.predict([2e9, 1e10], [4e10, 8e9])
    assert on == pytest.approx(surface(2e9, 4e10), rel=0.01)
    assert high[1] - low[1] > 5 * (high[0] - low[0])
    interpolating = fit_surface(*points(0, m=5, noise=0), resamples=100)
    assert interpolating.intervals == {}
    assert any("no intervals" in w for w in interpolating.warnings)


def test_groups_are_drawn_together_and_json_is_complete():
    n, d, loss = points(7, m=40)
    names, groups = [f"r{i}" for i in range(40)], np.repeat(np.arange(20), 2)
    law = fit_surface(n, d, loss, runs=names, groups=groups, resamples=20)
    assert law.units == 20
    found = law.to_json()
    assert found["runs"] == names
    assert found["points"] == 40
    assert (
        set(found["params"])
        == set(found["intervals"])
        == {"E", "A", "B", "alpha", "beta", "a", "b"}
    )
    assert found["objective"] == law.objective
    assert found["form"] == "chinchilla"


N, D = np.geomspace(1e7, 1e9, 6), np.array([3e9, 1e9, 9e9, 2e9, 8e9, 4e9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d, y: (n[:4], d[:4], y[:4]), "4 runs cannot determine 5"),
        (lambda n, d, y: (n, 20 * n, y), "d is tied to n .* cannot be separated"),
        (lambda n, d, y: (n, 1e18 / n, y), "one compute budget"),
        (lambda n, d, y: (n, np.where(n > 1e8, 1e9, 2e9), y), "2 distinct values of d"),
        (lambda n, d, y: (n, d, y * 0 + 2), "nothing to fit"),
        (lambda n, d, y: (n, d, y - 9), "has no logarithm"),
        (lambda n, d, y: (n, d, np.where(n > 5e8, np.nan, y)), "run f: metric is nan"),
        (lambda n, d, y: (np.where(n > 5e8, -1, n), d, y), "run f: n -1 is not a positive"),
        (lambda n, d, y: (n, d[:5], y), r"d \(5,\)"),
    ],
)
def test_degenerate_input_is_refused_with_the_reason(change, message):
    n, d, loss = change(N, D, surface(N, D))
    with pytest.raises(BadInput, match=message):
        fit_surface(n, d, loss, runs=list("abcdef")[: len(n)])


def test_repeats_of_one_set_of_data_are_fitted():
    """All runs see the same distinct data, from one to forty times."""
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e6), np.log(1e9), 60))
    d = 1e9 * rng.choice([1.0, 2.0, 4.0, 8.0, 16.0, 40.0], 60)
    unique = np.full(60, 1e9)
    loss = surface(n, effective_data(d, unique, 5.0))
    law = fit_surface(n, d, loss, unique=unique, resamples=0)
    form = replace(FORMS["surface"], decays=("R_D",))
    form_law = fit_form(form, {"n": n, "d": d, "unique": unique}, loss, resamples=0)
    for params in (law.params, form_law.params):
        assert params["R_D"] == pytest.approx(5.0, rel=1e-2)
        assert params["beta"] == pytest.approx(BETA, rel=1e-2)


def test_unique_without_repeats_is_refused():
    n, d, loss = points(0, m=20)
    with pytest.raises(BadInput, match="leave `unique` out"):
        fit_surface(n, d, loss, unique=d)


@pytest.mark.parametrize(("rises", "words"), [("n", "with N"), ("d", "with D")])
def test_a_loss_that_does_not_fall_is_refused_in_words(rises, words):
    n, d, _ = points(8, m=40)
    falling, rising = (d, n) if rises == "n" else (n, d)
    loss = E + A * falling**-ALPHA + 0.3 * np.log(rising / rising.min())
    with pytest.raises(BadInput, match=f"does not fall {words} in these rows"):
        fit_surface(n, d, loss, resamples=0)
