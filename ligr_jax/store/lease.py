"""Leases: one process on any host writes to a directory of an object store.

The lease is the object DIRECTORY/.lock with {owner, host, pid, beat}. It is created atomically and
renewed every LIGR_LEASE_S (30) seconds by compare-and-swap. A lease that was not renewed for
LIGR_LEASE_BEATS (5) such intervals is stale, by the clock of the store; compare-and-swap lets one
process take it over. The owner checks its lease before it writes an object, and stops if the lease
was taken over or may have been.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ligr_jax.errors import LigrError
from ligr_jax.exit_status import BUSY
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import (
    StoredObject,
    StoreError,
    VersionChanged,
    describe_object,
    read_object,
    seconds_of,
    write_object,
)

_log = logging.getLogger(__name__)

INTERVAL, BEATS = "LIGR_LEASE_S", "LIGR_LEASE_BEATS"
_held: dict[Path, "Lease"] = {}  # by lock file
_RELEASED = "released"
_LOCK, _CLOCK = ".lock", ".clock"
_LOOK_S = 2.0  # longest pause between two looks at the lease of another process


class LostLease(LigrError, RuntimeError):
    """Another process has taken over a directory while this one was writing to it."""

    exit_status = BUSY


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, uri: str, interval_s: float, stale_s: float) -> None:
        self._path, self._uri = path, uri
        self._interval_s, self._stale_s = interval_s, stale_s
        self._owner = uuid.uuid4().hex
        self._beat = 0
        self._version = ""
        self._renewed = time.monotonic()
        self._lost = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, daemon=True, name="lease")

    def take(self, version: str) -> bool:
        """Create the lease, or replace a stale one; return whether this process has it now.

        Args:
            version: Version of the stale object; "" if there is none.
        """
        self._version = version
        with self._lock:
            if not self._swap():
                return False
        _held[self._path] = self
        self._thread.start()
        return True

    def require(self) -> None:
        """Return if this process has the lease.

        Raises:
            LostLease: Another process has taken it over.
        """
        with self._lock:
            if not self._lost and time.monotonic() - self._renewed > 2 * self._interval_s:
                self._renew()  # this process was suspended, or the store did not answer
            if self._lost:
                raise LostLease(self._lost)

    def release(self) -> None:
        """Mark the lease as free."""
        self._ended.set()
        self._thread.join()
        del _held[self._path]
        with self._lock:
            if not self._lost:
                try:
                    self._swap(_RELEASED)
                except StoreError as e:
                    _log.warning(f"{e}; its lease ends after {self._stale_s:g} s")

    def _renew_until_end(self) -> None:
        while not self._ended.wait(self._interval_s):
            with self._lock:
                if self._lost:
                    return
                try:
                    self._renew()
                except StoreError as e:  # the next renewal or the next upload tries again
                    _log.warning(f"the lease was not renewed: {e}")

    def _renew(self) -> None:
        if not self._swap():
            self._lost = (
                f"{self._uri.rpartition('/')[0]}: another process has taken over this directory, "
                f"because its lease was not renewed for {self._stale_s:g} s; this process stops "
                "without writing anything more"
            )

    def _swap(self, state: str = "") -> bool:
        """Write the next beat if the store still has the last one."""
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beat": self._beat + 1,
            **({"state": state} if state else {}),
        }
        raw = (json.dumps(content) + "\n").encode()
        began = time.monotonic()
        try:
            self._version = write_object(self._uri, raw, self._version)
        except VersionChanged:
            # The answer to an earlier attempt of this request may have been lost.
            found = read_object(self._uri)
            if found is None or found[0] != raw:
                return False
            self._version = found[1].version
        self._beat += 1
        self._renewed = began
        return True


def acquire(path: Path) -> tuple[Lease | None, str]:
    """Take the lease of a directory.

    A process that was killed has left its lease, and may be started again at once. So this waits
    for the next beat of an owner that seems alive, or until the lease is stale.

    Args:
        path: Path of the lock file in the working copy.

    Returns:
        The lease, and "". If another process has it: None, and words on that process. For a
        path outside of working copies: None, and "".
    """
    uri = uri_of(path)
    if uri is None:
        return None, ""
    interval_s = lease_interval()
    stale_s = interval_s * seconds_of(BEATS, 5.0)
    found = read_object(uri)
    seen = ""
    while found is not None and _is_live(uri, found, stale_s):
        owner, version = _owner_words(found[0]), found[1].version
        if seen and version != seen:
            return None, owner
        if not seen:
            _log.info(
                f"{uri.rpartition('/')[0]} belongs to {owner}: waiting for its next sign of life; "
                f"after {stale_s:g} s without one it is taken over"
            )
        seen = version
        time.sleep(min(interval_s / 4, _LOOK_S))
        found = read_object(uri)
    lease = Lease(path, uri, interval_s, stale_s)
    if lease.take(found[1].version if found else ""):
        if found is not None and not _is_released(found[0]):
            _log.warning(f"{uri}: {_owner_words(found[0])} does not renew its lease; taken over")
        return lease, ""
    found = read_object(uri)
    return None, _owner_words(found[0]) if found else "it has just started"


def is_leased(path: Path) -> bool:
    """Return whether a process on any host has the lease of a lock file in a working copy."""
    uri = uri_of(path)
    found = None if uri is None else read_object(uri)
    if uri is None or found is None:
        return False
    return _is_live(uri, found, lease_interval() * seconds_of(BEATS, 5.0))


def mark_time(directory: Path) -> None:
    """Write the object that gives the time of the store to `leased_in`."""
    write_object(f"{uri_of(directory)}/{_CLOCK}", b"")


def leased_in(directory: Path, listing: Iterable[StoredObject]) -> set[str]:
    """Return the names of the directories below a directory that have a live lease.

    Only leases that are not stale by the listing are read.

    Args:
        directory: Directory of a working copy.
        listing: Its objects, listed after `mark_time`.
    """
    modified = {stored.name: stored.modified for stored in listing}
    stale_s = lease_interval() * seconds_of(BEATS, 5.0)
    now = modified.get(_CLOCK)
    live = set()
    for name, then in modified.items():
        folder, _, file = name.rpartition("/")
        if file != _LOCK or not folder or (now and (now - then).total_seconds() >= stale_s):
            continue
        found = read_object(f"{uri_of(directory)}/{name}")
        if found is not None and not _is_released(found[0]):
            live.add(folder)
    return live


def lease_owner(path: Path) -> str:
    """Return host and process of the newest lease of a lock file; "" if there was none."""
    uri = uri_of(path)
    found = None if uri is None else read_object(uri)
    return "" if found is None else _owner_words(found[0])


def lease_interval() -> float:
    """Return the seconds between two renewals of a lease, LIGR_LEASE_S (30)."""
    return seconds_of(INTERVAL, 30.0)


def require_owned(path: Path) -> None:
    """Return unless a directory that contains the path was taken over by another process.

    Raises:
        LostLease: It was.
    """
    for lock, lease in list(_held.items()):
        if path.is_relative_to(lock.parent):
            lease.require()


def _is_live(uri: str, found: tuple[bytes, StoredObject], stale_s: float) -> bool:
    content, stored = found
    if _is_released(content):
        return False
    # The clocks of hosts differ; an object written now has the time of the store.
    probe = f"{uri}-clock"
    write_object(probe, b"")
    now = describe_object(probe)
    return now is None or (now.modified - stored.modified).total_seconds() < stale_s


def _is_released(content: bytes) -> bool:
    return _parsed(content).get("state") == _RELEASED


def _owner_words(content: bytes) -> str:
    owner = _parsed(content)
    return f"host {owner.get('host', 'unknown')}, process {owner.get('pid', 'unknown')}"


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
