"""Comparison of architectures: pairs remove common noise; laws recover the compute multiplier."""

import numpy as np
import pytest
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import compare

C = np.geomspace(1e12, 1e16, 16)
ARMS = ["old"] * len(C) + ["new"] * len(C)


def runs(seed=0, noise=1e-3, times=3.0, common=0.0):
    """Losses of two arms on one ladder; `new` equals `old` at `times` the compute."""
    rng = np.random.default_rng(seed)
    shared = common * rng.normal(size=len(C))
    loss = [0.7 + 0.15 * (k * C / 1e12) ** -0.2 for k in (1.0, times)]
    return np.concatenate([y * np.exp(shared + noise * rng.normal(size=len(C))) for y in loss])


def test_pairs_remove_common_noise():
    y = runs(noise=1e-4, common=0.02)
    labels = [*range(len(C))] * 2
    paired, law = compare(np.tile(C, 2), y, ARMS, pairs=labels, resamples=50)
    off = y[len(C) :] - y[: len(C)]
    expected = stats.ttest_1samp(off, 0).confidence_interval(0.9)
    assert (paired.kind, paired.pairs, paired.at, paired.multiplier) == ("paired", 16, None, None)
    assert (paired.low, paired.high) == pytest.approx((expected.low, expected.high))
    assert paired.difference == pytest.approx(off.mean())
    assert paired.high - paired.low < 0.5 * (law.high - law.low)


def test_multiplier_of_exact_laws_is_recovered():
    (law,) = compare(np.tile(C, 2), runs(noise=0), ARMS, resamples=0)
    assert law.kind == "law"
    assert law.at == pytest.approx(1e16)
    assert law.multiplier[0] == pytest.approx(3.0, rel=1e-2)
    assert law.difference == pytest.approx(0.15 * 1e4**-0.2 * (3**-0.2 - 1), rel=1e-3)
    assert np.isnan(law.low)
    (line,) = compare(np.tile(C, 2), 0.01 * np.log10(C * [[1], [5]]).ravel(), ARMS, resamples=20)
    assert line.multiplier == pytest.approx((5, 5, 5))
    assert line.difference == pytest.approx(0.01 * np.log10(5))


def test_ninety_percent_intervals_cover_about_ninety_percent():
    true = 0.15 * 1e4**-0.2 * (3**-0.2 - 1)
    hits = {"difference": 0, "multiplier": 0}
    trials = 100
    for seed in range(trials):
        (law,) = compare(np.tile(C, 2), runs(seed), ARMS, resamples=60, seed=2 * seed)
        hits["difference"] += law.low <= true <= law.high
        hits["multiplier"] += law.multiplier[1] <= 3.0 <= law.multiplier[2]
    for name, count in hits.items():
        assert 0.85 <= count / trials <= 0.95, (name, count / trials)


def test_a_metric_the_baseline_never_reaches_has_no_finite_multiplier():
    y = np.concatenate([0.8 + 0.1 * (C / 1e12) ** -0.3, 0.5 + 0.1 * (C / 1e12) ** -0.3])
    (law,) = compare(np.tile(C, 2), y, ARMS, resamples=0)
    assert law.multiplier[0] == np.inf
    (back,) = compare(np.tile(C, 2), y, ARMS, baseline="new", resamples=0)
    assert back.difference == pytest.approx(0.3, rel=1e-3)
    assert 0 <= back.multiplier[0] < 1e-3


def test_pairs_of_unequal_compute_give_a_warning():
    c = np.concatenate([C, 2 * C])
    paired, _ = compare(c, runs(), ARMS, pairs=[*range(len(C))] * 2, resamples=0)
    assert any("differ in compute by up to 100%" in w for w in paired.warnings)


@pytest.mark.parametrize(
    ("arms", "pairs", "baseline", "message"),
    [
        (["a"] * 4, None, None, "there must be two arms or more"),
        (["a", "a", "b", "b"], None, "c", "baseline 'c', arms"),
        (["a", "a", "b", "b"], [1, 1, 1, 2], None, "names two runs of one arm"),
        (["a", "a", "b", "b"], [1, 2, 3, 4], None, "share fewer than two pairs, and .* has no law"),
        (["a", "a", "b"], None, None, "one arm and one pair label per run"),
    ],
)
def test_bad_input_is_refused_with_the_reason(arms, pairs, baseline, message):
    with pytest.raises(BadInput, match=message):
        compare([1e12, 1e13] * 2, [0.9, 0.8, 0.88, 0.79], arms, pairs=pairs, baseline=baseline)
