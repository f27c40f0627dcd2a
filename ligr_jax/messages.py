"""Messages of the package: loggers under "ligr_jax", and the command line's handler on stderr.

Modules log through `logging.getLogger(__name__)`: progress and notices as INFO, and what a user has
to know in any case as WARNING. A program that imports the package sees what its own `logging`
configuration shows, e.g. `logging.basicConfig(level=logging.INFO)`; each process of a run logs.

`ligr` and the programs in `experiments/` call `show_messages`: messages then go to stderr, one line
each, and results alone go to stdout. Of several processes, only the first one writes.
"""

import logging
import sys
from collections.abc import Callable

from ligr_jax.store.mirror import with_uris

ROOT = "ligr_jax"
# Attribute of a record: whether the next line of progress replaces this one on a terminal.
REPLACEABLE = "replaceable"


class _StderrHandler(logging.Handler):
    """Writes records to the stderr of the moment."""

    _line_is_open = False  # a line of progress without its line break

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None:
            return
        try:
            text = with_uris(self.format(record))
            replaceable = getattr(record, REPLACEABLE, None)
            if replaceable is not None and stream.isatty():
                text = f"\r{text}\x1b[K" + ("" if replaceable else "\n")
            elif self._line_is_open:
                text = f"\n{text}\n"
            else:
                text += "\n"
            self._line_is_open = not text.endswith("\n")
            stream.write(text)
            stream.flush()
        except Exception:
            self.handleError(record)

    def end_line(self) -> None:
        if self._line_is_open and sys.stderr is not None:
            print(file=sys.stderr, flush=True)
            self._line_is_open = False


def show_messages(quiet: bool = False) -> Callable[[], None]:
    """Write the package's messages to stderr, and nowhere else.

    Args:
        quiet: Write warnings and errors only.

    Returns:
        A function that restores the state before the call.
    """
    logger = logging.getLogger(ROOT)
    before = logger.level, logger.propagate
    handler = _StderrHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False  # a handler that a library gave the root logger would repeat them

    def undo() -> None:
        logger.removeHandler(handler)
        level, logger.propagate = before
        logger.setLevel(level)

    return undo


def end_line() -> None:
    """End a line of progress on a terminal, before something else is printed."""
    for handler in _shown():
        handler.end_line()


def silence() -> None:
    """Stop the handler of `show_messages`, in every process of a run except the first."""
    for handler in _shown():
        handler.setLevel(logging.CRITICAL + 1)


def rewrites_lines() -> bool:
    """Whether lines of progress are rewritten in place: messages are shown on a terminal."""
    return bool(_shown()) and sys.stderr is not None and sys.stderr.isatty()


def _shown() -> list[_StderrHandler]:
    return [h for h in logging.getLogger(ROOT).handlers if isinstance(h, _StderrHandler)]
