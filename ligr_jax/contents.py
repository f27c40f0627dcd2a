"""What a directory contains, shown by a file: no command writes into another command's output."""

from collections.abc import Collection
from pathlib import Path

from ligr_jax.errors import LigrError
from ligr_jax.store.stage import stage

DATA, LOG, RUN = "prepared data", "a log", "a run"
SWEEP, EXPORT, SID = "the runs of a sweep", "an artifact", "a model of semantic ids"
STORE = "an activity store"
RUN_CONFIG, SWEEP_POINTS = "config.json", "sweep.json"
_MARKS = {
    DATA: ("manifest.json",),
    LOG: ("log.json",),
    RUN: (RUN_CONFIG,),
    SWEEP: (SWEEP_POINTS,),
    EXPORT: ("current.json", "index.json"),
    SID: ("model.json", "training.json"),
    STORE: ("activity.sqlite",),
}


def require_no_other(directory: Path, content: str) -> None:
    """Refuse to write into the output of another command.

    Args:
        directory: Directory to write to; it may be absent.
        content: What will be written, e.g. `RUN`.

    Raises:
        LigrError: The directory contains something else.
    """
    stage(directory, [mark for marks in _MARKS.values() for mark in marks])
    for other, marks in _MARKS.items():
        mark = next((m for m in marks if (directory / m).exists()), "")
        if mark and other != content:
            raise LigrError(
                f"{directory} holds {other} ({mark}), and {content} cannot be written there; "
                "choose another directory"
            )


def require_only(directory: Path, content: str, patterns: Collection[str]) -> None:
    """Refuse to write among files that no command of this package wrote.

    Args:
        directory: Directory to write to; it may be absent.
        content: What will be written, e.g. `DATA`.
        patterns: Names of the files of such an output, as for `Path.match`. Hidden files and the
            `lost+found` of a disk are allowed too.

    Raises:
        LigrError: The directory contains other files; some are named.
    """
    names = sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []
    others = [
        name
        for name in names
        if not name.startswith(".")
        and name != "lost+found"
        and not any(Path(name).match(pattern) for pattern in patterns)
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise LigrError(
            f"{directory} holds other files ({', '.join(others[:3])}{more}), and {content} is not "
            "written among them; choose an empty or new directory"
        )
