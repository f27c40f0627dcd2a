"""Options of `prepare`, and parsers of durations, times and fractions."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ligr_jax.data.prepare.splits import SplitSpans, SplitTimes, check_fractions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import OnBadRow
from ligr_jax.host_limits import host_cores

MAX_WORKERS = 4  # limits memory
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare`.

    Attributes:
        session_gap_ms: a longer gap in time, in milliseconds, starts a new session. It applies to
            logs without session ids.
        splits: times at which the splits end, or lengths of the last two; None cuts at full minutes
            by `fractions`.
        fractions: shares of the rows in train, validation and test.
        on_bad_row: `error` raises for the first invalid row, `skip` drops and counts invalid rows.
        shard_rows: approximate number of rows of a shard, which determines the memory needed.
        batch_rows: number of rows read at a time; the output does not depend on it.
        workers: number of threads, each with up to `shard_rows` rows in memory; None stands for the
            number of cores, at most `MAX_WORKERS`.
        overwrite: replace an output of another source or other options.
        context_block: train on untimed rows, which form sessions of this many consecutive rows of a
            member; None: untimed rows are context only, each a session of its own.
        leave_one_out: split each member's history instead of time: its last impression is test,
            the one before validation, and the others train; so are histories of less than three.
            It needs the fractions 1, 0, 0.

    Raises:
        BadInput: an option is out of range.
    """

    session_gap_ms: int = 30 * 60_000
    splits: SplitTimes | SplitSpans | None = None
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    on_bad_row: OnBadRow = "error"
    shard_rows: int = 2_000_000
    batch_rows: int = 131_072
    workers: int | None = None
    overwrite: bool = False
    context_block: int | None = None
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        for name in ("session_gap_ms", "context_block", "shard_rows", "batch_rows", "workers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BadInput(f"{name}={getattr(self, name)} must be at least 1")
        if self.leave_one_out and (self.splits or self.fractions != (1, 0, 0)):
            raise BadInput("leave-one-out splits no times; give no split times and no fractions")
        if self.splits is None:
            check_fractions(self.fractions)

    @property
    def threads(self) -> int:
        """Number of threads."""
        return self.workers or min(host_cores(), MAX_WORKERS)

    def description(self) -> dict[str, Any]:
        """Return the options that determine the output, for the manifest."""
        out = asdict(self)
        del out["batch_rows"], out["workers"], out["overwrite"]
        del out["fractions" if self.splits else "splits"]
        if self.context_block is None:  # absent, so that digests of earlier data do not change
            del out["context_block"]
        if not self.leave_one_out:
            del out["leave_one_out"]
        return out


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration.

    Args:
        text: a number and its unit, e.g. `30m`, `6h`, `1d`, `45s` or `500ms`.

    Raises:
        BadInput: the text is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise BadInput(f"{text!r} is not a duration; write e.g. 30m, 6h, 1d, 45s or 500ms")
    return round(float(match[1]) * UNITS_MS[match[2]])


def parse_time(text: str) -> int:
    """Return the milliseconds since 1970 (UTC) of an integer or an ISO date or time.

    A date without an offset is in UTC.

    Raises:
        BadInput: the text is neither an integer nor an ISO date.
    """
    if re.fullmatch(r"-?\d+", text.strip()):
        return int(text)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise BadInput(
            f"{text!r} is not a time; write an ISO date, e.g. 2022-05-05 or "
            "2022-05-05T00:00+08:00, or integer milliseconds since 1970"
        ) from e
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def parse_spans(text: str) -> SplitSpans:
    """Return the lengths of validation and test from a text such as `1d,1d`.

    Raises:
        BadInput: the text is not two durations.
    """
    parts = text.split(",")
    if len(parts) != 2:
        raise BadInput(f"--last {text!r}: give the lengths of validation and test, e.g. 1d,1d")
    return SplitSpans(*(parse_duration(part) for part in parts))


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Return the fractions of train, validation and test from a text such as `0.8,0.1,0.1`.

    Raises:
        BadInput: the text is not three numbers.
    """
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as e:
        raise BadInput(f"--fractions {text!r}: give three numbers, e.g. 0.8,0.1,0.1") from e
    return train, validation, test
