"""Semantic ids as item features: a prepared directory with the prefixes of every item's tuple.

`sid1` is the first code of an item, `sid2` the first two, `sid3` the first three, each as one id
(LiGR 5.1). They stand in the item table, so members' histories are those of the directory they come
from: the same files, linked. Nothing of the histories but which items were shown is read, and that
for statistics alone.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.data.columns import feature, stored
from ligr_jax.data.manifest import MISSING, ColumnStats, Manifest, Shard
from ligr_jax.data.prepare.items import find
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.prepare.shards import write_batch
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.semantic_ids import SemanticIds
from ligr_jax.data.sources.files import describe_file
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.data.verify import require_undamaged
from ligr_jax.digests import digest_file

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # impressions looked at together


def attach(
    ids: Path,
    prepared: Path,
    out: Path,
    overwrite: bool = False,
) -> Manifest:
    """Makes `out`: the data of `prepared` with the columns `sid1` .. `sidN`; returns its manifest.

    Items of the item table that `ids` lacks have `MISSING`; items only `ids` has are left out. In
    memory are a few numbers for each item. An output already made of the same is returned as it is.

    Raises:
        BadInput: a bad table of semantic ids, data without an item table or with such columns
            already, no item in both, or an output made otherwise (without `overwrite`).
    """
    table, records = SemanticIds.open(ids), Records(prepared)
    names = [f"sid{level}" for level in range(1, table.levels + 1)]
    there = [n for n in names if n in records.manifest.columns]
    if there:
        raise BadInput(f"{prepared} has {there} already; attach to the data without them")
    if out.resolve() == prepared.resolve():
        raise BadInput(f"--out {out} is the prepared data itself; choose another directory")

    def build(work: Path, made_by: Mapping[str, Any]) -> Manifest:
        require_undamaged(prepared, records.manifest)  # before it gets other digests
        prefixes = _by_item(table, records)
        without = float((prefixes[0] == MISSING).mean())
        _log.info(f"{without:.1%} of {prefixes.shape[1]:,} items have no semantic id")
        for shard in records.manifest.shards:
            _link(prepared / shard.file, work / shard.file)
        columns = dict(zip(names, prefixes))
        return replace(
            records.manifest,
            columns={**records.manifest.columns, **_statistics(columns, records, table.k)},
            items=_write_items(columns, records, work / "items.arrow"),
            source=made_by,
            notes=(
                *records.manifest.notes,
                f"semantic ids: {table.levels} levels of {table.k:,} codes by model {table.model}, "
                f"{without:.1%} of items without",
            ),
        )

    described = {**describe_file(ids), "model": table.model, "codes": table.k}
    made_by = {
        **records.manifest.source,
        "semantic_ids": {**described, "attached_to": records.manifest.digest},
    }
    return published(out, made_by, build, overwrite)


def _by_item(table: SemanticIds, records: Records) -> np.ndarray:
    """Prefixes of the item table's rows: int64 [N, items], `MISSING` where an item has none."""
    if records.items is None:
        raise BadInput(
            f"{records.directory} has no item table; prepare the data with one that holds the "
            "content vectors or bags of items (`ligr prepare --items`)"
        )
    item_ids = records.items["item_id"].to_numpy()
    out = np.full((table.levels, len(item_ids)), MISSING)
    for batch, prefixes in table.batches():
        row = find(item_ids, to_ids(batch.frame["item_id"]))
        here = np.flatnonzero(row >= 0)
        # An item's second row, whether its first stands in this batch or an earlier one.
        twice = np.ones(len(here), bool)
        twice[np.unique(row[here], return_index=True)[1]] = False
        twice |= out[0, row[here]] != MISSING
        if twice.any():
            at = int(here[twice.argmax()])
            raise BadInput(
                f"{batch.file}, row {batch.first_row + at}, column 'item_id': value "
                f"{batch.frame['item_id'][at]} is there twice; leave one row per item"
            )
        out[:, row[here]] = prefixes[here].T
    if (out[0] == MISSING).all():
        raise BadInput(
            f"{table.path}: none of its items is among the {len(item_ids):,} of "
            f"{records.directory}, e.g. {item_ids[:3].tolist()}; assign ids to that data's items: "
            f"`ligr sid assign MODEL {records.directory}`"
        )
    return out


def _link(file: Path, to: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def _write_items(columns: Mapping[str, np.ndarray], records: Records, path: Path) -> Shard:
    """The item table with the columns; what it had is written from the mapped file."""
    assert records.items is not None
    arrays = [*records.items.columns, *(pa.array(c) for c in columns.values())]
    version = records.manifest.version
    names = [*records.items.schema.names, *(stored(feature(n), version) for n in columns)]
    write_batch(pa.RecordBatch.from_arrays(arrays, names), path)
    return Shard(path.name, records.items.num_rows, 0, digest_file(path))


def _statistics(
    columns: Mapping[str, np.ndarray], records: Records, k: int
) -> dict[str, ColumnStats]:
    """As `prepare` has them: distinct ids of the whole log, gaps of the train split's rows."""
    (rows,) = {len(c) for c in columns.values()}
    shown = np.zeros(rows + 1, bool)
    for first in range(0, len(records), _CHUNK):
        index = np.arange(first, min(first + _CHUNK, len(records)))
        shown[records.take("item_row", index)] = True  # -1, no item, is the last
    counts = records.item_train_counts()
    stats = {}
    for level, (name, ids) in enumerate(columns.items(), 1):
        missing = counts[-1] + counts[:-1][ids == MISSING].sum()
        stats[name] = ColumnStats(
            "categorical",
            distinct=len(np.unique(ids[shown[:-1] & (ids != MISSING)])),
            missing=float(missing / max(counts.sum(), 1)),
            id_range=k**level,
        )
    return stats
