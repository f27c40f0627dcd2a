"""Bad input raises an error with file, row, column, value and remedy, or is skipped."""

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.sources.canonical import canonical_source

COLUMNS = {
    "item_id": Column("categorical"),
    "surface": Column("categorical"),
    "tags": Column("bag"),
    "age": Column("numeric"),
    "content": Column("vector", width=2),
}
TIMES = [1_650_000_000_000 + 60_000 * k for k in range(6)]


def good_log() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "member_id": [1, 1, 2, 2, 2, 3],
            "timestamp_ms": TIMES,
            "item_id": ["a", "b", "c", "a", "b", "c"],
            "surface": ["feed"] * 6,
            "tags": [["a"], ["a", "b"], None, [], ["c"], ["a"]],
            "age": [1.0, None, float("nan"), 2.0, 3.0, 4.0],
            "content": [[0.5, 1.0]] * 6,
            "click": [0, 1, None, 1, 0, 1],
            "weight": [1.0, 2.0, 1.0, 1.0, None, 1.0],
        }
    )


def prepare_log(directory: Path, log: pl.DataFrame, csv: bool, **options: object) -> Manifest:
    write_bad_log(directory, log, csv)
    return prepare(
        canonical_source(directory),
        directory / "out",
        PrepareOptions(batch_rows=2, **options),  # type: ignore[arg-type]
    )


def write_bad_log(directory: Path, log: pl.DataFrame, csv: bool) -> None:
    directory.mkdir(exist_ok=True)
    if csv:
        text = log.with_columns(
            pl.col(pl.List(pl.Float64)).list.eval(pl.element().cast(pl.String)).list.join(","),
            pl.col(pl.List(pl.String)).list.join("|"),
        )
        text.write_csv(directory / "log.csv")
    else:
        log.write_parquet(directory / "log.parquet")
    save_schema(LogSchema(("click",), COLUMNS), directory)


def put(column: str, value: object, row: int = 3) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return a function that sets a value in a row, counted from 1."""

    def change(log: pl.DataFrame) -> pl.DataFrame:
        values = [*log[column][: row - 1].to_list(), value, *log[column][row:].to_list()]
        return log.with_columns(pl.Series(column, values, strict=False))

    return change


FUTURE = time.time_ns() // 1_000_000 + 3 * 86_400_000
BAD_ROWS = {
    "null member": (put("member_id", None), "'member_id': value None is not an id"),
    "null item": (put("item_id", None), "'item_id': value None is not an id"),
    "negative time": (put("timestamp_ms", -5), "'timestamp_ms': value '?-5'? is a negative time"),
    "null time": (put("timestamp_ms", None), "'timestamp_ms': value None is not an integer"),
    "future": (put("timestamp_ms", FUTURE), f"value '?{FUTURE}'? is in the future.*microseconds"),
    "microseconds": (put("timestamp_ms", TIMES[2] * 1000), "divide microseconds by 1,000"),
    "label 2": (put("click", 2), r"'click': value '?2'? is not a label \(0 or 1"),
    "infinite number": (put("age", float("inf")), "'age': value '?inf'? is infinite"),
    "infinite as float32": (put("age", 1e39), "'age': value '?1e\\+?39'? is infinite"),
    "negative weight": (put("weight", -1.0), "'weight': value '?-1.0'? is not a weight"),
    "short vector": (put("content", [1.0]), "'content': value .*1.0.* is not a vector of length 2"),
    "null vector": (put("content", None), "'content': value None is not a vector of length 2"),
    "NaN in vector": (put("content", [1.0, float("nan")]), "contains NaN, null or infinity"),
}


@pytest.mark.parametrize("csv", [False, True], ids=["parquet", "csv"])
@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_refused_or_skipped(tmp_path: Path, name: str, csv: bool) -> None:
    change, message = BAD_ROWS[name]
    log = change(good_log())
    file = "log.csv" if csv else "log.parquet"
    with pytest.raises(BadInput, match=f"^{file}, row 3, column .*{message}.*--on-bad-row skip"):
        prepare_log(tmp_path / "log", log, csv)
    manifest = prepare_log(
        tmp_path / "log", log, csv, on_bad_row="skip", fractions=(1, 0, 0), shard_rows=2
    )
    assert (manifest.counts["skipped"], manifest.counts["impressions"]) == (1, 5)


COLUMN_FAULTS = {
    "float ids": (
        lambda log: log.with_columns(member_id=pl.Series([1.0, 1, 2, 2.5, 2, 3])),
        r"log.parquet, row 4, column 'member_id': value 2.5 is a float with a fraction",
    ),
    "large float ids": (
        lambda log: log.with_columns(member_id=pl.Series([1.0, 1, 2, 2, 2.0**53, 3])),
        r"row 5, column 'member_id': value 9007199254740992.0 is a float above 2\^53",
    ),
    "lists as numbers": (
        lambda log: log.with_columns(age="content"),
        r"row 1, column 'age': value \[0.5, 1.0\]: List\(Float64\) values are not numbers",
    ),
    "text in a numeric column": (
        lambda log: log.with_columns(age=pl.Series(["1", "2", None, "3", "old", "4"])),
        r"log.parquet, row 5, column 'age': value 'old' is not a number",
    ),
    "single ids as bags": (
        lambda log: log.with_columns(tags=pl.lit(3)),
        r"log.parquet, row 1, column 'tags': value 3: Int32 values are not lists of ids",
    ),
    "numbers as bags": (
        lambda log: log.with_columns(tags="content"),
        r"column 'tags': value \[0.5, 1.0\] \(row 1\) contains an id that is a float .* 6 of 6",
    ),
    "numbers as vectors": (
        lambda log: log.with_columns(content=pl.lit(1.0)),
        "column 'content': value 1.0: Float64 values are not lists of numbers",
    ),
    "missing column": (
        lambda log: log.rename({"surface": "surfaces"}),
        r"no column 'surface'; its columns are \[.*\] \(did you mean 'surfaces'\?\)",
    ),
    "missing action": (lambda log: log.drop("click"), "no column 'click'"),
    "seconds": (
        lambda log: log.with_columns(pl.col("timestamp_ms") // 1000),
        "log.parquet, near row 1, column 'timestamp_ms': value 1650000000 .*multiply .* by 1,000",
    ),
    "empty": (lambda log: log.clear(), "the log is empty"),
    "no labels at all": (
        lambda log: log.with_columns(click=pl.Series(["x"] * 6)),
        r"log.parquet, column 'click': its values are x \(6 rows\); labels are 0 or 1",
    ),
}


@pytest.mark.parametrize("name", COLUMN_FAULTS)
def test_bad_column_is_refused(tmp_path: Path, name: str) -> None:
    change, message = COLUMN_FAULTS[name]
    with pytest.raises(BadInput, match=message):
        prepare_log(tmp_path / "log", change(good_log()), csv=False)
    assert not (tmp_path / "log" / "out" / "manifest.json").exists()


def test_a_bag_needs_a_separator() -> None:
    with pytest.raises(BadInput, match="separator of a bag is empty; choose a character"):
        Column("bag", separator="")


def test_an_impression_has_one_item() -> None:
    with pytest.raises(BadInput, match="item_id is a bag, but an impression has one item"):
        LogSchema(("click",), {"item_id": Column("bag")})


def test_all_rows_skipped_is_an_empty_log(tmp_path: Path) -> None:
    log = good_log().with_columns(age=pl.lit(float("inf")))
    with pytest.raises(BadInput, match=r"would drop 6 of 6 rows, because .* is infinite"):
        prepare_log(tmp_path / "log", log, csv=False, on_bad_row="skip")
    empty = good_log().with_columns(member_id=pl.lit(None, pl.Int64))
    with pytest.raises(BadInput, match=r"all 6 rows .* skipped as bad \(member_id is not an id"):
        prepare_log(tmp_path / "log", empty, csv=False, on_bad_row="skip")


def test_a_csv_line_with_a_missing_field(tmp_path: Path) -> None:
    prepare_log(tmp_path / "log", good_log(), csv=True, fractions=(1, 0, 0))
    path = tmp_path / "log" / "log.csv"
    lines = path.read_text().splitlines()
    for at in (2, 4, len(lines) - 1):
        broken = [*lines[:at], lines[at].rsplit(",", 1)[0], *lines[at + 1 :]]
        path.write_text("\n".join(broken) + "\n")
        for shard_rows in (5, 6):
            out, source = tmp_path / f"out{at}", canonical_source(path.parent)
            with pytest.raises(BadInput, match=f"log.csv, row {at}: 8 fields where .* has 9"):
                prepare(source, out)
            options = PrepareOptions(
                fractions=(1, 0, 0), on_bad_row="skip", shard_rows=shard_rows, overwrite=True
            )
            counts = prepare(source, out, options).counts
            assert (counts["skipped"], counts["impressions"]) == (1, 5)
            (out / "manifest.json").unlink()


def test_broken_files_are_named(tmp_path: Path) -> None:
    prepare_log(tmp_path / "log", good_log(), csv=False)
    path = tmp_path / "log" / "log.parquet"
    whole = path.read_bytes()
    for data in (whole[:-20], whole[: len(whole) // 2], b""):
        path.write_bytes(data)
        with pytest.raises(BadInput, match=r"log.parquet: not a complete Parquet file"):
            prepare(canonical_source(tmp_path / "log"), tmp_path / "out")
    path.write_bytes(whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :])
    with pytest.raises(BadInput, match=r"log.parquet: damaged Parquet file"):
        prepare(canonical_source(tmp_path / "log"), tmp_path / "out")
    path.unlink()
    with pytest.raises(BadInput, match=r"no .parquet or .csv file"):
        canonical_source(tmp_path / "log")
    (tmp_path / "log" / "log.csv").write_bytes(b"")
    with pytest.raises(BadInput, match=r"log.csv: empty file"):
        canonical_source(tmp_path / "log")
    (tmp_path / "log" / "log.csv").write_bytes("member_id,naïve\n1,2\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"log.csv: not UTF-8"):
        canonical_source(tmp_path / "log")


def test_item_table_with_an_item_twice_or_a_bad_vector(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    prepare_log(directory, good_log(), csv=False)
    good_log().drop("content").write_parquet(directory / "log.parquet")
    save_schema(LogSchema(("click",), COLUMNS, items="items.parquet"), directory)
    for ids, content, message in (
        (
            ["a", "b", "a"],
            [[1.0, 2.0]] * 3,
            "items.parquet, row 3, column 'item_id': value 'a' occurs",
        ),
        (["a", "b", "c"], [[1.0, 2.0], [1.0]], "items.parquet, row 2, column 'content'"),
        (["a", None, "c"], [[1.0, 2.0]] * 3, "items.parquet, row 2, column 'item_id': value None"),
    ):
        vectors = pl.Series("content", [*content, None][:3], dtype=pl.List(pl.Float64))
        pl.DataFrame({"item_id": ids, "content": vectors}).write_parquet(
            directory / "items.parquet"
        )
        with pytest.raises(BadInput, match=message):
            prepare(canonical_source(directory), tmp_path / "out")


def test_impossible_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="leaves no training rows: the log starts at"):
        prepare_log(tmp_path / "log", good_log(), False, splits=_times(0, 6))
    with pytest.raises(BadInput, match=r"the test split, .* has no impressions"):
        prepare_log(tmp_path / "log", good_log(), False, splits=_times(3, 6, 9))
    with pytest.raises(BadInput, match="leaves the test split empty: the log ends at"):
        prepare_log(tmp_path / "log", good_log(), False, splits=_times(3, 9))
    with pytest.raises(BadInput, match="out of order"):
        _times(3, 2)
    with pytest.raises(BadInput, match="add up to 1"):
        PrepareOptions(fractions=(0.5, 0.1, 0.1))
    kept = prepare_log(tmp_path / "log", good_log(), False, splits=_times(3, 3, 5))
    assert [s.impressions for s in kept.splits.values()] == [3, 0, 2]
    assert kept.counts["after_test_end"] == 1


def _times(*minutes: int) -> SplitTimes:
    return SplitTimes(*(TIMES[0] + 60_000 * m for m in minutes))
