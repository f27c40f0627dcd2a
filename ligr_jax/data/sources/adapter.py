"""Description of a public data set that `ligr prepare` reads, for detection and `ligr sources`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ligr_jax.data.sources.source import LogSource


@dataclass(frozen=True)
class Adapter:
    """A public data set.

    Attributes:
        name: value of `--format`.
        title: name of the data set and its publisher.
        open: opens a directory as a log; raises `BadInput` if a file or a column is missing.
        lacking: returns what a directory lacks to have the layout: a message per missing file or
            column, [] if nothing is missing, None if no file resembles the layout.
        files: names or patterns of the files -> what they have; "(optional)" where they may lack.
        impression: what one row of the log is.
        session: what ends a session.
        actions: what the labels are, in the columns of the data set.
        outcomes: what is known only after the impression.
        refused: files and columns that are not read, and why.
        obtain: address and licence of the data.
    """

    name: str
    title: str
    open: Callable[[Path], LogSource]
    lacking: Callable[[Path], list[str] | None]
    files: Mapping[str, str]
    impression: str
    session: str
    actions: str
    outcomes: str
    refused: str
    obtain: str
