"""Byte streams of files with or without compression, which is detected by the first bytes."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

SUFFIXES = (".gz", ".bz2", ".zst", ".zstd", ".xz")

# First bytes of a format -> function that opens a decompressing stream over an open file.
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw), "zstd"),
}


def plain_name(path: Path) -> str:
    """Return the name of a file without the suffix of its compression."""
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name


class TextStream:
    """Decompressed bytes of a file, as a context manager and a file object for pyarrow.

    Attributes:
        compressed: whether the file is compressed.
        tail: the last two bytes read, without line ends.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        start = self._raw.read(8)
        self._raw.seek(0)
        opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), None)
        self._stream: Any = opener(self._raw) if opener else self._raw
        self.compressed = opener is not None
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all bytes.

        Raises:
            OSError: compressed data are truncated or damaged.
        """
        try:
            data: bytes = self._stream.read(size) if size >= 0 else self._stream.read()
        except (EOFError, lzma.LZMAError, pa.ArrowException, ValueError) as e:
            raise OSError(f"damaged or incomplete compressed data ({e})") from e
        self.tail = data[-64:].rstrip(b"\r\n")[-2:] or self.tail
        return data

    @property
    def closed(self) -> bool:
        return self._raw.closed

    def close(self) -> None:
        self._raw.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def __enter__(self) -> "TextStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
