"""Neural-linear Thompson sampling: a Bayesian last layer, sampled once for each request.

The trained network is fixed, and the weights of its last layer get a posterior (LiRank 3.8;
Riquelme et al. 2018). With features phi [N, D] of the last layer, targets y, prior N(0, I / lambda)
and noise variance sigma^2,

    P = lambda I + sum phi phi^T / sigma^2          w | y ~ N(m, P^-1)
    m = P^-1 sum phi y / sigma^2

Both sums can be carried from one training to the next, and sums of several workers add up:

    statistics = statistics + LinearStatistics.of(phi, y)
    shown = choose(statistics.posterior(precision=1.0, noise=0.3), candidates, rng)

`ligr_jax.train.last_layer` computes the features of a model; its biases are a column of ones. Sums
are valid only for the features they were computed from: after the network has changed much, compute
new sums.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """A distribution of the last layer's weights, with mean [D] and precision [D, D]."""

    mean: Floats
    precision: Floats

    @classmethod
    def prior(cls, width: int, precision: float) -> "Gaussian":
        """Return N(0, I / precision), for `width` = D weights."""
        return cls(mean=np.zeros(width), precision=precision * np.eye(width))

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw weights [count, D] as m + L^-T z with P = L L^T, without inverting a matrix."""
        lower = cholesky(self.precision, lower=True)
        z = rng.standard_normal((len(self.mean), count))
        result: Floats = self.mean + solve_triangular(lower, z, trans="T", lower=True).T
        return result

    def variance(self, phi: Floats) -> Floats:
        """Return the variance of phi w without noise, phi P^-1 phi^T [...], for phi [..., D]."""
        lower = cholesky(self.precision, lower=True)
        flat = phi.reshape(-1, phi.shape[-1])
        result: Floats = (
            (solve_triangular(lower, flat.T, lower=True) ** 2).sum(0).reshape(phi.shape[:-1])
        )
        return result


@dataclass(frozen=True)
class LinearStatistics:
    """Sufficient statistics of a Bayesian linear regression; those of parts of the data add up.

    gram: sum of phi phi^T, [D, D].
    moment: sum of phi y, [D].
    """

    gram: Floats
    moment: Floats

    @classmethod
    def of(cls, phi: Floats, y: Floats, weight: Floats | None = None) -> "LinearStatistics":
        """Sum over features phi [N, D] and targets y [N]; row i counts weight[i] times."""
        phi = np.asarray(phi, np.float64)
        y = np.asarray(y, np.float64)
        weighted = phi if weight is None else phi * np.asarray(weight, np.float64)[:, None]
        return cls(gram=weighted.T @ phi, moment=weighted.T @ y)

    def __add__(self, other: "LinearStatistics") -> "LinearStatistics":
        return LinearStatistics(self.gram + other.gram, self.moment + other.moment)

    def posterior(self, precision: float, noise: float) -> Gaussian:
        """Return the posterior of the weights.

        Args:
            precision: lambda of the prior.
            noise: sigma, the standard deviation of a target around phi w.

        Raises:
            ValueError: an argument is not positive.
        """
        if precision <= 0 or noise <= 0:
            raise ValueError(f"precision={precision} and noise={noise} must both be > 0")
        p = precision * np.eye(len(self.moment)) + self.gram / noise**2
        lower = cholesky(p, lower=True)
        half = solve_triangular(lower, self.moment / noise**2, lower=True)
        mean = solve_triangular(lower, half, trans="T", lower=True)
        return Gaussian(mean=mean, precision=p)


def laplace(
    prior: Gaussian, phi: Floats, y: Floats, offset: Floats | float = 0.0, steps: int = 50
) -> Gaussian:
    """Return the posterior of logistic regression around its mode w* (Laplace's approximation).

        w* = argmin sum softplus(z) - y z + (w - m)^T P (w - m) / 2,   z = phi w + offset
        precision = P + sum p (1 - p) phi phi^T at w*

    Used as the next prior, the result carries past data forward, as the statistics do in the linear
    case (Chapelle and Li 2011, algorithm 3). The mode is found by Newton's method with a halving
    line search; the loss is convex.

    Args:
        prior: the prior of the weights.
        phi: [N, D], features.
        y: [N], targets, 0 or 1.
        offset: [N] or a scalar, a fixed part of the logit, e.g. the network's bias.
        steps: largest number of Newton steps.

    Raises:
        ValueError: a target is neither 0 nor 1.
        ArithmeticError: the mode was not reached in `steps` steps.
    """
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if len(wrong):
        raise ValueError(
            f"y[{wrong[0]}]={y[wrong[0]]} is neither 0 nor 1; leave out rows without a recorded "
            "label"
        )
    w = prior.mean.copy()
    value = _logistic_loss(prior, phi, y, offset, w)
    for _ in range(steps):
        p = expit(phi @ w + offset)
        gradient = phi.T @ (p - y) + prior.precision @ (w - prior.mean)
        precision = prior.precision + (phi * (p * (1 - p))[:, None]).T @ phi
        step = np.linalg.solve(precision, gradient)
        decrease = float(gradient @ step)  # twice the decrease that the quadratic model predicts
        if decrease <= 1e-12 * max(1.0, abs(value)):
            return Gaussian(mean=w, precision=precision)
        # Halve the step until it gives a quarter of that decrease.
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
    """Return the negative log posterior of weights w, up to a constant."""
    z = phi @ w + offset
    deviation = w - prior.mean
    penalty = deviation @ prior.precision @ deviation / 2
    return float((np.logaddexp(0, z) - y * z).sum() + penalty)


def choose(belief: Gaussian, candidates_RCD: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose for each request the best candidate under one draw of the weights.

    Args:
        belief: the distribution of the weights.
        candidates_RCD: [R, C, D], features of C candidates of R requests.
        rng: the source of randomness.

    Returns:
        int64 [R], the index of the chosen candidate.
    """
    weights_RD = belief.sample(rng, len(candidates_RCD))
    result: NDArray[np.int64] = np.einsum("rcd,rd->rc", candidates_RCD, weights_RD).argmax(1)
    return result
