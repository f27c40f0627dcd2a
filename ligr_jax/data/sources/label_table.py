"""Labels in a table of their own, which has a row for each impression with an action.

Impressions find their row by key columns, e.g. a request and an item. An impression without a row
has the label 0 for every action of the table; one without a key has unknown labels. The table is
held in memory, and Spark sends it to every executor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import TIME, BadInput
from ligr_jax.data.sources.files import DataFile, column_names, read_whole
from ligr_jax.data.sources.ids import parse_ids
from ligr_jax.data.sources.parse import parse_labels
from ligr_jax.data.sources.table_checks import canonical_names, refuse_unsupported_format
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.times import TimeRule, parse_times
from ligr_jax.data.sources.validate import did_you_mean
from ligr_jax.ops.hashing import mix64


@dataclass(frozen=True)
class LabelTable:
    """Labels by key, sorted by a hash of the keys.

    Attributes:
        on: names of the key columns.
        keys: int64 [rows] for each key column.
        hashes: uint64 [rows], increasing.
        labels: int8 [rows] for each action; -1 is unknown.
        longest: largest number of rows with one hash, 1 unless hashes collide.
    """

    on: tuple[str, ...]
    keys: tuple[np.ndarray, ...]
    hashes: np.ndarray
    labels: dict[str, np.ndarray]
    longest: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.hashes)

    def attach(self, frame: pl.DataFrame, time: TimeRule | None) -> tuple[pl.DataFrame, int]:
        """Add the labels to impressions.

        Args:
            frame: impressions with the key columns.
            time: how the time column is read.

        Returns:
            The impressions with a column for each action, and how many of them have a row here.

        Raises:
            TypeError: the type of a key column cannot hold keys.
        """
        parsed = [_parse_key(frame[name], name, time) for name in self.on]
        keys = [key for key, _ in parsed]
        without_key = np.logical_or.reduce([missing for _, missing in parsed])
        first = np.searchsorted(self.hashes, _hash(keys))
        row = np.full(frame.height, -1)
        for step in range(self.longest):
            candidate = np.minimum(first + step, len(self) - 1)
            equal = [ours[candidate] == key for ours, key in zip(self.keys, keys)]
            row = np.where(np.logical_and.reduce(equal), candidate, row)
        found = (row >= 0) & ~without_key
        columns = []
        for action, labels in self.labels.items():
            values = np.where(found, labels[row], np.int8(0))
            unknown = without_key | (values < 0)
            columns.append(pl.Series(action, values).set(pl.Series(unknown), None))
        return frame.with_columns(columns), int(found.sum())


@dataclass(frozen=True)
class LabelFile:
    """The file of a table of labels, before its rows are read.

    Attributes:
        file: the file.
        names: canonical names of its columns.
        on: key columns, which the log has too.
        actions: columns with labels.
    """

    file: DataFile
    names: list[str]
    on: tuple[str, ...]
    actions: list[str]

    def require_keys(self, log: Path, present: Sequence[str]) -> None:
        """Check the columns of the log.

        Args:
            log: a file of the log.
            present: canonical names of its columns.

        Raises:
            BadInput: a key column is absent, or both tables have the same label column.
        """
        _require(self.on, log, present)
        both = [action for action in self.actions if action in present]
        if both:
            raise BadInput(
                f"{both[0]!r} is a column of {log} and of {self.file.path}; rename one of them "
                "with --map, or drop it"
            )

    def read(self, columns: TableColumns, time: TimeRule | None) -> LabelTable:
        """Read and sort the rows.

        Args:
            columns: the declared columns.
            time: how the time column is read, if the log has one.

        Raises:
            BadInput: the file has no rows, a value is not a key or a label, or a key occurs twice.
        """
        path = self.file.path
        # One by one, because polars interprets names such as ^x$ as patterns.
        read = read_whole(self.file).frame.iter_columns()
        kept = (s.alias(columns.canonical(s.name)) for s in read if s.name not in columns.ignore)
        frame = pl.DataFrame(list(kept))
        if not frame.height:
            raise BadInput(f"--labels {path}: the table has no rows")
        return _sorted_table(path, frame, self.on, self.actions, time)


def open_label_file(columns: TableColumns, path: Path) -> LabelFile:
    """Open the table of labels of a log.

    Args:
        columns: the declared columns; `labels_on` are the keys.
        path: the file.

    Raises:
        BadInput: there is no such file, or a key or every action is absent.
    """
    if not path.is_file():
        raise BadInput(f"--labels {path}: no such file")
    file = DataFile(path, path.name, reading=columns.reading.of_side_table(), flat=True)
    refuse_unsupported_format(file)
    on = tuple(columns.canonical(name) for name in columns.labels_on)
    names = canonical_names(file, columns, None)
    _require(on, path, names)
    actions = [a for a in columns.actions if a in names and a not in on]
    if not actions:
        raise BadInput(
            f"--labels {path}: none of its columns {column_names(file)} is an action; name its "
            "label columns in --actions"
        )
    return LabelFile(file=file, names=names, on=on, actions=actions)


def _require(on: Sequence[str], path: Path, present: Sequence[str]) -> None:
    for name in on:
        if name not in present:
            raise BadInput(
                f"{path}: no column {name!r} (--labels-on){did_you_mean(name, present)}; its "
                f"columns are {list(present)}"
            )


def _sorted_table(
    path: Path,
    frame: pl.DataFrame,
    on: tuple[str, ...],
    actions: Sequence[str],
    time: TimeRule | None,
) -> LabelTable:
    keys = []
    for name in on:
        try:
            key, missing = _parse_key(frame[name], name, time)
        except TypeError as e:
            raise BadInput(f"{path}, column {name!r}: {e}; name other keys in --labels-on") from e
        _refuse(path, frame[name], missing, "is not a key; correct or remove the row")
        keys.append(key)
    labels = {}
    for action in actions:
        try:
            labels[action], rules = parse_labels(frame[action])
        except TypeError as e:
            raise BadInput(f"{path}, column {action!r}: {e}") from e
        for rows, rule in rules:
            _refuse(path, frame[action], rows, rule)
    hashes = _hash(keys)
    order = np.argsort(hashes, kind="stable")
    table = LabelTable(
        on=on,
        keys=tuple(key[order] for key in keys),
        hashes=hashes[order],
        labels={action: values[order] for action, values in labels.items()},
        longest=int(np.unique(hashes, return_counts=True)[1].max()),
    )
    _refuse_repeated(path, frame, table, order)
    return table


def _refuse_repeated(path: Path, frame: pl.DataFrame, table: LabelTable, order: np.ndarray) -> None:
    """Raise `BadInput` if a key occurs twice, with its first repetition in the file."""
    repeated: list[tuple[int, int]] = []
    for step in range(1, table.longest):
        same = [key[step:] == key[:-step] for key in table.keys]
        at = np.flatnonzero(np.logical_and.reduce(same))
        repeated += [(int(order[k + step]), int(order[k])) for k in at]
    if repeated:
        later, earlier = min(repeated)
        key = ", ".join(f"{name}={frame[name][later]!r}" for name in table.on)
        raise BadInput(
            f"{path}, row {later + 1}: the key {key} is also in row {earlier + 1}; write one row "
            "per impression, or add a column to --labels-on that tells impressions apart"
        )


def _refuse(path: Path, values: pl.Series, rows: np.ndarray, rule: str) -> None:
    if rows.any():
        row = int(rows.argmax())
        raise BadInput(f"{path}, row {row + 1}, column {values.name!r}: {values[row]!r} {rule}")


def _parse_key(
    values: pl.Series, name: str, time: TimeRule | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a key column as int64 [N], and the rows without a key; times are in milliseconds."""
    if name == TIME and time:
        key, rules = parse_times(values, time)
        missing = np.zeros(len(key), bool)
    else:
        key, rules = parse_ids(values)
        missing = key == MISSING
    for rows, _ in rules:
        missing = missing | rows
    return key, missing


def _hash(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return hashes of keys, uint64 [N]."""
    hashes = np.zeros(len(keys[0]), np.uint64)
    for key in keys:
        hashes = mix64(hashes ^ key.view(np.uint64))
    return hashes
