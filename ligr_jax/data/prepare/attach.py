"""Semantic ids as item features of prepared data.

`sid1` is the first code of an item, `sid2` the first two codes and `sid3` the first three codes,
each as one id (LiGR 5.1). The ids are added to the item table. The histories of the members do not
change, so their files are hard-linked. They are read only to compute statistics of the new columns.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.atomic import link_or_copy
from ligr_jax.data.columns import feature_column, stored_name
from ligr_jax.data.manifest import MISSING, ColumnStats, Manifest, Shard
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.prepare.shards import write_batch
from ligr_jax.data.prepare.sorting import find_sorted
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.semantic_ids import SemanticIds
from ligr_jax.data.sources.files import describe_file
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.data.verify import require_undamaged
from ligr_jax.digests import digest_file

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # impressions read at a time


def attach_semantic_ids(
    ids: Path,
    prepared: Path,
    out: Path,
    overwrite: bool = False,
) -> Manifest:
    """Write prepared data with the additional columns `sid1` .. `sidN`.

    Items without a semantic id get `MISSING`. Memory grows by a few numbers per item.

    Args:
        ids: table of semantic ids.
        prepared: prepared directory with an item table.
        out: output directory. An output of the same inputs is returned unchanged.
        overwrite: replace an output of other inputs.

    Returns:
        The manifest of the output.

    Raises:
        BadInput: the table of semantic ids is not valid, the data have no item table or already
            have semantic ids, no item is in both, or the output has other inputs.
    """
    table = SemanticIds.open(ids)
    records = Records(prepared)
    names = [f"sid{level}" for level in range(1, table.levels + 1)]
    present = [n for n in names if n in records.manifest.columns]
    if present:
        raise BadInput(
            f"{prepared} already has {present}; attach the ids to the data without these columns"
        )
    if out.resolve() == prepared.resolve():
        raise BadInput(f"--out {out} is the prepared data itself; choose another directory")

    # The output has linked histories, an extended item table, and a manifest with both digests.
    def build(work: Path, made_by: Mapping[str, Any]) -> Manifest:
        require_undamaged(prepared, records.manifest)  # the output gets new digests
        prefixes = _by_item(table, records)
        without = float((prefixes[0] == MISSING).mean())
        _log.info(f"{without:.1%} of {prefixes.shape[1]:,} items have no semantic id")
        for shard in records.manifest.shards:
            link_or_copy(prepared / shard.file, work / shard.file)
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
    """Return the prefixes of each row of the item table, int64 [N, items], or `MISSING`."""
    if records.items is None:
        raise BadInput(
            f"{records.directory} has no item table; prepare the data with an item table that has "
            "content vectors or bags (`ligr prepare --items`)"
        )
    item_ids = records.items.ids
    out = np.full((table.levels, len(item_ids)), MISSING)
    for batch, prefixes in table.batches():
        row = find_sorted(item_ids, to_ids(batch.frame["item_id"]))
        known = np.flatnonzero(row >= 0)
        # An item is repeated if it occurs before in this batch, or in an earlier batch.
        repeated = np.ones(len(known), bool)
        repeated[np.unique(row[known], return_index=True)[1]] = False
        repeated |= out[0, row[known]] != MISSING
        if repeated.any():
            first = int(known[repeated.argmax()])
            raise BadInput(
                f"{batch.file}, row {batch.row_number(first)}, column 'item_id': value "
                f"{batch.frame['item_id'][first]} occurs twice; keep one row per item"
            )
        out[:, row[known]] = prefixes[known].T
    if (out[0] == MISSING).all():
        raise BadInput(
            f"{table.path}: none of its items is among the {len(item_ids):,} items of "
            f"{records.directory}, e.g. {item_ids[:3].tolist()}; assign ids to those items: "
            f"`ligr sid assign MODEL {records.directory}`"
        )
    return out


def _write_items(columns: Mapping[str, np.ndarray], records: Records, path: Path) -> Shard:
    """Write the item table with additional columns."""
    assert records.items is not None
    arrays = [*records.items.table.columns, *(pa.array(c) for c in columns.values())]
    version = records.manifest.version
    names = [
        *records.items.table.schema.names,
        *(stored_name(feature_column(n), version) for n in columns),
    ]
    write_batch(pa.RecordBatch.from_arrays(arrays, names), path)
    return Shard(path.name, len(records.items), 0, digest_file(path))


def _statistics(
    columns: Mapping[str, np.ndarray], records: Records, k: int
) -> dict[str, ColumnStats]:
    """Return the statistics of the columns, measured as `prepare` measures them."""
    (rows,) = {len(c) for c in columns.values()}
    shown = np.zeros(rows + 1, bool)
    for first in range(0, len(records), _CHUNK):
        index = np.arange(first, min(first + _CHUNK, len(records)))
        shown[records.take("item_row", index)] = True  # -1 (no item) is the last element
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
