"""Noise floor: known standard deviations, and power as in published tables of the t test."""

import numpy as np
import pytest
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import noise_floor


def test_deviation_is_pooled_over_scales_with_chi_square_intervals():
    noise = noise_floor([1.0, 2.0, 3.0, 10.0, 14.0, 7.0], ["a", "a", "a", "b", "b", "c"])
    assert [(s.group, s.n, s.mean) for s in noise.scales] == [("a", 3, 2.0), ("b", 2, 12.0)]
    assert noise.scales[0].sd == pytest.approx(1.0)
    assert noise.pooled[0] == pytest.approx(np.sqrt((2.0 + 8.0) / 3))
    assert noise.pooled[1] == pytest.approx(np.sqrt(10.0 / stats.chi2.ppf(0.95, 3)))
    assert noise.pooled[2] == pytest.approx(np.sqrt(10.0 / stats.chi2.ppf(0.05, 3)))
    assert any("one run" in w for w in noise.warnings)


@pytest.mark.parametrize(("seeds", "published"), [(20, 0.909), (64, 0.499), (17, 0.991)])
def test_detectable_difference_equals_published_tables(seeds, published):
    """Cohen's d at 5 % two-sided and 80 % power: 20, 64 and 17 a group (G*Power, statsmodels)."""
    rng = np.random.default_rng(0)
    metric = rng.normal(size=2 * seeds)
    noise = noise_floor(metric, ["a"] * seeds + ["b"] * seeds, confidence=0.95)
    assert noise.detectable(seeds) / noise.pooled[0] == pytest.approx(published, abs=1e-3)


def test_detectable_difference_is_detected_with_the_stated_power():
    rng, seeds = np.random.default_rng(0), 5
    noise = noise_floor([0.0, 2.0] * 4, [0, 0, 1, 1, 2, 2, 3, 3])
    shift = noise.detectable(seeds) / noise.pooled[0]
    sd = np.sqrt(rng.chisquare(noise.freedom, 20000) / noise.freedom)
    t = (shift + np.sqrt(2 / seeds) * rng.normal(size=20000)) / (sd * np.sqrt(2 / seeds))
    assert np.mean(np.abs(t) > stats.t.ppf(0.95, noise.freedom)) == pytest.approx(0.8, abs=0.01)


def test_ninety_percent_interval_covers_ninety_percent():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        _, low, high = noise_floor(rng.normal(size=12), np.repeat(np.arange(4), 3)).pooled
        hits += low <= 1.0 <= high
    assert 0.85 <= hits / 200 <= 0.95


def test_scales_of_unequal_noise_give_a_warning():
    rng = np.random.default_rng(0)
    metric = np.concatenate([rng.normal(size=8), 20 * rng.normal(size=8)])
    assert any("differ in noise" in w for w in noise_floor(metric, [0] * 8 + [1] * 8).warnings)


@pytest.mark.parametrize(
    ("metric", "groups", "options", "message"),
    [
        ([1.0, 2.0], ["a", "b"], {}, "none of 2 groups has two runs"),
        ([1.0, 1.0], ["a", "a"], {}, "equal metrics"),
        ([1.0, np.nan], ["a", "a"], {}, "metric is nan"),
        ([1.0, 2.0], ["a"], {}, "1 groups for 2 runs"),
        ([1.0, 2.0], ["a", "a"], {"power": 1.0}, "power=1 is outside"),
    ],
)
def test_bad_input_is_refused_with_the_reason(metric, groups, options, message):
    with pytest.raises(BadInput, match=message):
        noise_floor(metric, groups, **options)
