"""An error that holds for a whole column is one error with the option that mends it."""

from pathlib import Path

import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from tests.data.test_public_files import run

ROWS = 40
LOG = {
    "member_id": [f"u{k % 3}" for k in range(ROWS)],
    "item_id": list(range(ROWS)),
    "timestamp_ms": [1_650_000_000_000 + 60_000 * k for k in range(ROWS)],
    "click": [k % 2 for k in range(ROWS)],
    "age": [1.5] * ROWS,
}
DAYS = [f"{k % 28 + 1:02d}/11/2023" for k in range(ROWS)]
# Options, changed columns, and the message; the same values are refused if bad rows are skipped.
COLUMNS: dict[str, tuple[str, dict[str, list[object]], str]] = {
    "unit": ("--time-unit s", {}, "'timestamp_ms': .*is in the future.*; set --time-unit or"),
    "format": (
        "--time-format %m/%d/%Y",
        {"timestamp_ms": list(DAYS)},
        r"is not a time \(dates written as %m/%d/%Y.*; set --time-format or --time-unit",
    ),
    "inferred format": ("", {"timestamp_ms": list(DAYS)}, "set their format, e.g. --time-format"),
    "words": (
        "--numeric age",
        {"age": ["NA", "NA", 1.5, 2.5] * 10},
        "'age': .*is not a number.*; list words for missing values in --null-values",
    ),
    "decimal commas": (
        "--numeric age",
        {"age": ["57,93"] * ROWS},
        "'age': .*40 of 40 .*; write numbers with a decimal point",
    ),
    "negative times": (
        "--time-unit s --time-origin 1899-12-30",
        {"timestamp_ms": [45413.25] * 14 + [4e9] * 26},
        "14 of 40 .*is a negative time|is a negative time, like 14 of 40 values; set --time-unit",
    ),
    "spreadsheet": (
        "",
        {"timestamp_ms": [45413.25 + k for k in range(ROWS)]},
        "between 45413.25 and 45452.25.*; days of a spreadsheet have to be written as dates",
    ),
    "label rule of its column": (
        "--label click=click>0",
        {"click": ["0,0", "1,0"] * 20},
        r"not a number to compare with 0 \(click=click>0\).*; write numbers with a decimal point",
    ),
    "several spellings": (
        "",
        {"click": [0, 1, "no", "yes"] * 10},
        r"'click': .*e.g. --label 'click=value in 1\|yes'",
    ),
    "ids": ("--map member_id=age", {}, "'age' in the file.*float with a fraction.*; write ids"),
    "labels": ("", {"click": [-1, 1] * 20}, "'click': .*e.g. --label 'click=value>0'"),
    "null labels": ("", {"click": ["NULL", 1] * 20}, "'click': .*add --null-values NULL"),
    "label rule": (
        "--label like=place>0",
        {"place": ["feed"] * ROWS},
        r"not a number to compare with 0 \(like=place>0\).*; compare words with == or in",
    ),
    "weights": ("--weight age", {"age": [-1] * ROWS}, "is not a weight.*; name another column in"),
}


@pytest.mark.parametrize("skip", ["", "--on-bad-row skip"])
@pytest.mark.parametrize("name", COLUMNS)
def test_most_values_of_a_column_are_one_error(tmp_path: Path, name: str, skip: str) -> None:
    options, changed, message = COLUMNS[name]
    log = {**LOG, **changed}
    if "--map" in options:
        del log["member_id"]
    pl.DataFrame(log, strict=False).write_csv(tmp_path / "log.csv")
    actions = "" if "--label click" in options else "--actions click"
    with pytest.raises(BadInput, match=rf"^log.csv, column .*{message}") as caught:
        run(tmp_path / "log.csv", tmp_path / "out", f"{actions} {options} {skip}")
    assert "or skip" not in str(caught.value)


def test_missing_values_may_be_skipped_unless_there_are_no_others(tmp_path: Path) -> None:
    members = pl.Series([None, None, None, "u"] * 10)
    log = pl.DataFrame(LOG).with_columns(member_id=members)
    log.write_csv(tmp_path / "log.csv")
    with pytest.raises(BadInput, match=r"row 1, column 'member_id': .* skip such rows"):
        run(tmp_path / "log.csv", tmp_path / "out", "--actions click")
    run(tmp_path / "log.csv", tmp_path / "out", "--actions click --on-bad-row skip")
    log.with_columns(member_id=pl.lit(None)).write_csv(tmp_path / "log.csv")
    with pytest.raises(BadInput, match="the column has no values; name another column with --map"):
        run(tmp_path / "log.csv", tmp_path / "out2", "--actions click")


def test_lines_with_another_number_of_fields(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a;b\n" + "1;2;3\n" * 5)
    with pytest.raises(BadInput, match=r"like most lines; correct --delimiter or --column-names"):
        run(tmp_path / "log.csv", tmp_path / "out", "--map member_id=a item_id=b timestamp_ms=b "
            "--label 'click=a>0'")  # fmt: skip
    for text, hint in (("1,5\n2,6\n", "add --column-names"), ("", "remove a file without rows")):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(BadInput, match=hint):
            run(tmp_path / "log.csv", tmp_path / "out", "--actions click --map member_id=user")
    for text, hint in (("a^b\n1^2\n", "set --delimiter"), ("1,5\n2,6\n", "add --column-names")):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(BadInput, match=hint):
            run(tmp_path / "log.csv", tmp_path / "out", "--actions click")
