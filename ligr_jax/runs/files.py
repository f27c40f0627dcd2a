"""Files of a run directory. Every name is defined here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from ligr_jax.contents import RUN_CONFIG, SWEEP_POINTS
from ligr_jax.lock import LOCK

CONFIG = RUN_CONFIG
DATA = "data.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
ERROR = "error.txt"
FAILURES = "failures.txt"
CHECKPOINTS = "checkpoints"
COMPILED = ".compiled"  # JAX's cache of compiled programs, in a sweep's directory
SWEEP = SWEEP_POINTS  # in a sweep's directory, next to its run directories
PREDICTION_FILES = "prediction*.json"  # of the largest runs of ladders


@dataclass(frozen=True)
class RunFiles:
    """Paths in a run directory. A file is absent until the run has something to write.

    Attributes:
        directory: the run directory.
    """

    directory: Path

    @property
    def config(self) -> Path:
        """The whole configuration."""
        return self.directory / CONFIG

    @property
    def data(self) -> Path:
        """Schema and statistics of the training data (`ligr_jax.runs.trained_data`)."""
        return self.directory / DATA

    @property
    def metrics(self) -> Path:
        """Training and evaluation rows, one JSON object per line."""
        return self.directory / METRICS

    @property
    def summary(self) -> Path:
        """Final numbers, flat; written last, so only a finished run has this file."""
        return self.directory / SUMMARY

    @property
    def error(self) -> Path:
        """Why the run failed; removed when the run is started again or finishes."""
        return self.directory / ERROR

    @property
    def failures(self) -> Path:
        """One line per failed attempt of a sweep to train the run."""
        return self.directory / FAILURES

    @property
    def checkpoints(self) -> Path:
        """Directory of the newest training states, one directory per step."""
        return self.directory / CHECKPOINTS

    @property
    def lock(self) -> Path:
        """Lock of the process that trains the run, with its host and its number."""
        return self.directory / LOCK

    @property
    def log(self) -> Path:
        """Output of the process that trained the run, if a sweep started it."""
        return self.directory / "log.txt"

    @property
    def wandb(self) -> Path:
        """Directory of the W&B mirror."""
        return self.directory / "wandb"

    @property
    def mirror(self) -> Path:
        """State of the W&B mirror (`ligr_jax.runs.wandb_record`)."""
        return self.wandb / "mirrored.json"

    @property
    def exists(self) -> bool:
        """Whether the directory has a file that shows that it is a run."""
        return any(path.exists() for path in (self.config, self.metrics, self.summary, self.error))
