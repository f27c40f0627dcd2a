"""Loss against parameters and data: L(N, D) = E + A N^-alpha + B D^-beta, data repeated or not.

Fitted as in Hoffmann et al. 2022 (appendix D.2): the SUM over runs of Huber (delta 1e-3) of
LSE(a - alpha log N, b - beta log D, e) - log L. Data that are seen more than once count for less:
D becomes U + U R_D (1 - exp(-R / R_D)) with U distinct data and R = D / U - 1 repeats, as in
Muennighoff et al. 2023 (section 3.1; the parameters N are taken as they are).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import (
    CONFIDENCE,
    SAME_BUDGET,
    Array,
    budgets,
    resample_levels,
)
from ligr_jax.scaling.fit.descent import minimise, refit
from ligr_jax.scaling.fit.law import (
    Fitted,
    checked,
    estimates,
    interval,
    names_of,
    refuse_constant,
    refuse_few,
    refuse_no_logarithm,
)
from ligr_jax.scaling.fit.powers import ALPHA, LOG_ZERO, box, log_sum, unlog

DECAY = (1e-2, 1e4)  # bounds of R_D in the search, in repeats
Estimate = tuple[Array, Array, Array]  # value, low, high


def effective_data(d: ArrayLike, unique: ArrayLike, decay: float) -> Array:
    """What d data are worth, `unique` of them distinct: U + U R_D (1 - exp(-R / R_D)).

    decay: R_D, the repeats over which the worth of one more falls by e. Same units as d.
    """
    seen = np.minimum(d, unique)
    return np.asarray(seen * (1.0 - decay * np.expm1(-(d / seen - 1.0) / decay)))


@dataclass(frozen=True)
class _Points:
    """Runs as the search sees them: centred log scales, and repeats where data are repeated."""

    log_n: Array
    log_d: Array  # of distinct data where they are repeated
    repeats: Array | None

    def centred(self, centre: tuple[float, float]) -> "_Points":
        return replace(self, log_n=self.log_n - centre[0], log_d=self.log_d - centre[1])

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        """log L (B, n), derivatives (B, p, n); theta = a, b, log alpha, log beta, e[, log R_D]."""
        if self.repeats is None:
            return log_sum(theta, [self.log_n, self.log_d])
        decay = np.exp(theta[:, 5:])
        fading = np.exp(-self.repeats / decay)
        extra = decay * (1.0 - fading)
        log_l, jac = log_sum(theta[:, :5], [self.log_n, self.log_d + np.log1p(extra)])
        worth = (extra - self.repeats * fading) / (1.0 + extra)
        slope = -np.exp(theta[:, 3:4]) * jac[:, 1] * worth
        return log_l, np.concatenate([jac, slope[:, None]], axis=1)


@dataclass(frozen=True, kw_only=True)
class SurfaceLaw(Fitted):
    """A loss against parameters and data.

    params: E, A, B, alpha, beta; a = beta / (alpha + beta), the exponent of the best N in compute;
    b = alpha / (alpha + beta), that of the best D; and R_D where data were repeated.
    n, d: the ranges seen.
    """

    n: tuple[float, float]
    d: tuple[float, float]
    centre: tuple[float, float] = field(repr=False)

    def predict(
        self, n: ArrayLike, d: ArrayLike, unique: ArrayLike | None = None, run_noise: bool = False
    ) -> Estimate:
        """Loss at n parameters and d data (shapes broadcast), low and high; NaN without draws.

        unique: distinct data among d; all, where it is not given. The interval is of the law, or
        with `run_noise` of one further run (see `Law.predict`).
        """
        n, d, unique = np.broadcast_arrays(n, d, d if unique is None else unique)
        points = _points(n.ravel(), d.ravel(), unique.ravel() if "R_D" in self.params else None)
        points = points.centred(self.centre)
        value = np.exp(points.log_loss(self.theta[None])[0][0])
        log_l = points.log_loss(self.draws)[0][:, None] + self.spread(run_noise)[:, None]
        low, high = self._interval(np.exp(log_l).reshape(-1, value.size))
        return value.reshape(n.shape), low.reshape(n.shape), high.reshape(n.shape)

    def optimal(self, compute: ArrayLike, flops_per: float = 6.0) -> dict[str, Estimate]:
        """The N and D of least loss at `compute` = flops_per N D FLOPs, and that loss.

        Closed form (Hoffmann et al. 2022, equation 4) for data that are not repeated.
        """
        shape = np.shape(compute)
        total = np.log(np.asarray(compute, np.float64).ravel() / flops_per)
        found = [self._best(theta, total) for theta in (self.theta[None], self.draws)]
        answer = {}
        for k, name in enumerate(("n", "d", "loss")):
            low, high = self._interval(np.exp(found[1][k]))
            value = np.exp(found[0][k][0])
            answer[name] = (value.reshape(shape), low.reshape(shape), high.reshape(shape))
        return answer

    def _best(self, theta: Array, total: Array) -> tuple[Array, Array, Array]:
        """Logs of N, D and loss (B, m) of least loss where log N + log D = total (m)."""
        log_n, log_d = self.centre
        a, b, u, v = (theta[:, i, None] for i in range(4))
        alpha, beta = np.exp(u), np.exp(v)
        x = total - log_n - log_d
        best = (u + a - v - b + beta * x) / (alpha + beta)  # log N less its centre
        log_l, _ = log_sum(theta[:, :5], [best, x - best])
        return log_n + best, log_d + x - best, log_l

    def _interval(self, draws: Array) -> tuple[Array, Array]:
        return interval(draws, self.confidence)


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
    """L = E + A N^-alpha + B D^-beta by summed Huber (delta 1e-3) of log residuals.

    n: parameters of each run. d: data seen (tokens, impressions). loss: positive.
    unique: distinct data, in units of d; D is then the effective data, and R_D is fitted too.
    runs, groups, resamples: as in `fit_power`.
    Intervals are percentiles. In 200 simulated sweeps those of 90 % covered exponents, predictions
        and best sizes 87 to 96 % of the time with 36 to 120 runs; 95 to 98 % with 20.
    Raises BadInput where no such surface can be told from the points, saying why.
    """
    names = names_of(runs, n)
    y, n, d = checked(names, loss, n=n, d=d)
    (u,) = checked(names, loss, unique=unique)[1:] if unique is not None else (None,)
    free = 5 if u is None else 6
    refuse_few(len(y), free)
    refuse_constant(y)
    refuse_no_logarithm(names, y)
    _refuse_unidentified(n, d, u)
    y = np.log(y)
    points = _points(n, d, u)
    centre = (float(points.log_n.mean()), float(points.log_d.mean()))
    points, zero = points.centred(centre), y.min() - LOG_ZERO
    low, high = box(y, terms=2)
    if u is not None:
        low, high = np.append(low, np.log(DECAY[0])), np.append(high, np.log(DECAY[1]))

    def residuals(theta: Array) -> tuple[Array, Array]:
        log_l, jac = points.log_loss(theta)
        return log_l - y, jac

    grid = np.clip(_starts(points, np.exp(y)), low, high)
    theta, objective, ends = minimise(residuals, grid, len(y), low, high)
    levels = [(budgets(n), 3), (budgets(d), 3), (np.arange(len(y)), free)]
    counts, units, notes = resample_levels(levels, groups, free, resamples, seed)
    library = np.concatenate([grid, ends])
    bands = np.digitize(library[:, 2:4], np.log([0.2, 0.7])) @ [1, 3]
    draws = refit(residuals, library, bands, theta, counts, low, high)

    def named(t: Array) -> dict[str, Array]:
        alpha, beta = np.exp(t[..., 2]), np.exp(t[..., 3])
        found = {
            "E": unlog(t[..., 4], zero),
            "A": unlog(t[..., 0], zero) * np.exp(np.minimum(alpha * centre[0], 500.0)),
            "B": unlog(t[..., 1], zero) * np.exp(np.minimum(beta * centre[1], 500.0)),
            "alpha": alpha,
            "beta": beta,
            "a": beta / (alpha + beta),
            "b": alpha / (alpha + beta),
        }
        return found if u is None else found | {"R_D": np.exp(t[..., 5])}

    params, spans = estimates(named, theta, draws, confidence)
    law = SurfaceLaw(
        form="chinchilla",
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=objective,
        points=len(y),
        units=units,
        resamples=len(draws),
        runs=names,
        warnings=(),
        free=free,
        n=(float(n.min()), float(n.max())),
        d=(float(d.min()), float(d.max())),
        centre=centre,
        theta=theta,
        draws=draws,
        residuals=-residuals(theta[None])[0][0],
    )
    return replace(law, warnings=(*notes, *_notes(law, float(np.exp(y.min())))))


def _points(n: Array, d: Array, unique: Array | None) -> _Points:
    if unique is None:
        return _Points(np.log(n), np.log(d), None)
    seen = np.minimum(d, unique)
    return _Points(np.log(n), np.log(seen), d / seen - 1.0)


def _refuse_unidentified(n: Array, d: Array, unique: Array | None) -> None:
    """Raises BadInput where the runs lie so that no surface can be told, however many they are."""
    for name, scale in (("n", n), ("d", d)):
        found = int(budgets(scale).max()) + 1
        if found < 3:
            raise BadInput(
                f"the runs have {found} distinct values of {name}; its two parameters and E need 3"
            )
    x, z = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()
    slope = (x @ z) / (x @ x)
    if np.abs(z - slope * x).max() < SAME_BUDGET:
        what = "all runs have one compute budget n d" if slope < 0 else "the surface is one curve"
        raise BadInput(
            f"d is tied to n (d ~ n^{slope:.3g} in every run): {what}, so N and D cannot be told "
            "apart; add runs that vary one alone"
        )
    if unique is not None and np.all(d <= unique * (1 + SAME_BUDGET)):
        raise BadInput("no run sees its data twice (d <= unique): leave `unique` out")


def _starts(points: _Points, loss: Array) -> Array:
    """Given both exponents (and R_D) the loss is linear in A, B, E: the best of them on a grid."""
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
                found, _ = nnls(np.stack(columns, 1) / loss[:, None], np.ones(len(loss)))
                a, b, e = np.log(np.maximum(found, 1e-30))
                rows.append([a, b, np.log(alpha), np.log(beta), e, np.log(decay)])
    return np.array(rows)[:, : 5 if points.repeats is None else 6]


def _notes(law: SurfaceLaw, best: float) -> list[str]:
    """What the points cannot tell, in words."""
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
