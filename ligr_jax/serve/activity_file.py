"""The SQLite file of an activity store: chunks of histories by member and number.

    about    name, value                      description of the store, JSON (`ActivityAbout`)
    chunks   member, number, ...              histories in parts (`Chunk`)

Chunks of a member are numbered by time. All of them have `CHUNK` impressions, except the first and
the last one.

The file has a write-ahead log: a commit is on disk before it is acknowledged (`synchronous=FULL`),
a commit that was interrupted is not read, and readers of any number of processes see the last
commit while another process writes. SQLite needs a local file system for this.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import xxhash

from ligr_jax.digests import DamagedFile
from ligr_jax.errors import FileError, LigrError
from ligr_jax.lock import Busy

ACTIVITY = "activity.sqlite"  # file name in the directory of a store
CHUNK = 128  # impressions of a chunk
KEPT = -2  # `after_ms` of a chunk before which nothing was dropped
EARLIEST = -(2**63)  # before every time and every member
_COLUMNS = "number, first_ms, impressions, after_ms, records, ids"
_APPLICATION = 0x4C494752  # "LIGR"; `file` and SQLite show it
_VERSION = 1  # of the file's format
_MAPPED = 2**31  # bytes of the file that are read without a call of the system per page
_WAIT_S = 60.0  # for another writer
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE chunks (
    member INTEGER NOT NULL,
    number INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    after_ms INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    records BLOB NOT NULL,
    ids BLOB NOT NULL
);
"""
# Created after the rows: sorting them once is faster than inserting in the order of hashed ids.
_INDEX = "CREATE UNIQUE INDEX chunk_of_member ON chunks (member, number)"
# By the beginning of SQLite's name of an error: what happened, and the remedy.
_WORDS = {
    "SQLITE_FULL": "no space is left on the disk; make room or choose another disk",
    "SQLITE_READONLY": "the file cannot be written; change its permissions",
    "SQLITE_CANTOPEN": "the file or its directory cannot be opened; check path and permissions",
    "SQLITE_IOERR": "the disk reports an input/output error; check the disk",
}


class Chunk(NamedTuple):
    """Consecutive impressions of a member.

    Attributes:
        number: number of the chunk.
        first_ms: time of its first impression.
        impressions: number of impressions.
        after_ms: time of the last impression before this chunk, if it was dropped, or `KEPT`.
        records: their records.
        ids: the ids of their bags.
    """

    number: int
    first_ms: int
    impressions: int
    after_ms: int
    records: bytes
    ids: bytes


class ActivityFile:
    """Connections to the file of a store, one per thread."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: the file.

        Raises:
            DamagedFile: it is not the file of an activity store, or of another format version.
            FileError: it cannot be opened.
        """
        self.path = path
        self._local = threading.local()
        self._opened: list[tuple[int, sqlite3.Connection]] = []  # with the process that opened it
        self._file = os.stat(path)
        try:
            self._require_own_format()
        except BaseException:
            self.close()
            raise

    def _require_own_format(self) -> None:
        with self.errors():
            application = self.connection().execute("PRAGMA application_id").fetchone()[0]
            version = self.connection().execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise DamagedFile(_foreign(self.path))
        if version != _VERSION:
            raise DamagedFile(
                f"{self.path} has format version {version}, but this release reads version "
                f"{_VERSION}; build the store again: `ligr store build PREPARED --out DIR`"
            )
        with self.errors():  # a build that was interrupted may have changed it (`release_file`)
            self.connection().execute("PRAGMA journal_mode=WAL")

    def connection(self) -> sqlite3.Connection:
        """Return the connection of this thread; a forked process gets one of its own."""
        local = self._local
        if getattr(local, "process", None) != os.getpid():
            local.connection = connect(self.path)
            local.connection.execute("PRAGMA synchronous=FULL")
            local.connection.execute(f"PRAGMA mmap_size={_MAPPED}")
            local.process = os.getpid()
            self._opened.append((local.process, local.connection))
        connection: sqlite3.Connection = local.connection
        return connection

    def close(self) -> None:
        """Close the connections of all threads of this process."""
        for process, connection in self._opened:
            if process == os.getpid():
                connection.close()
        self._opened.clear()
        self._local = threading.local()

    def about(self) -> str:
        """Return the description of the store."""
        with self.errors():
            row = self.connection().execute("SELECT value FROM about").fetchone()
        return str(row[0]) if row else ""

    def newest(self, member: int, impressions: int) -> list[Chunk]:
        """Return the fewest chunks with the last `impressions` of a member, oldest first.

        The chunks are those of one commit.
        """
        # All chunks but the first and the last one are full.
        number = -(-(impressions - 1) // CHUNK) + 1
        return self._chunks("WHERE member = ?1 ORDER BY number DESC LIMIT ?2", member, number)[::-1]

    def since(self, member: int, time_ms: int) -> list[Chunk]:
        """Return the chunks of a member, from the last one that begins before a time."""
        earlier = "SELECT max(number) FROM chunks WHERE member = ?1 AND first_ms < ?2"
        which = f"WHERE member = ?1 AND number >= coalesce(({earlier}), 0) ORDER BY number"
        return self._chunks(which, member, time_ms)

    def replace(self, connection: sqlite3.Connection, member: int, chunks: Sequence[Chunk]) -> None:
        """Replace the chunks of a member from the number of the first new one on.

        Args:
            connection: connection of `writing`.
            member: the member.
            chunks: the new chunks; [] changes nothing.
        """
        if chunks:
            connection.execute(
                "DELETE FROM chunks WHERE member = ? AND number >= ?", (member, chunks[0].number)
            )
            insert_chunks(connection, ((member, chunk) for chunk in chunks))

    def shrink(self, pages: int) -> None:
        """Give the free pages of the file back to the file system, a number at a time."""
        with self.errors():
            connection = self.connection()
            while free := connection.execute("PRAGMA freelist_count").fetchone()[0]:
                connection.execute(f"PRAGMA incremental_vacuum({min(free, pages)})").fetchall()
            # Readers may still need the log; the next commit then reuses it.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def size(self) -> tuple[int, int]:
        """Return the numbers of members and of impressions."""
        query = "SELECT count(DISTINCT member), coalesce(sum(impressions), 0) FROM chunks"
        with self.errors():
            members, impressions = self.connection().execute(query).fetchone()
        return members, impressions

    def outline(self, member: int) -> list[tuple[int, int, int]]:
        """Return `number`, `first_ms` and `impressions` of the chunks of a member, oldest first."""
        query = "SELECT number, first_ms, impressions FROM chunks WHERE member = ? ORDER BY number"
        with self.errors():
            return self.connection().execute(query, (member,)).fetchall()

    def chunk(self, member: int, number: int) -> Chunk:
        """Return one chunk, which the member must have."""
        (chunk,) = self._chunks("WHERE member = ?1 AND number = ?2", member, number)
        return chunk

    def compactable(
        self, after: int, newest: int | None, before_ms: int | None, limit: int
    ) -> list[int]:
        """Return members with more than `newest` impressions, or with one before a time.

        Args:
            after: the members are greater than this one, or `EARLIEST` and greater.
            newest: None stands for any number of impressions.
            before_ms: None stands for no time.
            limit: the most members that are returned, in increasing order.
        """
        query = (
            "SELECT member FROM chunks WHERE member > ? GROUP BY member "
            "HAVING sum(impressions) > ? OR min(first_ms) < ? ORDER BY member LIMIT ?"
        )
        most = 2**63 - 1 if newest is None else newest
        earliest = EARLIEST if before_ms is None else before_ms
        with self.errors():
            rows = self.connection().execute(query, (after, most, earliest, limit)).fetchall()
        return [member for (member,) in rows]

    def require_intact(self) -> None:
        """Read everything, and compare it with its digests.

        Raises:
            DamagedFile: a chunk or the structure of the file is damaged.
        """
        with self.errors():
            problem = self.connection().execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise DamagedFile(_damaged(self.path, problem))
            rows = self.connection().execute(f"SELECT member, {_COLUMNS}, digest FROM chunks")
            for member, *chunk, digest in rows:
                self._intact(member, Chunk(*chunk), digest)

    def count(self, member: int) -> int:
        """Return the number of impressions of a member."""
        query = "SELECT sum(impressions) FROM chunks WHERE member = ?"
        with self.errors():
            return int(self.connection().execute(query, (member,)).fetchone()[0] or 0)

    def _chunks(self, which: str, member: int, value: int) -> list[Chunk]:
        with self.errors():
            query = self.connection().execute(
                f"SELECT {_COLUMNS}, digest FROM chunks {which}", (member, value)
            )
            rows = query.fetchall()
        return [self._intact(member, Chunk(*row[:-1]), row[-1]) for row in rows]

    def _intact(self, member: int, chunk: Chunk, digest: int) -> Chunk:
        if _digest(member, chunk) != digest:
            problem = f"chunk {chunk.number} of member {member} differs from its digest"
            raise DamagedFile(_damaged(self.path, problem))
        return chunk

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Commit the changes of the block together, after those of other writers.

        Raises:
            Busy: other processes write for a long time.
            LigrError: the store was replaced since it was opened.
            FileError: the file cannot be written.
        """
        with self.errors():
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not os.path.samestat(self._file, os.stat(self.path)):
                    raise LigrError(f"{self.path} was replaced since it was opened; open it again")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Put errors of SQLite in words."""
        try:
            yield
        except sqlite3.DatabaseError as e:
            raise _error(self.path, e) from e


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open an SQLite file whose statements are committed one by one.

    Args:
        path: the file.
        mode: SQLite's `mode` of a URI: `rw`, or `rwc` to create the file.
    """
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=_WAIT_S,
        check_same_thread=False,  # `close` closes the connections of all threads
    )


def create_file(
    path: Path,
    chunks: Iterable[tuple[int, Chunk]],
    about: Callable[[], str],
) -> None:
    """Write a file. No other process may open it before this function returns.

    Args:
        path: file to write.
        chunks: members and chunks, in any order of members.
        about: returns the description of the store, called last.
    """
    with contextlib.closing(connect(path, "rwc")) as connection:
        for setting in ("auto_vacuum=INCREMENTAL", "journal_mode=OFF", "synchronous=OFF"):
            connection.execute(f"PRAGMA {setting}")
        connection.executescript(_TABLES)
        connection.execute("BEGIN")
        insert_chunks(connection, chunks)
        connection.execute("INSERT INTO about VALUES ('about', ?)", (about(),))
        connection.execute(_INDEX)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")


def release_file(path: Path) -> None:
    """Write the log of a file back, so that the file can be replaced.

    Raises:
        Busy: another process has the file open.
    """
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA busy_timeout=0")
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as e:
            error = _error(path, e)
            if isinstance(error, Busy):
                raise Busy(
                    f"{path} is open in another process; stop the process that serves from it"
                ) from e
            if not isinstance(error, DamagedFile):
                raise error from e
            # The log of a damaged file must not be read with the file that replaces it.
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def insert_chunks(connection: sqlite3.Connection, chunks: Iterable[tuple[int, Chunk]]) -> None:
    """Insert chunks of members."""
    connection.executemany(
        f"INSERT INTO chunks (member, digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((member, _digest(member, chunk), *chunk) for member, chunk in chunks),
    )


def _digest(member: int, chunk: Chunk) -> int:
    """Return the xxh64 of a chunk and its member as a signed integer."""
    digest = xxhash.xxh64(b"%d %d %d %d %d " % (member, *chunk[:4]))
    digest.update(chunk.records)
    digest.update(chunk.ids)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _damaged(path: Path, problem: str) -> str:
    return f"{path}: damaged ({problem}); restore the file from a copy, or build the store again"


def _foreign(path: Path) -> str:
    return (
        f"{path}: not an activity store but a file of another program; name another directory, or "
        "remove the file and build the store: `ligr store build PREPARED --out DIR`"
    )


def _error(path: Path, error: sqlite3.DatabaseError) -> Exception:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"{path}: other processes wrote for {_WAIT_S:.0f} s; try again")
    words: Any = next((w for start, w in _WORDS.items() if name.startswith(start)), None)
    if words:
        return FileError(f"cannot use {path}: {words}")
    if name.startswith("SQLITE_NOTADB"):
        return DamagedFile(_foreign(path))
    if name.startswith("SQLITE_CORRUPT"):
        return DamagedFile(_damaged(path, str(error)))
    return error
