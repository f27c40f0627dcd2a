"""Laws of the Bayesian last layer: its posterior is the closed form, and exploration pays off."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from ligr_jax.policy.thompson import Gaussian, LinearStatistics, choose, laplace

N, D, NOISE = 200, 5, 0.7


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(N, D)) @ rng.normal(size=(D, D))
    return phi, phi @ rng.normal(size=D) + NOISE * rng.normal(size=N)


def test_posterior_is_the_closed_form_and_scikit_learns(data: tuple[np.ndarray, ...]) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    phi, y = data
    posterior = LinearStatistics.of(phi, y).posterior(2.0, NOISE)
    covariance = np.linalg.inv(2.0 * np.eye(D) + phi.T @ phi / NOISE**2)
    np.testing.assert_allclose(np.linalg.inv(posterior.precision), covariance)
    np.testing.assert_allclose(posterior.mean, covariance @ phi.T @ y / NOISE**2)
    # One iteration of scikit-learn's estimator keeps the prior and the noise that are passed in.
    reference = linear_model.BayesianRidge(
        fit_intercept=False, max_iter=1, alpha_init=NOISE**-2, lambda_init=2.0
    ).fit(phi, y)
    same_prior = LinearStatistics.of(phi, y).posterior(reference.lambda_, reference.alpha_**-0.5)
    np.testing.assert_allclose(reference.coef_, same_prior.mean, rtol=1e-6)
    np.testing.assert_allclose(reference.sigma_, np.linalg.inv(same_prior.precision), rtol=1e-6)
    np.testing.assert_allclose(
        same_prior.variance(phi), np.einsum("nd,de,ne->n", phi, reference.sigma_, phi), rtol=1e-6
    )


def test_statistics_of_parts_add_up_and_weights_repeat_rows(data: tuple[np.ndarray, ...]) -> None:
    phi, y = data
    whole = LinearStatistics.of(phi, y)
    parts = LinearStatistics.of(phi[:70], y[:70]) + LinearStatistics.of(phi[70:], y[70:])
    np.testing.assert_allclose(parts.gram, whole.gram)
    np.testing.assert_allclose(parts.moment, whole.moment)
    twice = LinearStatistics.of(phi, y, np.full(N, 2.0))
    np.testing.assert_allclose(twice.moment, (whole + whole).moment)
    with pytest.raises(ValueError, match="noise=0"):
        whole.posterior(1.0, 0)


def test_draws_have_the_posteriors_mean_and_covariance(data: tuple[np.ndarray, ...]) -> None:
    belief = LinearStatistics.of(*data).posterior(1.0, NOISE)
    draws = belief.sample(np.random.default_rng(1), 200_000)
    covariance = np.linalg.inv(belief.precision)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(0) - belief.mean) / scale, 0, atol=0.01)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.01 * scale.max() ** 2)


def test_laplace_has_the_mode_and_the_curvature_at_the_mode() -> None:
    rng = np.random.default_rng(2)
    phi, offset = rng.normal(size=(N, D)), rng.normal(size=N)
    y = (rng.random(N) < expit(phi @ rng.normal(size=D) + offset)).astype(float)
    root = rng.normal(size=(D, D))
    prior = Gaussian(rng.normal(size=D), np.eye(D) + root @ root.T)

    def loss(w: np.ndarray) -> float:
        z = phi @ w + offset
        away = w - prior.mean
        return float(np.sum(np.logaddexp(0, z) - y * z) + away @ prior.precision @ away / 2)

    posterior = laplace(prior, phi, y, offset)
    best = minimize(loss, np.zeros(D), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(posterior.mean, best.x, atol=1e-5)
    eps = 1e-3
    steps = eps * np.eye(D)
    hessian = [
        [
            (
                loss(posterior.mean + a + b)
                - loss(posterior.mean + a - b)
                - loss(posterior.mean - a + b)
                + loss(posterior.mean - a - b)
            )
            / (4 * eps**2)
            for b in steps
        ]
        for a in steps
    ]
    np.testing.assert_allclose(posterior.precision, hessian, rtol=1e-4, atol=1e-3)


def test_laplace_converges_on_separable_data_from_a_distant_start() -> None:
    phi = np.linspace(-1, 1, 40)[:, None] * 30
    posterior = laplace(Gaussian(np.array([-9.0]), np.array([[1e-3]])), phi, (phi[:, 0] > 0) * 1.0)
    assert posterior.mean[0] > 0
    assert np.isfinite(posterior.precision).all()
    with pytest.raises(ValueError, match=r"y\[1\]=-1"):
        laplace(posterior, phi[:2], np.array([1, -1]))


def regret(explore: bool, seed: int, items: int = 10, requests: int = 20_000) -> float:
    """Return the lost clicks per request of a bandit over items that share no feature.

    The value of an item is then learned only by showing it. (With shared features and varying
    candidates, a greedy policy explores by itself and loses less than Thompson sampling.)
    """
    rng = np.random.default_rng(seed)
    value, phi = rng.uniform(0.3, 0.7, items), np.eye(items)
    statistics, lost = LinearStatistics.of(phi[:0], value[:0]), 0.0
    per_update = 200  # requests between updates
    for _ in range(requests // per_update):
        belief = statistics.posterior(25.0, 0.5)
        candidates = np.broadcast_to(phi, (per_update, items, items))
        shown = (
            choose(belief, candidates, rng)
            if explore
            else np.full(per_update, belief.mean.argmax())
        )
        lost += float((value.max() - value[shown]).sum())
        clicks = (rng.random(per_update) < value[shown]) - 0.5
        statistics = statistics + LinearStatistics.of(phi[shown], clicks)
    return lost / requests


def test_thompson_sampling_has_less_regret_than_greedy() -> None:
    pairs = np.array([[regret(True, s), regret(False, s)] for s in range(20)])
    difference = pairs[:, 0] - pairs[:, 1]
    error = difference.std(ddof=1) / np.sqrt(len(pairs))
    assert difference.mean() < -3 * error, pairs.mean(0)
