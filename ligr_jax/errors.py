"""The base of all errors that a user can mend, and the operating system's errors in words.

`ligr` prints a `LigrError` as one line and exits with its `exit_status`. Every other exception is a
bug of this package and shows its traceback.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ligr_jax.exit_status import FAILED, USAGE


class LigrError(Exception):
    """An error that the user can mend: the message names file, field, value and remedy.

    exit_status: of `ligr` where this error ends a command.
    """

    exit_status = FAILED


def words_of(error: BaseException) -> tuple[int, str] | None:
    """Exit status and message of an error of the user; None for a bug."""
    if isinstance(error, LigrError):
        return error.exit_status, str(error)
    if isinstance(error, OSError) and is_of_a_file(error):
        return FAILED, str(file_error(error, "use"))
    return None


class UsageError(LigrError):
    """A command line that cannot be meant."""

    exit_status = USAGE


class FileError(LigrError, OSError):
    """An operating system's error: the message names the operation, the file and the remedy."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.errno = number

    def __str__(self) -> str:
        return self.message


# By error number: what happened, and the remedy.
_WORDS = {
    errno.ENOSPC: ("no space is left on the disk", "make room or choose another disk"),
    errno.EDQUOT: ("the disk quota is used up", "make room or choose another disk"),
    errno.EACCES: ("permission denied", "change its permissions or choose another path"),
    errno.EPERM: ("operation not permitted", "change its permissions or choose another path"),
    errno.EROFS: ("the file system is read-only", "choose a path that can be written"),
    errno.ENOENT: ("no such file or directory", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a directory", "choose another path"),
    errno.EISDIR: ("it is a directory, not a file", "choose another path"),
    errno.EEXIST: ("a file of this name exists", "choose another path"),
    errno.ENOTEMPTY: ("the directory is not empty", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("its symbolic links form a loop", "check the path"),
    errno.EMFILE: ("too many files are open", "raise the limit with `ulimit -n`"),
    errno.ENFILE: ("too many files are open on this host", "close other programs"),
    errno.EFBIG: ("the file is too large", "raise the limit with `ulimit -f` or use another disk"),
    errno.EIO: ("the disk reports an input/output error", "check the disk"),
    errno.ESTALE: ("the network file system has lost the file", "mount it again"),
    errno.ETIMEDOUT: ("the network file system does not answer", "mount it again"),
    errno.EINVAL: ("the file system does not accept this name or operation", "use another path"),
    errno.ENOLCK: ("the file system has no locks", "mount it with locks or use another disk"),
    errno.ENOTSUP: ("the file system does not support this", "use another disk"),
    errno.EBUSY: ("the file is in use", "choose another path"),
}
# Errors of a host or a disk, whatever the file; reported in words where no file is known.
_OF_THE_HOST = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
    errno.ESTALE,
    errno.EROFS,
}


def file_error(error: OSError, operation: str, path: Path | str | None = None) -> FileError:
    """An operating system's error in words.

    Args:
        operation: a verb: "write", "read", "make the directory".
        path: what it was done to, where the error does not name it.
    """
    name = error.filename if isinstance(error.filename, str) else None
    if path is not None and (name is None or _is_temporary(Path(name), Path(path))):
        name = str(path)
    elif path is not None and not Path(str(name)).is_relative_to(path):
        operation = "use"  # another file than the one that the operation is about
    text, remedy = _WORDS.get(error.errno or 0, (error.strerror or str(error), "check the path"))
    where = f"cannot {operation} {name}" if name else f"cannot {operation} a file"
    return FileError(f"{where}: {text}; {remedy}", error.errno)


def _is_temporary(name: Path, path: Path) -> bool:
    """Whether `name` is a file that is written in place of `path` until it is complete."""
    return name.parent == path.parent and name.name.startswith(f".{path.name}.")


def is_of_a_file(error: OSError) -> bool:
    """Whether the error is one of the user's files or disks, not a bug."""
    return error.filename is not None or error.errno in _OF_THE_HOST


@contextlib.contextmanager
def file_errors(operation: str, path: Path | str) -> Iterator[None]:
    """Put the operating system's errors of the block in words; see `file_error`.

    Raises:
        FileError: in place of an OSError. A closed pipe and a lock that another process holds are
            no errors of a file and pass unchanged.
    """
    try:
        yield
    except (FileError, BrokenPipeError, BlockingIOError):
        raise
    except OSError as e:
        raise file_error(e, operation, path) from e
