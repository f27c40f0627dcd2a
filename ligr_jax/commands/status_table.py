"""The table of `ligr status` for a terminal of a given size."""

from collections import Counter
from collections.abc import Sequence

from ligr_jax.progress import clock
from ligr_jax.runs.sweep_state import PointState, SweepState

_HEAD = (
    "run",
    "state",
    "step",
    "MFU",
    "input wait",
    "left",
    "NE",
    "failures",
    "where, or what failed",
    "point",
)
_COLORS = {"running": 34, "stopped": 33, "failed": 31, "finished": 32}
# The last rows of a table that is too long for the terminal.
_INTERESTING = ("failed", "running", "stopped", "waiting", "finished")
_COLUMN_GAP = 2


def format_state(
    sweep: SweepState, width: int | None = None, height: int | None = None, color: bool = False
) -> str:
    """Return a table with a line per point, and lines with the totals.

    Args:
        sweep: State of the sweep.
        width: Largest number of characters of a line; None for any.
        height: Largest number of lines; None for any. Points that are running or failed are kept.
        color: Whether to color the states with escape sequences.
    """
    totals = _totals(sweep)
    points = list(sweep.points)
    hidden = 0
    if height is not None and len(points) > (room := max(1, height - 2 - len(totals))):
        first = sorted(points, key=lambda p: _INTERESTING.index(p.run.state))[:room]
        hidden = len(points) - room
        points = [p for p in points if p in first]
    common = _common(sweep.points)
    rows = [_HEAD, *(_cells(p, common) for p in points)]
    used = [i for i in range(len(_HEAD)) if any(row[i] for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in used]
    lines = []
    for k, row in enumerate(rows):
        text = (" " * _COLUMN_GAP).join(row[i].ljust(w) for i, w in zip(used, widths)).rstrip()
        if width is not None and len(text) > width:
            text = text[: width - 1] + "…"
        if color and k and (code := _COLORS.get(row[1])):
            text = text.replace(row[1], f"\x1b[{code}m{row[1]}\x1b[0m", 1)
        lines.append(text)
    if hidden:
        lines.append(f"... {hidden} other points")
    return "\n".join([*lines, *(line[:width] for line in totals)])


def _cells(point: PointState, common: set[str]) -> tuple[str, ...]:
    run = point.run
    steps = f"{run.step:,}/{run.steps:,}" if run.steps else f"{run.step:,}" if run.step else ""
    return (
        run.run,
        run.state,
        steps,
        "" if run.mfu is None else f"{run.mfu:.1%}",
        "" if run.input_wait is None else f"{run.input_wait:.1%}",
        "" if point.eta_s is None else clock(point.eta_s),
        "" if run.quality is None else f"{run.quality:.4f}",
        f"{run.failures}" if run.failures else "",
        run.words or run.host,
        " ".join(a for a in point.assignments if a not in common),
    )


def _common(points: Sequence[PointState]) -> set[str]:
    """Return the assignments that all points have, which distinguish none of them."""
    counts = Counter(a for p in points for a in set(p.assignments))
    return {a for a, n in counts.items() if n == len(points) > 1}


def _totals(sweep: SweepState) -> list[str]:
    counts = ", ".join(f"{n} {state}" for state, n in sweep.counts.items() if n)
    cost = f"{sweep.device_hours:.2f} device hours and {sweep.flops:.2e} FLOPs so far"
    lines = [f"{len(sweep.points)} points: {counts}; {cost}"]
    if not sweep.is_over and sweep.eta_s is not None:
        runners = f"{sweep.runners or 1} process{'es' if sweep.runners > 1 else ''}"
        started = "" if sweep.runners else " (none is running)"
        lines.append(f"about {clock(sweep.eta_s)} left with {runners}{started}")
    return lines
