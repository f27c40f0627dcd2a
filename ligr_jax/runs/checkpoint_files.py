"""The files of checkpoints: which steps are there, and whether digests prove a step damaged.

    CHECKPOINTS/60/              a step, given its name when it is complete
    CHECKPOINTS/60/digests.json  size and xxh64 of every file of the state and its meta
    CHECKPOINTS/60.damaged/      a step that its run set aside

Nothing here needs JAX or the model, so `ligr verify` can check a run anywhere.
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

DIGESTS = "digests.json"
_THREADS = 8
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in the text of TensorStore's errors


class CheckpointError(LigrError, ValueError):
    """A checkpoint that cannot be used: the message names the step, the reason and the remedy."""


class DamagedCheckpoint(CheckpointError):
    """A digest proves that a checkpoint is not what was saved."""


def steps_in(directory: Path) -> list[int]:
    """Steps of the checkpoints in a directory, the newest first."""
    there = directory.iterdir() if directory.is_dir() else []
    return sorted((int(p.name) for p in there if p.name.isdecimal() and p.is_dir()), reverse=True)


@contextlib.contextmanager
def save_errors(step: Path) -> Iterator[None]:
    """Put errors of the operating system in words while a step is saved.

    Raises:
        FileError: for an OSError, or an error in which TensorStore reports one as text. It names
            the step, whose files have temporary names until it is complete.
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
    """Write the digests of all files of a step, with everything on disk."""
    files = list(_files(step))
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(_describe, files))
    for folder, _, _ in os.walk(step):
        sync(Path(folder))
    content = {str(f.relative_to(step)): d for f, d in zip(files, digests)}
    write_json(step / DIGESTS, {"files": dict(sorted(content.items()))})


def is_sealed(step: Path) -> bool:
    """Whether the step has digests; those of earlier releases have none."""
    return (step / DIGESTS).is_file()


def require_intact(step: Path, largest: int | None = None) -> None:
    """Compare the files of a sealed step with their digests.

    Args:
        largest: of larger files, only the size is compared.

    Raises:
        DamagedCheckpoint: a file is not what was written.
        DamagedFile: the digests themselves are not what was written.
        OSError: a file is missing or cannot be read, which proves nothing about the step.
    """
    saved = read_json(step / DIGESTS, "the digests of a checkpoint cannot be made again")["files"]

    def problem(name: str) -> str:
        size, digest = saved[name]
        path = step / name
        found = path.stat().st_size
        if found != size:
            return f"{path} has {found:,} bytes, {size:,} were written"
        if largest is not None and size > largest:
            return ""
        now = digest_file(path)
        return "" if now == digest else f"{path} has xxh64 {now}, {digest} was written"

    with ThreadPoolExecutor(_THREADS) as pool:
        for found in pool.map(problem, saved):
            if found:
                raise DamagedCheckpoint(found)


def set_aside(step: Path) -> Path:
    """Rename a damaged step, so that the step can be saved again; returns the new name."""
    aside, number = step.with_name(f"{step.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = step.with_name(f"{step.name}.damaged.{number}")
    return step.rename(aside)


def intact(step: Path) -> bool:
    """Whether digests prove the step to be what was saved."""
    try:
        require_intact(step)
    except (OSError, DamagedFile, DamagedCheckpoint):
        return False
    return True


def _files(step: Path) -> Iterator[Path]:
    """Files of the state and its meta; orbax changes its own at the top until the end."""
    for item in sorted(p for p in step.iterdir() if p.is_dir()):
        for folder, _, names in os.walk(item):
            yield from (Path(folder) / name for name in names)


def _describe(path: Path) -> tuple[int, str]:
    digest = digest_file(path)
    sync(path)
    return path.stat().st_size, digest
