"""Preparation of a log in two passes with bounded memory.

The first pass reads the log once, checks every row and distributes the rows over partitions of
members. The second pass sorts one partition at a time and writes it as a shard. The output is a
pure function of the bytes of the input and of the options.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ligr_jax.data.manifest import CONTEXT_TARGETS, Manifest, Shard, SplitStats
from ligr_jax.data.prepare.items import read_item_table, refuse_unmatched
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.order import BLOCKS, BY_ORDER, NO_TIMES, edges_by_order
from ligr_jax.data.prepare.partition import Spill, Tally, number_of_partitions, partition_log
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.prepare.shard_build import ShardBuilder, ShardStats, shard_path
from ligr_jax.data.prepare.shards import read_partition
from ligr_jax.data.prepare.splits import EmptySplit, split_edges
from ligr_jax.data.prepare.summary import log_summary, save_log_summary
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.validate import check_roles
from ligr_jax.data.threads import ordered_map

_log = logging.getLogger(__name__)


def prepare(
    source: LogSource,
    out: str | Path,
    options: PrepareOptions | None = None,
) -> Manifest:
    """Prepare a log.

    A run that fails writes no manifest and does not change an earlier output.

    Args:
        source: the log.
        out: output directory. An output of the same source and options is returned unchanged.
        options: options; default: `PrepareOptions()`.

    Returns:
        The manifest of the output.

    Raises:
        BadInput: the log is not valid, the output has another source or other options (without
            `overwrite`), or the directory cannot be written.
    """
    options = options or PrepareOptions()

    made_by = {**source.description, "options": options.description()}
    write = partial(build, source, options)
    return published(Path(out), made_by, write, options.overwrite)


# A note of the manifest, which reports of results repeat.
NOT_BY_TIME = (
    "leave-one-out: the last impression of a member is test, the one before it validation; the "
    "splits are not by time, so a model is trained on later impressions of other members"
)


def build(
    source: LogSource, options: PrepareOptions, work: Path, made_by: Mapping[str, Any]
) -> Manifest:
    """Run the two passes, and write all files except the manifest.

    Args:
        source: the log.
        options: options.
        work: directory to write.
        made_by: `source` of the manifest.
    """
    check_roles(source)
    check_context(source, options)
    items = read_item_table(source)
    begun = time.monotonic()
    partitions = number_of_partitions(source.rows, options.shard_rows)
    with Spill(work, partitions) as spill:
        tally = partition_log(
            source, spill, options.batch_rows, options.on_bad_row, options.threads
        )
    seconds = time.monotonic() - begun
    _log.info(f"read {tally.rows:,} rows, {tally.context:,} of context ({seconds:.1f} s)")
    edges = edges_of(source, tally, options)
    builder = ShardBuilder(source.schema, items, edges, options, source.one_label)

    def build_shard(p: int) -> ShardStats:
        stats = builder.build(read_partition(spill.path(p), spill.rows[p]), shard_path(work, p))
        spill.path(p).unlink()
        return stats

    stats = ShardStats.empty(source.schema)
    numbers = [p for p in range(partitions) if spill.rows[p]]
    for p, shard in zip(numbers, ordered_map(build_shard, numbers, options.threads)):
        stats.merge(shard)
        rows = sum(s.impressions for s in shard.shards)
        _log.info(f"wrote part {p + 1} of {partitions}: {rows:,} rows")
    return finish(source, work, made_by, tally, builder, stats)


def check_context(source: LogSource, options: PrepareOptions) -> None:
    """Check that context rows can be targets if they are requested as targets.

    Raises:
        BadInput: the context has no row that was shown and ignored.
    """
    if options.context_block is not None and not source.context_targets:
        raise BadInput(
            f"--train-on-context: the earlier rows of {source.name} are clicks only, so a model "
            "would learn that every label is 1; prepare without it"
        )


def edges_of(source: LogSource, tally: Tally, options: PrepareOptions) -> tuple[int, int, int, int]:
    """Return the times between which the splits of a log lie.

    Args:
        source: the log.
        tally: its totals.
        options: options.

    Raises:
        BadInput: the log cannot be split like this.
    """
    if source.schema.time_is_order:
        return edges_by_order(options.splits, options.fractions)
    return split_edges(tally, options.splits, options.fractions)


def finish(
    source: LogSource,
    work: Path,
    made_by: Mapping[str, Any],
    tally: Tally,
    builder: ShardBuilder,
    stats: ShardStats,
) -> Manifest:
    """Name the shards, write the item table and the summary, and return the manifest.

    Args:
        source: the log.
        work: directory of the shards.
        made_by: `source` of the manifest.
        tally: totals of the first pass.
        builder: the builder of the shards.
        stats: statistics of all shards.

    Raises:
        BadInput: a split is empty, no row has its item in the item table, or there are no untimed
            rows to train on.
    """
    edges, items = builder.edges, builder.items
    splits, notes = stats.splits.stats(edges), source.schema.notes
    time_is_order = source.schema.time_is_order
    if time_is_order:
        notes = (*notes, NO_TIMES) if source.sessions else (*notes, NO_TIMES, BLOCKS)
    if time_is_order and not builder.options.leave_one_out:
        notes = (*notes, BY_ORDER)
    if builder.options.leave_one_out:
        start, end = edges[0], edges[-1]
        splits = {k: replace(s, start_ms=start, end_ms=end) for k, s in splits.items()}
        notes = (*notes, NOT_BY_TIME)
    _refuse_empty(splits)
    if stats.counts.get(CONTEXT_TARGETS) == 0:
        raise BadInput(
            f"{source.name} has no untimed rows of members with timed rows, so --train-on-context "
            "has nothing to train on; leave it out"
        )
    if items and stats.counts["without_item"] == sum(s.impressions for s in stats.shards):
        refuse_unmatched(source)
    manifest = Manifest(
        actions=source.schema.actions,
        columns={k: c.stats() for k, c in stats.columns.items()},
        splits=splits,
        shards=tuple(_renamed(stats.shards, work)),
        counts={"rows": tally.rows, "skipped": tally.skipped, **stats.counts},
        truth=source.schema.truth,
        items=items.write(work / "items.arrow") if items else None,
        source=made_by,
        notes=notes,
        late_actions=source.schema.late_actions,
        time_is_order=time_is_order,
        split_per_member=time_is_order or builder.options.leave_one_out,
    )
    save_log_summary(log_summary(source, stats.histories, manifest, tally), work)
    return manifest


def _renamed(shards: Sequence[Shard], work: Path) -> Iterator[Shard]:
    """Rename the shards after their number is known, and yield their new entries."""
    for k, shard in enumerate(shards):
        name = f"members-{k:05d}-of-{len(shards):05d}.arrow"
        (work / shard.file).rename(work / name)
        yield replace(shard, file=name)


def _refuse_empty(splits: Mapping[str, SplitStats]) -> None:
    """Raise `EmptySplit` for an empty split, unless it starts and ends at the same time."""
    for name, split in splits.items():
        if split.impressions == 0 and split.start_ms < split.end_ms:
            raise EmptySplit(
                f"the {name} split, {split.start_ms} <= timestamp_ms < {split.end_ms}, has no "
                "impressions; move its ends, or set both ends to the same time for an empty split"
            )
