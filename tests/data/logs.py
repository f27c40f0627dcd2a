"""Small canonical logs on disk, for tests of everything that reads prepared data."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.columns import stored_name
from ligr_jax.data.schema import Column, LogSchema, save_schema

DAY_MS = 86_400_000
START_MS = 1_650_000_000_000
ACTIONS = ("click", "like")
# Names of the prepared format and of its readers, and names with characters that separate names.
ODD_FEATURES = (
    *("session", "weight", "is_random", "item_row", "timestamp_ms", "member_id", "n_train"),
    *("n_context", "p_click", "_row", "_digest", "count", "literal", "rows", "a/b", "c.d", "e f"),
    *("g,h", "i=j", "k:l", "^x.*$", "größe", "feature:session", "action:click", "..", 'q"r'),
)
ODD_ACTIONS = ("click", "share", "x/y", "item", "loss")


def write_log(
    directory: Path,
    rows: int = 400,
    members: int = 20,
    seed: int = 0,
    files: int = 1,
    days: float = 10,
    items: int = 30,
    vector: int = 0,
    sessions: bool = False,
    truth: bool = False,
) -> pl.DataFrame:
    """Write a canonical log in Parquet files, and return its rows in file order.

    About three impressions each have equal timestamps.

    Args:
        vector: width of a content vector in an item table, 0 for no item table.
        sessions: whether the log has `session_id`.
        truth: whether the log has `p_<action>`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    slates = max(rows // 3, 1)
    slate = rng.integers(0, slates, rows)
    time = START_MS + np.sort(rng.integers(0, int(days * DAY_MS), slates))
    p = {a: rng.uniform(0.05, 0.9 / (k + 1), rows) for k, a in enumerate(ACTIONS)}
    log = pl.DataFrame(
        {
            "member_id": slate % members,
            "timestamp_ms": time[slate],
            "item_id": rng.integers(0, items, rows),
            "surface": rng.choice(["feed", "search", "related"], rows),
            "age_days": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2, 3, rows)),
            "dwell_s": rng.gamma(1, 10, rows),
            **{a: (rng.random(rows) < p[a]).astype(np.int8) for a in ACTIONS},
        }
    )
    if sessions:
        hour = log["timestamp_ms"] // (6 * 3_600_000)
        log = log.with_columns(session_id=hour + pl.Series(rng.integers(0, 2, rows)))
    if truth:
        log = log.with_columns(**{f"p_{a}": pl.Series(p[a].astype(np.float32)) for a in ACTIONS})
    columns = {
        "item_id": Column("categorical"),
        "surface": Column("categorical"),
        "age_days": Column("numeric"),
        "dwell_s": Column("numeric", outcome=True),
    }
    if vector:
        vectors = rng.normal(size=(items, vector)).astype(np.float32)
        table = pl.DataFrame({"item_id": np.arange(items), "actor_id": np.arange(items) % 7})
        table = table.with_columns(pl.Series("content", vectors).arr.to_list())
        table.write_parquet(directory / "items.parquet")
        columns |= {"actor_id": Column("categorical"), "content": Column("vector", width=vector)}
    cuts = np.linspace(0, rows, files + 1).astype(int)
    for k in range(files):
        part = log[int(cuts[k]) : int(cuts[k + 1])]
        part.write_parquet(directory / f"impressions-{k:05d}.parquet")
    save_schema(
        LogSchema(ACTIONS, columns, truth=truth, items="items.parquet" if vector else ""),
        directory,
    )
    return log


def write_odd_log(
    directory: Path,
    features: tuple[str, ...] = ODD_FEATURES,
    actions: tuple[str, ...] = ODD_ACTIONS,
) -> LogSchema:
    """Write the log of `write_log` with more actions, and more features of alternating kind."""
    log = write_log(directory, rows=600, members=12)
    rng = np.random.default_rng(1)
    made = {}
    for k, name in enumerate(features):
        if name not in log.columns:
            made[name] = rng.integers(0, 5 + k, len(log)) * (1.0 if k % 2 else 1)
    for name in actions[1:]:
        made[name] = rng.integers(0, 2, len(log))
    log.with_columns(**{k: pl.Series(v) for k, v in made.items()}).write_parquet(
        directory / "impressions-00000.parquet"
    )
    columns = {n: Column("numeric" if k % 2 else "categorical") for k, n in enumerate(features)}
    schema = LogSchema(actions, {"item_id": Column("categorical"), **columns})
    save_schema(schema, directory)
    return schema


def read_arrow(path: Path) -> pa.RecordBatch:
    """Read a file of a prepared directory, with the column names of the log."""
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    names = [stored_name(name, version=1) for name in batch.schema.names]
    return pa.RecordBatch.from_arrays(batch.columns, names)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return read_arrow(path).to_pylist()
