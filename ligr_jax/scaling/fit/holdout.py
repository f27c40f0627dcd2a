"""The test of an extrapolation: fit without the largest runs, then predict them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.scaling.fit.bootstrap import budgets
from ligr_jax.scaling.fit.law import Law, names_of


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
    fit: Callable[..., Law],
    compute: ArrayLike,
    metric: ArrayLike,
    k: int = 1,
    *,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fits without the k largest budgets (runs within 2 % of compute are one) and predicts them.

    fit: `fit_power` or `fit_line`, called with `options`. Raises BadInput as it does.
    """
    names, c, y = names_of(runs, compute), np.asarray(compute, float), np.asarray(metric, float)
    of = budgets(c)
    keep = of <= of.max() - k
    labels = None if groups is None else [g for g, kept in zip(groups, keep) if kept]
    kept_names = [n for n, kept in zip(names, keep) if kept]
    law = fit(c[keep], y[keep], runs=kept_names, groups=labels, **options)
    value, low, high = law.predict(c[~keep], run_noise=True)
    left = [n for n, kept in zip(names, keep) if not kept]
    rows = zip(left, c[~keep], y[~keep], value, low, high)
    return [LeftOut(n, *(float(v) for v in row)) for n, *row in rows]
