"""Delimited text files: CSV and similar formats (RFC 4180), with or without compression.

All cells are read as text, because types inferred from the first rows would depend on how the file
is split. `cells` and `parse` convert text to values. A quoted cell may contain line breaks.
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import ReplacedBytes, TextStream
from ligr_jax.data.sources.source import OnBadRow
from ligr_jax.data.sources.text_errors import BLOCK, refuse_open_quote, refuse_text
from ligr_jax.data.sources.text_header import SINGLE, display_names, read_header
from ligr_jax.data.sources.text_options import TextOptions


def text_schema(path: Path, reading: TextOptions) -> pa.Schema:
    """Return the columns of a file, which are text.

    Raises:
        BadInput: the header cannot be read.
    """
    names = display_names(read_header(path, reading)[0])
    return pa.schema([(name, pa.string()) for name in names])


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
    names = display_names(raw_names)
    first = 0 if reading.headless else 1
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
            column_names=raw_names if reading.headless else None,
            encoding=reading.encoding,
        ),
        "parse_options": pc.ParseOptions(
            delimiter=delimiter if len(delimiter) == 1 else SINGLE,
            quote_char='"' if reading.quoted else False,
            newlines_in_values=reading.quoted,
            invalid_row_handler=skip_row,
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
    rows = 0
    with TextStream(path) as stream:
        try:
            with pc.open_csv(_single_delimiter(stream, delimiter, reading), **options) as reader:
                for batch in reader:
                    if malformed and on_bad_row == "error":
                        rows += batch.num_rows
                        break
                    table = pa.Table.from_batches([batch])
                    rows += table.num_rows
                    last = table if table.num_rows else last
                    yield table.rename_columns(only or names), len(malformed)
                    malformed.clear()
        except (pa.ArrowInvalid, OSError, UnicodeError) as e:
            if "Empty CSV" not in str(e):
                refuse_text(path, reading, e)
        if malformed and on_bad_row == "error":
            row = malformed[0]
            expected = "first line" if reading.headless else "header"
            where = (
                f"{name}, row {row.number - first}: {row.actual_columns} fields where the "
                f"{expected} has {row.expected_columns} ({row.text[:60]!r})"
            )
            if len(malformed) > 1 and len(malformed) > rows:
                raise BadInput(
                    f"{where}, like most lines"
                    f"{reading.hint('; correct --delimiter or --column-names, or try --no-quotes')}"
                )
            raise BadInput(
                f"{where}; correct the line"
                f"{reading.hint(', or skip such rows with --on-bad-row skip')}"
            )
        if reading.quoted and last is not None and only is None:
            refuse_open_quote(path, reading, last, stream.tail)
    if malformed:
        empty = dict.fromkeys(only or names, pa.array([], pa.string()))
        yield pa.table(empty), len(malformed)


def count_rows(path: Path, reading: TextOptions) -> int:
    """Return the number of rows of a text file, counted by line ends outside of quotes.

    The number is an estimate if quotes are not balanced.
    """
    rows, quoted, last = 0, False, b"\n"
    decoder = codecs.getincrementaldecoder(reading.encoding)(errors="replace")
    try:
        with TextStream(path) as stream:
            while chunk := stream.read(BLOCK):
                if reading.wide:
                    chunk = decoder.decode(chunk).encode()
                end = b"\n" if b"\n" in chunk else b"\r"
                if reading.quoted and (b'"' in chunk or quoted):
                    parts = chunk.split(b'"')
                    rows += sum(part.count(end) for part in parts[quoted::2])
                    quoted ^= len(parts) % 2 == 0
                else:
                    rows += int((np.frombuffer(chunk, np.uint8) == ord(end)).sum())
                last = chunk[-1:]
    except OSError as e:
        refuse_text(path, reading, e)
    rows += last not in (b"\n", b"\r")
    return max(rows - (not reading.headless), 0)


def _single_delimiter(
    stream: TextStream, delimiter: str, reading: TextOptions
) -> TextStream | ReplacedBytes:
    """Return a stream with a delimiter of one character."""
    if len(delimiter) == 1:
        return stream
    return ReplacedBytes(stream, delimiter.encode(reading.encoding), SINGLE.encode())
