"""Logs, stores and batches for tests of the activity store."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ligr_jax.config import ModelConfig
from ligr_jax.data.assemble import Assembler, default_features
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import Column, load_schema, save_schema
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.serve import ActivityStore
from tests.data.logs import ACTIONS, DAY_MS, write_log


def model_of(manifest: Manifest) -> ModelConfig:
    """Return a model with every column of the data as a feature."""
    return ModelConfig(features=default_features(manifest.columns), actions=ACTIONS)


def flat(batch: Batch) -> dict[str, np.ndarray]:
    """Return the arrays of a batch by name."""
    arrays: dict[str, np.ndarray] = {}
    for field, value in batch._asdict().items():
        named = value if isinstance(value, dict) else {"": value}
        arrays |= {f"{field}.{name}": array for name, array in named.items()}
    return arrays


def assert_same_batch(made: Batch, expected: Batch) -> None:
    """Compare two batches to the bit."""
    ours, theirs = flat(made), flat(expected)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.shape == theirs[name].shape, name
        assert array.tobytes() == theirs[name].tobytes(), name


def pipeline_plan(
    records: Records, members: list[int], newest: int, capacity: int, until_ms: int = 2**62
) -> PackingPlan:
    """Return the newest impressions of members before a time, one window per row."""
    start, stop = [], []
    for member in members:
        (rows,) = np.nonzero(records.member_ids == member)
        first, last = (records.offsets[rows[0] : rows[0] + 2]).tolist() if len(rows) else (0, 0)
        times = records.take("timestamp_ms", np.arange(first, last))
        end = first + int((times < until_ms).sum())
        start.append(max(first, end - newest))
        stop.append(end)
    return PackingPlan(
        capacity=capacity,
        start=np.array(start),
        target=np.array(start),
        stop=np.array(stop),
        bounds=np.arange(len(members) + 1),
    )


def pipeline_batch(
    records: Records, members: list[int], newest: int, capacity: int, until_ms: int = 2**62
) -> Batch:
    """Return the newest impressions of members, assembled from prepared data."""
    plan = pipeline_plan(records, members, newest, capacity, until_ms)
    return Assembler(records, plan, model_of(records.manifest))(np.arange(len(members)))


def write_rich_log(directory: Path, sessions: bool) -> pl.DataFrame:
    """Write a log with bags and vectors in the log and in the item table; return its rows.

    Two sessions by ids of a member overlap each day, and `prepare` merges them.
    """
    log = write_log(directory, rows=1200, members=7, vector=3)
    rng = np.random.default_rng(5)
    if sessions:
        day = pl.col("timestamp_ms") // DAY_MS
        log = log.with_columns(session_id=2 * day + pl.Series(rng.integers(0, 2, 1200)))
    log = log.with_columns(
        tags=pl.Series(
            [[f"t{j}" for j in rng.integers(0, 9, n)] for n in rng.integers(0, 5, 1200)]
        ),
        others=pl.Series([rng.integers(0, 9, n).tolist() for n in rng.integers(0, 3, 1200)]),
        place=pl.Series(rng.normal(size=(1200, 2)).astype(np.float32)).arr.to_list(),
        weight=pl.Series(rng.uniform(0.5, 2, 1200).astype(np.float32)),
    )
    log.write_parquet(directory / "impressions-00000.parquet")
    items = pl.read_parquet(directory / "items.parquet")
    # Items without an entry, and bags per item.
    topics = pl.Series([[f"p{j}" for j in range(k % 3)] for k in range(len(items))])
    items.with_columns(topics=topics)[3:].write_parquet(directory / "items.parquet")
    schema = load_schema(directory)
    columns = {
        **schema.columns,
        "tags": Column("bag"),
        "others": Column("bag"),
        "place": Column("vector", width=2),
        "topics": Column("bag"),
    }
    save_schema(replace(schema, columns=columns), directory)
    return log


def prepared_log(directory: Path, out: Path) -> Manifest:
    """Prepare a canonical log."""
    return prepare(canonical_source(directory), out, PrepareOptions(shard_rows=500))


def rows_to_append(directory: Path, log: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a log with the features of the item table that the store has not per item."""
    items = pl.read_parquet(directory / "items.parquet").select("item_id", "actor_id")
    return log.join(items, on="item_id", how="left", maintain_order="left")


def histories(store: ActivityStore, members: list[int], newest: int = 10**6) -> list[bytes]:
    """Return the stored histories of members as bytes, without the ids of sessions."""
    out = []
    for member in members:
        impressions = store.read(member, newest)
        records = impressions.records.copy()
        records["session_id"] = 0
        out.append(records.tobytes() + impressions.ids.values.tobytes())
    return out
