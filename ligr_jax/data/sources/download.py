"""Fetching a public archive by address and checksum."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from ligr_jax.data.schema import BadInput


def download(url: str, checksum: str, destination: Path) -> Path:
    """Fetches `url` into file `destination`, unless it is there already with the right checksum.

    checksum: `md5:...` or `sha256:...`, in hex.
    Raises `BadInput` without a connection and for other bytes than expected; then nothing is left.
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
        found = _digest(partial, algorithm)
        if found != expected:
            raise BadInput(f"{url}: {algorithm} is {found}, expected {expected}; try again later")
        os.replace(partial, destination)
    except (urllib.error.URLError, OSError) as e:
        raise BadInput(
            f"cannot download {url} ({e}); fetch it elsewhere and put the file here: {destination}"
        ) from e
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
