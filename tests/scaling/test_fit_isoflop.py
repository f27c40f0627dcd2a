"""Iso-FLOP fits: the exponent of a known surface, coverage, minima at the edge, bad input."""

import json

import numpy as np
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import fit_isoflop, leave_out_budgets

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
        (grid(sizes=2), "6e[+]18: 2 distinct sizes; a parabola needs 3"),
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


def test_three_sizes_per_budget_give_no_intervals():
    law = fit_isoflop(*grid(sizes=3), resamples=50)
    assert law.intervals == {}
    assert np.isnan(law.predict(1e22)[1])
    assert any("no intervals" in w for w in law.warnings)
