"""The column names and the delimiter of a text file."""

import codecs
import csv
import io
from pathlib import Path

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import TextStream, plain_name
from ligr_jax.data.sources.text_errors import refuse_text
from ligr_jax.data.sources.text_options import TextOptions

HEAD = 1 << 20  # bytes that must contain the first row
BY_SUFFIX = {".tsv": "\t", ".tab": "\t"}
SNIFFED = (",", ";", "\t", "|")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SINGLE = "\x1f"  # stands for a delimiter of several characters, because parsers need one


def read_header(path: Path, reading: TextOptions) -> tuple[list[str], str]:
    """Read the header of a file, or count the columns of a file without a header.

    Returns:
        The column names, unchanged, and the delimiter.

    Raises:
        BadInput: the file is empty or not text, a name occurs twice, or the number of names differs
            from the number of columns.
    """
    text = _head(path, reading)
    delimiter = reading.delimiter or BY_SUFFIX.get(Path(plain_name(path)).suffix.lower(), ",")
    names = _first_row(path, text, delimiter, reading)
    if len(names) == 1 and not reading.delimiter:
        # The first row has one column, so the file may use another common delimiter.
        most_frequent = max(SNIFFED, key=names[0].count)
        if most_frequent in names[0]:
            delimiter = most_frequent
            names = _first_row(path, text, delimiter, reading)
    if reading.headless:
        return _headless_names(path, names, delimiter, reading), delimiter
    stripped = [n.strip() for n in names]
    if not any(stripped):
        raise BadInput(
            f"{path}: empty file; a CSV file starts with a line of column names (remove a "
            "file without rows)"
        )
    if len(set(stripped)) < len(stripped):
        repeated = sorted({n for n in stripped if stripped.count(n) > 1})
        hint = reading.hint(
            "; if the first line has values, add --no-header or name the columns with "
            "--column-names"
        )
        raise BadInput(f"{path}: columns {repeated} appear twice in the header; rename them{hint}")
    return names, delimiter


def display_names(raw_names: list[str]) -> list[str]:
    """Return names without outer white space; a column without a name has its number as name."""
    return [name.strip() or str(k + 1) for k, name in enumerate(raw_names)]


def _headless_names(
    path: Path, first: list[str], delimiter: str, reading: TextOptions
) -> list[str]:
    names = list(reading.names) or [str(k + 1) for k in range(len(first))]
    if not names:
        raise BadInput(f"{path}: empty file; name its columns with --column-names")
    if first and len(first) != len(names):
        raise BadInput(
            f"{path}: its first line has {len(first)} fields with the delimiter {delimiter!r} "
            f"({first[:8]}), and there are {len(names)} column names {names}; correct "
            "--column-names or --delimiter"
        )
    return names


def _head(path: Path, reading: TextOptions) -> str:
    """Return the first `HEAD` bytes as text."""
    try:
        with TextStream(path) as stream:
            raw = stream.read(HEAD)
    except OSError as e:
        refuse_text(path, reading, e)
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
        refuse_text(path, reading, e)


def _first_row(path: Path, text: str, delimiter: str, reading: TextOptions) -> list[str]:
    """Return the fields of the first row that is not empty."""
    if len(delimiter) > 1:
        text, delimiter = text.replace(delimiter, SINGLE), SINGLE
    rows = csv.reader(
        io.StringIO(text),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if reading.quoted else csv.QUOTE_NONE,
    )
    try:
        return next((row for row in rows if row), [])
    except csv.Error as e:
        raise BadInput(f"{path}: the header cannot be read ({e}); correct the first line") from e
