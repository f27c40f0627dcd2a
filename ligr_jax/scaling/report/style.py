"""Style of figures: the colours of Okabe and Ito, with a different mark and line per series.

Figures are small (5.4 in wide, 11 point), so that they are legible on a phone. The global state of
pyplot is not changed.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ligr_jax.atomic import atomic_path

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
INK, GREY = "#000000", "#7f7f7f"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STROKES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 2)))
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a user's name may have dollar signs
    "svg.hashsalt": "ligr_jax",
}
DOTS = "dots-"  # prefix of the SVG id of a series of runs, before the numbers of the runs
Array = NDArray[np.float64]


class Look(NamedTuple):
    """Colour, marker and line style of a series."""

    color: str
    mark: str
    stroke: Any


def look(i: int) -> Look:
    """Return the style of series i; the first 280 series have different styles."""
    return Look(
        color=COLORS[i % len(COLORS)],
        mark=MARKS[i % len(MARKS)],
        stroke=STROKES[i % len(STROKES)],
    )


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style within the context."""
    with mpl.rc_context(STYLE):
        yield


def dots(main: Axes, x: Array, y: Array, runs: Sequence[int], **options: Any) -> None:
    """Draw runs as points; the SVG id of the series has the run numbers, which `svg` reads."""
    (line,) = main.plot(x, y, ls="none", mec="none", **({"ms": 5.5, "alpha": 0.9} | options))
    line.set_gid(DOTS + ".".join(map(str, runs)))


def compute_axis(main: Axes, compute: Array, label: str) -> None:
    """Make the horizontal axis logarithmic: at most six labelled decades, or the two ends.

    Minor ticks are drawn only with few decades.
    """
    main.set_xscale("log")
    low = np.log10(compute.min())
    high = np.log10(compute.max())
    pad = 0.04 * max(high - low, 0.5)
    main.set_xlim(10 ** (low - pad), 10 ** (high + pad))
    decades = np.arange(np.ceil(low - pad), np.floor(high + pad) + 1)
    if len(decades) >= 2:
        ticks = 10.0 ** decades[:: int(np.ceil(len(decades) / 6))]
    else:
        ticks = np.geomspace(compute.min(), compute.max(), 2 if high > low else 1)
    main.xaxis.set_major_locator(FixedLocator(list(ticks)))
    main.xaxis.set_major_formatter(FuncFormatter(_tick))
    few = 2 <= len(decades) <= 4
    minor = [m * 10.0**d for d in (decades[0] - 1, *decades) for m in range(2, 10)] if few else []
    main.xaxis.set_minor_locator(FixedLocator(minor) if minor else NullLocator())
    main.set_xlabel(label)


def _tick(value: float, _: int | None) -> str:
    return power_of_ten(value)


def value_axis(main: Axes, label: str) -> None:
    """Label the vertical axis, with at most five intervals."""
    main.set_ylabel(label)
    main.yaxis.set_major_locator(MaxNLocator(5))


def power_of_ten(value: float) -> str:
    """Return 1e12 as 10¹², 2.5e12 as 2.5×10¹², 25 as 25."""
    if 0.1 <= value < 1e4:
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    power = int(np.floor(np.log10(value) + 1e-9))
    lead = value / 10.0**power
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"10{raised}" if abs(lead - 1) < 1e-6 else f"{lead:.1f}×10{raised}"


def write_caption(figure: Figure, caption: str) -> None:
    """Enlarge the figure and write the caption below it, so that the file is self-explanatory."""
    lines = textwrap.wrap(caption, 92)
    figure.set_figheight(figure.get_figheight() + 0.15 * len(lines) + 0.1)
    with styled():
        figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=7.5)


def save(figure: Figure, path: Path) -> None:
    """Write PNG (200 dpi) or SVG, by the suffix of the path, on white. The write is atomic."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with styled(), atomic_path(path) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=200, facecolor="white", metadata=metadata)
