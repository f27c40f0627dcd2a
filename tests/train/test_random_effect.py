"""Random effects of items equal penalized logistic regressions, and help new items."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from ligr_jax.ops.metrics import auc, normalized_entropy
from ligr_jax.train.random_effect import fit


def log_of(rng: np.random.Generator, items: int, n: int) -> tuple[np.ndarray, ...]:
    """Logits of a model that knows members but no items, labels, items, and the items' effects."""
    effect = rng.normal(0, 0.5, (items, 2))
    item = rng.integers(0, items, n) * 10
    z = rng.normal([-2, -3], 1, (n, 2))
    return z, (rng.random((n, 2)) < expit(z + effect[item // 10])).astype(np.int8), item, effect


def test_every_effect_is_the_minimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(0)
    z, y, item, _ = log_of(rng, 25, 800)
    y[rng.random(y.shape) < 0.2] = -1
    weight = rng.uniform(0, 3, len(z))
    z[item == 30] += 40  # saturated: a plain Newton step from 0 leaves for infinity
    found = fit(z, y, item, precision=0.5, weight=weight)
    for v, i in enumerate(found.items):
        for a in range(2):
            rows = (item == i) & (y[:, a] >= 0)

            def loss(b: float, rows: np.ndarray = rows, a: int = a) -> float:
                s = z[rows, a] + b
                return float(weight[rows] @ (np.logaddexp(0, s) - s * y[rows, a]) + b * b / 4)

            best = minimize_scalar(loss, bracket=(-1, 1), tol=1e-12)
            assert found.effect[v, a] == pytest.approx(best.x, abs=1e-5)
            p = expit(z[rows, a] + best.x)
            assert found.precision[v, a] == pytest.approx(0.5 + weight[rows] @ (p * (1 - p)))


def test_one_item_is_scikit_learns_ridge_logistic_regression_of_a_constant() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    y = (np.random.default_rng(1).random(300) < 0.15).astype(np.int8)
    found = fit(np.zeros((300, 1)), y[:, None], np.zeros(300), precision=2.0)
    theirs = linear_model.LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10)
    theirs.fit(np.ones((300, 1)), y)
    assert found.effect[0, 0] == pytest.approx(theirs.coef_[0, 0], abs=1e-6)


def test_new_items_gain_in_the_hour_after_their_first() -> None:
    rng = np.random.default_rng(2)
    z, y, item, truth = log_of(rng, 300, 40_000)
    first, then = slice(0, 12_000), slice(12_000, None)
    effects = fit(z[first], y[first], item[first])
    final = z[then] + effects.of(item[then])
    loose = z[then] + fit(z[first], y[first], item[first], precision=1e-6).of(item[then])
    best = z[then] + truth[item[then] // 10]
    for a in range(2):
        of = {
            name: (normalized_entropy(s[:, a], y[then, a]), auc(s[:, a], y[then, a]))
            for name, s in (("global", z[then]), ("final", final), ("loose", loose), ("best", best))
        }
        assert of["best"][0] < of["final"][0] < of["global"][0] - 0.005, of
        assert of["best"][1] > of["final"][1] > of["global"][1] + 0.005, of
        # Without a penalty, an item's first few impressions say more than they know.
        assert of["final"][0] < of["loose"][0], of


def test_yesterdays_posterior_stands_in_for_yesterdays_impressions() -> None:
    z, y, item, _ = log_of(np.random.default_rng(3), 20, 20_000)
    whole = fit(z, y, item)
    first = fit(z[:10_000], y[:10_000], item[:10_000])
    both = fit(z[10_000:], y[10_000:], item[10_000:], prior=first)
    np.testing.assert_allclose(both.effect, whole.effect, atol=0.02)
    # Yesterday's curvature is that of yesterday's mode.
    np.testing.assert_allclose(both.precision, whole.precision, rtol=0.15)
    nothing = fit(z[:0], y[:0], item[:0], prior=first)
    np.testing.assert_allclose(nothing.effect, first.effect)
    # `precision` is of the items that yesterday did not see.
    seen = item < 100
    halves = fit(z[seen], y[seen], item[seen], precision=1.0)
    joined = fit(z[~seen], y[~seen], item[~seen], precision=9.0, prior=halves)
    alone = fit(z[~seen], y[~seen], item[~seen], precision=9.0)
    np.testing.assert_allclose(joined.of(alone.items), alone.effect)
    np.testing.assert_allclose(joined.of(halves.items), halves.effect)


def test_an_item_without_traffic_has_no_effect_and_bad_input_is_refused() -> None:
    z, y, item, _ = log_of(np.random.default_rng(4), 5, 50)
    assert (fit(z, y, item).of([-7, 99]) == 0).all()
    assert fit(z[:0], y[:0], item[:0]).of([3]).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="precision=0"):
        fit(z, y, item, precision=0)
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match=rf"weight\[2\]={bad}"):
            fit(z, y, item, weight=np.where(np.arange(50) == 2, bad, 1.0))
    z[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"logits\[3, 1\]=nan"):
        fit(z, y, item)
