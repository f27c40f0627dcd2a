"""What `prepare` can be asked for, and how times and durations are written."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ligr_jax.data.prepare.splits import SplitTimes, check_fractions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import OnBadRow

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare`.

    session_gap_ms: pause that ends a session, where the log has no session ids.
    splits: where the splits end in time; None cuts by `fractions` of the rows, at full minutes.
    on_bad_row: refuse the log at its first bad row, or leave bad rows out and count them.
    shard_rows: about how many rows a shard holds; also what decides the memory needed.
    batch_rows: rows read at a time; the output does not depend on it.
    overwrite: replace an output that was made otherwise.
    """

    session_gap_ms: int = 30 * 60_000
    splits: SplitTimes | None = None
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    on_bad_row: OnBadRow = "error"
    shard_rows: int = 2_000_000
    batch_rows: int = 131_072
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("session_gap_ms", "shard_rows", "batch_rows"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name}={getattr(self, name)} must be at least 1")
        if self.splits is None:
            check_fractions(self.fractions)

    def description(self) -> dict[str, Any]:
        """The options that shape the output, for the manifest."""
        out = asdict(self)
        del out["batch_rows"], out["overwrite"]
        del out["fractions" if self.splits else "splits"]
        return out


def parse_duration(text: str) -> int:
    """Milliseconds of `30m`, `6h`, `1d`, `45s` or `500ms`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise BadInput(f"{text!r} is no duration; write e.g. 30m, 6h, 1d, 45s or 500ms")
    return round(float(match[1]) * UNITS_MS[match[2]])


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of an integer, or of an ISO date; one without a zone is UTC."""
    if re.fullmatch(r"-?\d+", text.strip()):
        return int(text)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise BadInput(
            f"{text!r} is no time; write an ISO date, e.g. 2022-05-05 or 2022-05-05T00:00+08:00, "
            "or integer milliseconds since 1970"
        ) from e
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Fractions of train, validation and test from `0.8,0.1,0.1`."""
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as e:
        raise BadInput(f"--fractions {text!r}: give three numbers, e.g. 0.8,0.1,0.1") from e
    return train, validation, test
