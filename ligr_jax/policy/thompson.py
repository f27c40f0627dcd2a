"""Neural-linear Thompson sampling: a Bayesian last layer, sampled once for each request.

The network stays as trained; the weights of its last layer get a posterior (LiRank 3.8; Riquelme et
al. 2018). With features phi [N, D] of the last layer, targets y, prior N(0, I / lambda) and noise
variance sigma^2,

    P = lambda I + sum phi phi^T / sigma^2          w | y ~ N(m, P^-1)
    m = P^-1 sum phi y / sigma^2

Both sums are carried from one training to the next, and sums of several workers add up:

    statistics = statistics + LinearStatistics.of(phi, y)
    shown = choose(statistics.posterior(precision=1.0, noise=0.3), candidates, rng)

Features of a model are those of `ligr_jax.train.last_layer`; its biases are a column of ones. A sum
holds for the features it was taken of: once the network itself has moved far, start anew.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """A belief about the last layer's weights: mean [D] and precision [D, D]."""

    mean: Floats
    precision: Floats

    @classmethod
    def prior(cls, width: int, precision: float) -> "Gaussian":
        """N(0, I / precision)."""
        return cls(np.zeros(width), precision * np.eye(width))

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draws [count, D]: m + L^-T z with P = L L^T, so that nothing is inverted."""
        lower = cholesky(self.precision, lower=True)
        z = rng.standard_normal((len(self.mean), count))
        return self.mean + solve_triangular(lower, z, trans="T", lower=True).T

    def variance(self, phi: Floats) -> Floats:
        """Of phi w, for features [..., D]: phi P^-1 phi^T, without the noise of an observation."""
        lower = cholesky(self.precision, lower=True)
        flat = phi.reshape(-1, phi.shape[-1])
        return (solve_triangular(lower, flat.T, lower=True) ** 2).sum(0).reshape(phi.shape[:-1])


@dataclass(frozen=True)
class LinearStatistics:
    """All that a Bayesian linear regression keeps of its data; sums of parts are the whole's.

    gram: sum of phi phi^T, [D, D].
    moment: sum of phi y, [D].
    """

    gram: Floats
    moment: Floats

    @classmethod
    def of(cls, phi: Floats, y: Floats, weight: Floats | None = None) -> "LinearStatistics":
        """Sums over features [N, D] and targets [N], each row counted `weight` [N] times."""
        phi, y = np.asarray(phi, np.float64), np.asarray(y, np.float64)
        weighted = phi if weight is None else phi * np.asarray(weight, np.float64)[:, None]
        return cls(weighted.T @ phi, weighted.T @ y)

    def __add__(self, other: "LinearStatistics") -> "LinearStatistics":
        return LinearStatistics(self.gram + other.gram, self.moment + other.moment)

    def posterior(self, precision: float, noise: float) -> Gaussian:
        """
        Args:
            precision: lambda of the prior.
            noise: sigma, the standard deviation of a target about phi w.

        Raises:
            ValueError: one of them is not above 0.
        """
        if precision <= 0 or noise <= 0:
            raise ValueError(f"precision={precision} and noise={noise} must both be above 0")
        p = precision * np.eye(len(self.moment)) + self.gram / noise**2
        lower = cholesky(p, lower=True)
        half = solve_triangular(lower, self.moment / noise**2, lower=True)
        return Gaussian(solve_triangular(lower, half, trans="T", lower=True), p)


def laplace(
    prior: Gaussian, phi: Floats, y: Floats, offset: Floats | float = 0.0, steps: int = 50
) -> Gaussian:
    """The posterior of logistic regression, about its mode w* (Laplace's approximation).

        w* = argmin sum softplus(z) - y z + (w - m)^T P (w - m) / 2,   z = phi w + offset
        precision = P + sum p (1 - p) phi phi^T at w*

    Given as the next prior, the result carries the past forward as statistics do in the linear case
    (Chapelle and Li 2011, algorithm 3). Newton's method with halved steps: the loss is convex.

    Args:
        phi: [N, D]; y: 0 or 1, [N].
        offset: [N], a logit that stays as it is, e.g. the network's bias.

    Raises:
        ValueError: a target is neither 0 nor 1.
        ArithmeticError: no mode after `steps` steps.
    """
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if len(wrong):
        raise ValueError(
            f"y[{wrong[0]}]={y[wrong[0]]}: targets are 0 or 1; leave out rows whose label nobody "
            "recorded"
        )
    w = prior.mean.copy()
    value = _logistic_loss(prior, phi, y, offset, w)
    for _ in range(steps):
        p = expit(phi @ w + offset)
        gradient = phi.T @ (p - y) + prior.precision @ (w - prior.mean)
        precision = prior.precision + (phi * (p * (1 - p))[:, None]).T @ phi
        step = np.linalg.solve(precision, gradient)
        decrease = float(gradient @ step)  # twice what the quadratic model promises
        if decrease <= 1e-12 * max(1.0, abs(value)):
            return Gaussian(w, precision)
        scale = 1.0
        while (new := _logistic_loss(prior, phi, y, offset, w - scale * step)) > (
            value - 0.25 * scale * decrease
        ) and scale > 1e-8:
            scale /= 2
        w, value = w - scale * step, new
    raise ArithmeticError(
        f"no mode of {len(y)} rows after {steps} steps; are the features of order one?"
    )


def _logistic_loss(
    prior: Gaussian, phi: Floats, y: Floats, offset: Floats | float, w: Floats
) -> float:
    z, away = phi @ w + offset, w - prior.mean
    return float((np.logaddexp(0, z) - y * z).sum() + away @ prior.precision @ away / 2)


def choose(belief: Gaussian, candidates: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Thompson's choice of each request, [R]: the best candidate under one draw of the weights.

    Args:
        candidates: features [R, C, D].
    """
    drawn = belief.sample(rng, len(candidates))
    return np.einsum("rcd,rd->rc", candidates, drawn).argmax(1)
