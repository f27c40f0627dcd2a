"""A run directory: one configuration, one writer at a time, finished once it has summary.json.

`ligr_jax.runs.files` lists its files.
"""

import contextlib
import dataclasses
import logging
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
from ligr_jax.strict_json import nan_to_null

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(directory: Path, content: str = contents.RUN) -> Iterator[None]:
    """Hold the directory for this process; the lock is freed when it ends, even by SIGKILL.

    DIRECTORY/.lock says which host and process hold it.

    Args:
        content: what the directory is to hold.

    Raises:
        LigrError: it holds something else.
        Busy: another process holds it.
    """
    contents.require_no_other(directory, content)
    with exclusive(directory, "is training this run", keep=True):
        yield


def finished(directory: Path, config: Config) -> dict[str, Any] | None:
    """The summary of a finished run of this configuration, or None; writes nothing.

    Raises:
        ConfigError: the directory holds a run of another configuration.
        DamagedFile: its configuration or its summary is not what was written.
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
    """Write config.json, or check that the one of an earlier start fits.

    A directory is bound to its configuration once it has a checkpoint or a row of metrics; before,
    as after a first try that failed, another configuration replaces it. Values that do not change
    what a run computes may change at each start, and config.json has the latest.

    Args:
        write: false in all processes of a run but the first.

    Raises:
        ConfigError: the directory holds a run of another configuration; the difference is shown.
        DamagedFile: the configuration of a bound directory is not what was written.
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
            if write and difference(before, config):  # W&B's name of the run was of the old one
                RunFiles(directory).mirror.unlink(missing_ok=True)
    if write:
        write_json(path, dataclasses.asdict(config))


def _is_bound(directory: Path) -> bool:
    files = RunFiles(directory)
    has_rows = files.metrics.exists() and files.metrics.stat().st_size > 0
    return has_rows or files.summary.exists() or bool(steps_in(files.checkpoints))


def _refuse_difference(directory: Path, there: Config, asked: Config) -> None:
    changed = difference(there, asked)
    if changed:
        lines = "\n".join(f"  {k}: there {a!r}, asked {b!r}" for k, (a, b) in changed.items())
        raise ConfigError(
            f"{directory} holds a run of another configuration:\n{lines}\n"
            "choose another --out, or give the same values to continue that run"
        )


def load_config(directory: Path) -> Config:
    """The configuration of a run directory.

    Raises:
        ConfigError: there is none, or its values cannot be.
        DamagedFile: config.json is not what was written.
    """
    path = RunFiles(Path(directory)).config
    if not path.is_file():
        raise ConfigError(f"{directory} is no run directory: it has no {CONFIG}")
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
    """Where the prepared data of a run are: `data`, or else where they were when it trained.

    Raises:
        ConfigError: they are not there.
    """
    if data is not None:
        return data
    place = Path(config.data.dir)
    for directory in (place, run / place):  # earlier releases stored relative paths
        if (directory / "manifest.json").is_file():
            return directory
    raise ConfigError(
        f"{run} was trained on the data in {place}, which holds no manifest.json now; if the data "
        "have moved, name their directory with --data"
    )


def load_summary(directory: Path) -> dict[str, Any] | None:
    """The final numbers of a finished run, or None.

    Raises:
        DamagedFile: summary.json is not what was written.
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
    """The final numbers of a finished run; None where there are none, or they cannot be read."""
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


def clear_error(directory: Path) -> None:
    """Remove the error of an earlier start."""
    RunFiles(directory).error.unlink(missing_ok=True)
