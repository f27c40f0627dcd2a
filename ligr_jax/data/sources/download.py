"""Download of a public archive with a checksum."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from ligr_jax.data.schema import BadInput


def download(url: str, checksum: str, destination: Path) -> Path:
    """Download a file, unless it already exists with the expected checksum.

    Args:
        url: address of the file.
        checksum: `md5:...` or `sha256:...`, in hex.
        destination: file to write.

    Returns:
        `destination`.

    Raises:
        BadInput: the download fails or has another checksum. No file is left behind.
    """
    algorithm, _, expected = checksum.partition(":")
    if destination.is_file() and _digest(destination, algorithm) == expected:
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".partial")
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, partial.open("wb") as file:
            while chunk := reply.read(1 << 20):
                file.write(chunk)
        actual = _digest(partial, algorithm)
        if actual != expected:
            raise BadInput(f"{url}: {algorithm} is {actual}, expected {expected}; try again later")
        os.replace(partial, destination)
    except (urllib.error.URLError, OSError) as e:
        raise BadInput(
            f"cannot download {url} ({e}); download it elsewhere and copy it to {destination}"
        ) from e
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
