"""A run's directory: one configuration, one writer at a time, finished once it has summary.json.

config.json      the whole configuration
metrics.jsonl    training and evaluation rows
checkpoints/     the newest states
summary.json     final numbers, flat; written last
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config, ConfigError, difference, from_json, to_json
from ligr_jax.lock import Busy as Busy
from ligr_jax.lock import exclusive
from ligr_jax.lock import held as held
from ligr_jax.train.track import finite


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Hold the directory for this process; the lock is freed when it ends, even by SIGKILL.

    DIRECTORY/.lock says which host and process hold it.

    Raises:
        Busy: another process holds it.
    """
    with exclusive(directory, "is training this run", keep=True):
        yield


def adopt(directory: Path, config: Config, write: bool = True) -> None:
    """Writes config.json, or checks that the one there is the same.

    write: of several processes, the first does.

    Raises:
        ConfigError: the directory holds a run of another configuration; the difference is shown.
    """
    path = directory / "config.json"
    if path.exists():
        changed = difference(load_config(directory), config)
        if changed:
            lines = "\n".join(f"  {k}: there {a!r}, asked {b!r}" for k, (a, b) in changed.items())
            raise ConfigError(
                f"{directory} holds a run of another configuration:\n{lines}\n"
                "choose another --out, or give the same values to go on with that run"
            )
    elif write:
        write_atomically(path, to_json(config))


def load_config(directory: Path) -> Config:
    """The configuration of a run directory."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise ConfigError(f"{directory} is no run directory: it has no config.json")
    return from_json(path.read_text())


def load_summary(directory: Path) -> dict[str, Any] | None:
    """The final numbers of a finished run, or None."""
    path = directory / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def save_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    write_atomically(directory / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
