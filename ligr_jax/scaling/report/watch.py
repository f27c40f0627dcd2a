"""`ligr report --watch`: the report of sweeps that are being trained, on any host."""

import logging
import time
from pathlib import Path
from typing import Any

from ligr_jax.data.schema import BadInput
from ligr_jax.lock import Busy
from ligr_jax.runs.sweep_state import SweepState, read_sweep_state
from ligr_jax.scaling.report import write_report
from ligr_jax.store.mirror import local_path

_log = logging.getLogger(__name__)

_REST = 3  # the pause after a drawing, as a multiple of the time that the drawing took


def watch_report(
    *paths: str | Path, out: str | Path | None = None, resamples: int = 1000, every_s: float = 10
) -> dict[str, Any]:
    """Write the report again whenever a run has finished, until nothing is left to train.

    The page reloads itself until then. Drawing takes at most a quarter of the time, because the
    machine may be training.

    Args:
        *paths: directories of sweeps; they may be absent until the sweeps begin.
        out: as for `write_report`.
        resamples: as for `write_report`.
        every_s: shortest time (seconds) between two reports, and between reloads of the page.

    Returns:
        The result of the last `write_report`.

    Raises:
        BadInput: a path is a table of runs, or no run has finished at the end.
    """
    for path in map(local_path, paths):
        if path.is_file():
            raise BadInput(f"--watch {path}: give directories of sweeps, a table does not change")
    drawn: list[str] = []
    pause_s = every_s
    while True:
        states = [_state(Path(path)) for path in paths]
        if all(state is not None and state.is_over for state in states):
            return write_report(*paths, out=out, resamples=resamples)
        points = [point.run for state in states if state for point in state.points]
        finished = [run.run for run in points if run.state == "finished"]
        if finished and finished != drawn:
            began = time.monotonic()
            try:
                numbers = write_report(*paths, out=out, resamples=resamples, reload_s=every_s)
            except Busy as e:
                _log.info(str(e))
            else:
                drawn = finished
                _log.info(f"{len(finished)} of {len(points)} points finished: {numbers['page']}")
            pause_s = max(every_s, _REST * (time.monotonic() - began))
        time.sleep(pause_s)


def _state(path: Path) -> SweepState | None:
    """Return the state of a sweep; None if it has not begun."""
    try:
        return read_sweep_state(path)
    except BadInput:
        return None
