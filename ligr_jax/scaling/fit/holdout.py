"""The test of an extrapolation: fit without the largest runs, then predict them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import Array, budgets
from ligr_jax.scaling.fit.isoflop import fit_isoflop
from ligr_jax.scaling.fit.law import Law, checked, names_of
from ligr_jax.scaling.fit.surface import SurfaceLaw

FLOPS_PER = 6.0  # training FLOPs per parameter and datum: what C = 6 N D counts


@dataclass(frozen=True)
class LeftOut:
    """One run the law never saw: what it predicted there, and what happened."""

    run: str
    compute: float
    observed: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """predicted - observed, in metric units."""
        return self.predicted - self.observed

    @property
    def covered(self) -> bool:
        """Whether the interval for a further run holds the observed value."""
        return self.low <= self.observed <= self.high


def leave_out_largest(
    fit: Callable[..., Law | SurfaceLaw],
    compute: ArrayLike | tuple[ArrayLike, ...],
    metric: ArrayLike,
    k: int = 1,
    *,
    unique: ArrayLike | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fits without the k largest budgets (runs within 2 % of compute are one) and predicts them.

    fit: `fit_power`, `fit_saturating`, `fit_line` or `fit_surface`, called with `options`.
    compute: FLOPs of each run; for `fit_surface` the pair (n, d), whose compute is 6 n d.
    Raises BadInput as it does, and where no budget would be left.
    """
    scales = compute if isinstance(compute, tuple) else (compute,)
    names = names_of(runs, scales[0])
    named = dict(zip(("n", "d") if len(scales) == 2 else ("compute",), scales))
    if unique is not None:
        named["unique"] = unique
    y, *found = checked(names, metric, **named)
    values = dict(zip(named, found))
    c = values["compute"] if len(scales) == 1 else FLOPS_PER * values["n"] * values["d"]
    keep = _all_but(k, c)
    kept, left = ({name: v[some] for name, v in values.items()} for some in (keep, ~keep))
    if unique is not None:
        options["unique"] = kept.pop("unique")
    law = fit(*kept.values(), y[keep], **_of_kept(keep, names, groups), **options)
    predict: Callable[..., tuple[Array, Array, Array]] = law.predict
    rows = zip(c[~keep], y[~keep], *predict(**left, run_noise=True))
    unseen = [n for n, kept in zip(names, keep) if not kept]
    return [LeftOut(n, *(float(v) for v in row)) for n, row in zip(unseen, rows)]


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
    """`leave_out_largest` for `fit_isoflop`: the best sizes of the k largest budgets, predicted.

    Observed is the minimum of a budget's own parabola; the interval holds its uncertainty too.
    A left-out budget whose minimum is at the edge has none to compare and is passed over.
    """
    names = names_of(runs, budget)
    y, c, s = checked(names, metric, budget=budget, size=size)
    keep = _all_but(k, c)
    whole = fit_isoflop(c, s, y, runs=names, groups=groups, **options)
    law = fit_isoflop(c[keep], s[keep], y[keep], **_of_kept(keep, names, groups), **options)
    rows = []
    for each in whole.budgets[-k:]:
        if each.at_edge:
            continue
        size_, low, high = law.predict(each.compute)
        # Both uncertainties are of a log, and independent: their widths add in squares.
        down = np.hypot(np.log(size_ / low), np.log(each.high / each.optimum))
        up = np.hypot(np.log(high / size_), np.log(each.optimum / each.low))
        span = size_ * np.exp(-down), size_ * np.exp(up)
        values = (each.compute, each.optimum, size_, *span)
        rows.append(LeftOut(f"{each.compute:.4g} FLOPs", *(float(v) for v in values)))
    return rows


def _all_but(k: int, compute: Array) -> NDArray[np.bool_]:
    of = budgets(compute)
    if not 0 < k <= of.max():
        raise BadInput(f"leaving {k} of {of.max() + 1} budgets out: give 1 to {of.max()}")
    return of <= of.max() - k


def _of_kept(
    keep: NDArray[np.bool_], names: Sequence[str], groups: Sequence[Any] | None
) -> dict[str, Any]:
    labels = None if groups is None else [g for g, kept in zip(groups, keep) if kept]
    return {"runs": [n for n, kept in zip(names, keep) if kept], "groups": labels}
