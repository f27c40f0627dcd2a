"""The time column of a table: inference of its unit from the whole column, and conversion.

A number can count seconds, milliseconds, microseconds or nanoseconds since 1970. For the years from
1990 to now these four ranges do not overlap, so the unit follows from the values. It is accepted if
at least 90 % of the values of the whole column are in one range; the other values are invalid rows.
Numbers that spell dates (20231127, 2023112705) are recognized by valid months, days and hours. All
other conventions, such as seconds since the start of the log, must be declared.
"""

import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.iso import check_zone, has_zone, is_iso, local_to_utc_ms, parse_iso
from ligr_jax.data.sources.rules import SKIP_HINT, Rules

PER_MS = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}  # units in a millisecond
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EARLIEST_MS = 631_152_000_000  # 1990
DAY_MS = 86_400_000
SERIAL_DAYS = (32_874, 73_051)  # 1990 and 2100 as days of a spreadsheet, since 1899-12-30
SHARE = 0.9  # least share of the values that must have the inferred unit

# Formats of numbers that spell a date. Formats with two-digit years are only suggested.
SPELLED = {
    "yyyymmdd": "%Y%m%d",
    "yyyymmddhh": "%Y%m%d%H",
    "yyyymmddhhmm": "%Y%m%d%H%M",
    "yyyymmddhhmmss": "%Y%m%d%H%M%S",
    "yymmdd": "%y%m%d",
    "yymmddhh": "%y%m%d%H",
}


@dataclass(frozen=True)
class TimeOptions:
    """Options for the time column.

    Attributes:
        unit: s, ms, us or ns; "" infers it.
        format: format of strptime; "" for numbers and ISO times.
        zone: time zone of times without an offset; "" for UTC.
        origin_ms: time from which numbers count, milliseconds since 1970; needs a unit.
        absent: whether the log has no times, and the rows of a member are in order.

    Raises:
        BadInput: options contradict each other, or the time zone is not known.
    """

    unit: str = ""
    format: str = ""
    zone: str = ""
    origin_ms: int = 0
    absent: bool = False

    def __post_init__(self) -> None:
        if self.absent and (self.unit or self.format or self.zone or self.origin_ms):
            raise BadInput("--no-times: there is no time column; remove the other --time options")
        if self.unit and self.format:
            raise BadInput("give --time-unit (numbers) or --time-format (text), not both")
        if self.origin_ms and not self.unit:
            raise BadInput("--time-origin needs --time-unit, the unit of the numbers")
        if self.zone:
            check_zone(self.zone)


@dataclass(frozen=True)
class TimeRule:
    """How the time column is read.

    Attributes:
        kind: "number", "iso", "format" or "typed" (dates and timestamps of Parquet).
        unit: unit of numbers.
        format: format of strptime.
        zone: time zone of times without an offset.
        zone_declared: whether the user declared the time zone.
        origin_ms: time from which numbers count, milliseconds since 1970.
        inferred: whether the rule was inferred from the column; times before 1990 are then invalid.
    """

    kind: str
    unit: str = "ms"
    format: str = ""
    zone: str = "UTC"
    zone_declared: bool = False
    origin_ms: int = 0
    inferred: bool = False

    def describe(self) -> str:
        """Return a description for the summary."""
        if self.kind == "number":
            since = "1970 (UTC)" if not self.origin_ms else format_time(self.origin_ms)
            how = "inferred from the whole column" if self.inferred else "--time-unit"
            return f"{UNIT_NAMES[self.unit]} since {since} ({how})"
        zone = f"{self.zone} for times without a zone" + (
            "" if self.zone_declared else " (assumed)"
        )
        names = {
            "iso": "ISO dates and times",
            "format": f"dates written as {self.format}",
            "typed": "dates or timestamps of the file",
        }
        inferred = " (inferred from the whole column)" if self.inferred else ""
        return f"{names[self.kind]}{inferred}, {zone}"


@dataclass
class TimeScan:
    """Statistics of a whole time column.

    Attributes:
        values: number of values that are present.
        iso: number of ISO dates and times.
        naive: number of ISO dates and times without an offset.
        numbers: number of finite numbers.
        low, high: range of the numbers.
        kinds: number of numbers that are plausible in each unit and format.
        odd: the first value that is neither a number nor an ISO time.
    """

    values: int = 0
    iso: int = 0
    naive: int = 0
    numbers: int = 0
    low: float = math.inf
    high: float = -math.inf
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*PER_MS, *SPELLED), 0))
    odd: str = ""

    @classmethod
    def of(cls, parts: Iterable[pl.Series]) -> "TimeScan":
        """Return the statistics of a column in parts."""
        scan = cls()
        for values in parts:
            scan.add(values)
        return scan

    def merge(self, later: "TimeScan") -> None:
        """Add the values of later rows."""
        self.values += later.values
        self.iso += later.iso
        self.naive += later.naive
        self.numbers += later.numbers
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self.kinds = {kind: n + later.kinds[kind] for kind, n in self.kinds.items()}
        self.odd = self.odd or later.odd

    def add(self, values: pl.Series) -> None:
        """Add values of the column."""
        values = values.drop_nulls()
        self.values += len(values)
        if values.dtype == pl.String:
            numbers = values.cast(pl.Float64, strict=False)
            words = values.filter(numbers.is_null())  # no number is an ISO time
            if len(words):
                iso = is_iso(words)
                self.iso += int(iso.sum())
                self.naive += int((iso & ~has_zone(words)).sum())
                odd = words.filter(~iso)
                self.odd = self.odd or (odd[0] if len(odd) else "")
        elif values.dtype.is_numeric():
            numbers = values.cast(pl.Float64)
        else:
            self.odd = self.odd or str(values[0] if len(values) else "")
            return
        x = numbers.drop_nulls().drop_nans().to_numpy()
        x = x[np.isfinite(x)]
        if not len(x):
            return
        self.numbers += len(x)
        ends = np.array([x.min(), x.max()])
        self.low, self.high = min(self.low, float(ends[0])), max(self.high, float(ends[1]))
        # The plausible numbers of a unit are an interval, so most parts are counted by their ends.
        for unit in PER_MS:
            inside = _plausible(ends, unit).all()
            self.kinds[unit] += len(x) if inside else int(_plausible(x, unit).sum())
        spelled = {k: p for k, p in SPELLED.items() if _may_spell(ends, p)}
        if not spelled:
            return
        whole = x[(x == np.floor(x)) & (x >= 0) & (x < 1e15)].astype(np.int64)
        for name, pattern in spelled.items():
            self.kinds[name] += int(_spells(whole, pattern).sum())


def infer_time_rule(scan: TimeScan, options: TimeOptions, where: str) -> TimeRule:
    """Infer how a time column is read.

    Args:
        scan: statistics of the whole column.
        options: options of the user.
        where: file and column, for messages.

    Raises:
        BadInput: no unit or format fits, or several fit.
    """
    requested = requested_time_rule(options)
    if not scan.values:
        return requested
    if scan.iso >= SHARE * scan.values:
        return replace(requested, kind="iso", inferred=True)
    if scan.numbers < SHARE * scan.values:
        raise BadInput(
            f"{where}: values such as {scan.odd!r} are neither numbers nor ISO times such as "
            "2023-11-27T00:07:30; set their format, e.g. --time-format '%d/%m/%Y %H:%M'"
        )
    fitting = [k for k, n in scan.kinds.items() if n >= SHARE * scan.numbers]
    spelled = [k for k in fitting if k in SPELLED]
    if len(fitting) == 1 and not spelled:
        return replace(requested, unit=fitting[0], inferred=True)
    if fitting == spelled and len(fitting) == 1 and SPELLED[fitting[0]].startswith("%Y"):
        return replace(requested, kind="format", format=SPELLED[fitting[0]], inferred=True)
    extent = f"{where}: its values are between {_number(scan.low)} and {_number(scan.high)}"
    if fitting:
        formats = " or ".join(f"{k} (--time-format {SPELLED[k]})" for k in spelled)
        units = " or ".join(f"{UNIT_NAMES[k]} (--time-unit {k})" for k in fitting if k in PER_MS)
        raise BadInput(
            f"{extent}, which look like {' or '.join(filter(None, [formats, units]))}; set "
            "one of these options"
        )
    raise BadInput(f"{extent}, {_explain_mismatch(scan)}")


def requested_time_rule(options: TimeOptions) -> TimeRule:
    """Return the rule that the options request."""
    return TimeRule(
        kind="format" if options.format else "number",
        unit=options.unit or "ms",
        format=options.format,
        zone=options.zone or "UTC",
        zone_declared=bool(options.zone),
        origin_ms=options.origin_ms,
    )


def parse_times(values: pl.Series, rule: TimeRule) -> tuple[np.ndarray, Rules]:
    """Convert a time column.

    Args:
        values: the column, [N].
        rule: how it is read.

    Returns:
        int64 [N], milliseconds since 1970 (UTC), 0 in invalid rows; and the invalid rows.

    Raises:
        TypeError: the type of the column contradicts the rule.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        ms = _typed(values, rule.zone)
        readable = values.is_not_null()
    elif rule.kind == "iso":
        ms = parse_iso(values.cast(pl.String), rule.zone)
        readable = ms.is_not_null()
    elif rule.kind == "format":
        ms = _formatted(values, rule)
        readable = ms.is_not_null()
    elif dtype == pl.String or dtype == pl.Null or dtype.is_numeric():
        ms, readable = _counted(values, rule)
    else:
        raise TypeError(f"{dtype} values are not times")
    missing = (~readable | ms.is_null()).to_numpy()
    out = ms.fill_null(0).to_numpy().copy()
    no_time = f"is not a time ({rule.describe()})"
    future = ~missing & (out > latest_ms())
    # Skipping rows is the remedy for a few invalid rows, but not for a column in another unit.
    other_unit = "; set --time-unit or --time-format of the column"
    rules = [
        (missing, no_time + (other_unit if _most(missing) else f"; {SKIP_HINT}")),
        (~missing & (out < 0), f"is a negative time; {SKIP_HINT}"),
        (
            future,
            f"is in the future as {rule.describe()}"
            + (other_unit if _most(future) else f"; {SKIP_HINT}"),
        ),
    ]
    if rule.inferred and rule.kind == "number":
        early = ~missing & (out >= 0) & (out < EARLIEST_MS)
        rules.append((early, f"is before 1990 as {rule.describe()}; {SKIP_HINT}"))
    out[np.logical_or.reduce([rows for rows, _ in rules])] = 0
    return out, rules


def _most(rows: np.ndarray) -> bool:
    """Return whether more than half of the rows are selected."""
    return 2 * int(rows.sum()) > len(rows)


def refuse_other_unit(low_ms: int, high_ms: int, rule: TimeRule, where: str) -> None:
    """Raise `BadInput` if the requested unit is implausible and another one is plausible.

    A unit is implausible if the whole log is before 1990, and plausible if the whole log is between
    1990 and now.

    Args:
        low_ms, high_ms: earliest and latest time under the requested unit.
        rule: the requested rule.
        where: file and column, for the message.
    """
    if rule.kind != "number" or rule.inferred or rule.origin_ms or high_ms >= EARLIEST_MS:
        return
    for unit, per_ms in PER_MS.items():
        factor = PER_MS[rule.unit] / per_ms
        if low_ms * factor >= EARLIEST_MS and high_ms * factor <= latest_ms():
            raise BadInput(
                f"{where}: as {UNIT_NAMES[rule.unit]} the log runs from {format_time(low_ms)} to "
                f"{format_time(high_ms)}; these look like {UNIT_NAMES[unit]}: "
                f"set --time-unit {unit}"
            )


def latest_ms() -> int:
    """Return the latest plausible time: one day from now, because clocks differ."""
    return time.time_ns() // 1_000_000 + DAY_MS


def format_time(ms: int) -> str:
    """Return a time (milliseconds since 1970) as text in UTC."""
    return str(np.datetime64(ms, "ms").astype("datetime64[s]")) + "Z"


def _plausible(x: np.ndarray, unit: str) -> np.ndarray:
    """Return whether numbers in a unit are between 1990 and now, bool [N]."""
    ms = x / PER_MS[unit]
    return (ms >= EARLIEST_MS) & (ms <= latest_ms())


def _may_spell(ends: np.ndarray, pattern: str) -> bool:
    """Return whether a number between two ends can have the digits of a format of strptime."""
    digits = 2 * len(re.findall(r"%\w", pattern)) + 2 * ("%Y" in pattern)
    smallest = 10.0 ** (digits - 1) if "%Y" in pattern else 0.0
    result: bool = ends[1] >= smallest and ends[0] < 10.0**digits
    return result


def _spells(x: np.ndarray, pattern: str) -> np.ndarray:
    """Return whether each integer spells a date since 1990 in a format of strptime, bool [N]."""
    rest = x.copy()
    fields: dict[str, np.ndarray] = {}
    for letter in reversed(re.findall(r"%(\w)", pattern)):
        base = 10_000 if letter == "Y" else 100
        fields[letter], rest = rest % base, rest // base
    year = fields["Y"] if "Y" in fields else 2000 + fields["y"]
    month, day = fields["m"], fields["d"]
    month_ok = (month >= 1) & (month <= 12)
    index = (year - 1970) * 12 + np.where(month_ok, month - 1, 0)
    date = index.astype("datetime64[M]").astype("datetime64[D]") + (day - 1)
    valid = (rest == 0) & month_ok & (date.astype("datetime64[M]").astype(np.int64) == index)
    ms = date.astype(np.int64) * DAY_MS
    valid &= (ms >= EARLIEST_MS) & (ms <= latest_ms())
    for letter, most in (("H", 24), ("M", 60), ("S", 60)):
        if letter in fields:
            valid &= fields[letter] < most
    result: np.ndarray = valid
    return result


def _typed(values: pl.Series, zone: str) -> pl.Series:
    """Convert dates and datetimes to milliseconds."""
    if values.dtype == pl.Date:
        return local_to_utc_ms(values.cast(pl.Datetime("ms")), zone)
    if getattr(values.dtype, "time_zone", None):
        return values.dt.epoch("ms")
    return local_to_utc_ms(values, zone)


def _formatted(values: pl.Series, rule: TimeRule) -> pl.Series:
    """Convert text in a format of strptime to milliseconds."""
    text = values.cast(pl.Int64, strict=False) if values.dtype.is_float() else values
    text = text.cast(pl.String)
    if rule.inferred:  # whole numbers that spell dates, also "20231127.0"
        text = text.str.replace(r"\.0*$", "")
    pattern = re.sub(r"(?<!%)((?:%%)*)\.%f", r"\1%.f", rule.format)
    hour = re.search(r"%[HI]", pattern)
    if hour and not re.search(r"%[MTRrc]", pattern):
        pattern, text = f"{pattern} %M", text + " 00"
    try:
        parsed = text.str.to_datetime(pattern, strict=False, time_unit="ms", ambiguous="earliest")
    except pl.exceptions.PolarsError as e:
        reason = str(e).splitlines()[0]
        raise BadInput(f"--time-format {rule.format!r} is not valid: {reason}") from e
    return _typed(parsed, rule.zone)


def _counted(values: pl.Series, rule: TimeRule) -> tuple[pl.Series, pl.Series]:
    """Return milliseconds of numbers since the origin, and whether each value is a number."""
    whole = values.cast(pl.Int64, strict=False)
    numbers = values.cast(pl.Float64, strict=False)
    readable = numbers.is_not_null() & numbers.is_finite().fill_null(False)
    x = numbers.fill_null(0).fill_nan(0).to_numpy()
    # Values that overflow 64 bits in milliseconds are in the future in every unit.
    ms = np.where(np.isfinite(x), x, 0) / PER_MS[rule.unit] + rule.origin_ms
    ms = np.minimum(np.maximum(np.rint(ms), -(2.0**62)), 2.0**62).astype(np.int64)
    exact = (
        (whole.is_not_null() & (numbers == whole.cast(pl.Float64))).fill_null(False)
    ).to_numpy()
    integers = whole.fill_null(0).to_numpy()
    if rule.unit in ("us", "ns"):
        counted = integers // int(PER_MS[rule.unit]) + rule.origin_ms
    else:
        factor = round(1 / PER_MS[rule.unit])
        fits = np.abs(x) < 2.0**62 / factor
        exact &= fits
        counted = np.where(fits, integers, 0) * factor + rule.origin_ms
    return pl.Series(np.where(exact, counted, ms)), readable


def _number(x: float) -> str:
    return str(int(x)) if x == math.floor(x) and abs(x) < 1e18 else repr(x)


def _explain_mismatch(scan: TimeScan) -> str:
    shares = [
        f"{n / scan.numbers:.0%} {UNIT_NAMES.get(k, k)}"
        for k, n in scan.kinds.items()
        if n > (0 if k in PER_MS else 0.5 * scan.numbers)
    ]
    if shares:
        return (
            f"of which {' and '.join(shares)} are between 1990 and now; write the whole column in "
            "one unit"
        )
    days = scan.low >= SERIAL_DAYS[0] and scan.high < SERIAL_DAYS[1]
    serial = "; days of a spreadsheet have to be written as dates" * days
    return (
        "which is not a time between 1990 and now in seconds, milliseconds, microseconds or "
        "nanoseconds since 1970. If the numbers count from another time, declare unit and origin, "
        f"e.g. --time-unit s --time-origin 2023-11-16T00:00{serial}"
    )
