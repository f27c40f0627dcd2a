"""Checks of the arguments that all fits have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import SAME_BUDGET, Array, scale_levels

MOST_RUNS = 20_000  # above, the resamples take gigabytes


def names_of(runs: Sequence[str], values: ArrayLike) -> tuple[str, ...]:
    """Return the names of the runs; "#0", "#1", ... (one per value) if none are given."""
    return tuple(runs) or tuple(f"#{i}" for i in range(np.size(values)))


def families_of(
    family: Sequence[Any] | None, runs: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the families in order of appearance, and the number of each run's family, (runs,).

    Without labels all runs are of one family without a name.

    Raises:
        BadInput: there is not one label per run.
    """
    labels = [""] * runs if family is None else [str(f) for f in family]
    if len(labels) != runs:
        raise BadInput(f"{len(labels)} families for {runs} runs: give one family label per run")
    families = tuple(dict.fromkeys(labels))
    return families, np.array([families.index(label) for label in labels])


def index_of_family(families: tuple[str, ...], family: str) -> int:
    """Return the number of a family; "" is the only one of a law without families.

    Raises:
        BadInput: no family has this label.
    """
    if family not in families:
        raise BadInput(f"family {family!r}: the law has the families {', '.join(families)}")
    return families.index(family)


def checked(names: tuple[str, ...], metric: ArrayLike, **scales: ArrayLike) -> list[Array]:
    """Convert the metric and the scales to float64 and check them.

    Args:
        names: names of the runs.
        metric: one value per run.
        **scales: named scales (compute, n, d, ...), one value per run.

    Returns:
        The metric, then the scales in the order given, each of shape (n,).

    Raises:
        BadInput: a shape is wrong, a metric is not finite, or a scale is not positive. The message
            names the run.
    """
    if len(names) > MOST_RUNS:
        raise BadInput(
            f"{len(names):,} rows: a fit takes at most {MOST_RUNS:,} runs; give one row of each "
            "run (e.g. --mark last), or some of them (--where)"
        )
    y = np.asarray(metric, np.float64)
    arrays = {name: np.asarray(values, np.float64) for name, values in scales.items()}
    if y.ndim != 1 or any(v.shape != (len(names),) for v in (y, *arrays.values())):
        shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
        raise BadInput(
            f"{shapes}, metric {y.shape}, {len(names)} runs: give one value of each per run"
        )
    for i, name in enumerate(names):
        for scale, values in arrays.items():
            if not np.isfinite(values[i]) or values[i] <= 0:
                unit = " number of FLOPs" if scale == "compute" else " number"
                raise BadInput(f"run {name}: {scale} {values[i]:g} is not a positive{unit}")
        if not np.isfinite(y[i]):
            raise BadInput(f"run {name}: metric is {y[i]:g}; leave diverged runs out")
    return [y, *arrays.values()]


def refuse_few(runs: int, needed: int) -> None:
    """Raise BadInput if there are fewer runs than parameters."""
    if runs < needed:
        count = f"{runs} run{'s' * (runs != 1)}"
        raise BadInput(f"{count} cannot determine {needed} parameters; add runs")


def refuse_constant(y: Array) -> None:
    """Raise BadInput if the metric is equal in all runs."""
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise BadInput(f"the metric is {y[0]:g} in every run: nothing to fit")


def refuse_one_budget(c: Array, needed: int) -> None:
    """Raise BadInput if there are fewer distinct budgets than parameters."""
    count = int(scale_levels(c).max()) + 1
    if count == 1:
        raise BadInput(
            f"all {len(c)} runs have one compute budget ({c[0]:g}): a law needs several budgets"
        )
    if count < needed:
        raise BadInput(f"{count} budgets cannot determine {needed} parameters; add budgets")


def refuse_no_logarithm(names: tuple[str, ...], y: Array) -> None:
    """Raise BadInput if a metric is not positive."""
    if np.any(y <= 0):
        raise BadInput(
            f"run {names[int(np.argmin(y))]}: metric {y.min():g} <= 0 has no logarithm; "
            "leave the run out, or fit a line"
        )


def refuse_unidentified(n: Array, d: Array, unique: Array | None) -> None:
    """Raise BadInput if the values of n, d and unique do not determine the surface."""
    for name, scale in (("n", n), ("d", d)):
        distinct = int(scale_levels(scale).max()) + 1
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
