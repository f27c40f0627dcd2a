"""Output whose errors never end a command.

`ligr train ... | head` closes the pipe after ten lines, a lost connection closes the terminal, and
`> log` may fill the disk. The output is then lost, the work continues, and the exit status is that
of the work.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable

_READER_GONE = {errno.EPIPE, errno.EIO, errno.ESHUTDOWN, errno.ECONNRESET}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Output(io.FileIO):
    """A file descriptor whose writes never raise an error of a closed pipe or a full disk.

    Attributes:
        lost: Whether a full disk lost output.
    """

    lost = False

    def write(self, data: "memoryview | bytes") -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as e:
            if e.errno in _READER_GONE:
                _to_null(self.fileno())
            elif e.errno in _DISK_FULL:
                self.lost = True
            else:
                raise
        return memoryview(data).nbytes


def make_output_safe() -> Callable[[], bool]:
    """Replace stdout and stderr of this process. Each line is written when it ends.

    Returns:
        A function that returns whether a full disk lost a part of stdout.
    """
    # The next file that is opened gets the number of a closed descriptor, and C++ libraries would
    # write their messages to that file.
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
    outputs: dict[int, _Output] = {}
    for name, fd in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not None:
            with contextlib.suppress(OSError):
                before.flush()
        output = outputs[fd] = _Output(fd, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(output),  # type: ignore[type-var]
            encoding=before.encoding if before else "utf-8",
            errors="backslashreplace",  # the locale may not have all characters
            line_buffering=True,
        )
        setattr(sys, name, stream)
    return lambda: outputs[1].lost


def _to_null(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)
