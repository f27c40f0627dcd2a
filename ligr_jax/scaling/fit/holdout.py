"""Test of extrapolation: fit a law without the largest runs, then predict them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import budget_tolerance, budgets, scale_levels
from ligr_jax.scaling.fit.checks import checked, families_of, names_of
from ligr_jax.scaling.fit.isoflop import fit_isoflop

FLOPS_PER = 6.0  # training FLOPs per parameter and datum, as in C = 6 N D


@dataclass(frozen=True)
class LeftOut:
    """Prediction and outcome of one run that was not used in the fit.

    Attributes:
        run: name of the run.
        compute: FLOPs of the run.
        observed: metric of the run; NaN until it has finished.
        predicted: prediction of the law.
        low: lower end of the prediction interval for one further run.
        high: upper end.
    """

    run: str
    compute: float
    observed: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Return predicted - observed, in metric units."""
        return self.predicted - self.observed

    @property
    def covered(self) -> bool:
        """Return whether the prediction interval contains the observed value."""
        return self.low <= self.observed <= self.high


def leave_out_largest(
    fit: Callable[..., Any],
    compute: ArrayLike | tuple[ArrayLike, ...],
    metric: ArrayLike,
    k: int = 1,
    *,
    unique: ArrayLike | None = None,
    family: Sequence[Any] | None = None,
    weights: ArrayLike | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fit without the runs of the k largest budgets and predict those runs.

    Args:
        fit: `fit_power`, `fit_saturating`, `fit_line`, `fit_loglog`, `fit_surface`, or a function
            with these arguments.
        compute: FLOPs of each run, (n,); for `fit_surface` the pair (n, d), whose compute is 6 n d.
        metric: metric of each run, (n,).
        k: number of budgets left out; runs that differ by at most 2 % in compute share one.
        unique: distinct data of each run, for `fit_surface`.
        family: label of each run's family, if `fit` takes families. The largest budgets are those
            of all families together.
        weights: weight of each run, if `fit` takes weights.
        runs: names of the runs.
        groups: as in `fit`.
        **options: further arguments of `fit`.

    Returns:
        One prediction per left-out run. The interval is for one further run at that compute: it
        includes the uncertainty of the law and the noise of a run.

    Raises:
        BadInput: k is not between 1 and the number of budgets - 1, a left-out run is the only one
            of its family, or `fit` raises it.
    """
    scales = compute if isinstance(compute, tuple) else (compute,)
    names = names_of(runs, scales[0])
    columns = dict(zip(("n", "d") if len(scales) == 2 else ("compute",), scales))
    if unique is not None:
        columns["unique"] = unique
    y, *arrays = checked(names, metric, **columns)
    values = dict(zip(columns, arrays))
    c = values["compute"] if len(scales) == 1 else FLOPS_PER * values["n"] * values["d"]
    keep = _all_but(k, scale_levels(c))
    fitted = {name: v[keep] for name, v in values.items()}
    held_out = {name: v[~keep] for name, v in values.items()}
    if unique is not None:
        options["unique"] = fitted.pop("unique")
    if weights is not None:
        options["weights"] = np.asarray(weights, np.float64)[keep]
    families, member = families_of(family, len(y))
    if family is not None:
        options["family"] = [families[i] for i in member[keep]]
        alone = set(member[~keep]) - set(member[keep])
        if alone:
            label = families[min(alone)]
            raise BadInput(
                f"family {label!r} has no run below the {k} largest budgets: leave out fewer"
            )
    law = fit(*fitted.values(), y[keep], **_labels(keep, names, groups), **options)
    value, low, high = np.empty((3, int((~keep).sum())))
    for i in np.unique(member[~keep]):
        rows = member[~keep] == i
        named: dict[str, Any] = {name: v[rows] for name, v in held_out.items()}
        if family is not None:
            named["family"] = families[i]
        value[rows], low[rows], high[rows] = law.predict(**named, run_noise=True)
    return [
        LeftOut(
            run=names[i],
            compute=float(c[i]),
            observed=float(y[i]),
            predicted=float(value[j]),
            low=float(low[j]),
            high=float(high[j]),
        )
        for j, i in enumerate(np.flatnonzero(~keep))
    ]


def leave_out_budgets(
    budget: ArrayLike,
    size: ArrayLike,
    metric: ArrayLike,
    k: int = 1,
    *,
    weights: ArrayLike | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fit the iso-FLOP law without the k largest budgets and predict their best sizes.

    The observed value is the minimum of the left-out budget's parabola (the maximum, if higher is
    better). The interval covers the uncertainty of the law and of that minimum. Budgets whose
    minimum is at the edge of the sizes are skipped.

    Args:
        budget: FLOPs of each run, (n,).
        size: size of each run, (n,).
        metric: metric of each run, (n,).
        k: number of budgets left out.
        weights: weight of each run, (n,); None: equal.
        runs: names of the runs.
        groups: as in `fit_isoflop`.
        **options: further arguments of `fit_isoflop`.

    Returns:
        One prediction per left-out budget with an inner minimum; values are sizes.

    Raises:
        BadInput: k is not between 1 and the number of budgets - 1, or `fit_isoflop` raises it.
    """
    names = names_of(runs, budget)
    y, c, s = checked(names, metric, budget=budget, size=size)
    if options.get("tolerance") is None:
        options["tolerance"] = budget_tolerance(c)
    keep = _all_but(k, budgets(c, options["tolerance"]))
    share = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    full = fit_isoflop(c, s, y, weights=share, runs=names, groups=groups, **options)
    law = fit_isoflop(
        c[keep], s[keep], y[keep], weights=share[keep], **_labels(keep, names, groups), **options
    )
    rows = []
    for left_out in full.budgets[-k:]:
        if left_out.at_edge:
            continue
        predicted, low, high = law.predict(left_out.compute)
        # Both uncertainties are of log size and independent, so their widths add in squares.
        down = np.hypot(np.log(predicted / low), np.log(left_out.high / left_out.optimum))
        up = np.hypot(np.log(high / predicted), np.log(left_out.optimum / left_out.low))
        rows.append(
            LeftOut(
                run=f"{left_out.compute:.4g} FLOPs",
                compute=left_out.compute,
                observed=left_out.optimum,
                predicted=float(predicted),
                low=float(predicted * np.exp(-down)),
                high=float(predicted * np.exp(up)),
            )
        )
    return rows


def _all_but(k: int, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask of runs outside the k largest budgets, from the budget of each run."""
    if not 0 < k <= index.max():
        raise BadInput(
            f"cannot leave out {k} of {index.max() + 1} budgets: give 1 to {index.max()}"
        )
    result: NDArray[np.bool_] = index <= index.max() - k
    return result


def _labels(
    keep: NDArray[np.bool_], names: Sequence[str], groups: Sequence[Any] | None
) -> dict[str, Any]:
    """Return the arguments `runs` and `groups` of a fit of the kept runs."""
    labels = None if groups is None else [g for g, kept in zip(groups, keep) if kept]
    return {"runs": [n for n, kept in zip(names, keep) if kept], "groups": labels}
