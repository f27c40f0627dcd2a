"""What a directory contains, shown by a file: no command writes into another command's output."""

from pathlib import Path

from ligr_jax.errors import LigrError

DATA, LOG, RUN = "prepared data", "a log", "a run"
SWEEP, EXPORT, SID = "the runs of a sweep", "exported tables", "a model of semantic ids"
_MARKS = {
    DATA: ("manifest.json",),
    LOG: ("log.json",),
    RUN: ("config.json",),
    SWEEP: ("sweep.json",),
    EXPORT: ("index.json",),
    SID: ("model.json", "training.json"),
}


def require_no_other(directory: Path, content: str) -> None:
    """Refuse to write into the output of another command.

    Args:
        directory: Directory to write to; it may be absent.
        content: What will be written, e.g. `RUN`.

    Raises:
        LigrError: The directory contains something else.
    """
    for other, marks in _MARKS.items():
        mark = next((m for m in marks if (directory / m).exists()), "")
        if mark and other != content:
            raise LigrError(
                f"{directory} holds {other} ({mark}), and {content} cannot be written there; "
                "choose another directory"
            )
