"""Laws of the calibration layer: it learns isotonic regression and keeps the order of logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.isotonic import IsotonicRegression

from ligr_jax.nn.calibration import IsotonicCalibration
from ligr_jax.ops import metrics

Z = np.linspace(-4, 4, 801, dtype=np.float32)


def true_rate(z: np.ndarray) -> np.ndarray:
    """Return a monotone rate with a step, far from sigmoid(z): a badly calibrated score."""
    return 0.05 + 0.5 / (1 + np.exp(-3 * (z - 1))) + 0.2 * (z > -1)


def trained(module: IsotonicCalibration, z: np.ndarray, y: np.ndarray, *features: Any) -> Any:
    """Return the parameters after 1,500 full-batch steps of Adam on the cross-entropy."""
    params = jax.jit(module.init)(jax.random.key(0), z[:, None], *features)
    tx = optax.adam(optax.cosine_decay_schedule(0.05, 1500))

    def loss(p: Any) -> jax.Array:
        f = jnp.asarray(module.apply(p, z[:, None], *features))[:, 0]
        return jnp.mean(jax.nn.softplus(f) - f * y)

    def step(_: Any, carry: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state)
        return optax.apply_updates(p, updates), state

    return jax.jit(lambda p: jax.lax.fori_loop(0, 1500, step, (p, tx.init(p)))[0])(params)


def calibrated(module: IsotonicCalibration, params: Any, z: np.ndarray, *features: Any) -> Any:
    return np.asarray(jax.jit(module.apply)(params, z, *features))


def test_it_is_initially_the_identity_with_or_without_features() -> None:
    logits = np.random.default_rng(0).uniform(-17, 8, (6, 5, 3)).astype(np.float32)
    for features in ((), (np.ones((6, 5, 4), np.float32),)):
        module = IsotonicCalibration()
        params = jax.jit(module.init)(jax.random.key(0), logits, *features)
        np.testing.assert_allclose(calibrated(module, params, logits, *features), logits, atol=1e-5)


def test_without_features_it_becomes_isotonic_regression() -> None:
    """Buckets of 0.25 approximate the true rates within 0.01, except in the bucket of the step.

    scikit-learn's fit on the true rates reproduces them.
    """
    y = true_rate(Z)
    module = IsotonicCalibration(step=0.25)
    logits = calibrated(module, trained(module, Z, y), Z[:, None])[:, 0]
    reference = IsotonicRegression(out_of_bounds="clip").fit(Z, y).predict(Z)
    gap = np.abs(1 / (1 + np.exp(-logits)) - reference)
    away = np.abs(Z + 1) > 0.5
    assert gap[away].max() < 0.01
    assert gap.mean() < 0.005


def test_it_calibrates_and_keeps_the_order() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 1.5, 10000).astype(np.float32)
    y = (rng.random(len(z)) < true_rate(z)).astype(np.float32)
    module = IsotonicCalibration()
    logits = calibrated(module, trained(module, z[::2], y[::2]), z[:, None])[:, 0]
    # Evaluated on the half that is not used for training.
    before, after = (metrics.expected_calibration_error(s[1::2], y[1::2]) for s in (z, logits))
    assert before > 0.1
    assert after < 0.04  # sampling noise alone gives about 0.02 in 20 bins of 250
    order = np.argsort(z)
    assert (np.diff(logits[order]) > -1e-5).all()
    ranked = metrics.auc(z[1::2], y[1::2])
    assert metrics.auc(logits[1::2], y[1::2]) == pytest.approx(ranked, abs=0.005)


def test_each_row_has_a_curve_of_its_own() -> None:
    """With as many rows as there are layers, one layer equals each of them on its impressions."""
    rng = np.random.default_rng(2)
    z = jnp.asarray(rng.normal(size=(40, 2)).astype(np.float32))
    row = jnp.asarray(rng.integers(0, 3, 40))
    features = jnp.asarray(rng.normal(size=(40, 2)).astype(np.float32))
    layer, single = IsotonicCalibration(5.0, rows=3), IsotonicCalibration(5.0)
    params = layer.init(jax.random.key(0), z, features, row)["params"]
    noise = iter(rng.normal(size=(3, 1000)))
    params = jax.tree.map(lambda p: p + 0.3 * next(noise)[: p.size].reshape(p.shape), params)
    ours = layer.apply({"params": params}, z, features, row)
    for r in range(3):
        own = {name: params[name][2 * r : 2 * r + 2] for name in ("slopes", "bias")}
        wanted = single.apply({"params": params | own}, z, features)
        np.testing.assert_allclose(ours[row == r], wanted[row == r], rtol=1e-6)


def test_groups_of_features_get_curves_of_their_own() -> None:
    """The rates of two devices differ, so one curve cannot fit both, but one curve each can."""
    z = Z[::2]
    device = np.arange(len(z)) % 2
    rate = np.where(device, true_rate(z), true_rate(z) / 3)
    one_hot = np.eye(2, dtype=np.float32)[device]
    module = IsotonicCalibration()
    params = trained(module, z, rate, one_hot)
    logits = calibrated(module, params, z[:, None], one_hot)[:, 0]
    gap = np.abs(1 / (1 + np.exp(-logits)) - rate)
    assert gap[np.abs(z + 1) > 0.5].max() < 0.03
    for d in (0, 1):
        assert (np.diff(logits[device == d]) > -1e-5).all()
