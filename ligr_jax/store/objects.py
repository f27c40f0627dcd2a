"""Requests to object stores. Each takes a URI; errors name it and say what to do."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

from ligr_jax.errors import LigrError

RETRY_S = "LIGR_STORE_RETRY_S"  # environment variable: seconds in which a request is repeated
_TIMEOUT = timedelta(seconds=60)  # of one request
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL"}
_PART = 8 * 2**20  # bytes of a part of a large upload; a store takes at most 10,000 parts


class StoreError(LigrError, RuntimeError):
    """A request to an object store failed; the message names the object and the remedy."""


class ObjectMissing(StoreError):
    """There is no such object."""


class VersionChanged(StoreError):
    """The object exists already, or it was replaced since it was read."""


class NoAnswer(StoreError):
    """A request failed in a way that the next attempt may not: an interrupted connection."""


class StoredObject(NamedTuple):
    """An object of a listing.

    Attributes:
        name: Key relative to the listed URI.
        size: Size in bytes.
        version: Entity tag, which changes when the object is replaced.
        modified: Time of the last write by the clock of the store.
    """

    name: str
    size: int
    version: str
    modified: datetime


T = TypeVar("T")
P = ParamSpec("P")


def _repeated(request: Callable[P, T]) -> Callable[P, T]:
    """Repeat a request whose connection is cut while the answer arrives.

    The library repeats only requests that get no answer or an answer of 5xx, and no conditional
    writes.
    """

    @functools.wraps(request)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        deadline, pause = time.monotonic() + retry_seconds(), 0.1
        while True:
            try:
                return request(*args, **kwargs)
            except NoAnswer:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 10)

    return repeat


@_repeated
def list_objects(uri: str) -> list[StoredObject]:
    """Return all objects below a URI, in order of their names."""
    store, key = _open(uri)
    prefix = f"{key}/" if key else ""
    with _errors("list", uri):
        found = [o for page in _obstore().list(store, prefix=key or None) for o in page]
    objects = [
        StoredObject(o["path"].removeprefix(prefix), o["size"], o["e_tag"], o["last_modified"])
        for o in found
    ]
    return sorted(objects)


@_repeated
def describe_object(uri: str) -> StoredObject | None:
    """Return the description of an object, or None if it does not exist."""
    store, key = _open(uri)
    if not key:
        return None  # a bucket
    try:
        with _errors("read", uri):
            o = _obstore().head(store, key)
    except ObjectMissing:
        return None
    return StoredObject(Path(key).name, o["size"], o["e_tag"], o["last_modified"])


@_repeated
def read_object(uri: str) -> tuple[bytes, StoredObject] | None:
    """Return the content and the description of a small object, or None if it does not exist."""
    store, key = _open(uri)
    try:
        with _errors("read", uri):
            got = _obstore().get(store, key)
            o = got.meta
            content = bytes(got.bytes())
    except ObjectMissing:
        return None
    return content, StoredObject(Path(key).name, o["size"], o["e_tag"], o["last_modified"])


@_repeated
def read_range(uri: str, start: int, end: int, version: str) -> bytes:
    """Return the bytes from `start` to `end` of one version of an object.

    Raises:
        ObjectMissing: The object does not exist any more.
        VersionChanged: The object was replaced.
    """
    store, key = _open(uri)
    with _errors("read", uri):
        options = {"range": (start, end), "if_match": version}
        return bytes(_obstore().get(store, key, options=options).bytes())


@_repeated
def write_object(uri: str, content: bytes | Path, version: str | None = None) -> str:
    """Write an object. Readers see the old content or the new one.

    A repeated request finds another version if the answer to the first one was lost: callers that
    give a version compare the content then.

    Args:
        uri: The object.
        content: The bytes, or the file that has them.
        version: Version that the store must have: "" for none (the object is created), None for
            any.

    Returns:
        The version of the new object.

    Raises:
        VersionChanged: The store has another version.
    """
    store, key = _open(uri)
    mode: Any = "overwrite"
    if version == "":
        mode = "create"
    elif version is not None:
        mode = _replaced(uri, version)
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    with _errors("write", uri):
        result = _obstore().put(
            store,
            key,
            content,
            mode=mode,
            use_multipart=size > _PART,
            chunk_size=max(_PART, size // 9000),
        )
    return str(result["e_tag"])


def _replaced(uri: str, version: str) -> dict[str, str]:
    """Return the condition that the store still has a version.

    S3 compares entity tags. GCS compares generations, which listings do not have.
    """
    if not uri.startswith("gs://"):
        return {"e_tag": version}
    store, key = _open(uri)
    with _errors("read", uri):
        stored = _obstore().head(store, key)
    if stored["e_tag"] != version:
        raise VersionChanged(f"{uri}: another process has written it meanwhile")
    return {"e_tag": version, "version": stored["version"]}


@_repeated
def remove_object(uri: str) -> None:
    """Remove an object if it exists."""
    store, key = _open(uri)
    with contextlib.suppress(ObjectMissing), _errors("remove", uri):
        _obstore().delete(store, key)


def retry_seconds() -> float:
    """Return for how long a failing request is repeated, LIGR_STORE_RETRY_S (180)."""
    return seconds_of(RETRY_S, 180.0)


def seconds_of(name: str, default: float) -> float:
    """Return the seconds that an environment variable has; see `setting_of`."""
    return setting_of(name, default, "seconds")


def setting_of(name: str, default: float, unit: str) -> float:
    """Return the value of an environment variable that is a positive number.

    Args:
        name: Name of the variable.
        default: Value if the variable is not set.
        unit: Unit of the number, for the message.

    Raises:
        StoreError: It is not a positive number.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < float("inf"):
            return value
    raise StoreError(f"{name}={text!r} is not a number of {unit} above 0; correct it or unset it")


def _obstore() -> Any:
    try:
        import obstore
    except ModuleNotFoundError as e:
        raise StoreError(
            "s3:// and gs:// need the library obstore; install it: pip install 'ligr-jax[cloud]'"
        ) from e
    return obstore


def _open(uri: str) -> tuple[Any, str]:
    """Return the client of a bucket and the key of an object."""
    parts = urlsplit(uri, allow_fragments=False)
    key = uri.partition("://")[2].partition("/")[2]
    names = ("AWS_", "GOOGLE_")
    environment = tuple(sorted(i for i in os.environ.items() if i[0].startswith(names)))
    return _client(parts.scheme, parts.netloc, retry_seconds(), environment), key


@functools.lru_cache(maxsize=16)
def _client(
    scheme: str, bucket: str, retry_s: float, environment: tuple[tuple[str, str], ...]
) -> Any:
    """Return the client of a bucket; it reads credentials and endpoint from the environment."""
    _obstore()
    from obstore.store import GCSStore, S3Store

    create: Any = {"s3": S3Store, "gs": GCSStore}[scheme]
    endpoint = dict(environment).get(_ENDPOINTS[scheme], "")
    return create(
        bucket,
        client_options={"timeout": _TIMEOUT, "allow_http": endpoint.startswith("http://")},
        retry_config={"max_retries": 30, "retry_timeout": timedelta(seconds=retry_s)},
    )


@contextlib.contextmanager
def _errors(operation: str, uri: str) -> Iterator[None]:
    """Translate the errors of the library."""
    library = _obstore().exceptions
    try:
        yield
    except FileNotFoundError as e:
        raise ObjectMissing(f"{uri}: no such object; check the path") from e
    except (library.AlreadyExistsError, library.PreconditionError) as e:
        raise VersionChanged(f"{uri}: another process has written it meanwhile") from e
    except (library.PermissionDeniedError, library.UnauthenticatedError) as e:
        raise StoreError(
            f"cannot {operation} {uri}: the store refuses the credentials ({_words(e)}); "
            "set them as in docs/pods.md, `Object stores`"
        ) from e
    except (library.BaseError, OSError, ValueError) as e:
        raise NoAnswer(
            f"cannot {operation} {uri}: {_words(e)}; check the bucket, the endpoint and the "
            "network, then run the same command again"
        ) from e


def _words(error: Exception) -> str:
    """Return the first line of an error of the library, which quotes whole responses."""
    return " ".join(str(error).split("\n\nDebug source")[0].split())[:400]
