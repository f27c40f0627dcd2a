"""Every file format gives the rows of Parquet."""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources import files, json_text
from ligr_jax.data.sources.compression import ReplacedBytes, TextStream
from ligr_jax.data.sources.files import DataFile, column_names, column_type, read_whole, rows_in
from ligr_jax.data.sources.json_lines import json_schema
from ligr_jax.data.sources.listing import list_tables
from ligr_jax.data.sources.table_checks import refuse_unsupported_format
from ligr_jax.data.sources.text_options import TextOptions

FRAME = pl.DataFrame(
    {
        "user": ["u1", "17", None, "ü"],
        "post": [3, 2**62 + 1, 5, None],
        "rating": [1.5, None, 3.0, 4.25],
        "shown": [[1, 2], [], None, [3]],
        "author": [{"id": 7, "name": "x"}, {"id": 8, "name": None}, None, {"id": 9, "name": "y"}],
        "events": [[{"ts": 1, "type": "pv"}, {"ts": 2, "type": "buy"}], [], None, [{"ts": 3}]],
    },
    schema_overrides={"events": pl.List(pl.Struct({"ts": pl.Int64, "type": pl.String}))},
    strict=False,
)
COLUMNS = ["user", "post", "rating", "shown", "author.id", "author.name", "events.ts"]


def write_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, FRAME.to_arrow().schema) as w:
        w.write_table(FRAME.to_arrow(), 3)


def json_lines() -> str:
    return "".join(json.dumps(row) + "\n" for row in FRAME.to_dicts())


def zipped(path: Path, name: str, text: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._" + name, "x")
        archive.writestr(name, text)


def flat(path: Path) -> DataFile:
    return DataFile(path, path.name, flat=True)


WRITERS: dict[str, Callable[[Path], object]] = {
    "log.PARQUET": FRAME.write_parquet,
    "log.feather": lambda path: FRAME.write_ipc(path, compression="zstd"),
    "log.arrow": FRAME.write_ipc,
    "stream.arrow": write_stream,
    "log.jsonl": lambda path: path.write_text(json_lines()),
    "log.NDJSON.GZ": lambda path: path.write_bytes(gzip.compress(json_lines().encode())),
    "log.json.bz2": lambda path: path.write_bytes(bz2.compress(json_lines().encode())),
    "log.jsonl.xz": lambda path: path.write_bytes(lzma.compress(json_lines().encode())),
    "log.zip": lambda path: zipped(path, "day/log.jsonl", json_lines()),
    "array.json": lambda path: path.write_text(json.dumps(FRAME.to_dicts())),
    "pretty.json": lambda path: path.write_text(json.dumps(FRAME.to_dicts(), indent=2)),
    "objects.json": lambda path: path.write_text(
        "\n".join(json.dumps(row, indent=1) for row in FRAME.to_dicts())
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_has_the_rows_and_types_of_parquet(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "BLOCK", 97)  # several blocks
    WRITERS[name](tmp_path / name)
    path = flat(tmp_path / name)
    assert column_names(path) == [*COLUMNS, "events.type"]
    assert column_type(path, "post") == pa.int64()
    assert rows_in(path) == 4
    frame = read_whole(path).frame
    FRAME.write_parquet(tmp_path / "expected.parquet")
    expected = read_whole(flat(tmp_path / "expected.parquet")).frame
    assert frame.rows() == expected.rows()
    assert frame["events.ts"].to_list() == [[1, 2], [], None, [3]]
    assert frame["author.id"].to_list() == [7, 8, None, 9]
    read = pl.concat(files.read_column(path, "events.type", 100))
    assert read.to_list() == [["pv", "buy"], [], None, [None]]


def test_json_types_follow_from_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "BLOCK", 10)
    lines = ['{"a": 1, "b": [1], "c": null}', '{"a": "17", "b": ["x"], "d": true}',
             '{"a": 2.5, "c": NaN}', '{"a": 12345678901234567890, "e": {"f": []}}',
             '{"a": {"g": "}, {"}}', ""]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\ufeff" + "\r\n".join(lines))
    assert read_whole(flat(tmp_path / "log.jsonl")).frame.to_dict(as_series=False) == {
        "a": ["1", "17", "2.5", "12345678901234567890", '{"g": "}, {"}'],
        "b": [["1"], ["x"], None, None, None],
        "c": [None] * 5,
        "d": [None, True, None, None, None],
        "e.f": [None, None, None, [], None],
    }


def test_a_line_that_is_no_object_is_refused_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": 2\n7\n{"a": 3}\n')
    with pytest.raises(BadInput, match=r"log.jsonl, row 2: not a JSON object \(b'.\"a\": 2'\)"):
        list(files.read_batches(path, 100))
    batches = list(files.read_batches(path, 100, "skip"))
    assert sum(b.malformed for b in batches) == 2
    assert pl.concat(b.frame for b in batches)["a"].to_list() == [1, 3]
    path.write_text("{u'a': 1}\n")
    with pytest.raises(BadInput, match="no line is a JSON object in braces"):
        json_schema(path, TextOptions())


def test_text_without_header_or_with_long_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text('1::"Toy" Story::5\n2::Rope: a "play::4\n', encoding="latin-1")
    reading = TextOptions(delimiter="::", names=("user", "title", "stars"))
    frame = read_whole(DataFile(path, "ratings", reading=reading)).frame
    assert frame["title"].to_list() == ['"Toy" Story', 'Rope: a "play']
    assert rows_in(DataFile(path, "ratings", reading=reading)) == 2
    assert column_names(DataFile(path, "r", reading=TextOptions("::", no_header=True))) == [
        "1", "2", "3"]  # fmt: skip
    with pytest.raises(BadInput, match=r"first line has 3 fields .* there are 1 column names"):
        column_names(DataFile(path, "r", reading=TextOptions("::", names=("user",))))
    path.write_text('1\t"x\n2\ty"\n')
    quotes = DataFile(path, "r", reading=TextOptions(no_header=True, no_quotes=True))
    assert read_whole(quotes).frame.rows() == [("1", '"x'), ("2", 'y"')]
    path.write_text(",b\n0,1\n")
    assert read_whole(path).frame.to_dicts() == [{"1": "0", "b": "1"}]


@pytest.mark.parametrize("size", [3, 4, 5, 100])
def test_a_delimiter_may_lie_between_two_blocks(tmp_path: Path, size: int) -> None:
    text = b"a::b:c:::d::\n::e:"
    (tmp_path / "log").write_bytes(text)
    with TextStream(tmp_path / "log") as raw:
        stream, read = ReplacedBytes(raw, b"::", b"\x1f"), []
        while chunk := stream.read(size):
            assert len(chunk) <= size
            read.append(chunk)
    assert b"".join(read) == text.replace(b"::", b"\x1f")


def test_files_that_describe_a_log_are_not_read(tmp_path: Path) -> None:
    zipped(tmp_path / "old.zip", "log.csv", "a\n1\n")
    assert [f.name for f in list_tables(tmp_path).files] == ["old.zip"]
    assert read_whole(tmp_path / "old.zip").frame.rows() == [("1",)]
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "part-0.json").write_text('{"a": 1}\n')
    assert [f.name for f in list_tables(tmp_path).files] == ["part-0.json"]
    (tmp_path / "log.csv").write_text("a\n1\n")
    (tmp_path / "out").mkdir()
    for name in ("members-00000-of-00001.arrow", "more.csv"):
        (tmp_path / "out" / name).write_bytes(b"")
    assert [f.name for f in list_tables(tmp_path).files] == ["log.csv"]
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "a")
        archive.writestr("b.csv", "a")
    with pytest.raises(BadInput, match=r"two.zip: the archive has 2 files \['a.csv', 'b.csv'\]"):
        column_names(tmp_path / "two.zip")
    (tmp_path / "log.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(BadInput, match=r"a compressed .parquet file is not read; unpack it"):
        refuse_unsupported_format(DataFile.of(tmp_path / "log.parquet.gz"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    WRITERS["log.feather"](tmp_path / "log.feather")
    whole = (tmp_path / "log.feather").read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"FEA1" + whole):
        (tmp_path / "log.feather").write_bytes(data)
        with pytest.raises(BadInput, match=r"log.feather: (not a complete Arrow|Feather version)"):
            read_whole(tmp_path / "log.feather")
    WRITERS["log.zip"](tmp_path / "log.zip")
    whole = (tmp_path / "log.zip").read_bytes()
    (tmp_path / "log.zip").write_bytes(whole[:80] + bytes(20) + whole[100:])
    with pytest.raises(BadInput, match=r"log.zip"):
        read_whole(tmp_path / "log.zip")
    (tmp_path / "log.csv").write_text('a,b\n1,"2\n3,4\n')
    with pytest.raises(BadInput, match=r"not closed.* add --no-quotes"):
        read_whole(tmp_path / "log.csv")
