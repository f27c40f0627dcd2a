"""Loss against parameters and data: L(N, D) = E + A N^-alpha + B D^-beta.

Fitted as in Hoffmann et al. 2022 (appendix D.2): minimize the sum over runs of Huber (delta 1e-3)
of LSE(a - alpha log N, b - beta log D, e) - log L. Repeated data count for less: D becomes
U + U R_D (1 - exp(-R / R_D)) with U distinct data and R = D / U - 1 repeats, as in Muennighoff et
al. 2023 (section 3.1). Unlike there, N is not corrected for excess parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import (
    CONFIDENCE,
    SAME_BUDGET,
    Array,
    budgets,
    resample_levels,
)
from ligr_jax.scaling.fit.descent import fit_residuals
from ligr_jax.scaling.fit.law import (
    Fitted,
    checked,
    estimates,
    names_of,
    percentile_interval,
    refuse_constant,
    refuse_few,
    refuse_no_logarithm,
)
from ligr_jax.scaling.fit.powers import ALPHA, LOG_ZERO, box, log_sum, refuse_no_fall, unlog

DECAY = (1e-2, 1e4)  # bounds of R_D in the search, in repeats
Estimate = tuple[Array, Array, Array]  # value, low, high


def effective_data(d: ArrayLike, unique: ArrayLike, decay: float) -> Array:
    """Return the amount of distinct data that d data, with repeats, are worth.

    U + U R_D (1 - exp(-R / R_D)) with R = d / U - 1.

    Args:
        d: data seen, any shape.
        unique: distinct data among them (U), in the units of d.
        decay: R_D, the number of repeats over which the value of one more repeat falls by e.

    Returns:
        Effective data, in the units of d.
    """
    seen = np.minimum(d, unique)
    return np.asarray(seen * (1.0 - decay * np.expm1(-(d / seen - 1.0) / decay)))


@dataclass(frozen=True)
class _Points:
    """Log scales of the runs, and their repeats if data are repeated."""

    log_n: Array
    log_d: Array  # log of distinct data
    repeats: Array | None  # d / unique - 1; None: every run sees its data once

    def centred(self, centre: tuple[float, float]) -> "_Points":
        return replace(self, log_n=self.log_n - centre[0], log_d=self.log_d - centre[1])

    def log_effective(self, theta: Array) -> Array:
        """Return log D, or log U + log(1 + R_D (1 - exp(-R / R_D))): (n,) or (B, n)."""
        if self.repeats is None:
            return self.log_d
        decay: Array = np.exp(theta[:, 5:])
        return self.log_d + np.log1p(-decay * np.expm1(-self.repeats / decay))

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        """Return log L (B, n) and its derivatives (B, p, n).

        theta (B, p) = a, b, log alpha, log beta, e, and log R_D if data are repeated.
        """
        log_l, jac = log_sum(theta[:, :5], [self.log_n, self.log_effective(theta)])
        if self.repeats is None:
            return log_l, jac
        # Chain rule for log R_D.
        decay = np.exp(theta[:, 5:])
        fading = np.exp(-self.repeats / decay)
        extra = decay * (1.0 - fading)
        worth = (extra - self.repeats * fading) / (1.0 + extra)
        slope = -np.exp(theta[:, 3:4]) * jac[:, 1] * worth
        return log_l, np.concatenate([jac, slope[:, None]], axis=1)


@dataclass(frozen=True, kw_only=True)
class SurfaceLaw(Fitted):
    """Law of a loss against parameters and data.

    `params` has E, A, B, alpha, beta; a = beta / (alpha + beta), the exponent of the best N in
    compute; b = alpha / (alpha + beta), the exponent of the best D; and R_D if data are repeated.

    Attributes:
        n: smallest and largest number of parameters of the runs.
        d: smallest and largest amount of data of the runs.
        centre: means of log n and log d.
    """

    n: tuple[float, float]
    d: tuple[float, float]
    centre: tuple[float, float] = field(repr=False)

    def predict(
        self, n: ArrayLike, d: ArrayLike, unique: ArrayLike | None = None, run_noise: bool = False
    ) -> Estimate:
        """Predict the loss.

        Args:
            n: parameters; the shapes of n, d and unique broadcast.
            d: data seen.
            unique: distinct data among d; None: all.
            run_noise: False: the interval covers the law. True: it covers one further run (see
                `Law.predict`).

        Returns:
            Loss, low and high, of the common shape. Low and high are NaN without resamples.
        """
        n, d, unique = np.broadcast_arrays(n, d, d if unique is None else unique)
        points = _points(n.ravel(), d.ravel(), unique.ravel() if "R_D" in self.params else None)
        points = points.centred(self.centre)
        value = np.exp(points.log_loss(self.theta[None])[0][0])
        log_l = points.log_loss(self.draws)[0][:, None] + self.spread(run_noise)[:, None]
        low, high = self._interval(np.exp(log_l).reshape(-1, value.size))
        return value.reshape(n.shape), low.reshape(n.shape), high.reshape(n.shape)

    def optimal(self, compute: ArrayLike, flops_per: float = 6.0) -> dict[str, Estimate]:
        """Return the N and D of lowest loss at a compute budget, and that loss.

        Closed form (Hoffmann et al. 2022, equation 4), for data that are not repeated.

        Args:
            compute: FLOPs, any shape; compute = flops_per N D.
            flops_per: training FLOPs per parameter and datum.

        Returns:
            "n", "d" and "loss", each as value, low and high of the shape of `compute`. The
            intervals cover the optimum of the law.
        """
        shape = np.shape(compute)
        total = np.log(np.asarray(compute, np.float64).ravel() / flops_per)
        estimate = self._best(self.theta[None], total)
        draws = self._best(self.draws, total)
        optimum = {}
        for k, name in enumerate(("n", "d", "loss")):
            low, high = self._interval(np.exp(draws[k]))
            value = np.exp(estimate[k][0])
            optimum[name] = (value.reshape(shape), low.reshape(shape), high.reshape(shape))
        return optimum

    def _best(self, theta: Array, total: Array) -> tuple[Array, Array, Array]:
        """Return logs of N, D and loss, each (B, m), at the optimum for log N + log D = total."""
        log_n, log_d = self.centre
        a, b, u, v = (theta[:, i, None] for i in range(4))
        alpha = np.exp(u)
        beta = np.exp(v)
        x = total - log_n - log_d
        best = (u + a - v - b + beta * x) / (alpha + beta)  # log N minus its centre
        log_l, _ = log_sum(theta[:, :5], [best, x - best])
        return log_n + best, log_d + x - best, log_l

    def _interval(self, draws: Array) -> tuple[Array, Array]:
        return percentile_interval(draws, self.confidence)


def fit_surface(
    n: ArrayLike,
    d: ArrayLike,
    loss: ArrayLike,
    *,
    unique: ArrayLike | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> SurfaceLaw:
    """Fit L = E + A N^-alpha + B D^-beta by a summed Huber loss (delta 1e-3) of log residuals.

    Intervals are bootstrap percentiles. In 200 simulated sweeps, nominal 90 % intervals covered the
    exponents, predictions and best sizes in 87 to 96 % of cases with 36 to 120 runs, and in 95 to
    98 % with 20 runs.

    Args:
        n: parameters of each run, shape (runs,).
        d: data seen by each run (tokens, impressions), (runs,).
        loss: positive loss of each run, (runs,).
        unique: distinct data of each run, in the units of d; D is then the effective data, and R_D
            is fitted too.
        runs: as in `fit_power`.
        groups: as in `fit_power`.
        resamples: as in `fit_power`.
        confidence: as in `fit_power`.
        seed: as in `fit_power`.

    Returns:
        The law.

    Raises:
        BadInput: the runs do not determine the surface (too few runs, fewer than three distinct n
            or d, d tied to n, no repeated data although `unique` is given, a loss that does not
            fall with n or with d), or a value is invalid. The message gives the reason.
    """
    names = names_of(runs, n)
    y, n, d = checked(names, loss, n=n, d=d)
    (u,) = checked(names, loss, unique=unique)[1:] if unique is not None else (None,)
    free = 5 if u is None else 6
    refuse_few(len(y), free)
    refuse_constant(y)
    refuse_no_logarithm(names, y)
    refuse_unidentified(n, d, u)

    # Centred logs: centring removes the correlation between A and alpha, and between B and beta.
    y = np.log(y)
    points = _points(n, d, u)
    centre = (float(points.log_n.mean()), float(points.log_d.mean()))
    points = points.centred(centre)
    zero = y.min() - LOG_ZERO
    low, high = box(y, terms=2)
    if u is not None:
        low = np.append(low, np.log(DECAY[0]))
        high = np.append(high, np.log(DECAY[1]))

    def residuals(theta: Array) -> tuple[Array, Array]:
        log_l, jac = points.log_loss(theta)
        return log_l - y, jac

    # Bootstrap. A resample must contain three sizes and three amounts of data, and as many distinct
    # runs as parameters, or its minimum is arbitrary.
    levels = [(budgets(n), 3), (budgets(d), 3), (np.arange(len(y)), free)]
    counts, units, notes = resample_levels(levels, groups, free, resamples, seed)
    # The objective has several local minima, so the search starts from a grid of exponents. The
    # refit of a resample starts from one candidate in each combination of small, medium and large
    # exponents, so that it can leave the full fit's valley.
    grid = np.clip(_starts(points, np.exp(y)), low, high)
    best = fit_residuals(residuals, grid, _band, counts, low, high)
    effective = points.log_effective(best.theta[None])
    for scale, x, k in (("N", points.log_n, 0), ("D", effective, 1)):
        refuse_no_fall(scale, x, best.theta[k], best.theta[2 + k], np.exp(y))

    # The search is in centred logs; the parameters reported are those of the law in N and D.
    def named(t: Array) -> dict[str, Array]:
        alpha = np.exp(t[..., 2])
        beta = np.exp(t[..., 3])
        values = {
            "E": unlog(t[..., 4], zero),
            "A": unlog(t[..., 0], zero) * np.exp(np.minimum(alpha * centre[0], 500.0)),
            "B": unlog(t[..., 1], zero) * np.exp(np.minimum(beta * centre[1], 500.0)),
            "alpha": alpha,
            "beta": beta,
            "a": beta / (alpha + beta),
            "b": alpha / (alpha + beta),
        }
        return values if u is None else values | {"R_D": np.exp(t[..., 5])}

    params, spans, without = estimates(named, best.theta, best.draws, confidence)
    law = SurfaceLaw(
        form="chinchilla",
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=best.objective,
        points=len(y),
        units=units,
        resamples=len(best.draws),
        runs=names,
        warnings=(),
        free=free,
        n=(float(n.min()), float(n.max())),
        d=(float(d.min()), float(d.max())),
        centre=centre,
        theta=best.theta,
        draws=best.draws,
        residuals=-best.residuals,
    )
    return replace(law, warnings=(*notes, *without, *_notes(law, float(np.exp(y.min())))))


def _points(n: Array, d: Array, unique: Array | None) -> _Points:
    if unique is None:
        return _Points(log_n=np.log(n), log_d=np.log(d), repeats=None)
    seen = np.minimum(d, unique)
    return _Points(log_n=np.log(n), log_d=np.log(seen), repeats=d / seen - 1.0)


def refuse_unidentified(n: Array, d: Array, unique: Array | None) -> None:
    """Raise BadInput if the values of n, d and unique do not determine the surface."""
    for name, scale in (("n", n), ("d", d)):
        distinct = int(budgets(scale).max()) + 1
        if distinct < 3:
            raise BadInput(
                f"the runs have {distinct} distinct values of {name}; its two parameters and E "
                "need 3"
            )
    # If log d is a linear function of log n, only one curve on the surface is observed.
    x = np.log(n) - np.log(n).mean()
    z = np.log(d) - np.log(d).mean()
    slope = (x @ z) / (x @ x)
    if np.abs(z - slope * x).max() < SAME_BUDGET:
        what = "all runs have one compute budget n d" if slope < 0 else "the surface is one curve"
        raise BadInput(
            f"d is tied to n (d ~ n^{slope:.3g} in every run): {what}, so the effects of N and D "
            "cannot be separated; add runs that vary only one of them"
        )
    if unique is not None and np.all(d <= unique * (1 + SAME_BUDGET)):
        raise BadInput("no run sees its data twice (d <= unique): leave `unique` out")


def _band(theta: Array) -> NDArray[np.int64]:
    result: NDArray[np.int64] = np.digitize(theta[:, 2:4], np.log([0.2, 0.7])) @ np.array([1, 3])
    return result


def _starts(points: _Points, loss: Array) -> Array:
    """Return starts on a grid of exponents (and R_D), (S, p).

    For given exponents (and R_D) the loss is linear in A, B and E, which nonnegative least squares
    solves.
    """
    exponents = np.geomspace(0.03, 2.0, 7)
    decays: tuple[float, ...] = (np.nan,) if points.repeats is None else (1.0, 5.0, 25.0)
    rows = []
    for decay in decays:
        x_d = points.log_d
        if points.repeats is not None:
            x_d = x_d + np.log1p(-decay * np.expm1(-points.repeats / decay))
        for alpha in exponents:
            for beta in exponents:
                columns = np.exp(-alpha * points.log_n), np.exp(-beta * x_d), np.ones(len(loss))
                solution, _ = nnls(np.stack(columns, 1) / loss[:, None], np.ones(len(loss)))
                a, b, e = np.log(np.maximum(solution, 1e-30))
                rows.append([a, b, np.log(alpha), np.log(beta), e, np.log(decay)])
    return np.array(rows)[:, : 5 if points.repeats is None else 6]


def _notes(law: SurfaceLaw, best: float) -> list[str]:
    """Return warnings about parameters that the runs do not determine."""
    notes = []
    limits = {"alpha": ALPHA, "beta": ALPHA, "R_D": DECAY}
    for name in (k for k in limits if k in law.params):
        low, high = law.intervals.get(name, (law.params[name],) * 2)
        if low <= 1.01 * limits[name][0] or high >= 0.99 * limits[name][1]:
            notes.append(
                f"{name} is not identified: its interval [{low:.3g}, {high:.3g}] reaches the "
                f"bounds of the search {list(limits[name])}; add runs over a wider range"
            )
    if law.intervals.get("E", (law.params["E"],))[0] < 0.01 * best:
        notes.append("E is not identified: these runs do not exclude a floor of zero")
    return notes
