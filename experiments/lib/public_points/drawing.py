"""What the figures of the published points have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ligr_jax.scaling.report.style import STYLE

LIGHT, DARK = "#a6cee3", "#08306b"  # ends of the scale of sizes


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Provide a figure in the style of the report; sizes are in inches."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height))


def legend(drawing: Figure | SubFigure, axes: Axes, columns: int = 2) -> None:
    """Draw the legend of one panel above the figure."""
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def shades(count: int) -> list[Any]:
    """Return a colour per size, darker for larger sizes."""
    scale = mpl.colors.LinearSegmentedColormap.from_list("sizes", [LIGHT, DARK])
    return [scale(share) for share in np.linspace(0, 1, count)]


def band(axes: Axes, x: Any, estimate: Any, color: Any, **options: Any) -> None:
    """Draw a law as (value, low, high) over x."""
    value, low, high = estimate
    axes.plot(x, value, color=color, lw=1.4, **options)
    if np.isfinite(low).all():
        axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
