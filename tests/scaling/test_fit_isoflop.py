"""Iso-FLOP fits: the exponent of a known surface, coverage, minima at the edge, bad input."""

import json

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import fit_isoflop, leave_out_budgets
from ligr_jax.scaling.fit.bootstrap import budget_tolerance

E, A, B, ALPHA, BETA = 1.8, 480.0, 2085.0, 0.35, 0.37
EXPONENT = BETA / (ALPHA + BETA)
BUDGETS = np.geomspace(6e18, 3e21, 4)


def best(compute):
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return scale * (compute / 6) ** EXPONENT


def grid(seed=0, noise=0.0, sizes=5, budgets=BUDGETS, shift=0.0):
    """Sizes from a quarter to four times the best of each budget, shifted by `shift` decades."""
    compute = np.repeat(budgets, sizes)
    n = best(compute) * 10 ** (np.tile(np.linspace(-0.6, 0.6, sizes), len(budgets)) + shift)
    loss = E + A * n**-ALPHA + B * (compute / 6 / n) ** -BETA
    return compute, n, loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))


def test_minima_of_a_known_surface_give_its_exponent():
    law = fit_isoflop(*grid(sizes=9), resamples=0)
    assert law.params["exponent"] == pytest.approx(EXPONENT, rel=1e-6)
    for budget in law.budgets:
        assert budget.optimum == pytest.approx(best(budget.compute), rel=0.05)
        z = np.log10(budget.optimum)
        assert np.polyval(budget.curve[::-1], z) == pytest.approx(budget.metric)
        assert budget.curve[1] + 2 * budget.curve[2] * z == pytest.approx(0, abs=1e-9)
    assert law.predict(1e23)[0] == pytest.approx(best(1e23), rel=0.05)
    assert json.loads(json.dumps(law.to_json()))["budgets"][0]["runs"] == [
        f"#{i}" for i in range(9)
    ]


def test_ninety_percent_intervals_cover_about_ninety_percent():
    hits, trials = {"exponent": 0, "prediction": 0}, 200
    for seed in range(trials):
        law = fit_isoflop(*grid(seed, noise=2e-3), resamples=200, seed=seed)
        low, high = law.intervals["exponent"]
        hits["exponent"] += low <= EXPONENT <= high
        _, low, high = law.predict(1e22)
        hits["prediction"] += bool(low <= best(1e22) <= high)
    for name, count in hits.items():
        assert 0.85 <= count / trials <= 0.95, (name, count / trials)


def test_minimum_at_the_edge_is_flagged_and_left_out():
    whole, off = grid(), grid(budgets=BUDGETS[-1:] * 10, shift=1.0)
    law = fit_isoflop(*(np.concatenate(pair) for pair in zip(whole, off)), resamples=50)
    assert [b.at_edge for b in law.budgets] == [False] * 4 + [True]
    assert law.budgets[-1].optimum == pytest.approx(off[1].min())
    assert np.isnan(law.budgets[-1].low)
    assert law.params["exponent"] == pytest.approx(EXPONENT, rel=1e-6)
    assert any("edge" in w and "3e+22" in w for w in law.warnings)


def test_seeds_of_one_size_are_one_cell():
    runs = [np.repeat(v, 2) for v in grid(noise=2e-3)]
    labels = [f"{c:.3g}/{n:.3g}" for c, n in zip(*runs[:2])]
    single, both = fit_isoflop(*grid(noise=2e-3)), fit_isoflop(*runs, groups=labels)
    assert both.params == pytest.approx(single.params)
    assert both.intervals["exponent"] == pytest.approx(single.intervals["exponent"], abs=2e-3)


def test_largest_budget_is_predicted_from_the_others():
    (row,) = leave_out_budgets(*grid(1, noise=1e-3), resamples=200)
    assert row.compute == pytest.approx(BUDGETS[-1])
    assert row.covered
    assert row.low < row.predicted < row.high
    assert row.predicted == pytest.approx(best(BUDGETS[-1]), rel=0.5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (grid(sizes=2), "6e[+]18: 2 distinct sizes; minimum=parabola needs 3"),
        (grid(shift=1.5), "0 of 4 budgets have their minimum within"),
        (grid(budgets=BUDGETS[:1]), "1 of 1 budgets"),
        ((-grid()[0], *grid()[1:]), "run #0: budget -6e[+]18 is not a positive"),
        ((*grid()[:2], grid()[2] * np.nan), "metric is nan"),
        ((*grid()[:2], grid()[2] * 0 + 2), "nothing to fit"),
    ],
)
def test_degenerate_input_is_refused_with_the_reason(data, message):
    with pytest.raises(BadInput, match=message):
        fit_isoflop(*data)


def test_three_sizes_per_budget_give_no_intervals_unless_the_noise_is_known():
    known = fit_isoflop(*grid(sizes=3), noise=1e-3, resamples=200)
    low, high = known.intervals["exponent"]
    assert low < EXPONENT < high
    assert high - low < 0.1
    with pytest.raises(BadInput, match="noise=-1: give the positive standard deviation"):
        fit_isoflop(*grid(), noise=-1.0)
    law = fit_isoflop(*grid(sizes=3), resamples=50)
    assert law.intervals == {}
    assert np.isnan(law.predict(1e22)[1])
    assert any("no intervals" in w for w in law.warnings)


@pytest.mark.parametrize("minimum", ["parabola", "window", "akima"])
def test_many_runs_of_one_size_are_one_size(minimum):
    compute, n, loss = grid(noise=1e-4, sizes=7)
    times = np.tile([1, 1, 1, 9, 1, 1, 1], 4)  # the best size of each budget is run nine times
    jitter = 1 + 1e-12 * np.arange(times.sum())
    copies = [v.repeat(times) for v in (compute, n, loss)]
    law = fit_isoflop(copies[0], copies[1] * jitter, copies[2], minimum=minimum, resamples=20)
    assert law.params["exponent"] == pytest.approx(EXPONENT, abs=0.02)
    few = np.isin(np.tile(np.arange(7), 4), (2, 3)).repeat(times)
    with pytest.raises(BadInput, match="2 distinct sizes"):
        fit_isoflop(*(v[few] for v in (copies[0], copies[1] * jitter, copies[2])), minimum=minimum)


def joined(*grids):
    return [np.concatenate(parts) for parts in zip(*grids)]


def test_budgets_that_jitter_by_several_percent_are_grouped():
    compute, _, _ = grid(sizes=9)
    compute = compute * np.exp(np.random.default_rng(0).uniform(-0.06, 0.06, len(compute)))
    n = best(compute) * 10 ** np.tile(np.linspace(-0.6, 0.6, 9), 4)
    loss = E + A * n**-ALPHA + B * (compute / 6 / n) ** -BETA
    law = fit_isoflop(compute, n, loss, resamples=0)
    assert [len(b.runs) for b in law.budgets] == [9] * 4
    # The runs of a budget differ in compute, so the minimum moves a little.
    assert law.params["exponent"] == pytest.approx(EXPONENT, abs=0.02)
    with pytest.raises(BadInput, match="0 of 1 budgets"):
        fit_isoflop(compute, n, loss, tolerance=3.0, resamples=0)
    spread = np.exp(np.random.default_rng(1).uniform(0, 10, 200))
    for exact in (spread, [1, 1, 1.2, 1.2, 10, 10, 12, 12]):
        assert budget_tolerance(exact) == pytest.approx(0.02)


def test_a_budget_with_too_few_sizes_is_left_out_with_a_note():
    law = fit_isoflop(*joined(grid(), grid(sizes=2, budgets=[1e23])), resamples=0)
    assert len(law.budgets) == 4
    assert law.params["exponent"] == pytest.approx(EXPONENT, rel=1e-6)
    assert any("1e+23: 2 distinct sizes" in w and "left out" in w for w in law.warnings)


def lopsided(compute):
    """A narrow valley with long unequal sides, which no parabola follows; least at best(C)."""
    compute = np.repeat(compute, 13)
    x = np.tile(np.linspace(-1.6, 0.8, 13), len(compute) // 13)
    loss = 2.5 + 0.1 * (np.exp(3.0 * x) + np.exp(-0.8 * x) * 3.0 / 0.8)
    return compute, best(compute) * 10**x, loss


def test_local_minima_hold_where_a_parabola_misses_the_curve():
    data = lopsided(BUDGETS)
    off = {}
    for minimum in ("parabola", "window", "akima"):
        law = fit_isoflop(*data, minimum=minimum, resamples=0)
        off[minimum] = max(abs(np.log10(b.optimum / best(b.compute))) for b in law.budgets)
        if minimum == "parabola":
            assert any("misses the curve" in w for w in law.warnings)
    assert off["parabola"] > 0.2
    assert max(off["window"], off["akima"]) < 0.05  # a quarter of the distance between sizes


def test_akima_is_the_least_value_of_scipys_interpolation():
    data = grid(3, noise=1e-3, sizes=9)
    law = fit_isoflop(*data, minimum="akima", resamples=0)
    for b in law.budgets:
        rows = np.isclose(data[0], b.compute)
        curve = Akima1DInterpolator(np.log10(data[1][rows]), data[2][rows])
        z = np.linspace(*np.log10(data[1][rows][[0, -1]]), 200_001)
        assert np.log10(b.optimum) == pytest.approx(z[np.argmin(curve(z))], abs=1e-4)


def test_weights_of_runs_and_of_minima():
    compute, n, loss = grid(1, noise=1e-3)
    wrong = loss.copy()
    wrong[::5] *= 1.1
    trusted = np.where(wrong == loss, 1.0, 1e-9)
    # Without the wrong runs three or four sizes remain, which the weights leave alone.
    keep = wrong == loss
    alone = fit_isoflop(compute[keep], n[keep], loss[keep], resamples=0)
    given = fit_isoflop(compute, n, wrong, weights=trusted, resamples=0)
    assert given.params["exponent"] == pytest.approx(alone.params["exponent"], abs=1e-5)
    law = fit_isoflop(compute, n, loss, weighted=True, resamples=300)
    spans = [np.log10(b.high / b.low) for b in law.budgets]
    x, y = (np.log10([getattr(b, k) for b in law.budgets]) for k in ("compute", "optimum"))
    slope = np.polyfit(x, y, 1, w=1 / np.array(spans))[0]
    assert law.params["exponent"] == pytest.approx(slope, abs=2e-3)


def test_exponent_of_a_real_looking_study_is_within_a_hundredth():
    """Six budgets, 13 sizes, compute that jitters by 2 %, and noise of .05 %."""
    budgets_of = np.geomspace(1.6e16, 1e19, 6)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        compute = np.repeat(budgets_of, 13)
        compute = compute * np.exp(rng.uniform(-0.02, 0.02, len(compute)))
        n = best(compute) * 10 ** np.tile(np.linspace(-0.9, 0.7, 13), 6)
        loss = E + A * n**-ALPHA + B * (compute / 6 / n) ** -BETA
        loss *= np.exp(5e-4 * rng.normal(size=len(n)))
        for minimum in ("parabola", "window"):
            law = fit_isoflop(compute, n, loss, minimum=minimum, weighted=True, resamples=100)
            assert law.params["exponent"] == pytest.approx(EXPONENT, abs=0.01), (seed, minimum)
