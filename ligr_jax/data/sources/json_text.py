"""Text of JSON files in blocks of whole lines."""

import codecs
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import TextStream
from ligr_jax.data.sources.text_errors import BLOCK, refuse_text
from ligr_jax.data.sources.text_options import TextOptions

NOT_FINITE = re.compile(rb"([:,\[]\s*)(?:NaN|-?Infinity)(?=\s*[,}\]])")
LONGEST = 64 << 20  # bytes of the longest line
QUOTE, BACKSLASH, COMMA, NEWLINE, SPACE = b'"\\,\n '
_STEPS = np.zeros(256, np.int8)  # change of the depth of brackets by a byte
_STEPS[list(b"{[")], _STEPS[list(b"}]")] = 1, -1
_LINE_BREAKS = np.zeros(256, bool)
_LINE_BREAKS[list(b"\r\n")] = True


def json_blocks(path: Path, reading: TextOptions) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8, in blocks of lines with one object each.

    Raises:
        BadInput: the file is not text, compressed data are damaged, or an object is too long.
    """
    rest: list[bytes] = []
    for chunk in _one_object_per_line(_utf_8(path, reading)):
        lines, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join([*rest, lines, newline])
            rest = []
        rest.append(tail)
        if sum(map(len, rest)) > LONGEST:
            raise BadInput(
                f"{path}: an object is longer than {LONGEST >> 20} MiB; write one object per row"
            )
    if b"".join(rest).strip():
        yield b"".join([*rest, b"\n"])


def _utf_8(path: Path, reading: TextOptions) -> Iterator[bytes]:
    """Yield the text of a file in chunks, without a byte order mark."""
    plain = codecs.lookup(reading.encoding).name == "utf-8"
    decoder = codecs.getincrementaldecoder(reading.encoding)()
    try:
        with TextStream(path) as stream:
            first = True
            while chunk := stream.read(BLOCK):
                text = chunk if plain else decoder.decode(chunk).encode()
                yield text.removeprefix(codecs.BOM_UTF8) if first else text
                first = False
    except (OSError, UnicodeError) as e:
        refuse_text(path, reading, e)


def _one_object_per_line(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield text with one object per line, from such lines, an array, or objects of many lines."""
    first = next(chunks, b"")
    line = first.lstrip()[: 1 << 16].split(b"\n")[0].rstrip()
    chunks = chain([first], chunks)
    if line.startswith(b"[") or line == b"{":
        return _Splitter(in_array=line.startswith(b"[")).lines(chunks)
    return chunks


class _Splitter:
    """Rewriting of text so that a line break follows each object and occurs nowhere else.

    Args:
        in_array: whether the objects are the elements of an array.
    """

    def __init__(self, in_array: bool) -> None:
        self._in_array = in_array
        self._depth = 0  # open brackets at the start of the next chunk
        self._in_string = False

    def lines(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield rewritten chunks."""
        held = b""  # backslashes whose effect depends on the next chunk
        for chunk in chunks:
            text = held + chunk
            complete = text.rstrip(b"\\")
            held = text[len(complete) :]
            if complete:
                yield self._rewritten(complete)

    def _rewritten(self, text: bytes) -> bytes:
        out = np.frombuffer(text, np.uint8).copy()
        quotes = out == QUOTE
        if b"\\" in text:
            # A quote after an odd number of backslashes does not end its string.
            index = np.arange(len(out), dtype=np.int32)
            last_other = np.maximum.accumulate(np.where(out != BACKSLASH, index, np.int32(-1)))
            quotes[1:] &= (index[:-1] - last_other[:-1]) % 2 == 0
        outside = ~(np.logical_xor.accumulate(quotes) ^ self._in_string)
        steps = _STEPS[out] * outside
        depth = self._depth + np.cumsum(steps, dtype=np.int32)
        self._depth, self._in_string = int(depth[-1]), not outside[-1]
        # In an array, commas between objects become line breaks, and the outer brackets vanish.
        between = outside & (depth == self._in_array)
        line_breaks = _LINE_BREAKS[out] & outside
        if self._in_array:
            out[line_breaks | (between & (steps > 0)) | ((steps < 0) & (depth == 0))] = SPACE
            out[between & (out == COMMA)] = NEWLINE
        else:
            out[line_breaks & ~between] = SPACE
        return out.tobytes()
