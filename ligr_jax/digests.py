"""Digests that show whether a file has changed since it was written; JSON files with a digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.errors import LigrError, file_errors

DIGEST = "digest"  # the key of a JSON object that holds the digest of the other keys
_BLOCK = 2**22  # bytes read at a time


class DamagedFile(LigrError, ValueError):
    """A file cannot be used; the message names the file, the damage and the remedy."""


class ChangedFile(DamagedFile):
    """A digest proves that a file has changed since it was written."""


def digest_file(path: Path) -> str:
    """Return the xxh64 of a file's bytes as 16 hex digits."""
    import xxhash  # not at the top: fits read JSON files with only NumPy and SciPy installed

    digest = xxhash.xxh64()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object and, under the key `DIGEST`, the digest of its content.

    Args:
        path: Path of the file.
        content: The object, without `DIGEST`.

    Raises:
        FileError: The file cannot be written.
    """
    sealed = {**content, DIGEST: digest_json(content)}
    write_atomically(path, json.dumps(sealed, indent=1) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object and check its digest, if it has one.

    Args:
        path: Path of the file.
        remedy: What the user can do if the file is damaged; the end of the message.

    Returns:
        The object without its digest.

    Raises:
        ChangedFile: The digest does not match the values.
        DamagedFile: The file is empty, not UTF-8, not JSON or not an object.
        FileError: The file cannot be read.
    """
    return parse_json(_read(path), path, remedy)


def parse_json(raw: bytes, source: Path | str, remedy: str) -> dict[str, Any]:
    """Parse a JSON object and check its digest; see `read_json`.

    Args:
        raw: Content of a file.
        source: Path or URI of the file, for messages.
        remedy: See `read_json`.
    """
    content = _parse(raw, source, remedy)
    saved = content.pop(DIGEST, None)
    if saved is not None and saved != digest_json(content):
        raise ChangedFile(
            f'{source}: values have changed since the file was written ("{DIGEST}" is {saved!r}, '
            f"the values give {digest_json(content)!r}); {remedy}"
        )
    return content


def read_plain_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object without checking a digest.

    Args:
        path: Path of the file.
        remedy: What the user can do if the file is damaged; the end of the message.

    Raises:
        DamagedFile: The file is empty, not UTF-8, not JSON or not an object.
        FileError: The file cannot be read.
    """
    return _parse(_read(path), path, remedy)


def digest_json(content: Mapping[str, Any]) -> str:
    """Return 16 hex digits over the content as JSON; the order of keys does not matter."""
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> bytes:
    with file_errors("read", path):
        return path.read_bytes()


def _parse(raw: bytes, source: Path | str, remedy: str) -> dict[str, Any]:
    if not raw.strip(b"\0 \t\r\n"):
        raise DamagedFile(f"{source}: the file is empty, as a crash leaves it; {remedy}")
    try:
        content = json.loads(raw.decode())
    except UnicodeDecodeError as e:
        raise DamagedFile(f"{source}: not UTF-8 at byte {e.start}; {remedy}") from e
    except (ValueError, RecursionError) as e:
        raise DamagedFile(f"{source}: not JSON ({e}); {remedy}") from e
    if not isinstance(content, dict):
        raise DamagedFile(f"{source}: a JSON {_kind(content)}, not an object; {remedy}")
    return content


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
