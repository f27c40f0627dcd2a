"""Where numbers go: `metrics.jsonl`, the source of truth, and Weights & Biases, its mirror."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config
from ligr_jax.errors import file_errors
from ligr_jax.parallel.processes import is_first
from ligr_jax.strict_json import nan_to_null
from ligr_jax.train.rows import METRICS, line_of, rescue_rows
from ligr_jax.train.wandb_env import wandb_options

if TYPE_CHECKING:
    from ligr_jax.train.mirror import WandbMirror


class JsonLines:
    """DIRECTORY/metrics.jsonl, a row a line, flushed at once.

    resume_step: rows of later steps are dropped: a run that goes on from a checkpoint writes them
        again. `kept` holds the others.
    """

    def __init__(self, directory: Path, resume_step: int) -> None:
        path = directory / METRICS
        self.kept = [r for r in rescue_rows(path) if r["step"] <= resume_step]
        write_atomically(path, "".join(line_of(r) for r in self.kept))
        self._path = path
        with file_errors("write", path):
            self._file = path.open("a", buffering=1, encoding="utf-8")

    def log(self, row: Mapping[str, Any]) -> None:
        with file_errors("write", self._path):
            self._file.write(line_of(row))

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """The run directory has its own summary.json."""

    def close(self, status: int) -> None:
        with file_errors("write", self._path):  # what a full disk did not take is written again
            self._file.close()


class Tracker:
    """Every row to every sink; of several processes, only the first has any."""

    def __init__(self, directory: Path, config: Config, resume_step: int) -> None:
        self._sinks: list[JsonLines | WandbMirror] = []
        self._kept: list[dict[str, Any]] = []
        if not is_first():
            return
        lines = JsonLines(directory, resume_step)
        self._kept = lines.kept
        self._sinks.append(lines)
        options = wandb_options(config.track)
        if options.mode != "off":
            from ligr_jax.train import mirror  # wandb takes a second to import

            self._sinks.append(mirror.WandbMirror(directory, config, options, len(lines.kept)))

    def log(self, row: Mapping[str, Any]) -> None:
        """row: flat, with `step`."""
        for sink in self._sinks:
            sink.log(nan_to_null(row))

    def log_once(self, row: Mapping[str, Any]) -> None:
        """Log a row, unless this run was killed after it had logged the row of the same metrics."""
        same = (r for r in self._kept if r["step"] == row["step"] and r.keys() == row.keys())
        if next(same, None) is None:
            self.log(row)

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """summary: the flat final numbers of a finished run."""
        for sink in self._sinks:
            sink.summarize(nan_to_null(summary))

    def close(self, status: int = 0) -> None:
        """status: the exit status the run ends with."""
        for sink in self._sinks:
            sink.close(status)


@contextlib.contextmanager
def tracking(directory: Path, config: Config, resume_step: int) -> Iterator[Tracker]:
    """A tracker that is closed however the run ends."""
    tracker = Tracker(directory, config, resume_step)
    status = 1
    try:
        yield tracker
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
        raise
    finally:
        tracker.close(status)
