"""Rows of metrics.jsonl, read the same way by the trainer, its W&B mirror, reports and sweeps.

Each line is a JSON object with the digest of its other values, so that a changed digit is noticed
in a running run as well as in a finished one. Rows of earlier releases have no digest and are read
without this check; their metrics get the names of this release.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.digests import DIGEST, digest_json
from ligr_jax.errors import LigrError
from ligr_jax.runs.columns import metric_name

_log = logging.getLogger(__name__)


class DamagedRows(LigrError, ValueError):
    """A line of metrics.jsonl is not a row: the message names file, line, reason and remedy."""


def line_of(row: Mapping[str, Any]) -> str:
    """Return the line of a row, with its digest. All values of the row are JSON values."""
    return json.dumps({**row, DIGEST: digest_json(row)}) + "\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl without their digests.

    A last line without its end, as a kill leaves it, is left out.

    Raises:
        DamagedRows: another line is not a row, or its values have changed since it was written.
    """
    rows = []
    for number, row, reason in _lines(path):
        if row is None:
            raise DamagedRows(
                f"{path}:{number}: not a row of metrics ({reason}); restore the file from a copy, "
                "or remove this line"
            )
        rows.append(row)
    return rows


def tail_rows(path: Path, size: int = 2**16) -> list[dict[str, Any]]:
    """Return the newest rows of a metrics.jsonl that may be growing, without checking digests.

    Args:
        path: The file; it may be absent.
        size: Number of bytes at the end of the file that are read.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    if end > size:
        del lines[0]  # its beginning was not read
    rows = [row for line in lines if (row := _row(line)[0]) is not None]
    return [_renamed(row) for row in rows]


def rescue_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl that the trainer is about to write again.

    A damaged line becomes a row that has only the step of the next row, so that row i of the file
    remains row i of the mirror. A damaged file is kept as metrics.jsonl.damaged, and a warning
    names it.
    """
    rows: list[dict[str, Any]] = []
    damaged: list[tuple[int, str]] = []
    waiting = 0  # damaged lines since the last row
    for number, row, reason in _lines(path):
        if row is None:
            damaged.append((number, reason))
            waiting += 1
            continue
        rows += [{"step": row["step"]}] * waiting
        rows.append(row)
        waiting = 0
    if damaged:
        copy, tries = path.with_name(f"{path.name}.damaged"), 1
        while copy.exists():
            tries += 1
            copy = path.with_name(f"{path.name}.damaged.{tries}")
        shutil.copy2(path, copy)
        number, reason = damaged[0]
        more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        _log.warning(
            f"{path}:{number}: not a row of metrics ({reason}){more}; the file is kept as {copy}, "
            "and training continues with the other rows"
        )
    return rows


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield the number and row of each line, or None and the reason if it is not a row."""
    raw = path.read_bytes() if path.exists() else b""
    lines = raw.split(b"\n")
    parsed = [(number, *_row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    # A resumed run writes the digests of the rows that it keeps: all rows have one, or none has.
    sealed = any(row is not None and DIGEST in row for _, row, _ in parsed)
    for number, row, reason in parsed:
        if row is None:
            if number < len(lines):  # the last line has no line break: a kill interrupted it
                yield number, None, reason
        elif not sealed or row.pop(DIGEST, None) == digest_json(row):
            yield number, _renamed(row), ""
        else:
            yield number, None, f'its values have changed: they do not give its "{DIGEST}"'


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {metric_name(name): value for name, value in row.items()}


def _row(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except (ValueError, RecursionError) as e:
        return None, f"not JSON: {e}"
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, int) or isinstance(step, bool):
        return None, "not an object with a whole number `step`"
    return row, ""
