"""Laws of the comparison of slopes: known differences, coverage, and what is not compared."""

import numpy as np
import pytest
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import compare_slopes

SIZES = np.logspace(9, 11, 5)


def ladder(
    rng: np.random.Generator, slope: float, level: float, factor: float, shared: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return FLOPs, metric and seed of runs at five sizes and one seed per row of `shared`."""
    seeds = np.repeat(np.arange(len(shared)), len(SIZES))
    flops = np.tile(factor * SIZES, len(shared))
    noise = shared.ravel() + 0.001 * rng.normal(size=len(flops))
    return flops, level + slope * np.log10(flops / 1e10) + noise, seeds


def study(seed: int, difference: float = -0.004) -> dict[str, np.ndarray]:
    """Return two architectures on one data order per seed, which moves both by the same amount."""
    rng = np.random.default_rng(seed)
    shared = 0.01 * rng.normal(size=(3, 5))
    base = ladder(rng, -0.02, 0.9, 1.0, shared)
    arm = ladder(rng, -0.02 + difference, 0.905, 1.7, shared)
    keys = ("compute", "metric", "seeds")
    both = {key: np.concatenate(pair) for key, pair in zip(keys, zip(base, arm))}
    return both | {"arms": np.repeat(["ligr", "hstu"], len(base[0]))}


def test_paired_seeds_recover_a_known_difference_of_slope_and_level() -> None:
    (found,) = compare_slopes(**study(0))
    assert (found.arm, found.baseline, found.seeds) == ("hstu", "ligr", 3)
    assert found.at == pytest.approx(np.sqrt(1.7e9 * 1e11))
    assert found.slope.low < -0.004 < found.slope.high
    level = 0.005 - 0.004 * np.log10(found.at / 1e10)
    assert found.level.low < level < found.level.high
    # Unpaired, the noise that both share would hide a difference ten times as large.
    assert found.slope.high - found.slope.low < 0.01


def test_the_interval_of_a_seed_mean_is_students_t() -> None:
    data = study(1)
    (found,) = compare_slopes(**data, confidence=0.8)
    slopes = {}
    for arm in ("ligr", "hstu"):
        for seed in range(3):
            runs = (data["arms"] == arm) & (data["seeds"] == seed)
            x = np.log10(data["compute"][runs])
            slopes[arm, seed] = stats.linregress(x, data["metric"][runs]).slope
    difference = [slopes["hstu", s] - slopes["ligr", s] for s in range(3)]
    low, high = stats.t.interval(0.8, 2, np.mean(difference), stats.sem(difference))
    assert (found.slope.low, found.slope.high) == pytest.approx((low, high))


def test_intervals_cover_and_the_detectable_difference_is_detected() -> None:
    """90 % of intervals cover; a true difference of the typical detectable size is seen in 80 %."""
    found = [compare_slopes(**study(seed))[0].slope for seed in range(400)]
    covered = np.mean([d.low < -0.004 < d.high for d in found])
    assert 0.86 < covered < 0.94
    # The deviation of a difference of slopes is known: two independent lines of noise 0.001.
    spread = np.log10(SIZES / SIZES.mean())
    error = 0.001 * np.sqrt(2 / ((spread - spread.mean()) ** 2).sum() / 3)
    shift = np.mean([d.detectable / (d.high - d.low) for d in found])
    t = stats.t.ppf(0.95, 2)
    detectable = -float(shift * 2 * t * error)
    seen = [compare_slopes(**study(seed, detectable))[0].slope.high < 0 for seed in range(400)]
    assert 0.74 < np.mean(seen) < 0.86


def test_one_seed_has_no_interval_and_two_sizes_have_no_slope() -> None:
    data = study(2)
    one = {key: x[data["seeds"] == 0] for key, x in data.items()}
    (found,) = compare_slopes(**one)
    assert np.isnan(found.slope.low)
    assert found.warnings == ("one seed: no interval",)
    few = {key: x[np.arange(len(x)) % 5 < 2] for key, x in data.items()}
    assert compare_slopes(**few) == []


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(BadInput, match="baseline 'wukong'"):
        compare_slopes(**study(0), baseline="wukong")
