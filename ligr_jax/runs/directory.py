"""A run directory: one configuration, one writer at a time, finished once it has summary.json.

`ligr_jax.runs.files` lists its files.
"""

import contextlib
import dataclasses
import logging
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax import contents
from ligr_jax.atomic import write_atomically
from ligr_jax.config import (
    Config,
    ConfigError,
    RenamedField,
    config_from_plain,
    difference,
    flatten,
)
from ligr_jax.digests import DIGEST, DamagedFile, read_json, write_json
from ligr_jax.lock import Busy as Busy
from ligr_jax.lock import exclusive
from ligr_jax.lock import is_locked as is_locked
from ligr_jax.runs.checkpoint_files import steps_in
from ligr_jax.runs.files import CONFIG, SUMMARY, RunFiles
from ligr_jax.store.mirror import local_path
from ligr_jax.store.publish import publish, unpublish
from ligr_jax.store.stage import stage_file
from ligr_jax.strict_json import nan_to_null

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(directory: Path, content: str = contents.RUN) -> Iterator[None]:
    """Lock a directory during the block; see `ligr_jax.lock.exclusive`.

    Args:
        directory: Directory to write to; it is created if it is absent.
        content: What will be written, e.g. `contents.RUN`.

    Raises:
        LigrError: The directory contains something else.
        Busy: Another process has locked the directory.
    """
    contents.require_no_other(directory, content)
    with exclusive(directory, "is training this run", keep=True):
        yield


def finished(directory: Path, config: Config) -> dict[str, Any] | None:
    """Return the summary of a finished run, after a check of its configuration.

    Args:
        directory: Directory of the run; nothing is written to it.
        config: Configuration that the run must have.

    Returns:
        The final numbers; None if the run is not finished.

    Raises:
        ConfigError: The run has another configuration.
        DamagedFile: The configuration or the summary is damaged.
    """
    summary = load_summary(directory)
    if summary is not None:
        _refuse_difference(directory, load_config(directory), config)
    return summary


def write_or_verify_config(
    directory: Path,
    config: Config,
    write: bool = True,
) -> None:
    """Write config.json, or check that it matches the configuration of an earlier start.

    A directory is bound to its configuration once it has a checkpoint or a row of metrics. Until
    then, for example after a first start that failed, another configuration replaces the earlier
    one. Values that do not change the results of a run may change at each start; config.json has
    the newest values.

    Args:
        directory: Directory of the run.
        config: Configuration of this start.
        write: Whether this process writes; only process 0 of a run does.

    Raises:
        ConfigError: The directory has a run with another configuration; the difference is shown.
        DamagedFile: The configuration of a bound directory is damaged.
    """
    path, bound = RunFiles(directory).config, _is_bound(directory)
    if path.exists():
        try:
            before = load_config(directory)
        except (ConfigError, DamagedFile) as e:
            if bound:
                raise
            _log.warning(
                f"{e}: replaced, since {directory} has no checkpoint and no row of metrics"
            )
        else:
            if bound:
                _refuse_difference(directory, before, config)
            old, new = flatten(before), flatten(config)
            changed = [k for k in old | new if old.get(k) != new.get(k)]
            if not changed:
                return
            values = ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in changed)
            if difference(before, config):
                _log.warning(
                    f"{directory} has no checkpoint and no row of metrics: its configuration is "
                    f"replaced ({values})"
                )
            else:
                _log.info(f"{path} is updated: {values}")
            if write and difference(before, config):  # the id in W&B has the digest of the old one
                RunFiles(directory).mirror.unlink(missing_ok=True)
    if write:
        write_json(path, dataclasses.asdict(config))


def _is_bound(directory: Path) -> bool:
    files = RunFiles(directory)
    has_rows = files.metrics.exists() and files.metrics.stat().st_size > 0
    return has_rows or files.summary.exists() or bool(steps_in(files.checkpoints))


def _refuse_difference(directory: Path, stored: Config, requested: Config) -> None:
    changed = difference(stored, requested)
    if changed:
        lines = "\n".join(
            f"  {name}: the run has {a!r}, requested {b!r}" for name, (a, b) in changed.items()
        )
        raise ConfigError(
            f"{directory} has a run with another configuration:\n{lines}\n"
            "choose another --out, or give the same values to continue that run"
        )


def load_config(directory: Path) -> Config:
    """Read the configuration of a run.

    Args:
        directory: Directory of the run.

    Raises:
        ConfigError: The directory has no configuration, or its values are invalid.
        DamagedFile: config.json is damaged.
    """
    path = RunFiles(Path(directory)).config
    stage_file(path)
    if not path.is_file():
        raise ConfigError(f"{directory} is not a run directory: it has no {CONFIG}")
    remedy = (
        "restore it from a copy, or move it away and start the `ligr train` of this run again, "
        "which writes it"
    )
    try:
        return config_from_plain(read_json(path, remedy))
    except RenamedField as e:
        raise RenamedField(f'{path}: {e} there, and delete the line "{DIGEST}"') from e
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}; {remedy}") from e


def data_directory(run: Path, config: Config, data: Path | None = None) -> Path:
    """Return the directory of the prepared data of a run.

    Args:
        run: Directory of the run.
        config: Configuration of the run.
        data: Directory that the user names; None for the one with which the run was trained.

    Raises:
        ConfigError: The directory in the configuration does not exist any more.
    """
    if data is not None:
        return data
    trained_on = local_path(config.data.dir)
    stage_file(trained_on / "manifest.json")
    for directory in (trained_on, run / trained_on):  # earlier releases stored relative paths
        if (directory / "manifest.json").is_file():
            return directory
    raise ConfigError(
        f"{run} was trained on the data in {trained_on}, which has no manifest.json now; if the "
        "data have moved, name their directory with --data"
    )


def load_summary(directory: Path) -> dict[str, Any] | None:
    """Read the final numbers of a run.

    Args:
        directory: Directory of the run.

    Returns:
        The numbers by name; None if the run is not finished.

    Raises:
        DamagedFile: summary.json is damaged.
    """
    path = RunFiles(Path(directory)).summary
    if not path.exists():
        return None
    remedy = (
        f"move it away and start the `ligr train` of this run again: it evaluates the last "
        f"checkpoint and writes {SUMMARY}"
    )
    summary = read_json(path, remedy)
    if not summary:
        raise DamagedFile(f"{path}: an object without values; {remedy}")
    return summary


def summary_or_none(directory: Path) -> dict[str, Any] | None:
    """Read the final numbers of a run; None if there are none, or if they cannot be read."""
    try:
        return load_summary(directory)
    except (OSError, DamagedFile):
        return None


def save_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, which finishes the run."""
    write_json(RunFiles(directory).summary, nan_to_null(summary))


def read_error(directory: Path) -> str:
    """Return why a run failed; "" if it has not failed."""
    path = RunFiles(directory).error
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def write_error(directory: Path, error: str) -> None:
    """Write why a run failed."""
    write_atomically(RunFiles(directory).error, error + "\n")


def add_failure(directory: Path, error: str) -> int:
    """Note a failed attempt of a sweep to train the run.

    Args:
        directory: Directory of the run.
        error: Why the attempt failed.

    Returns:
        The number of failed attempts, this one included.
    """
    when = time.strftime("%Y-%m-%d %H:%M:%S%z")
    line = f"{when} {socket.gethostname()}: {' '.join(error.split())}\n"
    path = RunFiles(directory).failures
    stage_file(path)  # another host may have added a line
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
    publish(path)
    return count_failures(directory)


def count_failures(directory: Path) -> int:
    """Return how often a sweep has failed to train the run."""
    try:
        text = RunFiles(directory).failures.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return 0
    return len(text.splitlines())


def clear_error(directory: Path) -> None:
    """Remove the error of an earlier start."""
    path = RunFiles(directory).error
    if path.exists():
        path.unlink()
        unpublish(path)
