"""Random access to prepared data: members' records, memory-mapped, as flat columns.

Impressions of all shards are numbered through in file order, so one integer names an impression and
a slice names a stretch of a member's history. Nothing is read before it is asked for.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import MISSING, Manifest, SplitStats, load_manifest
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

    def __init__(self, directory: str | Path, edges: tuple[int, ...] = ()) -> None:
        """edges: where train begins and ends and where validation and test end, in ms, in place of
        the times the directory was prepared with. Its columns' statistics stay as they are."""
        self.directory, self.edges = Path(directory), edges
        self.manifest: Manifest = load_manifest(self.directory)
        self.digest = self.manifest.digest
        batches = [self._open(s.file) for s in self.manifest.shards]
        lists = [_list_columns(b) for b in batches]
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
            columns = {n: self.items[n] for n in self.items.schema.names if n != "item_id"}
            self._items, self._item_bags = _numbers(columns), _bags(columns)
        if edges:
            self._cut(edges)

    def __len__(self) -> int:
        """Number of impressions, untimed context included."""
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type["Records"], tuple[Path, tuple[int, ...]]]:
        """A loader process opens the directory anew instead of receiving a copy of the data."""
        return Records, (self.directory, self.edges)

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
            labels = self.column(action)
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

    def take(self, column: str, index: np.ndarray) -> np.ndarray:
        """Values of `column` at impression numbers `index`, of any shape; vectors add an axis."""
        if column in self._items:
            return _of_items(self._items[column], self.take("item_row", index))
        first = self._columns[0][column]
        out = np.empty(index.shape + first.shape[1:], first.dtype)
        for s, here in self._by_shard(index):
            out[here] = self._columns[s][column][index[here] - self._starts[s]]
        return out

    def take_bags(self, column: str, index: np.ndarray, size: int) -> np.ndarray:
        """The first `size` ids of a bag column at impression numbers `index`, then `MISSING`.

        Returns int64 [*index.shape, size].
        """
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
        """A whole column; copies where there are several shards."""
        parts = [c[name] for c in self._columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def session_ends(self) -> np.ndarray:
        """Impression numbers one past the end of each session, ascending, 0 in front."""
        ends = [self.offsets]
        for first, columns in zip(self._starts, self._columns):
            session = columns["session"]
            ends.append(first + 1 + np.flatnonzero(session[1:] != session[:-1]))
        return np.unique(np.concatenate(ends))

    def train_counts(self, column: str, values: np.ndarray) -> np.ndarray:
        """How often each of `values` occurs in the train split's rows; int64, shape of `values`."""
        if not values.size:
            return np.zeros(values.shape, np.int64)
        wanted, inverse = np.unique(values, return_inverse=True)
        counts = np.zeros(len(wanted), np.int64)
        for ids in self._train_values(column):
            at = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            counts += np.bincount(at[wanted[at] == ids], minlength=len(wanted))
        return counts[inverse].reshape(values.shape)

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
