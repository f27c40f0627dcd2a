"""Test of extrapolation: fit a law without the largest runs, then predict them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import SAME_BUDGET, Array, budget_tolerance, budgets
from ligr_jax.scaling.fit.checks import checked, names_of
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
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fit without the runs of the k largest budgets and predict those runs.

    Args:
        fit: `fit_power`, `fit_saturating`, `fit_line` or `fit_surface`.
        compute: FLOPs of each run, (n,); for `fit_surface` the pair (n, d), whose compute is 6 n d.
        metric: metric of each run, (n,).
        k: number of budgets left out; runs that differ by at most 2 % in compute share one.
        unique: distinct data of each run, for `fit_surface`.
        runs: names of the runs.
        groups: as in `fit`.
        **options: further arguments of `fit`.

    Returns:
        One prediction per left-out run. The interval is for one further run at that compute: it
        includes the uncertainty of the law and the noise of a run.

    Raises:
        BadInput: k is not between 1 and the number of budgets - 1, or `fit` raises it.
    """
    scales = compute if isinstance(compute, tuple) else (compute,)
    names = names_of(runs, scales[0])
    named = dict(zip(("n", "d") if len(scales) == 2 else ("compute",), scales))
    if unique is not None:
        named["unique"] = unique
    y, *arrays = checked(names, metric, **named)
    values = dict(zip(named, arrays))
    c = values["compute"] if len(scales) == 1 else FLOPS_PER * values["n"] * values["d"]
    keep = _all_but(k, c)
    fitted = {name: v[keep] for name, v in values.items()}
    held_out = {name: v[~keep] for name, v in values.items()}
    if unique is not None:
        options["unique"] = fitted.pop("unique")
    law = fit(*fitted.values(), y[keep], **_labels(keep, names, groups), **options)
    predict: Callable[..., tuple[Array, Array, Array]] = law.predict
    value, low, high = predict(**held_out, run_noise=True)
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
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fit the iso-FLOP law without the k largest budgets and predict their best sizes.

    The observed value is the minimum of the left-out budget's parabola. The interval covers the
    uncertainty of the law and of that minimum. Budgets whose minimum is at the edge of the sizes
    are skipped.

    Args:
        budget: FLOPs of each run, (n,).
        size: size of each run, (n,).
        metric: metric of each run, lower is better, (n,).
        k: number of budgets left out.
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
    keep = _all_but(k, c, options["tolerance"])
    full = fit_isoflop(c, s, y, runs=names, groups=groups, **options)
    law = fit_isoflop(c[keep], s[keep], y[keep], **_labels(keep, names, groups), **options)
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


def _all_but(k: int, compute: Array, tolerance: float = SAME_BUDGET) -> NDArray[np.bool_]:
    """Return the mask of runs outside the k largest budgets."""
    index = budgets(compute, tolerance)
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
