"""Description of a public data set that `ligr prepare` reads, for detection and `ligr sources`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ligr_jax.data.schema import BadInput, Column
from ligr_jax.data.sources.files import DataFile, column_names, column_type
from ligr_jax.data.sources.source import LogSource

# Kinds of columns, by which an adapter declares the types that it computes with.
KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "": lambda _: True,
    "integer": pa.types.is_integer,
    "time": pa.types.is_timestamp,
    "list": lambda t: pa.types.is_list(t) or pa.types.is_large_list(t),
}


@dataclass(frozen=True)
class Archive:
    """A file that `ligr download` fetches.

    Attributes:
        url: its address.
        checksum: its published checksum, `md5:...` or `sha256:...`.
    """

    url: str
    checksum: str


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
        archives: archives of the files, by their names for `ligr download`.
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
    archives: Mapping[str, Archive] = field(default_factory=dict)


def require_complete(lacking: Sequence[str] | None, absent: str) -> None:
    """Check that a directory has the layout of a data set.

    Args:
        lacking: what the directory lacks, as `Adapter.lacking` returns it.
        absent: message if no file resembles the layout.

    Raises:
        BadInput: a file or a column is missing.
    """
    if lacking is None:
        raise BadInput(absent)
    if lacking:
        raise BadInput("; ".join(lacking))


def missing_columns(file: Path | DataFile, columns: Sequence[str], title: str) -> list[str]:
    """Return a message if a file lacks columns of a data set, or [].

    Args:
        file: the file.
        columns: the columns.
        title: name of the data set.
    """
    present = column_names(file)
    missing = [c for c in columns if c not in present]
    if not missing:
        return []
    return [
        f"{DataFile.of(file).path} lacks the columns {missing} of {title} (its columns are "
        f"{present}); read another table with --format table and --actions"
    ]


def id_column(file: Path | DataFile, name: str) -> Column:
    """Return the feature of a column of ids: a bag if the column has lists, else categorical."""
    return Column("bag" if is_list(column_type(file, name)) else "categorical")


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are lists of any length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def wrong_types(file: Path | DataFile, kinds: Mapping[str, str], title: str) -> list[str]:
    """Return a message for every column of a typed file that is not of its kind.

    Args:
        file: the file.
        kinds: names of columns -> one of `KINDS`.
        title: name of the data set.
    """
    types = {name: column_type(file, name) for name in kinds}
    return [
        f"{DataFile.of(file).path}, column {name!r} has the type {types[name]}, and {title} has "
        f"{kind} values; read the files as they are published"
        for name, kind in kinds.items()
        if not KINDS[kind](types[name])
    ]
