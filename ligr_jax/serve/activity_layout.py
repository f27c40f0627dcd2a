"""Impressions of an activity store: one record of fixed size each, and the ids of its bags.

The record has the values of prepared data (`ligr_jax.data.manifest`) without conversion:

    timestamp_ms     int64    -1 in untimed context
    session          int32    number of the session of the member
    session_id       int64    id in the log, `MISSING` if it is not known
    weight           float32
    item_row         int32    row of the item table, if there is one
    action:<name>    int8
    feature:<name>   int64 (categorical), float32 (numeric) or float32 [W] (vector)
    length:<name>    int32    number of ids of a bag

The ids of all bags of an impression follow each other, in the order of the columns. A history is
therefore two byte strings, records and ids, and a longer history begins with the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.item_features import ITEM_ROW
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.schema import SESSION, TIME, WEIGHT
from ligr_jax.serve.activity_file import Chunk

_LENGTH = "length:"


def record_type(manifest: Manifest, item_features: Sequence[str]) -> np.dtype:
    """Return the structured dtype of a record.

    Args:
        manifest: manifest of the prepared data.
        item_features: names of the features that are stored per item; the record has the row of
            the item instead.
    """
    fields: list[tuple[Any, ...]] = [(TIME, "<i8"), ("session", "<i4"), (SESSION, "<i8")]
    fields.append((WEIGHT, "<f4"))
    if item_features:
        fields.append((ITEM_ROW, "<i4"))
    fields += [(action_column(action), "i1") for action in manifest.actions]
    for name, stats in manifest.columns.items():
        column = feature_column(name)
        if name in item_features:
            continue
        if stats.kind == "bag":
            fields.append((_LENGTH + column, "<i4"))
        elif stats.kind == "vector":
            fields.append((column, "<f4", (stats.width,)))
        else:
            fields.append((column, "<i8" if stats.kind == "categorical" else "<f4"))
    return np.dtype(fields)


def bag_columns(record: np.dtype) -> list[str]:
    """Return the stored columns of the bags, in the order of their ids."""
    names = record.names or ()
    return [name.removeprefix(_LENGTH) for name in names if name.startswith(_LENGTH)]


@dataclass(frozen=True)
class Impressions:
    """Impressions in order.

    Attributes:
        records: structured array [n]; see the module.
        ids: the ids of all bags of each impression, one bag per impression.
    """

    records: np.ndarray
    ids: Bags

    @classmethod
    def from_columns(
        cls, record: np.dtype, columns: Mapping[str, np.ndarray], bags: Mapping[str, Bags]
    ) -> "Impressions":
        """Build impressions from columns.

        Args:
            record: dtype of a record.
            columns: arrays [n] or [n, W] by field; fields that are absent are 0.
            bags: bags by stored column.
        """
        rows = len(columns[TIME])
        records = np.zeros(rows, record)
        for name, values in columns.items():
            records[name] = values
        names = bag_columns(record)
        lengths = np.zeros((rows, len(names)), np.int64)
        for k, name in enumerate(names):
            lengths[:, k] = records[_LENGTH + name] = bags[name].lengths
        begin = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
        ids = np.empty(lengths.sum(), np.int64)
        for k, name in enumerate(names):
            shift = np.repeat(begin[:, k] - bags[name].offsets[:-1], lengths[:, k])
            ids[shift + np.arange(len(shift))] = bags[name].values
        return cls(records, Bags.from_lengths(lengths.sum(1), ids))

    @classmethod
    def concatenate(cls, parts: Sequence["Impressions"]) -> "Impressions":
        """Return the impressions of all parts in order."""
        records = np.concatenate([part.records for part in parts])
        return cls(records, Bags.concatenate([part.ids for part in parts]))

    def record_bytes(self, first: int, stop: int) -> bytes:
        """Return the records of the impressions `first` .. `stop`."""
        return self.records[first:stop].tobytes()

    def id_bytes(self, first: int, stop: int) -> bytes:
        """Return the ids of the impressions `first` .. `stop`."""
        return self.ids.values[self.ids.offsets[first] : self.ids.offsets[stop]].tobytes()

    def bag(self, column: str) -> Bags:
        """Return the bags of a stored column."""
        k = bag_columns(self.records.dtype).index(column)
        lengths = _lengths(self.records)
        begin = self.ids.offsets[:-1] + lengths[:, :k].sum(1)
        return Bags.from_slices(self.ids.values, begin, lengths[:, k])

    def newest(self, number: int) -> "Impressions":
        """Return the last `number` impressions, without copying them."""
        first = max(0, len(self) - number)
        offsets = self.ids.offsets[first:]
        ids = Bags(offsets - offsets[0], self.ids.values[offsets[0] :])
        return Impressions(self.records[first:], ids)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, rows: np.ndarray) -> "Impressions":
        """Return some impressions, by indices or a mask."""
        return Impressions(self.records[rows], self.ids[rows])


def decoded(record: np.dtype, chunks: Sequence[Chunk]) -> Impressions:
    """Return the impressions of consecutive chunks.

    Args:
        record: dtype of a record.
        chunks: the chunks, oldest first.
    """
    records = np.frombuffer(b"".join(c.records for c in chunks), record)
    ids = np.frombuffer(b"".join(c.ids for c in chunks), "<i8")
    return Impressions(records, Bags.from_lengths(_lengths(records).sum(1), ids))


def _lengths(records: np.ndarray) -> np.ndarray:
    """Return the number of ids of each bag, int64 [n, bags]."""
    columns = [records[_LENGTH + name] for name in bag_columns(records.dtype)]
    return np.stack(columns, 1).astype(np.int64) if columns else np.zeros((len(records), 0), int)
