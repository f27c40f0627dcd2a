"""Delimited text files: CSV and similar formats (RFC 4180), with or without compression.

All cells are read as text, because types inferred from the first rows would depend on how the file
is split. `cells` and `parse` convert text to values. A quoted cell may contain line breaks.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import TextStream, plain_name
from ligr_jax.data.sources.source import OnBadRow
from ligr_jax.data.sources.text_options import TextOptions

BLOCK = 4 << 20  # bytes parsed at a time, and the largest size of a row
HEAD = 1 << 20  # bytes that must contain the header
BY_SUFFIX = {".tsv": "\t", ".tab": "\t"}
SNIFFED = (",", ";", "\t", "|")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_header(path: Path, reading: TextOptions) -> tuple[list[str], str]:
    """Read the header of a file.

    Returns:
        The column names, unchanged, and the delimiter.

    Raises:
        BadInput: the file is empty or not text, or a name occurs twice.
    """
    if reading.names:
        return list(reading.names), reading.delimiter or ","
    text = _head(path, reading)
    delimiter = reading.delimiter or BY_SUFFIX.get(Path(plain_name(path)).suffix.lower(), ",")
    names = _first_row(path, text, delimiter)
    if len(names) == 1 and not reading.delimiter:
        # The header has one column, so the file may use another common delimiter.
        most_frequent = max(SNIFFED, key=names[0].count)
        if most_frequent in names[0]:
            delimiter = most_frequent
            names = _first_row(path, text, delimiter)
    stripped = [n.strip() for n in names]
    if not any(stripped):
        raise BadInput(f"{path}: empty file; a CSV file starts with a line of column names")
    if len(set(stripped)) < len(stripped):
        repeated = sorted({n for n in stripped if stripped.count(n) > 1})
        raise BadInput(f"{path}: columns {repeated} appear twice in the header; rename them")
    return names, delimiter


def read_text_tables(
    path: Path,
    name: str,
    reading: TextOptions,
    on_bad_row: OnBadRow,
    only: Sequence[str] | None = None,
) -> Iterator[tuple[pa.Table, int]]:
    """Yield the rows of a file as tables of text columns.

    Args:
        path: the file.
        name: name of the file in messages.
        reading: how the file is read.
        on_bad_row: whether rows with a wrong number of fields are an error or are skipped.
        only: columns to return; default: all.

    Yields:
        A table, and the number of malformed rows that were skipped before its end.

    Raises:
        BadInput: a row has a wrong number of fields, a quote is not closed, or bytes are not in the
            encoding of the file.
    """
    raw_names, delimiter = read_header(path, reading)
    names = [n.strip() for n in raw_names]
    first = 0 if reading.names else 1
    malformed: list[pc.InvalidRow] = []

    def skip_row(row: pc.InvalidRow) -> str:
        malformed.append(row)
        return "skip"

    # All columns are text, and the parser reports malformed rows instead of raising.
    included = None if only is None else [raw_names[names.index(n)] for n in only]
    options = {
        "read_options": pc.ReadOptions(
            use_threads=False,
            block_size=BLOCK,
            column_names=raw_names if reading.names else None,
            encoding=reading.encoding,
        ),
        "parse_options": pc.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip_row
        ),
        "convert_options": pc.ConvertOptions(
            column_types=dict.fromkeys(raw_names, pa.string()),
            include_columns=included,
            null_values=[""],
            strings_can_be_null=True,
        ),
    }
    # A row is reported when its block is parsed, so an error stops at the end of a block.
    last: pa.Table | None = None
    with TextStream(path) as stream:
        try:
            with pc.open_csv(stream, **options) as reader:
                for batch in reader:
                    if malformed and on_bad_row == "error":
                        break
                    table = pa.Table.from_batches([batch])
                    last = table if table.num_rows else last
                    yield table.rename_columns(only or names), len(malformed)
                    malformed.clear()
        except (pa.ArrowInvalid, OSError, UnicodeError) as e:
            if "Empty CSV" not in str(e):
                _refuse(path, reading, e)
        if malformed and on_bad_row == "error":
            row = malformed[0]
            raise BadInput(
                f"{name}, row {row.number - first}: {row.actual_columns} fields where the header "
                f"has {row.expected_columns} ({row.text[:60]!r}); correct the line"
                f"{reading.hint(', or skip such rows with --on-bad-row skip')}"
            )
        if last is not None and only is None:
            _refuse_open_quote(path, last, stream.tail)
    if malformed:
        empty = dict.fromkeys(only or names, pa.array([], pa.string()))
        yield pa.table(empty), len(malformed)


def count_rows(path: Path, reading: TextOptions) -> int:
    """Return the number of rows of a text file, counted by line ends outside of quotes.

    The number is an estimate if quotes are not balanced.
    """
    rows, quoted, last = 0, False, b"\n"
    wide = codecs.lookup(reading.encoding).name.startswith(("utf-16", "utf-32"))
    decoder = codecs.getincrementaldecoder(reading.encoding)(errors="replace")
    try:
        with TextStream(path) as stream:
            while chunk := stream.read(BLOCK):
                if wide:
                    chunk = decoder.decode(chunk).encode()
                end = b"\n" if b"\n" in chunk else b"\r"
                if b'"' in chunk or quoted:
                    parts = chunk.split(b'"')
                    rows += sum(part.count(end) for part in parts[quoted::2])
                    quoted ^= len(parts) % 2 == 0
                else:
                    rows += int((np.frombuffer(chunk, np.uint8) == ord(end)).sum())
                last = chunk[-1:]
    except OSError as e:
        _refuse(path, reading, e)
    rows += last not in (b"\n", b"\r")
    return max(rows - (not reading.names), 0)


def _head(path: Path, reading: TextOptions) -> str:
    """Return the first `HEAD` bytes as text."""
    try:
        with TextStream(path) as stream:
            raw = stream.read(HEAD)
    except OSError as e:
        _refuse(path, reading, e)
    utf_8 = codecs.lookup(reading.encoding).name == "utf-8"
    if utf_8 and raw.startswith(UTF_16):
        raise BadInput(f"{path}: not UTF-8, but UTF-16 text; add --encoding utf-16")
    if utf_8 and b"\0" in raw[:4096]:
        raise BadInput(
            f"{path}: not UTF-8 text (it has zero bytes), so neither Parquet nor CSV; convert it "
            f"to one of them{reading.hint(', or set --encoding')}"
        )
    try:
        return codecs.getincrementaldecoder(reading.encoding)().decode(raw).removeprefix("\ufeff")
    except UnicodeError as e:
        _refuse(path, reading, e)


def _first_row(path: Path, text: str, delimiter: str) -> list[str]:
    """Return the fields of the first row that is not empty."""
    try:
        return next((row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row), [])
    except csv.Error as e:
        raise BadInput(f"{path}: the header cannot be read ({e}); correct the first line") from e


def _refuse(path: Path, reading: TextOptions, error: Exception) -> NoReturn:
    """Raise `BadInput` for an error of the decoder, the parser or the operating system."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if isinstance(error, UnicodeError) or "UTF8" in reason:
        if codecs.lookup(reading.encoding).name != "utf-8":
            raise BadInput(
                f"{path}: not {reading.encoding} text ({reason}); set --encoding"
            ) from error
        line, value = _undecodable(path)
        raise BadInput(
            f"{path}: not UTF-8 text in line {line} ({value}); "
            f"{reading.hint('set its encoding, e.g. --encoding latin-1 or cp1252, or ')}"
            "convert it to UTF-8"
        ) from error
    if "straddling" in reason:
        raise BadInput(
            f"{path}: a row is longer than {BLOCK >> 20} MiB, probably because a quote is not "
            "closed; close it, or double the quotes within a cell"
        ) from error
    raise BadInput(f"{path}: not a readable CSV file ({reason})") from error


def _undecodable(path: Path) -> tuple[int, str]:
    """Return the number of the first line that is not UTF-8, and the bytes around the error."""
    with TextStream(path) as stream:
        line, rest = 1, b""
        while chunk := stream.read(BLOCK):
            *lines, rest = (rest + chunk).split(b"\n")
            for number, text in enumerate([*lines, rest] if len(chunk) < BLOCK else lines):
                try:
                    text.decode()
                except UnicodeDecodeError as e:
                    return line + number, repr(text[max(e.start - 20, 0) : e.end + 20])
            line += len(lines)
    return line, "at its end"


def _refuse_open_quote(path: Path, last: pa.Table, tail: bytes) -> None:
    """Raise `BadInput` if the last cell contains all rows after a quote that is not closed.

    Such a cell has line breaks, and the file does not end with a quote.
    """
    value = last.column(last.num_columns - 1)[-1].as_py() or ""
    if "\n" in value.strip() and not tail.endswith(b'"'):
        raise BadInput(
            f"{path}: the last row has a quote that is not closed ({value[:40]!r}); close it, or "
            "double the quotes within a cell"
        )
