"""Logging of metrics: `metrics.jsonl` is the source of truth, Weights & Biases mirrors it."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config
from ligr_jax.errors import file_errors
from ligr_jax.exit_status import FAILED
from ligr_jax.parallel.processes import is_first
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import line_of, rescue_rows
from ligr_jax.runs.wandb_env import wandb_options
from ligr_jax.store.interval import PublishedLines
from ligr_jax.store.lease import require_owned
from ligr_jax.strict_json import nan_to_null

if TYPE_CHECKING:
    from ligr_jax.runs.mirror import WandbMirror


class JsonLines:
    """DIRECTORY/metrics.jsonl with one row per line, flushed after each row.

    Attributes:
        kept: Rows of an earlier start that the file keeps.
    """

    def __init__(self, directory: Path, resume_step: int) -> None:
        """
        Args:
            directory: Directory of the run.
            resume_step: Step of the checkpoint from which the run continues. Rows of later steps
                are dropped, because the run writes them again.
        """
        path = RunFiles(directory).metrics
        self.kept = [r for r in rescue_rows(path) if r["step"] <= resume_step]
        write_atomically(path, "".join(line_of(r) for r in self.kept))
        self._path = path
        with file_errors("write", path):
            self._file = path.open("a", buffering=1, encoding="utf-8")
        self._published = PublishedLines(path)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row.

        Raises:
            FileError: The row cannot be written.
            LostLease: Another process has taken over the run.
        """
        require_owned(self._path)
        with file_errors("write", self._path):
            self._file.write(line_of(row))

    def publish(self) -> None:
        """Upload all rows if the run is in an object store; else they are on disk already."""
        self._published.publish()

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Do nothing: `summary.json` of the run directory has the summary."""

    def alert(self, title: str, text: str) -> None:
        """Do nothing: the log has the message."""

    def close(self, status: int) -> None:
        """Close the file.

        Raises:
            FileError: The last rows cannot be written.
        """
        with file_errors("write", self._path):  # rows that a full disk refused are written again
            self._file.close()
        self._published.close()


class Tracker:
    """Sends every row to metrics.jsonl and to W&B; only process 0 does so."""

    def __init__(self, directory: Path, config: Config, resume_step: int) -> None:
        """
        Args:
            directory: Directory of the run.
            config: Configuration of the run.
            resume_step: Step of the checkpoint from which the run continues; 0 at the start.
        """
        self._sinks: list[JsonLines | WandbMirror] = []
        self._kept: list[dict[str, Any]] = []
        self._failed = False
        self._lines: JsonLines | None = None
        if not is_first():
            return
        lines = self._lines = JsonLines(directory, resume_step)
        self._kept = lines.kept
        self._sinks.append(lines)
        options = wandb_options(config.track)
        if options.mode != "off":
            from ligr_jax.runs import mirror  # wandb takes a second to import

            self._sinks.append(mirror.WandbMirror(directory, config, options, len(lines.kept)))

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row.

        Args:
            row: Metrics by name, without nesting, and `step`.
        """
        for sink in self._sinks:
            sink.log(nan_to_null(row))

    def log_once(self, row: Mapping[str, Any]) -> None:
        """Log a row unless an earlier start of this run has logged it before it was killed.

        Args:
            row: As for `log`. An earlier row with the same step and metrics counts as this row.
        """
        step, names = row["step"], row.keys()
        if not any(r["step"] == step and r.keys() == names for r in self._kept):
            self.log(row)

    def publish(self) -> None:
        """Upload all rows of metrics.jsonl if the run is in an object store."""
        if self._lines is not None:
            self._lines.publish()

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Send the final numbers of a finished run.

        Args:
            summary: Numbers by name, without nesting.
        """
        for sink in self._sinks:
            sink.summarize(nan_to_null(summary))

    def alert(self, title: str, text: str) -> None:
        """Send a message to the users of the W&B project.

        Args:
            title: What happened, in a few words.
            text: Details and remedy.
        """
        for sink in self._sinks:
            sink.alert(title, text)

    def fail(self, error: str, status: str = "failed") -> None:
        """Send why the run fails, once; it has no other summary.

        Args:
            error: Message of the error.
            status: Status of the run: failed or diverged.
        """
        if not self._failed:
            self._failed = True
            self.summarize({"status": status, "error": error})
            self.alert(f"Run {status}", error)

    def close(self, status: int = 0) -> None:
        """Close the file and finish the W&B run.

        Args:
            status: Exit status of the run.
        """
        for sink in self._sinks:
            sink.close(FAILED if self._failed else status)


@contextlib.contextmanager
def tracking(directory: Path, config: Config, resume_step: int) -> Iterator[Tracker]:
    """Yield a `Tracker` and close it at the end of the block, also after an error.

    Args:
        directory: Directory of the run.
        config: Configuration of the run.
        resume_step: Step of the checkpoint from which the run continues; 0 at the start.
    """
    tracker = Tracker(directory, config, resume_step)
    status = 1
    try:
        yield tracker
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
        raise
    except Exception as e:
        tracker.fail(str(e) or type(e).__name__)
        raise
    finally:
        tracker.close(status)
