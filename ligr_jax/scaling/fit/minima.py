"""The best size of one compute budget: three ways to find the minimum of metric against log size.

parabola  least squares over all sizes of the budget; precise where the curve is a parabola
window    a parabola with tricube weights within a window around the best size tried, for wide or
          asymmetric grids (Cleveland 1979, local regression)
akima     Akima's interpolation through the points (Porian et al. 2024); it follows noise
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from ligr_jax.scaling.fit.bootstrap import Array

STEP = 1e-9  # smallest difference of two sizes, in decades
NEAREST = 6  # without a given width, a window reaches to the sixth size from the best one


@dataclass(frozen=True)
class Cells:
    """Runs of one budget, averaged per cell (a single run, or a group of seeds)."""

    z: Array  # mean log10 size of each cell
    weight: Array  # number of runs of each cell, or the sum of their weights
    metric: Array  # mean metric of each cell

    def solve(self, metric: Array) -> tuple[Array, Array]:
        """Fit parabolas to metrics (..., cells).

        Returns:
            Coefficients (..., 3) of 1, t, t^2 with t = z - mean z, and the leverage of each cell.
        """
        root = np.sqrt(self.weight)
        t = self.z - self.z.mean()
        design = np.stack([np.ones_like(t), t, t * t], 1) * root[:, None]
        q, r = np.linalg.qr(design)
        return np.linalg.solve(r, ((metric * root) @ q)[..., None])[..., 0], (q * q).sum(1)

    def value(self, c: Array) -> Array:
        """Return the parabolas with coefficients c (..., 3) at the cells, (..., cells)."""
        t = self.z - self.z.mean()
        result: Array = c[..., :1] + c[..., 1:2] * t + c[..., 2:] * t * t
        return result

    def vertex(self, c: Array) -> Array:
        """Return log10 of the best size; NaN if it is not within the sizes tried."""
        convex = c[..., 2] > 0
        minimum = -0.5 * c[..., 1] / np.where(convex, c[..., 2], 1.0)
        t = self.z - self.z.mean()
        inside = convex & (minimum > t.min()) & (minimum < t.max())
        return np.where(inside, minimum + self.z.mean(), np.nan)


def cells_of(size: Array, metric: Array, labels: Array, share: Array) -> Cells:
    """Average the runs of one budget per label (seeds of one size), with weights `share`."""
    index = np.unique(labels, return_inverse=True)[1]
    weight = np.bincount(index, share).astype(np.float64)
    return Cells(
        z=np.bincount(index, share * np.log10(size)) / weight,
        weight=weight,
        metric=np.bincount(index, share * metric) / weight,
    )


def distinct_sizes(z: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the distinct values of log10 size, and the index of each cell's; 1e-9 is no step."""
    order = np.argsort(z, kind="stable")
    index = np.empty(len(z), np.int64)
    index[order] = np.concatenate([[0], np.cumsum(np.diff(z[order]) > STEP)])
    return z[order][np.searchsorted(index[order], np.arange(index.max() + 1))], index


def parabola(cells: Cells, metric: Array, width: float | None) -> Array:
    """Return log10 of the best size for metrics (..., cells), by a parabola over all sizes."""
    return cells.vertex(cells.solve(metric)[0])


def window(cells: Cells, metric: Array, width: float | None) -> Array:
    """Return log10 of the best size by a weighted parabola around the best size tried.

    Args:
        cells: the cells.
        metric: (..., cells).
        width: half-width of the window in decades of size; None: to the sixth nearest size.
    """
    return cells.vertex(local_parabola(cells, metric, width)[0])


def akima(cells: Cells, metric: Array, width: float | None) -> Array:
    """Return log10 of the best size by Akima's interpolation; NaN at the ends of the sizes."""
    z, index = distinct_sizes(cells.z)
    mean = np.zeros((len(cells.z), len(z)))  # cells of one size are averaged
    mean[np.arange(len(index)), index] = cells.weight
    flat = metric.reshape(-1, len(index)) @ (mean / mean.sum(0))
    # On each interval the curve is a cubic, which has at most one minimum: c1 + 3 c0 t = root.
    c0, c1, c2, c3 = np.moveaxis(Akima1DInterpolator(z, flat.T).c, 2, 1)  # (curves, intervals)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(c1 * c1 - 3.0 * c0 * c2)
        t = np.where(c1 > 0, -c2 / (c1 + root), (root - c1) / (3.0 * c0))
        valid = (t >= 0) & (t <= np.diff(z)) & (root > 0)
        value = np.where(valid, ((c0 * t + c1) * t + c2) * t + c3, np.inf)
    rows = np.arange(len(flat))
    k = np.argmin(value, axis=1)
    best = z[k] + t[rows, k]
    least = value[rows, k]
    inside = (least < flat[:, [0, -1]].min(axis=1)) & (best > z[0]) & (best < z[-1])
    return np.where(inside, best, np.nan).reshape(metric.shape[:-1])


MINIMA: dict[str, Callable[[Cells, Array, float | None], Array]] = {
    "parabola": parabola,
    "window": window,
    "akima": akima,
}


def local_parabola(cells: Cells, metric: Array, width: float | None) -> tuple[Array, Array]:
    """Fit parabolas with tricube weights around the best cell of each metric (..., cells).

    Returns:
        Coefficients (..., 3) as of `Cells.solve`, and the leverage of each cell (..., cells), which
        is 0 outside the window.
    """
    t = cells.z - cells.z.mean()
    far = np.abs(t[:, None] - t)  # row: the best cell
    sizes = distinct_sizes(t)[0]
    reach = np.sort(np.abs(t[:, None] - sizes), axis=1)
    if width is None:
        half = reach[:, NEAREST - 1] if len(sizes) >= NEAREST else 1.2 * reach[:, -1]
    else:  # at least four sizes have weight, so that the parabola is determined
        half = np.maximum(width, 1.2 * reach[:, min(3, len(sizes) - 1)])
    tricube = np.clip(1.0 - (far / half[:, None]) ** 3, 0.0, None) ** 3
    w = (tricube * cells.weight)[np.argmin(metric, axis=-1)]
    design = np.stack([np.ones_like(t), t, t * t], 1)
    gram = np.einsum("...c,cp,cq->...pq", w, design, design)
    inverse = np.linalg.inv(gram)
    c = np.einsum("...pq,...c,cq->...p", inverse, w * metric, design)
    return c, w * np.einsum("cp,...pq,cq->...c", design, inverse, design)
