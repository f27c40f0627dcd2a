"""The files of checkpoints: their steps, and digests that prove damage.

    CHECKPOINTS/60/              a step; it gets this name when it is complete
    CHECKPOINTS/60/digests.json  size and xxh64 of every file of the state and its meta
    CHECKPOINTS/60.damaged/      a damaged step that the run has renamed

This module does not need JAX or the model, so `ligr verify` can check a run on any host.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ligr_jax.atomic import sync
from ligr_jax.digests import DamagedFile, digest_file, read_json, write_json
from ligr_jax.errors import FileError, LigrError, file_error
from ligr_jax.store.mirror import uri_of

DIGESTS = "digests.json"
_THREADS = 8
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in the text of TensorStore's errors


class CheckpointError(LigrError, ValueError):
    """A checkpoint cannot be used; the message names the step, the reason and the remedy."""


class DamagedCheckpoint(CheckpointError):
    """A digest proves that a checkpoint has changed since it was saved."""


def steps_in(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in a directory, the newest first."""
    paths = directory.iterdir() if directory.is_dir() else []
    steps = [p for p in paths if p.name.isdecimal() and p.is_dir()]
    if uri_of(directory) is not None:  # a step that is being fetched from a store has no digests
        steps = [p for p in steps if is_sealed(p)]
    return sorted((int(p.name) for p in steps), reverse=True)


@contextlib.contextmanager
def save_errors(step: Path) -> Iterator[None]:
    """Translate errors of the operating system while a step is saved.

    Args:
        step: Directory of the step.

    Raises:
        FileError: Instead of an OSError, or of an error of TensorStore whose text contains one. It
            names the step, because its files have temporary names until it is complete.
    """
    try:
        yield
    except FileError:
        raise
    except OSError as e:
        raise file_error(OSError(e.errno, e.strerror), "write", step) from e
    except ValueError as e:
        number = _OS_ERROR.search(str(e))
        if isinstance(e, LigrError) or number is None:
            raise
        raise file_error(OSError(int(number[1]), os.strerror(int(number[1]))), "write", step) from e


def seal(step: Path) -> None:
    """Write the digests of all files of a step, and return when everything is on disk."""
    content = digests_of_files(step)
    for folder, _, _ in os.walk(step):
        sync(Path(folder))
    write_json(step / DIGESTS, {"files": content})


def digests_of_files(step: Path) -> dict[str, tuple[int, str]]:
    """Return size and xxh64 of the files of a step by name, when they are on disk."""
    files = sorted(_files(step))
    with ThreadPoolExecutor(_THREADS) as pool:
        return {str(f.relative_to(step)): d for f, d in zip(files, pool.map(_describe, files))}


def is_sealed(step: Path) -> bool:
    """Return whether a step has digests; steps of earlier releases have none."""
    return (step / DIGESTS).is_file()


def require_intact(step: Path, largest: int | None = None) -> None:
    """Compare the files of a sealed step with their digests.

    Args:
        step: Directory of the step.
        largest: Size in bytes. Of larger files, only the size is compared. None for no limit.

    Raises:
        DamagedCheckpoint: A file has changed.
        DamagedFile: The file of the digests is damaged.
        OSError: A file is missing or cannot be read, which does not prove damage.
    """
    saved = read_json(step / DIGESTS, "the digests of a checkpoint cannot be made again")["files"]

    def damage_of(name: str) -> str:
        size, digest = saved[name]
        path = step / name
        size_now = path.stat().st_size
        if size_now != size:
            return f"{path} has {size_now:,} bytes, {size:,} were written"
        if largest is not None and size > largest:
            return ""
        digest_now = digest_file(path)
        return "" if digest_now == digest else f"{path} has xxh64 {digest_now}, not {digest}"

    with ThreadPoolExecutor(_THREADS) as pool:
        for damage in pool.map(damage_of, saved):
            if damage:
                raise DamagedCheckpoint(damage)


def set_aside(step: Path) -> Path:
    """Rename a damaged step, so that the step can be saved again; return the new path."""
    aside, number = step.with_name(f"{step.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = step.with_name(f"{step.name}.damaged.{number}")
    return step.rename(aside)


def intact(step: Path) -> bool:
    """Return whether digests prove that the step has not changed since it was saved."""
    try:
        require_intact(step)
    except (OSError, DamagedFile, DamagedCheckpoint):
        return False
    return True


def _files(step: Path) -> Iterator[Path]:
    """Yield the files of the state and its meta, but not those that orbax changes to the end."""
    for item in sorted(p for p in step.iterdir() if p.is_dir()):
        for folder, _, names in os.walk(item):
            yield from (Path(folder) / name for name in names)


def _describe(path: Path) -> tuple[int, str]:
    digest = digest_file(path)
    sync(path)
    return path.stat().st_size, digest
