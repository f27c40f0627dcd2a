"""Errors of text files, with the line and the remedy."""

import codecs
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import TextStream
from ligr_jax.data.sources.text_options import TextOptions

BLOCK = 4 << 20  # bytes parsed at a time, and the largest size of a row of delimited text


def refuse_text(path: Path, reading: TextOptions, error: Exception) -> NoReturn:
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
            f"{reading.hint(', or, if quotes are ordinary characters, add --no-quotes')}"
        ) from error
    raise BadInput(f"{path}: not a readable text file ({reason})") from error


def refuse_open_quote(path: Path, reading: TextOptions, last: pa.Table, tail: bytes) -> None:
    """Raise `BadInput` if the last cell contains all rows after a quote that is not closed.

    Such a cell has line breaks, and the file does not end with a quote.
    """
    value = last.column(last.num_columns - 1)[-1].as_py() or ""
    if "\n" in value.strip() and not tail.endswith(b'"'):
        raise BadInput(
            f"{path}: the last row has a quote that is not closed ({value[:40]!r}); close it, or "
            "double the quotes within a cell"
            f"{reading.hint(', or, if quotes are ordinary characters, add --no-quotes')}"
        )


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
