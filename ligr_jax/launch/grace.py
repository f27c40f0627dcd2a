"""The time between the signal to stop and the kill, from the save times of finished runs.

A save takes time in proportion to the training state. The save of the largest finished run, scaled
to the largest job, or the longest save if that took longer, gives the time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ligr_jax.config import Config
from ligr_jax.runs.directory import summary_or_none

_DEFAULT_S = 120
_MARGIN = 2  # jobs that are stopped together save to one file system together
_OTHER_S = 60  # the step that runs, and the end of the process


@dataclass(frozen=True)
class Grace:
    """The time between the signal to stop and the kill.

    Attributes:
        seconds: the time in seconds.
        source: where it comes from.
    """

    seconds: int
    source: str


def choose_grace(
    requested_s: int, jobs: Sequence[Sequence[str]], configs: Mapping[str, Config], out: Path
) -> Grace:
    """Return the time in which every job can save.

    Args:
        requested_s: seconds that the user chose; 0 for none.
        jobs: the runs of each job; finished jobs need no time.
        configs: configurations of all points by run.
        out: directory of the runs.
    """
    if requested_s:
        return Grace(seconds=requested_s, source="--grace-s")
    summaries = {run: summary_or_none(out / run) for run in configs}
    measured = {run: s["save_seconds"] for run, s in summaries.items() if s and _has_saved(s)}
    if not measured:
        return Grace(seconds=_DEFAULT_S, source="default: no finished run has saved")
    sizes = {run: _state_size(config) for run, config in configs.items()}
    # A job of an earlier launch may have points of sweeps that are not launched again.
    unfinished = (
        [sizes[run] for run in job if run in sizes and summaries[run] is None] for job in jobs
    )
    largest = max(measured, key=lambda run: sizes[run])
    ratio = max(1.0, max(map(sum, unfinished)) / sizes[largest])
    longest = max(measured, key=lambda run: measured[run])
    factor, run = 1.0, longest
    if ratio * measured[largest] > measured[longest]:
        factor, run = ratio, largest
    scaled = f", times {factor:.1f} for the largest job" if factor > 1 else ""
    return Grace(
        seconds=math.ceil(_MARGIN * factor * measured[run] + _OTHER_S),
        source=f"{_MARGIN} x {factor * measured[run]:.1f} s + {_OTHER_S} s: run {run} saved in "
        f"{measured[run]:.1f} s{scaled}",
    )


def _has_saved(summary: Mapping[str, Any]) -> bool:
    """Return whether a run has recorded the time of a save; earlier releases did not."""
    seconds = summary.get("save_seconds")
    return isinstance(seconds, int | float) and seconds > 0


def _state_size(config: Config) -> float:
    """Return a number in proportion to the bytes of a training state, without tracing the model.

    Adam has two moments for each dense parameter, and a layer has about 12 D^2 parameters. The
    optimizer of the tables has a number or a row of them for each row, by its kind; they grow with
    the tables.
    """
    model = config.model
    tables = sum(shape.rows * shape.width for shape in model.tables.values())
    return tables + 3 * 12 * model.depth * model.width**2
