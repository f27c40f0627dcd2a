"""The time column: its unit and format are inferred from the whole column, or must be declared."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.times import (
    TimeOptions,
    TimeScan,
    infer_time_rule,
    parse_times,
    requested_time_rule,
)
from tests.data.test_table_source import run

START = datetime(2023, 10, 27, 22, 7, 30, 500_000, tzinfo=UTC)
MOMENTS = [START + timedelta(hours=7 * k) for k in range(40)]
MS = [round(m.timestamp() * 1000) for m in MOMENTS]
WHOLE = [ms // 1000 * 1000 for ms in MS]
HOURS = [ms // 3_600_000 * 3_600_000 for ms in MS]
DAYS = [ms // 86_400_000 * 86_400_000 for ms in MS]


def written(pattern: str) -> list[str]:
    return [m.strftime(pattern) for m in MOMENTS]


# Spellings of a time column, and their milliseconds.
COLUMNS: dict[str, tuple[list[object], list[int]]] = {
    "s": ([ms // 1000 for ms in MS], WHOLE),
    "s as floats": ([ms / 1000 for ms in MS], MS),
    "s as text": ([str(ms / 1000) for ms in MS], MS),
    "ms": (list(MS), MS),
    "us": ([ms * 1000 + 999 for ms in MS], MS),
    "ns": ([ms * 10**6 + 999_999 for ms in MS], MS),
    "ISO": (written("%Y-%m-%dT%H:%M:%S.%f"), MS),
    "ISO Z": (written("%Y-%m-%dT%H:%M:%SZ"), WHOLE),
    "ISO UTC": (written("%Y-%m-%d %H:%M:%S UTC"), WHOLE),
    "ISO day": (written("%Y-%m-%d"), DAYS),
    "basic": (written("%Y%m%dT%H%M%SZ"), WHOLE),
    "yyyymmdd": ([int(t) for t in written("%Y%m%d")], DAYS),
    "yyyymmddhh": (written("%Y%m%d%H"), HOURS),
    "yyyymmddhhmmss": (written("%Y%m%d%H%M%S"), WHOLE),
    "dates": ([m.date() for m in MOMENTS], DAYS),
    "timestamps": (list(MOMENTS), MS),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("parts", [1, 7])
def test_the_unit_is_inferred_from_the_whole_column(name: str, parts: int) -> None:
    values, expected = COLUMNS[name]
    column = pl.Series("t", values)
    cuts = [column[k::parts] for k in range(parts)]
    options = TimeOptions()
    typed = name in ("dates", "timestamps")
    rule = (
        requested_time_rule(options)
        if typed
        else infer_time_rule(TimeScan.of(cuts), options, "log, column 't'")
    )
    ms, rules = parse_times(column, rule)
    assert ms.tolist() == expected
    assert not any(rows.any() for rows, _ in rules)


def test_offsets_and_zones() -> None:
    """--time-zone applies to times without an offset, also at a change of the clocks."""
    berlin = TimeOptions(zone="Europe/Berlin")
    texts = pl.Series(["2023-10-29T00:30:00", "2023-10-29 12:00", "2023-10-29T12:00:00+05:30"])
    ms, _ = parse_times(texts, infer_time_rule(TimeScan.of([texts]), berlin, ""))
    utc = [datetime.fromtimestamp(t / 1000, UTC).strftime("%d %H:%M") for t in ms]
    assert utc == ["28 22:30", "29 11:00", "29 06:30"]
    naive = pl.Series([datetime(2023, 3, 26, 2, 30), datetime(2023, 3, 26, 4)])
    ms, rules = parse_times(naive, requested_time_rule(berlin))
    assert rules[0][0].tolist() == [True, False]  # the clock jumped over 02:30
    german = TimeOptions(format="%d.%m.%Y %H Uhr", zone="Europe/Berlin")
    texts = pl.Series(["27.11.2023 13 Uhr"])
    assert parse_times(texts, requested_time_rule(german))[0] == [1_701_086_400_000]
    with pytest.raises(BadInput, match="--time-zone 'Mars' is not known"):
        TimeOptions(zone="Mars")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3600 * k for k in range(40)], "between 0 and 140400, .*--time-unit s --time-origin 2023"),
        (written("%m/%d/%Y"), "'10/27/2023' are neither numbers nor ISO times.*--time-format"),
        ([int(t) for t in written("%y%m%d%H")], r"look like yymmddhh \(--time-format %y%m%d%H\)"),
        ([*MS[:20], *[ms // 1000 for ms in MS[20:]]], "50% seconds and 50% milliseconds are"),
        ([ms // 1000 + 10**9 for ms in MS], "not a time between 1990 and now"),
    ],
)
def test_an_ambiguous_column_must_be_declared(values: list[object], message: str) -> None:
    with pytest.raises(BadInput, match=f"log, column 't': .*{message}"):
        infer_time_rule(TimeScan.of([pl.Series(values)]), TimeOptions(), "log, column 't'")


def log(path: Path, times: list[object]) -> Path:
    n = len(times)
    columns = {"member_id": [k % 4 for k in range(n)], "item_id": [k % 5 for k in range(n)]}
    frame = pl.DataFrame({**columns, "ts": times, "click": [k % 2 for k in range(n)]})
    frame.write_csv(path)
    return path


def test_units_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary has the inferred unit; a wrong --time-unit raises an error with the right one."""
    base = ["--map", "timestamp_ms=ts", "--actions", "click", "--out", tmp_path / "out"]
    seconds = log(tmp_path / "seconds.csv", [ms // 1000 for ms in MS])
    run(seconds, *base)
    said = capsys.readouterr().out
    assert "from 2023-10-27T22:07:30Z to 2023-11-08T07:07:30Z (UTC), median gap within a " in said
    assert "times: seconds since 1970 (UTC) (inferred from the whole column)" in said
    with pytest.raises(BadInput, match="look like seconds: set --time-unit s"):
        run(seconds, *base, "--overwrite", "--time-unit", "ms")
    with pytest.raises(BadInput, match=r"row 1.*is in the future as seconds since 1970") as wrong:
        run(log(tmp_path / "ms.csv", list(MS)), *base, "--overwrite", "--time-unit", "s")
    assert "skip" not in str(wrong.value)
    began = log(tmp_path / "began.csv", [3600 * k for k in range(40)])
    origin = ["--time-unit", "s", "--time-origin", "2023-11-16"]
    run(began, *base, "--overwrite", *origin)
    assert "from 2023-11-16T00:00:00Z to 2023-11-17T15:00:00Z" in capsys.readouterr().out
    outlier = log(tmp_path / "outlier.csv", [0 if k == 9 else ms for k, ms in enumerate(MS)])
    with pytest.raises(BadInput, match=r"row 10, .*value '0' is before 1990 as milliseconds"):
        run(outlier, *base, "--overwrite")


def test_implausible_times_are_a_warning_and_not_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seconds declared as milliseconds put the impressions of each member into one session."""
    n = 600
    columns = {"member_id": [k % 30 for k in range(n)], "item_id": [k % 5 for k in range(n)]}
    times = [1_700_000_000 + 3600 * k for k in range(n)]
    frame = pl.DataFrame({**columns, "timestamp_ms": times, "click": [k % 2 for k in range(n)]})
    frame.write_csv(tmp_path / "log.csv")
    base = [tmp_path / "log.csv", "--out", tmp_path / "out", "--actions", "click"]
    run(*base)
    assert "WARNING" not in capsys.readouterr().out
    run(*base, "--overwrite", "--time-unit", "ms", "--time-origin", "2023-01-01")
    said = capsys.readouterr().out
    assert "WARNING: the whole log of 30 members is within 35.9 min" in said
    assert "WARNING: every member has one session" in said
