"""The mapping between the URIs of object stores and their working copies in the local cache."""

import os
import re
from pathlib import Path

from ligr_jax.errors import UsageError

CACHE = "LIGR_CACHE"  # environment variable: directory of the cache
_SCHEMES = ("s3", "gs")
_MIRROR = "mirror"
# `pathlib` turns s3://bucket into s3:/bucket.
_URI = re.compile(r"(s3|gs)://?([^/]+)/*(.*)", re.IGNORECASE | re.DOTALL)


def cache_root() -> Path:
    """Return the directory of the cache, LIGR_CACHE or ~/.cache/ligr_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.realpath(os.path.expanduser(os.environ.get(CACHE) or f"{base}/ligr_jax")))


def is_uri(place: str | Path) -> bool:
    """Return whether a path is a URI of a store."""
    return _URI.fullmatch(str(place).strip()) is not None


def local_path(place: str | Path) -> Path:
    """Return the working copy of a URI; other paths are returned unchanged.

    Raises:
        UsageError: The URI has empty parts or parts with only dots.
    """
    match = _URI.fullmatch(str(place).strip())
    if match is None:
        return Path(place)
    scheme, bucket, key = match[1].lower(), match[2], match[3].rstrip("/")
    parts = key.split("/") if key else []
    if any(part in ("", ".", "..") for part in (bucket, *parts)):
        raise UsageError(f"{place}: a URI is {scheme}://BUCKET/PATH without empty or dotted parts")
    return cache_root().joinpath(_MIRROR, scheme, bucket, *parts)


def uri_of(path: str | Path) -> str | None:
    """Return the URI of a path in a working copy; None for every other path."""
    text = str(path)
    if f"/{_MIRROR}/" not in text:  # most paths: without a look at the environment
        return None
    try:
        parts = Path(text).relative_to(cache_root() / _MIRROR).parts
    except ValueError:
        return None
    if len(parts) < 2 or parts[0] not in _SCHEMES:
        return None
    return f"{parts[0]}://{'/'.join(parts[1:])}"


def address(place: str | Path) -> str:
    """Return the name of a place that holds on every host: the URI, or the absolute path."""
    path = local_path(place)
    return uri_of(path) or str(path.resolve())


def with_uris(text: str) -> str:
    """Replace the paths of working copies in a message by their URIs."""
    if f"/{_MIRROR}/" not in text:
        return text
    root = re.escape(str(cache_root() / _MIRROR))
    return re.sub(rf"{root}/({'|'.join(_SCHEMES)})/", r"\1://", text)


def record_path(kind: str, path: Path) -> Path:
    """Return the file of the cache that has what is known about a path of a working copy.

    Args:
        kind: Name of the tree in the cache, e.g. "versions".
        path: Path in a working copy.
    """
    return cache_root() / kind / path.relative_to(cache_root() / _MIRROR)
