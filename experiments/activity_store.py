"""How fast does an activity store read and append, and would LMDB be faster than SQLite?

    pip install lmdb            the alternative
    python experiments/activity_store.py

A log of --members members with --impressions each, with ten columns, is prepared and built into a
store. LMDB gets the same bytes in the same chunks, under the keys (member, chunk).

    build         impressions copied per second, from prepared data to a complete store
    bytes N       the chunks with the newest N impressions of a random member; SQLite's are compared
                  with their digests, LMDB's are not
    read N        `ActivityStore.read`: the same as one array of records
    commit        replacement of a chunk of a random member, on disk when it returns
    batch N       `ActivityStore.batch` of one member
    append        `ActivityStore.append` of one impression: validated, merged and committed

Both take turns, read by read. Files are in the page cache. Times are medians and 99th percentiles
over --repeats calls, a third of them per round of three rounds.

Expected: LMDB reads two or three times as fast, which saves tens of microseconds, and commits in
the same time, which is that of the disk; a batch takes ten times as long as the bytes. Numbers:
experiments/results/activity_store.json. Time: 4 minutes.
"""

import importlib.util
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lib.options import make_parser
from lib.results import Cell, Column, Study

from ligr_jax.config import ModelConfig
from ligr_jax.data.assemble import default_features
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.schema import Column as LogColumn
from ligr_jax.data.schema import LogSchema, save_schema
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.serve import ActivityStore, build_store
from ligr_jax.serve.activity_file import ACTIVITY, CHUNK, ActivityFile, Chunk

START_MS = 1_700_000_000_000
ROUNDS = 3
SIZES = (512, 2048)
Contestants = Mapping[str, Callable[[int], Any]]  # by name; the argument is a member
_KEY = struct.Struct(">QI")


def write_log(directory: Path, members: int, impressions: int) -> None:
    """Write a canonical log; a member has an impression every ten minutes."""
    rng = np.random.default_rng(0)
    rows = members * impressions
    log = pl.DataFrame(
        {
            "member_id": np.tile(np.arange(members), impressions),
            "timestamp_ms": START_MS + np.repeat(np.arange(impressions), members) * 600_000,
            **{name: rng.integers(0, 100_000, rows) for name in ("item_id", "actor_id", "topic")},
            "surface": rng.integers(0, 3, rows),
            "age_days": rng.gamma(2, 3, rows).astype(np.float32),
            "dwell_s": rng.gamma(1, 10, rows).astype(np.float32),
            **{action: rng.integers(0, 2, rows) for action in ("click", "like")},
        }
    )
    directory.mkdir()
    log.write_parquet(directory / "log.parquet")
    columns = {n: LogColumn("categorical") for n in ("item_id", "actor_id", "topic", "surface")}
    columns |= {"age_days": LogColumn("numeric"), "dwell_s": LogColumn("numeric", outcome=True)}
    save_schema(LogSchema(("click", "like"), columns), directory)


class Lmdb:
    """The chunks of a store in LMDB."""

    def __init__(self, path: Path, file: ActivityFile, members: int) -> None:
        import lmdb

        self._database = lmdb.open(str(path), map_size=2**34)
        with self._database.begin(write=True) as transaction:
            for member in range(members):
                for chunk in file.newest(member, 10**6):
                    transaction.put(_KEY.pack(member, chunk.number), chunk.records, append=True)

    def read(self, member: int, newest: int) -> bytes:
        """Return the records of the newest chunks with `newest` impressions."""
        with self._database.begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(_KEY.pack(member + 1, 0)):
                cursor.prev()
            else:
                cursor.last()
            parts = []
            for _ in range(-(-(newest - 1) // CHUNK) + 1):
                key, records = cursor.item()
                if _KEY.unpack(key)[0] != member:
                    break
                parts.append(records)
                if not cursor.prev():
                    break
            return b"".join(reversed(parts))

    def commit(self, member: int, chunk: Chunk) -> None:
        """Replace a chunk."""
        with self._database.begin(write=True) as transaction:
            transaction.put(_KEY.pack(member, chunk.number), chunk.records)


def bytes_of(file: ActivityFile, newest: int, member: int) -> bytes:
    """Return the records of the newest chunks with `newest` impressions."""
    return b"".join(chunk.records for chunk in file.newest(member, newest))


def measure(contestants: Contestants, members: int, repeats: int) -> list[Cell]:
    """Return medians and 99th percentiles in microseconds; the contestants take turns."""
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for member in rng.integers(0, members, repeats // ROUNDS).tolist():
            for name, call in contestants.items():
                begun = time.perf_counter_ns()
                call(member)
                times[name].append((time.perf_counter_ns() - begun) / 1e3)
    return [x for t in times.values() for x in (float(np.median(t)), float(np.percentile(t, 99)))]


def main() -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--impressions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3000)
    args = parser.parse_args()
    if importlib.util.find_spec("lmdb") is None:
        parser.error("needs LMDB: pip install lmdb")
    study = Study.of(__file__, __doc__)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_log(folder / "log", args.members, args.impressions)
        manifest = prepare(canonical_source(folder / "log"), folder / "prepared")
        builds = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            build_store(folder / "prepared", folder / "store", overwrite=True)
            builds.append(args.members * args.impressions / (time.perf_counter() - begun))
        model = ModelConfig(features=default_features(manifest.columns), actions=manifest.actions)
        file = ActivityFile(folder / "store" / ACTIVITY)
        other = Lmdb(folder / "lmdb", file, args.members)
        (last,) = file.newest(0, 1)

        def commit(member: int) -> None:
            with file.writing() as connection:
                file.replace(connection, member, [last])

        rows: list[list[Cell]] = []
        with ActivityStore(folder / "store") as store:
            for newest in SIZES:
                reads: Contestants = {
                    "SQLite": partial(bytes_of, file, newest),
                    "LMDB": partial(other.read, newest=newest),
                }
                rows.append([f"bytes {newest}", *measure(reads, args.members, args.repeats)])
            for newest in SIZES:
                read: Contestants = {"SQLite": partial(store.read, newest=newest)}
                times = measure(read, args.members, args.repeats)
                rows.append([f"read {newest}", *times, None, None])
            commits: Contestants = {"SQLite": commit, "LMDB": partial(other.commit, chunk=last)}
            rows.append(["commit", *measure(commits, args.members, args.repeats // 10)])
            for newest in SIZES:

                def batch(member: int, newest: int = newest) -> None:
                    store.batch([member], model, newest)

                times = measure({"SQLite": batch}, args.members, args.repeats // 10)
                rows.append([f"batch {newest}", *times, None, None])
            example = dict.fromkeys((*manifest.columns, *manifest.actions), 1)
            now_ms = iter(range(START_MS + args.impressions * 600_000, 2**62, 600_000))

            def append(member: int) -> None:
                store.append([{**example, "member_id": member, "timestamp_ms": next(now_ms)}])

            times = measure({"SQLite": append}, args.members, args.repeats // 10)
            rows.append(["append", *times, None, None])
        file.close()
    names = ("SQLite, median", "SQLite, p99", "LMDB, median", "LMDB, p99")
    study.add(
        "times",
        f"Microseconds; {args.members:,} members with {args.impressions:,} impressions each, built "
        f"at {np.median(builds):,.0f} impressions per second.",
        [Column("operation"), *(Column(name, ".0f") for name in names)],
        rows,
    )
    study.record(args.record)


if __name__ == "__main__":
    main()
