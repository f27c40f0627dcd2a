"""Random access to prepared data: members' records, memory-mapped, as flat columns.

Impressions of all shards are numbered through in file order, so one integer names an impression and
a slice names a stretch of a member's history. Nothing is read before it is asked for.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ligr_jax.atomic import version_of
from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action as action_column
from ligr_jax.data.columns import feature, stored, truth
from ligr_jax.data.manifest import MANIFEST, MISSING, Manifest, SplitStats, load_manifest
from ligr_jax.data.schema import BadInput


class Records:
    """A prepared directory, open for reading.

    Attributes:
        manifest: what the directory holds; its splits are those that `edges` made.
        digest: of the manifest as it was written.
        offsets: int64 [members + 1]; member m owns impressions offsets[m] .. offsets[m + 1].
        counts: int32 [members, 4]: context, train, validation, test impressions, in that order.
        member_ids: int64 [members].
        items: the item table, one row per item by increasing `item_id`; None where there is none.
    """

    def __init__(
        self, directory: str | Path, edges: tuple[int, ...] = (), digest: str = ""
    ) -> None:
        """Open a prepared directory.

        Args:
            directory: output of `ligr prepare`.
            edges: where train begins and ends and where validation and test end, in ms, in place
                of the times the directory was prepared with. The statistics of columns do not
                change.
            digest: that the data must have; "" accepts any.

        Raises:
            BadInput: there is no manifest, a file is missing or damaged, the digest is another one,
                or another process replaced the data at the same time.
        """
        self.directory, self.edges = Path(directory), edges
        path = self.directory / MANIFEST
        version = version_of(path)
        try:
            self._open_all(digest)
        finally:
            # Open files remain readable when `ligr prepare --overwrite` removes them, but files
            # opened before and after it do not belong together.
            if version is not None and version_of(path) != version:
                raise BadInput(
                    f"{self.directory} was prepared again while it was being opened; "
                    "run the command again"
                )
        if edges:
            self._cut(edges)

    def _open_all(self, digest: str) -> None:
        """Map all files of the manifest."""
        self.manifest: Manifest = load_manifest(self.directory)
        self.digest = self.manifest.digest
        if digest and self.digest != digest:
            raise BadInput(
                f"{self.directory} has digest {self.digest}, but {digest} is expected: the data "
                "were prepared again since; run the command again, or restore the data"
            )
        batches = [self._open(s.file) for s in self.manifest.shards]
        lists = [self._named(_list_columns(b)) for b in batches]
        self._columns = [_numbers(columns) for columns in lists]
        self._bags = [_bags(columns) for columns in lists]
        sizes = np.array([s.impressions for s in self.manifest.shards], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        lengths = [np.diff(_offsets(b)) for b in batches]
        self.offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths, dtype=np.int64))])
        self.counts = np.concatenate(
            [
                np.stack([b[f"n_{k}"].to_numpy() for k in ("context", *self.manifest.splits)], 1)
                for b in batches
            ]
        )
        self.member_ids = np.concatenate([b["member_id"].to_numpy() for b in batches])
        self._items: dict[str, np.ndarray] = {}
        self._item_bags: dict[str, Bags] = {}
        self.items = self._open(self.manifest.items.file) if self.manifest.items else None
        if self.items is not None:
            names = [n for n in self.items.schema.names if n != "item_id"]
            columns = self._named({n: self.items[n] for n in names})
            self._items, self._item_bags = _numbers(columns), _bags(columns)

    def __len__(self) -> int:
        """Number of impressions, untimed context included."""
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type["Records"], tuple[Path, tuple[int, ...], str]]:
        """A loader process opens the same data itself instead of receiving a copy."""
        return Records, (self.directory, self.edges, self.digest)

    def _cut(self, edges: tuple[int, ...]) -> None:
        """Counts, and the manifest's splits, of other times: histories being in order of time, it
        is enough to know how many impressions of a member are before each of them."""
        members = len(self.member_ids)
        place = np.searchsorted(np.array(edges), self.column("timestamp_ms"), side="right")
        member = np.repeat(np.arange(members), np.diff(self.offsets))
        sizes = np.bincount(member * 5 + place, minlength=5 * members).reshape(members, 5)
        self.counts = sizes[:, :4].astype(np.int32)  # what is after the last one is in no split
        known, positive = np.zeros((2, len(self.manifest.actions), 5), np.int64)
        for a, action in enumerate(self.manifest.actions):
            labels = self.label(action)
            known[a] = np.bincount(place[labels >= 0], minlength=5)
            positive[a] = np.bincount(place[labels == 1], minlength=5)
        stats = {
            name: SplitStats(
                start_ms=edges[k - 1],
                end_ms=edges[k],
                impressions=int(sizes[:, k].sum()),
                members=int((sizes[:, k] > 0).sum()),
                positive_rate={
                    action: int(positive[a, k]) / int(known[a, k])
                    for a, action in enumerate(self.manifest.actions)
                    if known[a, k]
                },
            )
            for k, name in enumerate(self.manifest.splits, 1)
        }
        self.manifest = dataclasses.replace(self.manifest, splits=stats)

    def feature(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Values of a feature at impression numbers `index`, of any shape; None: of all.

        Vectors add an axis. Of a bag, see `bag`.
        """
        return self._at(feature(name), index)

    def ids(self, name: str) -> Iterator[np.ndarray]:
        """Ids of a categorical feature or of a bag as they are stored, in parts, in any order."""
        column = feature(name)
        if column in self._items:
            yield self._items[column]
        elif column in self._item_bags:
            yield self._item_bags[column].values
        else:
            for numbers, bags in zip(self._columns, self._bags):
                yield bags[column].values if column in bags else numbers[column]

    def label(self, action: str, index: np.ndarray | None = None) -> np.ndarray:
        """int8 labels of an action, as `feature`: 1, 0, or `UNKNOWN`."""
        return self._at(action_column(action), index)

    def truth(self, action: str, index: np.ndarray | None = None) -> np.ndarray:
        """float32 true probabilities of an action, as `feature`; only where the log has them."""
        return self._at(truth(action), index)

    def _at(self, column: str, index: np.ndarray | None) -> np.ndarray:
        if index is None and column not in self._items:
            return self.column(column)
        return self.take(column, np.arange(len(self)) if index is None else index)

    def take(self, column: str, index: np.ndarray) -> np.ndarray:
        """Values of one of the format's own columns (`session`, `weight`, ...) at `index`."""
        if column in self._items:
            return _of_items(self._items[column], self.take("item_row", index))
        first = self._columns[0][column]
        out = np.empty(index.shape + first.shape[1:], first.dtype)
        for s, here in self._by_shard(index):
            out[here] = self._columns[s][column][index[here] - self._starts[s]]
        return out

    def bag(self, name: str, index: np.ndarray, size: int) -> np.ndarray:
        """The first `size` ids of a feature of bags at impression numbers `index`, then `MISSING`.

        Returns int64 [*index.shape, size].
        """
        column = feature(name)
        if column in self._item_bags:
            row = self.take("item_row", index)
            out = np.full((*index.shape, size), MISSING)
            out[row >= 0] = self._item_bags[column].padded(row[row >= 0], size)
            return out
        out = np.empty((*index.shape, size), np.int64)
        for s, here in self._by_shard(index):
            out[here] = self._bags[s][column].padded(index[here] - self._starts[s], size)
        return out

    def column(self, name: str) -> np.ndarray:
        """A whole column of the format's own; copies where there are several shards."""
        parts = [c[name] for c in self._columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def session_ends(self) -> np.ndarray:
        """Impression numbers one past the end of each session, ascending, 0 in front."""
        ends = [self.offsets]
        for first, columns in zip(self._starts, self._columns):
            session = columns["session"]
            ends.append(first + 1 + np.flatnonzero(session[1:] != session[:-1]))
        return np.unique(np.concatenate(ends))

    def train_counts(self, name: str, values: np.ndarray) -> np.ndarray:
        """How often a feature has each of `values` in the train split; int64, shape of `values`."""
        if not values.size:
            return np.zeros(values.shape, np.int64)
        wanted, inverse = np.unique(values, return_inverse=True)
        counts = np.zeros(len(wanted), np.int64)
        for ids in self._train_values(feature(name)):
            at = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            counts += np.bincount(at[wanted[at] == ids], minlength=len(wanted))
        return counts[inverse].reshape(values.shape)

    def item_train_counts(self) -> np.ndarray:
        """Impressions of the train split by row of the item table, int64 [items + 1]; the last
        counts those without a row."""
        rows = self.items.num_rows if self.items is not None else 0
        counts = np.zeros(rows + 1, np.int64)
        for row in self._train_values("item_row"):
            counts += np.bincount(np.where(row < 0, rows, row), minlength=rows + 1)
        return counts

    def _train_values(self, column: str) -> Iterator[np.ndarray]:
        """A column's values in the train split's rows, shard by shard."""
        first = 0
        for columns, shard in zip(self._columns, self.manifest.shards):
            members = slice(first, first + shard.members)
            first += shard.members
            # Runs of (context, train, later) impressions, member by member.
            context, train = self.counts[members, 0], self.counts[members, 1]
            length = np.diff(self.offsets)[members]
            runs = np.stack([context, train, length - context - train], 1)
            in_train = np.repeat(np.tile([False, True, False], shard.members), runs.ravel())
            if column in self._items:
                yield _of_items(self._items[column], columns["item_row"][in_train])
            else:
                yield columns[column][in_train]

    def _named(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Columns of a file by their names in this format version."""
        version = self.manifest.version
        renamed = {stored(column, version): column for column in self.manifest.user_columns}
        return {renamed.get(name, name): array for name, array in columns.items()}

    def _by_shard(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The shards that hold `index`, each with a mask of what it holds."""
        shard = np.searchsorted(self._starts, index, side="right") - 1
        for s in np.unique(shard):
            yield int(s), shard == s

    def _open(self, file: str) -> pa.RecordBatch:
        path = self.directory / file
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            return reader.get_batch(0)
        except (OSError, pa.ArrowInvalid) as e:
            raise BadInput(f"{path}: cannot be read ({e}); prepare the data again") from e


def _offsets(batch: pa.RecordBatch) -> np.ndarray:
    return batch["timestamp_ms"].offsets.to_numpy()


def _list_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """List columns of the members, laid end to end."""
    return {f.name: batch[f.name].values for f in batch.schema if pa.types.is_list(f.type)}


def _numbers(columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    """Those of numbers and vectors, as views of the mapped file."""
    return {n: _values(a) for n, a in columns.items() if not pa.types.is_large_list(a.type)}


def _bags(columns: Mapping[str, pa.Array]) -> dict[str, Bags]:
    """Those of bags, as views of the mapped file."""
    return {n: Bags.from_arrow(a) for n, a in columns.items() if pa.types.is_large_list(a.type)}


def _values(array: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(array.type):
        return array.values.to_numpy().reshape(-1, array.type.list_size)
    return array.to_numpy()


def _of_items(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Vectors or ids by item row; zeros or `MISSING` where the row is -1."""
    out = values[np.maximum(row, 0)]
    out[row < 0] = MISSING if values.dtype == np.int64 else 0
    return out
