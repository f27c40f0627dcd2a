"""The same log in different file formats gives the same shards."""

import bz2
import gzip
import lzma
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from ligr_jax.data.manifest import MISSING, Manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import read_whole
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import parse_ids, to_ids
from ligr_jax.data.sources.label_rules import parse_label
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.text_options import TextOptions
from tests.data.test_table_source import START_MS, run

ROWS = 60


def repeated(*values: object) -> list[object]:
    return [values[k % len(values)] for k in range(ROWS)]


# Values that CSV and Parquet readers commonly interpret differently.
TRAPS = {
    "member_id": repeated("u1", "17", "017", "+17", "nan ", "true", "58.0", "17"),
    "item_id": repeated(2**63 + 5, 3, 2**64 - 1),
    "country": repeated("NA", "null", "None", "nan", "NULL", "", " US", "US", None),
    "code": repeated(58.0, 30.0, None),
    "flag": repeated(True, False, None),
    "zip": repeated("00501", "501", "1e5", "100000", "-0", "0"),
    "title": repeated('a "quoted"\nline', "x, y", "line\r\nbreak", None),
    "kind": repeated("b", "a", None),
    "price": repeated(1.5, None, 0.1, -3.25),
    "cents": repeated("1.50", "2.00", None),
    "nothing": repeated(None),
    "day": [date(2023, 1, 1) + timedelta(k % 5) for k in range(ROWS)],
    "tags": repeated("a|b", "17| 17|", "", None, "NA"),
    "click": repeated(True, False, None, False),
    "like": repeated(1.0, 0.0, None),
}
CATEGORICAL = ("country", "code", "flag", "zip", "title", "kind", "nothing", "day")


def traps() -> pl.DataFrame:
    frame = pl.DataFrame({k: pl.Series(k, v, strict=False) for k, v in TRAPS.items()})
    return frame.with_columns(
        pl.col("item_id").cast(pl.UInt64),
        pl.col("kind").cast(pl.Enum(["b", "a"])),
        pl.col("country").cast(pl.Categorical),
        pl.col("cents").cast(pl.Decimal(10, 2)),
        timestamp_ms=pl.Series(
            [datetime(2023, 5, 1) + timedelta(seconds=977 * k) for k in range(ROWS)]
        ).cast(pl.Datetime("us")),
    )


def columns(**more: object) -> TableColumns:
    kinds = {"categorical": CATEGORICAL, "numeric": ("price", "cents"), "bag": ("tags",)}
    return TableColumns(actions=("click", "like"), **{**kinds, **more})  # type: ignore[arg-type]


def prepared(path: Path, said: TableColumns) -> Manifest:
    return prepare(open_source(path, "table", said), path.parent / f"{path.name}-out")


@pytest.mark.parametrize("null_values", [(), ("NA", "30", "a")])
def test_a_log_of_traps_is_the_same_in_csv_and_parquet(
    tmp_path: Path, null_values: tuple[str, ...]
) -> None:
    frame, said = traps(), columns(reading=TextOptions(null_values=null_values))
    frame.write_csv(tmp_path / "log.csv")
    lists = frame["tags"].str.split("|")
    frame.with_columns(lists).write_parquet(tmp_path / "log.parquet")
    table = frame.to_arrow()
    for k, name in enumerate(table.column_names):
        if pa.types.is_large_string(table[name].type):
            table = table.set_column(k, name, table[name].cast(pa.binary()))
    pq.write_table(table, tmp_path / "bytes.parquet")
    made = {p.name: prepared(p, said) for p in sorted(tmp_path.glob("log.*"))}
    made["bytes.parquet"] = prepared(tmp_path / "bytes.parquet", said)
    assert len({m.shards for m in made.values()}) == 1
    measured = made["log.csv"].columns
    countries = {"NA", "null", "None", "nan", "NULL", "US"} - set(null_values)
    assert measured["country"].distinct == len(countries)
    assert measured["code"].distinct == (1 if null_values else 2)
    assert measured["zip"].distinct == 6
    assert made["log.csv"].counts["members"] == 7


def test_avro_gives_the_data_of_parquet(tmp_path: Path) -> None:
    said = columns()
    frame = traps().with_columns(
        pl.col("item_id").cast(pl.String),
        pl.col("country", "kind").cast(pl.String),
        pl.col("tags").str.split("|"),
        timestamp_ms=pl.col("timestamp_ms").dt.replace_time_zone("UTC"),
    )
    frame.write_parquet(tmp_path / "log.parquet")
    types: dict[str, object] = {
        "nothing": "null",
        "price": "double",
        "code": "double",
        "like": "float",
        "flag": "boolean",
        "click": "boolean",
        "timestamp_ms": {"type": "long", "logicalType": "timestamp-micros"},
        "day": {"type": "int", "logicalType": "date"},
        "cents": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        "tags": {"type": "array", "items": ["null", "string"]},
    }
    fields = [
        {"name": n, "type": "null" if n == "nothing" else ["null", types.get(n, "string")]}
        for n in frame.columns
    ]
    schema = {"type": "record", "name": "impression", "fields": fields}
    (tmp_path / "avro").mkdir()
    for k, rows in enumerate((frame[:35], frame[35:])):
        with (tmp_path / "avro" / f"part-{k}.avro").open("wb") as file:
            fastavro.writer(file, schema, rows.to_dicts(), sync_interval=500)
    made = [prepared(tmp_path / name, said) for name in ("log.parquet", "avro")]
    assert made[0].shards == made[1].shards
    part = tmp_path / "avro" / "part-0.avro"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"part-0.avro: not a complete Avro file"):
        prepared(tmp_path / "avro", said)


def test_ids_join_by_one_rule(tmp_path: Path) -> None:
    """The text 17 of an item table is the integer 17 of the log; no common id is an error."""
    log = pl.DataFrame(
        {
            "member_id": [k % 5 for k in range(ROWS)],
            "timestamp_ms": [START_MS + 600_000 * k for k in range(ROWS)],
            "item_id": [k % 4 for k in range(ROWS)],
            "click": [k % 2 for k in range(ROWS)],
        }
    )
    log.write_csv(tmp_path / "log.csv")
    items = pl.DataFrame({"item_id": [str(k) for k in range(4)], "brand": ["x", "y"] * 2})
    made = []
    for name, ids in (
        ("text", items),
        ("integers", items.with_columns(pl.col("item_id").cast(pl.Int32))),
        ("floats", items.with_columns(pl.col("item_id").cast(pl.Float64))),
    ):
        ids.write_parquet(tmp_path / f"{name}.parquet")
        said = TableColumns(
            actions=("click",), categorical=("brand",), items=tmp_path / f"{name}.parquet"
        )
        made.append(prepare(open_source(tmp_path / "log.csv", columns=said), tmp_path / name))
        assert "without_item" not in made[-1].counts or not made[-1].counts["without_item"]
    assert made[0].shards == made[1].shards == made[2].shards
    items.with_columns(item_id="item_" + pl.col("item_id")).write_csv(tmp_path / "other.csv")
    said = TableColumns(actions=("click",), categorical=("brand",), items=tmp_path / "other.csv")
    with pytest.raises(BadInput, match=r"log.csv has e.g. \['0', .*other.csv has e.g. \['item_0'"):
        prepare(open_source(tmp_path / "log.csv", columns=said), tmp_path / "out")


def good() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "member_id": [f"u{k % 7}" for k in range(ROWS)],
            "timestamp_ms": [START_MS + 3_600_000 * k for k in range(ROWS)],
            "item_id": [k % 9 for k in range(ROWS)],
            "place": repeated("home", "été"),
            "click": [k % 3 == 0 for k in range(ROWS)],
        }
    )


def text(separator: str = ",", end: str = "\n", encoding: str = "utf-8") -> bytes:
    return good().write_csv(separator=separator, line_terminator=end).encode(encoding)


FILES: dict[str, Callable[[], bytes]] = {
    "a.csv.gz": lambda: gzip.compress(text()[:900]) + gzip.compress(text()[900:]),
    "b.csv.bz2": lambda: bz2.compress(text()),
    "c.tsv.xz": lambda: lzma.compress(text("\t")),
    "d.csv.zst": lambda: pa.compress(text(), "zstd", asbytes=True),
    "e.csv": lambda: gzip.compress(text()),  # compressed, without the suffix
    "f.csv": lambda: text(";"),
    "g.txt": lambda: text("|"),
    "h.tab": lambda: text("\t"),
    "i.csv": lambda: text(end="\r\n"),
    "j.csv": lambda: b"\xef\xbb\xbf" + text(),
    "k.csv": lambda: text().replace(b"member_id,", b" member_id ,"),
    "part-00000": text,
}


def test_compression_delimiters_and_line_ends_change_nothing(tmp_path: Path) -> None:
    said = TableColumns(actions=("click",), categorical=("place",))
    good().write_parquet(tmp_path / "good.parquet")
    expected = prepared(tmp_path / "good.parquet", said).shards
    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make())
        assert prepared(tmp_path / name, said).shards == expected, name
    for name, encoding in (("l.csv", "utf-16"), ("m.csv", "latin-1")):
        (tmp_path / name).write_bytes(text(encoding=encoding))
        with pytest.raises(BadInput, match=f"{name}: not UTF-8.*--encoding"):
            prepared(tmp_path / name, said)
        with_encoding = TableColumns(
            actions=("click",), categorical=("place",), reading=TextOptions(encoding=encoding)
        )
        assert prepared(tmp_path / name, with_encoding).shards == expected
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text())[:-9])
    with pytest.raises(BadInput, match=r"cut.csv.gz: not a readable text file \(damaged"):
        prepared(tmp_path / "cut.csv.gz", said)


def test_directories_by_partition_without_hidden_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    for k in range(3):
        directory = log / f"dt=2023-11-1{k}" / "hour=05"
        directory.mkdir(parents=True)
        good()[20 * k : 20 * (k + 1)].write_parquet(directory / "part-0.parquet")
        (directory / "._part-0.parquet").write_bytes(b"\0\5\26\7")
    (log / "_SUCCESS").touch()
    (log / "README.txt").write_text("a note")
    run(log, "--out", tmp_path / "out", "--actions", "click", "--categorical", "place,dt,hour")
    said = capsys.readouterr().out
    assert "columns from the paths of the files: dt, hour" in said
    assert "files not read: README.txt" in said
    assert "dt           -> feature, categorical, 3 ids" in said
    good().drop("place").write_parquet(log / "z.parquet")
    with pytest.raises(BadInput, match=r"z.parquet: its columns differ .* lacks \['place', 'dt'"):
        open_source(log, columns=TableColumns(actions=("click",)))


def test_quoted_line_breaks_are_read_at_every_size(tmp_path: Path) -> None:
    """Blocks of the reader end at 4 MiB, here within a quoted cell."""
    body = "\n".join(f"line {k} of a text, with a comma" for k in range(60))
    rows = 2600
    lines = [f'u{k % 50},{k % 9},{START_MS + 3_600_000 * k},{k % 2},"{body}"' for k in range(rows)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["member_id,item_id,timestamp_ms,click,title", *lines]) + "\n")
    assert path.stat().st_size > 4 << 20
    said = TableColumns(actions=("click",), categorical=("title",))
    source = open_source(path, columns=said)
    assert source.rows == rows
    manifest = prepare(source, tmp_path / "out")
    assert (manifest.counts["impressions"], manifest.columns["title"].distinct) == (rows, 1)
    broken = [*lines[:2500], lines[2500].replace(",1,", ",").replace(",0,", ","), *lines[2501:]]
    path.write_text("\n".join(["member_id,item_id,timestamp_ms,click,title", *broken]))
    with pytest.raises(BadInput, match=r"log.csv, row 2501: 4 fields where the header has 5"):
        prepared(path, said)
    path.write_text("\n".join(["member_id,item_id,timestamp_ms,click,title", *lines[:20]])[:-1])
    with pytest.raises(BadInput, match=r"log.csv: the last row has a quote that is not closed"):
        prepared(path, said)


@pytest.mark.parametrize(
    ("values", "rule", "positive"),
    [
        (repeated("-1", "1"), "click=value>0", 30),
        (repeated("yes", "no", "no"), "click=value==yes", 20),
        (repeated("5", "1", "4", "3"), "click=value>=4", 30),
        (repeated("buy", "view", "pay"), "click=value in buy|pay", 40),
    ],
)
def test_labels_of_another_coding_are_one_error_with_a_rule(
    tmp_path: Path, values: list[object], rule: str, positive: int
) -> None:
    frame = good().with_columns(click=pl.Series(values))
    frame.write_csv(tmp_path / "log.csv")
    bad = r"log.csv, column 'click'.*its values are .* rows\).*--label 'click=value"
    said = TableColumns(actions=("click",))
    for on_bad_row in ("error", "skip"):
        with pytest.raises(BadInput, match=bad) as refused:
            run(tmp_path / "log.csv", "--out", tmp_path / "out", "--actions", "click",
                "--on-bad-row", on_bad_row)  # fmt: skip
        assert ("--on-bad-row skip" in str(refused.value)) == (on_bad_row == "skip")
    said = TableColumns(labels=(parse_label(rule),))
    manifest = prepared(tmp_path / "log.csv", said)
    rates = [(s.impressions, s.positive_rate["click"]) for s in manifest.splits.values()]
    assert round(sum(n * rate for n, rate in rates)) == positive
    frame.write_parquet(tmp_path / "log.parquet")
    assert prepared(tmp_path / "log.parquet", said).shards == manifest.shards


def test_single_bad_labels_are_skipped_and_counted_by_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ["0", "1"] * 30
    values[7] = "2"
    good().with_columns(click=pl.Series(values)).write_csv(tmp_path / "log.csv")
    arguments = [tmp_path / "log.csv", "--out", tmp_path / "out", "--actions", "click"]
    with pytest.raises(BadInput, match=r"row 8, column 'click': value '2' is not a label.*skip"):
        run(*arguments)
    run(*arguments, "--on-bad-row", "skip")
    said = capsys.readouterr().out
    assert "skipped 1 rows: column 'click' is not a label" in said
    assert "e.g. log.csv, row 8: '2'" in said


ID_TYPES = {
    "int64": pa.array([17, 18, None], pa.int64()),
    "uint8": pa.array([17, 18, None], pa.uint8()),
    "float": pa.array([17.0, 18.0, None]),
    "text": pa.array(["17", " 18 ", ""]),
    "words of floats": pa.array(["17.0", "18.0", None]),
    "bytes": pa.array([b"17", b" 18", b""]),
    "fixed bytes": pa.array([b"17", b"18", None], pa.binary(2)),
    "decimal": pa.array([Decimal("17.00"), Decimal(18), None], pa.decimal128(10, 2)),
    "wide decimal": pa.array([Decimal(17), Decimal(18), None], pa.decimal256(60, 0)),
    "dictionary": pa.array(["17", "18", None]).dictionary_encode(),
    "string view": pa.array(["17", "18", None], pa.string_view()),
}


@pytest.mark.parametrize("name", ID_TYPES)
def test_an_id_does_not_depend_on_its_type(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"id": ID_TYPES[name]}), tmp_path / "log.parquet")
    ids, rules = parse_ids(read_whole(tmp_path / "log.parquet").frame["id"])
    assert ids.tolist() == [17, 18, MISSING]
    assert not any(rows.any() for rows, _ in rules)


def test_ids_of_bytes_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    raw = b"\xff\x00\x01"
    pq.write_table(pa.table({"id": pa.array([raw, b"u1", None, b" "])}), tmp_path / "log.parquet")
    ids, _ = parse_ids(read_whole(tmp_path / "log.parquet").frame["id"])
    number = xxhash.xxh64_intdigest(raw)
    expected = [int(np.uint64(number).astype(np.int64)), to_ids(pl.Series(["u1"]))[0]]
    assert ids.tolist() == [*expected, MISSING, MISSING]
    uuid = UUID("12345678-1234-5678-9234-567812345678")
    pq.write_table(pa.table({"id": pa.array([uuid.bytes], pa.uuid())}), tmp_path / "log.parquet")
    assert read_whole(tmp_path / "log.parquet").frame["id"].to_list() == [str(uuid)]


def test_files_of_one_log_may_differ_in_types_and_order_of_columns(tmp_path: Path) -> None:
    """Part 0 has integers and part 1 has text, and the same row in both is a duplicate."""
    log = pl.DataFrame(
        {
            "member_id": [k % 5 for k in range(ROWS)],
            "timestamp_ms": [START_MS + 600_000 * k for k in range(ROWS)],
            "item_id": [str(k % 4) for k in range(ROWS)],
            "click": [k % 2 for k in range(ROWS)],
        }
    )
    log.write_csv(tmp_path / "whole.csv")
    parts = tmp_path / "parts"
    parts.mkdir()
    log[:30].with_columns(pl.col("item_id").cast(pl.Int32)).write_parquet(parts / "0.parquet")
    text = log[30:].with_columns(pl.col("member_id").cast(pl.Decimal(8, 2)))
    text.select(reversed(log.columns)).write_parquet(parts / "1.parquet")
    log[40:].with_columns(pl.col("member_id").cast(pl.Decimal(8, 2))).write_parquet(
        parts / "2.parquet"
    )
    said, train = TableColumns(actions=("click",)), PrepareOptions(fractions=(1, 0, 0))
    made = [
        prepare(open_source(tmp_path / name, "table", said), tmp_path / f"{name}-train", train)
        for name in ("whole.csv", "parts")
    ]
    assert made[0].shards == made[1].shards
    assert made[1].counts["duplicates"] == 20
    items = pl.DataFrame({"item_id": [0.0, 1.0, 2.0, 3.0], "brand": ["x", "y"] * 2})
    items.write_parquet(tmp_path / "items.parquet")
    joined = prepared(
        parts, replace(said, items=tmp_path / "items.parquet", categorical=("brand",))
    )
    assert joined.columns["brand"].missing == 0


def test_json_files_may_lack_columns(tmp_path: Path) -> None:
    lines = (
        '{"member_id": "a", "item_id": 1, "timestamp_ms": %d, "click": 1, "shown": [{"x": 1}]}\n',
        '{"timestamp_ms": %d, "item_id": 2, "member_id": "a", "shown": [], "like": 0}\n',
    )
    for k, line in enumerate(lines):
        (tmp_path / f"{k}.jsonl").write_text(line % (START_MS + k))
    source = open_source(tmp_path, "table", TableColumns(actions=("click", "like")))
    frame = pl.concat((b.frame for b in source.batches(10, "error")), how="vertical_relaxed")
    assert frame.select("item_id", "click", "like").rows() == [(1, "1", None), (2, None, "0")]
    assert source.unused == ("shown.x",)


def test_many_files_need_few_descriptors(tmp_path: Path) -> None:
    for k in range(60):
        day = tmp_path / f"day={k % 3}"
        day.mkdir(exist_ok=True)
        (day / f"{k}.csv").write_text(
            f"member_id,item_id,timestamp_ms,click\nu,{k},{START_MS + 60_000 * k},{k % 2}\n"
        )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, before[1]))
        made = prepared(tmp_path, TableColumns(actions=("click",), categorical=("day",)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert made.counts["impressions"] == 60
    assert made.columns["day"].distinct == 3
