"""Open Bandit Dataset (ZOZO, Saito et al. 2021; CC BY 4.0): a table with known propensities.

Reads the files of both policies and three campaigns, or of some of them:

    {random,bts}/{all,men,women}/{all,men,women}.csv    impressions (timestamp is text in UTC)
    {random,bts}/{all,men,women}/item_context.csv       features of the campaign's items

There are no members. Every row is a member of its own, so models have no history. Items are
numbered per campaign, so an item is `campaign:item_id`. The weight is 1 / propensity_score, and
is_random marks the random policy: the set is for tests of replay and of inverse propensities.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    count_all_rows,
    describe_files,
    file_parts,
    read_column,
    read_items,
    rows_in,
)
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, ItemSource, LogBatch, LogSource

URL = "https://research.zozo.com/data.html"
TITLE = "Open Bandit"
PERIOD = Period(TITLE, "2019-11-24", "2019-11-30")
POLICIES = ("random", "bts")
CAMPAIGNS = ("all", "men", "women")
SCAN_ROWS = 1 << 20
USER = tuple(f"user_feature_{k}" for k in range(4))
ITEM = tuple(f"item_feature_{k}" for k in range(4))
COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score", *USER)
CONTEXT = ("item_id", *ITEM)
SCHEMA = LogSchema(
    actions=("click",),
    columns={
        **{name: Column("categorical") for name in ("item_id", "campaign", "position", *USER)},
        **{name: Column("numeric" if name == ITEM[0] else "categorical") for name in ITEM},
    },
    notes=(
        "every row is a member of its own, because users are not published: models have no history",
        "the weight is 1 / propensity_score; is_random marks the random policy",
        "user-item_affinity_* is not read: it counts clicks, and until when is not said",
    ),
)


def open_bandit_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be Open Bandit.

    Returns:
        A message for every missing file or column; None if there are no impressions.
    """
    logs = _logs(directory)
    if not logs:
        return None
    lacking = []
    for log in logs:
        lacking += missing_columns(log, COLUMNS, TITLE)
        context = _context(log)
        if context.path.is_file():
            lacking += missing_columns(context, CONTEXT, TITLE)
        else:
            lacking.append(f"{context.path} does not exist; unpack the data of {URL} again")
    return lacking


def open_bandit_source(directory: Path) -> LogSource:
    """Open the data of all policies and campaigns in a directory.

    Args:
        directory: directory of the data set, of a policy, or of a campaign.

    Raises:
        BadInput: a file or a column is missing, or the times are not those of the data set.
    """
    require_complete(
        open_bandit_marks(directory),
        f"{directory} lacks random/all/all.csv; unpack the data of {URL} in it",
    )
    logs = _logs(directory)
    # Campaigns have the same items under both policies.
    contexts = {log.path.stem: _context(log) for log in logs}
    parts = []
    first = 0
    for log in logs:
        times = (_times(values) for values in read_column(log, "timestamp", SCAN_ROWS))
        PERIOD.require(times, "ms", f"{log.path}, column 'timestamp'")
        policy, campaign = log.path.parent.parent.name, log.path.stem
        convert = partial(_impressions, policy=policy, campaign=campaign, first=first)
        parts += [converted(part, convert) for part in file_parts(log)]
        first += rows_in(log)
    return LogSource(
        name=TITLE,
        schema=SCHEMA,
        batches=chained(parts),
        rows=count_all_rows(logs),
        description={
            "format": "open_bandit",
            "files": describe_files([*logs, *contexts.values()]),
        },
        items=ItemSource(CONTEXT, partial(_items, contexts)),
        names={"timestamp_ms": "timestamp", "weight": "propensity_score"},
        present=("weight", "is_random"),
        parts=tuple(parts),
    )


def _impressions(batch: LogBatch, policy: str, campaign: str, first: int) -> LogBatch:
    """Return impressions in canonical columns.

    Args:
        batch: rows of a file.
        policy: random or bts.
        campaign: all, men or women.
        first: number of rows of the files before.
    """
    batch = with_types(batch, {"propensity_score": pl.Float64})
    frame = batch.frame
    row = np.arange(frame.height, dtype=np.int64) + (first + batch.first_row)
    times, score = _times(frame["timestamp"]), frame["propensity_score"]
    faults = (
        Fault("timestamp", times.is_null().to_numpy(), frame["timestamp"], f"is no time{OR_SKIP}"),
        Fault(
            "propensity_score",
            ~score.is_between(0, 1, closed="right").fill_null(False).to_numpy(),
            score,
            f"is not a probability above 0{OR_SKIP}",
        ),
    )
    frame = frame.select(
        "position",
        "click",
        *USER,
        member_id=pl.Series(row),
        timestamp_ms=times,
        item_id=pl.lit(f"{campaign}:") + pl.col("item_id").cast(pl.String),
        campaign=pl.lit(campaign),
        weight=1 / score,
        is_random=pl.lit(policy == "random"),
        # Equal lines are impressions of different users.
        **{ROW_DIGEST: pl.Series(row.astype(np.uint64))},
    )
    return replace(batch, frame=frame, faults=(*batch.faults, *faults))


def _items(contexts: dict[str, DataFile]) -> Iterator[LogBatch]:
    for campaign, file in contexts.items():
        for batch in read_items(file):
            typed = with_types(batch, {ITEM[0]: pl.Float64})
            item = (pl.lit(f"{campaign}:") + pl.col("item_id").cast(pl.String)).alias("item_id")
            yield replace(typed, frame=typed.frame.select(item, *ITEM))


def _times(values: pl.Series) -> pl.Series:
    """Return times as milliseconds since 1970, null if a text is no time with an offset."""
    moments = values.cast(pl.String).str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", strict=False)
    return moments.dt.epoch("ms")


def _logs(directory: Path) -> list[DataFile]:
    """Return the files of impressions below a directory of any level of the layout, in order."""
    directory = directory.resolve()
    patterns = (f"{above}{c}.csv" for c in CAMPAIGNS for above in ("", f"{c}/", f"*/{c}/"))
    paths = sorted(path for pattern in patterns for path in directory.glob(pattern))
    return [
        DataFile(path, "/".join(path.parts[-3:]))
        for path in paths
        if path.parent.name == path.stem and path.parent.parent.name in POLICIES
    ]


def _context(log: DataFile) -> DataFile:
    path = log.path.with_name("item_context.csv")
    return DataFile(path, "/".join(path.parts[-3:]))


OPEN_BANDIT = Adapter(
    name="open_bandit",
    title="Open Bandit Dataset (ZOZO, 2019): a table with known propensities",
    open=open_bandit_source,
    lacking=open_bandit_marks,
    files={
        "{random,bts}/{all,men,women}/{all,men,women}.csv": "impressions by policy and campaign",
        "{random,bts}/{all,men,women}/item_context.csv": "items of the campaign",
    },
    impression="an item recommended in one of three positions; weight = 1 / propensity_score",
    session="none: every row is a member of its own",
    actions="click",
    outcomes="none",
    refused="user-item_affinity_*: it counts clicks, and until when is not said",
    obtain=f"{URL} (CC BY 4.0)",
)
