"""Download of a public archive, which is continued after an interruption and has a checksum.

The bytes so far are in FILE.partial, next to the file. A server with HTTP ranges sends the rest;
other servers send the file from its beginning. The checksum covers the whole file.
"""

import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ligr_jax.atomic import sync
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import file_errors
from ligr_jax.lock import exclusive
from ligr_jax.progress import Progress

_log = logging.getLogger(__name__)

CHUNK = 1 << 20
MB = 1_000_000
TRIES = 6  # connections in a row that may end early without progress
WAIT_S = 2.0  # before the second try; doubled for each further one
_BUSY = (429, 500, 502, 503, 504)  # HTTP statuses that another try may change


def download(url: str, checksum: str, destination: Path) -> Path:
    """Download a file, unless it already exists with the expected checksum.

    Args:
        url: address of the file.
        checksum: `md5:...` or `sha256:...`, in hex.
        destination: file to write.

    Returns:
        `destination`.

    Raises:
        BadInput: the download fails, or the file has another checksum. The bytes of a download that
            was interrupted are kept in FILE.partial.
        Busy: another process downloads the file.
    """
    algorithm, _, expected = checksum.partition(":")
    if destination.is_file():
        present = _digest(destination, algorithm)
        if present == expected:
            return destination
        _log.warning(f"{destination}: {algorithm} is {present}, expected {expected}; replaced")
    partial = destination.with_name(destination.name + ".partial")
    with file_errors("write", partial):
        destination.parent.mkdir(parents=True, exist_ok=True)
    doing = f"is downloading {destination.name}"
    with exclusive(destination.parent, doing, name=f".{destination.name}.lock"):
        _fetch(url, partial, destination)
        actual = _digest(partial, algorithm)
        if actual != expected:
            partial.unlink()
            raise BadInput(
                f"{url}: {algorithm} is {actual}, expected {expected}; the file was removed: try "
                "again later, or read about a new release at the address"
            )
        sync(partial)
        os.replace(partial, destination)
    return destination


def _fetch(url: str, partial: Path, destination: Path) -> None:
    """Append to `partial` until it has the whole file."""
    progress: Progress | None = None
    failures = 0
    longest = 0  # a server without ranges may send fewer bytes than before
    while True:
        begun = partial.stat().st_size if partial.exists() else 0
        try:
            with _open(url, begun) as reply:
                start, total = _range(reply, begun)
                progress = progress or Progress(-(-total // MB), _log, f"{destination.name}: MB")
                with file_errors("write", partial), _opened(partial, start) as file:
                    for chunk in _chunks(reply):
                        file.write(chunk)
                        progress.show(-(-file.tell() // MB))
            size = partial.stat().st_size
            if not total or size >= total:
                return
            problem = f"the connection ended after {size:,} of {total:,} bytes"
        except urllib.error.HTTPError as e:
            if e.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
                return  # the file was complete; its checksum decides
            problem = f"HTTP {e.code}: {e.reason}"
            if e.code not in _BUSY:
                raise _failed(url, problem, partial, destination) from e
        except urllib.error.URLError as e:
            problem = str(e.reason)
            if not begun:  # no network, rather than a server that restarts
                raise _failed(url, problem, partial, destination) from e
        except http.client.HTTPException as e:
            problem = str(e) or type(e).__name__
        size = partial.stat().st_size if partial.exists() else 0
        failures = 0 if size > max(longest, begun) else failures + 1
        longest = max(longest, begun, size)
        if failures == TRIES:
            raise _failed(url, problem, partial, destination)
        _log.warning(f"{url}: {problem}; continuing")
        time.sleep(WAIT_S * 2**failures)


def _open(url: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "ligr_jax"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return reply


def _range(reply: http.client.HTTPResponse, begun: int) -> tuple[int, int]:
    """Return the position of the first byte of a reply, and the size of the whole file or 0.

    Raises:
        HTTPException: the reply is not the range that was requested.
    """
    length = int(reply.headers.get("Content-Length") or 0)
    if reply.status != http.client.PARTIAL_CONTENT:  # the server has no ranges
        return 0, length
    content_range = reply.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if not match or int(match[1]) != begun:
        raise http.client.HTTPException(f"bytes {begun}- requested, {content_range!r} sent")
    return begun, begun + length if match[2] == "*" else int(match[2])


def _chunks(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the bytes of a reply; a lost connection is an `HTTPException`, not a file's error."""
    while True:
        try:
            chunk = reply.read(CHUNK)
        except OSError as e:
            raise http.client.HTTPException(str(e) or type(e).__name__) from e
        if not chunk:
            return
        yield chunk


def _opened(partial: Path, start: int) -> BinaryIO:
    """Open a file to write from a position on; later bytes are removed."""
    file = partial.open("r+b" if start else "wb")
    file.truncate(start)
    file.seek(start)
    return file


def _failed(url: str, problem: str, partial: Path, destination: Path) -> BadInput:
    kept = f" ({partial} is kept and continued)" if partial.exists() else ""
    return BadInput(
        f"cannot download {url}: {problem}. Run the command again{kept}, or download the file "
        f"elsewhere and copy it to {destination}"
    )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
