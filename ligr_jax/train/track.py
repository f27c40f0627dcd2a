"""Where numbers go: `metrics.jsonl`, the source of truth, and Weights & Biases, its mirror."""

import contextlib
import json
import math
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config, digest, flatten
from ligr_jax.parallel.processes import is_first


class JsonLines:
    """DIRECTORY/metrics.jsonl, a row a line, flushed at once.

    resume_step: rows of later steps are dropped: a run that goes on from a checkpoint writes them
        again.
    """

    def __init__(self, directory: Path, resume_step: int) -> None:
        path = directory / "metrics.jsonl"
        kept = [r for r in read_rows(path) if r["step"] <= resume_step]
        write_atomically(path, "".join(_line(r) for r in kept))
        self._file = path.open("a", buffering=1)

    def log(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row))

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """The run directory has its own summary.json."""

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite(row)) + "\n"


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinity are not JSON: they become null."""
    bad = {k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return {k: None if k in bad else v for k, v in row.items()}


class WandbMirror:
    """Mirrors rows to W&B: online with a key, else into the run directory for a later `wandb sync`.

    Never asks and never waits: without a key it is offline, and a server that does not answer
    within seconds makes it offline. Rows at or before `resume_step` were mirrored by the run's
    earlier life.
    """

    def __init__(self, directory: Path, config: Config, resume_step: int) -> None:
        import wandb

        online = config.track.wandb == "online" or (config.track.wandb == "auto" and _has_key())
        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=15,
            x_disable_stats=True,
            quiet=True,
            reinit="create_new",  # several runs of one process are several runs
        )
        arguments: dict[str, Any] = {
            "project": config.track.project,
            "entity": config.track.entity or None,
            "group": config.track.group or None,
            "id": os.environ.get("WANDB_RUN_ID", digest(config)),  # a sweep's agent names its runs
            "name": directory.name,
            "dir": str(directory),
            "config": flatten(config),
            "resume": "allow",
            "settings": settings,
        }
        try:
            self._run = wandb.init(mode="online" if online else "offline", **arguments)
        except wandb.Error:
            self._run = wandb.init(mode="offline", **arguments)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._after = resume_step

    def log(self, row: Mapping[str, Any]) -> None:
        if row["step"] > self._after:
            self._run.log(finite(row))

    def summarize(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(finite(summary))

    def close(self) -> None:
        self._run.finish()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Tracker:
    """Every row to every sink; of several processes, only the first has any."""

    def __init__(self, directory: Path, config: Config, resume_step: int) -> None:
        self._sinks: list[JsonLines | WandbMirror] = []
        if is_first():
            self._sinks.append(JsonLines(directory, resume_step))
        if is_first() and config.track.wandb != "off":
            self._sinks.append(WandbMirror(directory, config, resume_step))

    def log(self, row: Mapping[str, Any]) -> None:
        """row: flat, with `step`."""
        for sink in self._sinks:
            sink.log(row)

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """summary: the flat final numbers of a finished run."""
        for sink in self._sinks:
            sink.summarize(summary)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


@contextlib.contextmanager
def tracking(directory: Path, config: Config, resume_step: int) -> Iterator[Tracker]:
    """A tracker that is closed however the run ends."""
    tracker = Tracker(directory, config, resume_step)
    try:
        yield tracker
    finally:
        tracker.close()
