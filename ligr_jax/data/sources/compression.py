"""Byte streams of files with or without compression, which is detected by the first bytes."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ligr_jax.data.schema import BadInput

ZIP = ".zip"
SUFFIXES = (".gz", ".bz2", ".zst", ".zstd", ".xz", ZIP)
ZIP_START = b"PK\x03\x04"

# First bytes of a format -> function that opens a decompressing stream over an open file.
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw), "zstd"),
}


def plain_name(path: Path) -> str:
    """Return the name of a file without the suffix of its compression.

    Raises:
        BadInput: the file is an archive that does not have exactly one file.
    """
    if path.suffix.lower() == ZIP and path.is_file():
        return Path(zip_member(path)).name
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name


def zip_member(path: Path) -> str:
    """Return the name of the only visible file of a zip archive.

    Raises:
        BadInput: the archive is damaged, or has no or several files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as e:
        raise BadInput(f"{path}: not a complete zip archive ({e}); copy it again") from e
    visible = [n for n in names if not any(p.startswith((".", "_")) for p in Path(n).parts)]
    if len(visible) != 1:
        raise BadInput(
            f"{path}: the archive has {len(visible)} files {visible[:5]}; a zip archive is read if "
            "it has one file. Unpack it, and give the file or the directory of the log"
        )
    return visible[0]


def _open_member(raw: IO[bytes], name: str) -> IO[bytes]:
    return zipfile.ZipFile(raw).open(name)


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
        if start.startswith(ZIP_START):
            opener = partial(_open_member, name=zip_member(path))
        try:
            self._stream: Any = opener(self._raw) if opener else self._raw
        except zipfile.BadZipFile as e:
            self._raw.close()
            raise OSError(f"damaged zip archive ({e})") from e
        self.compressed = opener is not None
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all bytes.

        Raises:
            OSError: compressed data are truncated or damaged.
        """
        try:
            data: bytes = self._stream.read(size) if size >= 0 else self._stream.read()
        except (EOFError, ValueError, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException) as e:
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


class ReplacedBytes:
    """A stream in which one byte sequence is replaced by a single byte.

    Args:
        stream: the stream; it is closed by its owner.
        old: bytes to replace, at least two.
        new: one byte.
    """

    closed = False

    def __init__(self, stream: TextStream, old: bytes, new: bytes) -> None:
        self._stream, self._old, self._new = stream, old, new
        self._held = b""  # start of an occurrence that the next read may complete

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, which are more than those of `old`; b"" at the end."""
        while True:
            more = self._stream.read(max(size - len(self._held), 1))
            data = (self._held + more).replace(self._old, self._new)
            held = 0
            if more:
                starts = range(min(len(self._old) - 1, len(data)), 0, -1)
                held = next((k for k in starts if self._old.startswith(data[-k:])), 0)
            self._held = data[len(data) - held :]
            data = data[: len(data) - held]
            if data or not more:
                return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False
