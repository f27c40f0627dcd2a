"""Parsing of ISO 8601 dates and times, and common variants, to milliseconds since 1970."""

from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput

# 2023-11-27, 2023/11/27, 20231127T..., then optionally a time, a fraction and an offset or UTC.
PATTERN = (
    r"^(?P<Y>\d{4})[-/]?(?P<M>\d{1,2})[-/]?(?P<D>\d{1,2})"
    r"(?:[T ]+(?P<h>\d{1,2}):?(?P<m>\d{2})(?::?(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r" ?(?P<z>Z|z|UTC|GMT|[+-]\d{2}:?\d{0,2})?)?$"
)
MARKED = r"[-/T]"  # characters that distinguish a date from a number


def is_iso(values: pl.Series) -> pl.Series:
    """Return whether each text looks like an ISO date or time, bool [N]."""
    return (values.str.contains(PATTERN) & values.str.contains(MARKED)).fill_null(False)


def has_zone(values: pl.Series) -> pl.Series:
    """Return whether each ISO time has an offset from UTC, bool [N]."""
    return values.str.contains(
        r":?\d{2}(?:[.,]\d+)? ?(?:Z|z|UTC|GMT|[+-]\d{2}:?\d{0,2})$"
    ).fill_null(False) & values.str.contains(r"[T ]")


def parse_iso(values: pl.Series, zone: str) -> pl.Series:
    """Parse ISO dates and times.

    Args:
        values: text [N].
        zone: time zone of times without an offset.

    Returns:
        Int64 [N], milliseconds since 1970 (UTC); null if the text is not a valid ISO time.
    """
    parts = values.str.extract_groups(PATTERN).struct.unnest()
    number = {
        name: parts[name].cast(pl.Int64, strict=False).fill_null(0).to_numpy()
        for name in ("Y", "M", "D", "h", "m", "s")
    }
    month_ok = (number["M"] >= 1) & (number["M"] <= 12)
    month = (number["Y"] - 1970) * 12 + np.where(month_ok, number["M"] - 1, 0)
    day = month.astype("datetime64[M]").astype("datetime64[D]") + (number["D"] - 1)
    valid = month_ok & (day.astype("datetime64[M]").astype(np.int64) == month)
    valid &= (number["h"] < 24) & (number["m"] < 60) & (number["s"] < 60)
    valid &= parts["Y"].is_not_null().to_numpy() & is_iso(values).to_numpy()
    fraction = parts["f"].fill_null("0").str.pad_end(3, "0").str.slice(0, 3)
    seconds = (day.astype(np.int64) * 24 + number["h"]) * 3600 + number["m"] * 60 + number["s"]
    ms = seconds * 1000 + fraction.cast(pl.Int64).to_numpy()
    out = pl.Series(values.name, ms).set(pl.Series(~valid), None)
    zoned = parts["z"].is_not_null()
    if zoned.any():
        offsets = parts["z"].str.extract_groups(r"^([+-])(\d{2}):?(\d{2})?").struct.unnest()
        sign = (offsets[offsets.columns[0]] == "-").fill_null(False).cast(pl.Int64) * 2 - 1
        hours = offsets[offsets.columns[1]].cast(pl.Int64).fill_null(0)
        minutes = offsets[offsets.columns[2]].cast(pl.Int64, strict=False).fill_null(0)
        shifted = out + sign * (hours * 60 + minutes) * 60_000
    else:
        shifted = out
    if zoned.all():
        return shifted
    naive = local_to_utc_ms(out.cast(pl.Datetime("ms")), zone)
    return naive.zip_with(~zoned, shifted) if zoned.any() else naive


def local_to_utc_ms(values: pl.Series, zone: str) -> pl.Series:
    """Convert local times to milliseconds since 1970 (UTC).

    Args:
        values: datetimes [N] without a time zone.
        zone: the time zone.

    Returns:
        Int64 [N]. An ambiguous time is the earlier one; a time that does not exist is null.
    """
    if zone == "UTC":
        return values.dt.epoch("ms")
    local = values.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.epoch("ms")


def check_zone(zone: str) -> str:
    """Return the name of a time zone.

    Raises:
        BadInput: the time zone is not known.
    """
    try:
        ZoneInfo(zone)
        pl.Series([0]).cast(pl.Datetime("ms")).dt.replace_time_zone(zone)
    except (KeyError, ValueError, OSError, pl.exceptions.PolarsError) as e:
        raise BadInput(
            f"--time-zone {zone!r} is not known; give a name such as UTC, Europe/Berlin or "
            "America/New_York"
        ) from e
    return zone
