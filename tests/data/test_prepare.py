"""Laws of `prepare`: the shards equal those of a slow and simple reference."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xxhash

from ligr_jax.commands import prepare as command
from ligr_jax.data.manifest import MISSING, QUANTILES, Manifest, load_manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions, parse_duration, parse_time
from ligr_jax.data.prepare.sketches import DistinctIds, Quantiles
from ligr_jax.data.prepare.sorting import sort_by_member_and_time, stable_argsort
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import parse_ids
from ligr_jax.data.sources.source import ItemSource, LogBatch, LogSource
from ligr_jax.data.threads import ordered_map
from ligr_jax.lock import Busy
from tests.conftest import OnMessage
from tests.data.logs import ACTIONS, START_MS, read_arrow, read_rows, write_log

GAP_MS = 1_000


def read_members(directory: Path, manifest: Manifest) -> dict[int, dict]:
    """Return every record of a prepared directory by member."""
    records: dict[int, dict] = {}
    for shard in manifest.shards:
        data = (directory / shard.file).read_bytes()
        assert xxhash.xxh64_hexdigest(data) == shard.xxh64
        assert pa.ipc.open_file(data).num_record_batches == 1
        rows = read_rows(directory / shard.file)
        assert [r["member_id"] for r in rows] == sorted(r["member_id"] for r in rows)
        assert len(rows) == shard.members
        assert sum(len(r["timestamp_ms"]) for r in rows) == shard.impressions
        records |= {r["member_id"]: r for r in rows}
    return records


def reference(log: list[dict], edges: list[int], by_id: bool) -> tuple[dict[int, list], dict]:
    """Return (row, split, session) of every row by member, and the counts."""
    seen, rows, duplicates = set(), [], 0
    for row in log:
        key = tuple(row.items())
        duplicates += key in seen
        if key not in seen:
            rows.append(row)
        seen.add(key)
    late = [r for r in rows if r["timestamp_ms"] >= edges[-1]]
    rows = [r for r in rows if r["timestamp_ms"] < edges[-1]]
    out: dict[int, list] = {}
    sessions = merged = 0
    for member in sorted({r["member_id"] for r in rows}):
        mine = sorted(
            (r for r in rows if r["member_id"] == member), key=lambda r: r["timestamp_ms"]
        )
        number = session_by_id(mine) if by_id else session_by_gap(mine)
        splits = [sum(r["timestamp_ms"] >= e for e in edges[1:3]) for r in mine]
        out[member] = list(zip(mine, splits, number))
        sessions += number[-1] + 1
        if by_id:
            merged += len({r["session_id"] for r in mine}) - (number[-1] + 1)
    return out, {
        "duplicates": duplicates,
        "after_test_end": len(late),
        "sessions": sessions,
        "sessions_merged": merged,
    }


def session_by_gap(rows: list[dict]) -> list[int]:
    number = [0]
    for a, b in pairwise(rows):
        number.append(number[-1] + (b["timestamp_ms"] - a["timestamp_ms"] > GAP_MS))
    return number


def session_by_id(rows: list[dict]) -> list[int]:
    """Merge the intervals of ids and of timestamps until none overlap."""
    keys = [(k, r[k]) for r in rows for k in ("session_id", "timestamp_ms")]
    where = {key: [i // 2 for i, k in enumerate(keys) if k == key] for key in keys}
    stretches: list[list[int]] = []
    for first, last in sorted((w[0], w[-1]) for w in where.values()):
        if stretches and first <= stretches[-1][1]:
            stretches[-1][1] = max(stretches[-1][1], last)
        else:
            stretches.append([first, last])
    return [n for n, (first, last) in enumerate(stretches) for _ in range(first, last + 1)]


def random_log(rng: random.Random) -> list[dict]:
    span = rng.choice([20, 3_000, 20_000])
    log = [
        {
            "member_id": rng.randrange(6),
            "timestamp_ms": START_MS + rng.randrange(span),
            "session_id": rng.randrange(12),
            "item_id": rng.randrange(5),
            "surface": rng.choice(["a", "b", None]),
            "age": rng.choice([None, 0.5, 2.0]),
            "click": rng.choice([0, 1, None]),
        }
        for _ in range(rng.randrange(1, 80))
    ]
    return log + [dict(rng.choice(log)) for _ in range(rng.randrange(5))]


@pytest.mark.parametrize("seed", range(30))
def test_shards_equal_a_slow_reference(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    log, by_id = random_log(rng), seed % 2 == 0
    if not by_id:
        log = [{k: v for k, v in r.items() if k != "session_id"} for r in log]
    times = sorted({r["timestamp_ms"] for r in log})
    edges = [times[0], times[len(times) // 2] + 1, times[-1] + 1, times[-1] + 1]
    if seed % 3 == 0 and len(times) > 3:
        edges = [times[0], times[1], times[1], times[-1]]
    frame = pl.DataFrame(log, infer_schema_length=None)
    frame = frame.with_columns(pl.col("surface").cast(pl.String), pl.col("age").cast(pl.Float64))
    source, cut = tmp_path / "log", rng.randrange(len(log))
    source.mkdir()
    frame[:cut].write_parquet(source / "a.parquet")
    frame[cut:].write_parquet(source / "b.parquet")
    columns = {k: Column("categorical") for k in ("item_id", "surface")} | {
        "age": Column("numeric")
    }
    save_schema(LogSchema(("click",), columns), source)
    options = PrepareOptions(
        GAP_MS, SplitTimes(*edges[1:]), shard_rows=30, batch_rows=rng.randrange(1, 40)
    )
    try:
        manifest = prepare(canonical_source(source), tmp_path / "out", options)
    except BadInput as e:
        counts = [sum(a <= r["timestamp_ms"] < b for r in log) for a, b in pairwise(edges)]
        assert "has no impressions" in str(e)  # noqa: PT017
        assert any(n == 0 and a < b for n, (a, b) in zip(counts, pairwise(edges)))
        return

    expected, expected_counts = reference(log, edges, by_id)
    records = read_members(tmp_path / "out", manifest)
    assert manifest.counts == dict(manifest.counts) | expected_counts
    assert manifest.counts["members"] == len(expected)
    assert sorted(records) == list(expected)
    for member, rows in expected.items():
        record = records[member]
        assert record["n_context"] == 0
        for k, split in enumerate(("train", "validation", "test")):
            assert record[f"n_{split}"] == sum(s == k for _, s, _ in rows)
        for name in ("timestamp_ms", "item_id"):
            assert record[name] == [r[name] for r, _, _ in rows]
        assert record["session"] == [n for _, _, n in rows]
        assert record["click"] == [-1 if r["click"] is None else r["click"] for r, _, _ in rows]
        assert record["surface"] == [hashed(r["surface"]) for r, _, _ in rows]
        age = [np.nan if r["age"] is None else r["age"] for r, _, _ in rows]
        np.testing.assert_array_equal(record["age"], age)
        assert record["weight"] == [1.0] * len(rows)
        assert record["is_random"] == [-1] * len(rows)


def hashed(text: str | None) -> int:
    if text is None:
        return MISSING
    return int(np.array(xxhash.xxh64_intdigest(text.encode()), np.uint64).view(np.int64))


def test_output_is_a_function_of_input_and_options_alone(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows=3000, vector=4, truth=True, files=3)
    outputs: list[dict[str, bytes]] = []
    for batch_rows, workers in ((131_072, 1), (131_072, 3), (1000, None), (17, 3)):
        out = tmp_path / f"out{len(outputs)}"
        prepare(
            canonical_source(tmp_path / "log"),
            out,
            PrepareOptions(shard_rows=1000, batch_rows=batch_rows, workers=workers),
        )
        outputs.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert outputs[1:] == outputs[:1] * 3
    assert len(outputs[0]) == 10  # three shards, items, index, manifest, summary


def test_statistics_equal_those_of_the_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", rows=3000, vector=4, days=20)
    manifest = prepare(
        canonical_source(tmp_path / "log"),
        tmp_path / "out",
        PrepareOptions(fractions=(0.7, 0.2, 0.1), shard_rows=1000),
    )
    for fraction, split in zip((0.7, 0.2, 0.1), manifest.splits.values()):
        inside = log.filter(
            (pl.col("timestamp_ms") >= split.start_ms) & (pl.col("timestamp_ms") < split.end_ms)
        )
        assert split.impressions == inside.height == pytest.approx(fraction * 3000, abs=15)
        assert split.members == inside["member_id"].n_unique()
        for action in ACTIONS:
            assert split.positive_rate[action] == pytest.approx(inside[action].mean(), abs=1e-12)
    train = log.filter(pl.col("timestamp_ms") < manifest.splits["train"].end_ms)
    age = manifest.columns["age_days"]
    present = train["age_days"].drop_nans().cast(pl.Float32).cast(pl.Float64).to_numpy()
    assert age.missing == pytest.approx(1 - len(present) / train.height, abs=1e-12)
    np.testing.assert_allclose(age.quantiles, np.quantile(present, np.linspace(0, 1, QUANTILES)))
    assert manifest.columns["surface"].distinct == 3
    assert manifest.columns["actor_id"].distinct == 7
    assert manifest.columns["dwell_s"].outcome
    assert load_manifest(tmp_path / "out") == manifest


def test_item_table_is_joined_by_item(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows=300, vector=4)
    table = pl.read_parquet(tmp_path / "log" / "items.parquet").sample(fraction=1, shuffle=True)
    vector = pl.when(pl.col("item_id") != 3).then("content")
    table = table.filter(pl.col("item_id") != 7).with_columns(content=vector)
    table.write_parquet(tmp_path / "log" / "items.parquet")
    manifest = prepare(canonical_source(tmp_path / "log"), tmp_path / "out")
    assert manifest.items is not None
    items = read_arrow(tmp_path / "out" / "items.arrow")
    vectors = dict(zip(items["item_id"].to_pylist(), items["content"].to_pylist()))
    assert vectors == {i: v for i, v in table.select("item_id", "content").iter_rows() if v}
    for record in read_members(tmp_path / "out", manifest).values():
        for item, actor, row in zip(record["item_id"], record["actor_id"], record["item_row"]):
            assert actor == (MISSING if item == 7 else item % 7)
            assert (row < 0) == (item in (3, 7))
            assert row < 0 or items["item_id"][row].as_py() == item


@pytest.mark.parametrize("kept", ["all", "some"])
def test_an_item_table_does_not_depend_on_its_batches(tmp_path: Path, kept: str) -> None:
    write_log(tmp_path / "log", rows=300, vector=4)
    table = pl.read_parquet(tmp_path / "log" / "items.parquet").sample(fraction=1, shuffle=True)
    tags = pl.Series("tags", [[i % 3] * (i % 4) for i in range(table.height)])
    none = pl.lit(kept == "some") & (pl.col("item_id") % 5 == 0)
    table = table.with_columns(tags, content=pl.when(~none).then("content"))
    source = canonical_source(tmp_path / "log")
    columns = {**source.schema.columns, "tags": Column("bag")}
    schema = replace(source.schema, columns=columns)

    def made(frame: pl.DataFrame, rows: int, out: str) -> bytes:
        batches = [
            LogBatch("items", 1 + k, frame[k : k + rows]) for k in range(0, len(frame), rows)
        ]
        items = ItemSource(frame.columns, lambda: iter(batches))
        prepare(replace(source, schema=schema, items=items), tmp_path / out)
        return b"".join(p.read_bytes() for p in sorted((tmp_path / out).iterdir()))

    assert made(table, 7, "batches") == made(table, len(table), "whole")
    twice = pl.concat([table, table[3:4]])
    message = rf"items, row {len(twice)}, column 'item_id': value .* \(first in row 4\)"
    with pytest.raises(BadInput, match=message):
        made(twice, 7, "twice")


def test_context_comes_first_each_row_its_own_session(tmp_path: Path) -> None:
    schema = LogSchema(("click", "like"), {"item_id": Column("categorical")})
    timed = pl.DataFrame(
        {"member_id": [1, 1, 2], "timestamp_ms": [5, 5, 9], "item_id": 0, "click": 1, "like": 0}
    ).with_columns(pl.col("timestamp_ms") + START_MS)
    earlier = pl.DataFrame({"member_id": [3, 1, 1, 1], "item_id": [9, 7, 7, 8], "like": 1})
    source = LogSource(
        name="made",
        schema=schema,
        batches=lambda rows, _: iter(
            [LogBatch("log", 1, timed.with_columns(item_id=pl.Series([1, 2, 3])))]
        ),
        rows=3,
        description={},
        context=lambda rows, _: iter([LogBatch("earlier", 1, earlier)]),
    )
    manifest = prepare(source, tmp_path, PrepareOptions(fractions=(1, 0, 0)))
    records = read_members(tmp_path, manifest)
    assert records[1]["timestamp_ms"] == [-1, -1, -1, START_MS + 5, START_MS + 5]
    assert records[1]["item_id"] == [7, 7, 8, 1, 2]
    assert records[1]["session"] == [0, 1, 2, 3, 3]
    assert records[1]["click"] == [-1, -1, -1, 1, 1]
    assert records[1]["like"] == [1, 1, 1, 0, 0]
    assert (records[1]["n_context"], records[1]["n_train"]) == (3, 2)
    assert list(records) == [1, 2]  # a member with only context has no targets
    assert manifest.counts["context"] == 3
    assert manifest.counts["context_without_impressions"] == 1
    assert manifest.counts["sessions"] == 2


def test_leave_one_out_splits_each_history_with_three_impressions(tmp_path: Path) -> None:
    counts = {1: 4, 2: 3, 3: 2, 4: 1}
    member = [m for m, n in counts.items() for _ in range(n)]
    rows = {"member_id": member, "item_id": range(10), "timestamp_ms": START_MS, "click": 1}
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    out = tmp_path / "out"
    parser = argparse.ArgumentParser(prog="ligr prepare")
    command.add_arguments(parser)
    words = [str(tmp_path / "log.parquet"), "--out", str(out), "--actions", "click"]
    with pytest.raises(BadInput, match="--leave-one-out defines the splits"):
        command.run(parser.parse_args([*words, "--leave-one-out", "--fractions", "1,0,0"]))
    command.run(parser.parse_args([*words, "--leave-one-out"]))
    records = Records(out)
    splits = dict(zip(records.member_ids.tolist(), records.counts.tolist(), strict=True))
    assert splits == {1: [0, 2, 1, 1], 2: [0, 1, 1, 1], 3: [0, 2, 0, 0], 4: [0, 1, 0, 0]}
    assert "not by time" in records.manifest.notes[-1]


def test_complete_output_is_reused_and_another_is_refused(tmp_path: Path, said: list[str]) -> None:
    write_log(tmp_path / "log")
    source, out = canonical_source(tmp_path / "log"), tmp_path / "out"
    first = prepare(source, out)
    said.clear()
    assert prepare(source, out) == first
    assert said == [f"already prepared: {out}"]
    with pytest.raises(
        BadInput, match=r"options.session_gap_ms is 1800000 in the output and 7 in the request"
    ):
        prepare(source, out, PrepareOptions(session_gap_ms=7))
    again = prepare(source, out, PrepareOptions(session_gap_ms=7, overwrite=True))
    assert again.digest != first.digest
    write_log(tmp_path / "log", seed=1)
    with pytest.raises(BadInput, match="prepared from other inputs"):
        prepare(canonical_source(tmp_path / "log"), out, PrepareOptions(session_gap_ms=7))


def test_a_failed_run_writes_no_manifest(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    write_log(tmp_path / "log", rows=5000)
    source, out = canonical_source(tmp_path / "log"), tmp_path / "out"
    (out / ".partial-1").mkdir(parents=True)  # left by a killed run
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            BadInput, match=r"cannot write .*the file is too large; .*is not complete"
        ):
            prepare(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(out.iterdir()) == []
    manifest = prepare(source, out)
    options = PrepareOptions(session_gap_ms=1, fractions=(0.5, 0.5, 0), overwrite=True)
    write_log(tmp_path / "log", rows=9, days=1e-6)  # too short to split: fails after pass 1
    with pytest.raises(BadInput, match="too few to cut"):
        prepare(canonical_source(tmp_path / "log"), out, options)
    assert load_manifest(out) == manifest
    assert read_members(out, manifest)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_two_at_a_time_never_share_an_output(tmp_path: Path, on_message: OnMessage) -> None:
    write_log(tmp_path / "log")
    source, out = canonical_source(tmp_path / "log"), tmp_path / "out"
    options = PrepareOptions(shard_rows=50)
    alone = prepare(source, tmp_path / "alone", options)

    def second(line: str) -> None:
        if line.startswith("read "):  # the first command is between its two passes
            with pytest.raises(Busy, match=rf"out: another process .*process {os.getpid()}\)"):
                prepare(source, out, options)

    on_message(second)
    assert prepare(source, out, options) == alone
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_missing_partition_is_an_error(
    tmp_path: Path, on_message: OnMessage, damage: Callable[[Path], object]
) -> None:
    write_log(tmp_path / "log")
    source, out = canonical_source(tmp_path / "log"), tmp_path / "out"

    def break_one(line: str) -> None:
        if line.startswith("read "):
            damage(sorted(out.glob(".partial-*/part-*.arrows"))[1])

    on_message(break_one)
    with pytest.raises(BadInput, match=r"part-\d+.arrows: \d+ rows were written to this file"):
        prepare(source, out, PrepareOptions(shard_rows=50))
    assert not list(out.iterdir())


def test_peak_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "small", rows=200_000, members=4_000)
    shutil.copytree(tmp_path / "small", tmp_path / "large")
    for k in range(1, 8):
        part = log.with_columns(pl.col("member_id") + 4_000 * k)
        part.write_parquet(tmp_path / "large" / f"impressions-{k:05d}.parquet")
    program = (
        "import re, sys; from pathlib import Path\n"
        "from ligr_jax.data.sources.canonical import canonical_source\n"
        "from ligr_jax.data.prepare.build import PrepareOptions, prepare\n"
        "options = PrepareOptions(shard_rows=50_000, batch_rows=20_000)\n"
        "m = prepare(canonical_source(Path(sys.argv[1])), sys.argv[2], options)\n"
        "status = Path('/proc/self/status').read_text()\n"  # ru_maxrss would be the parent's
        "print(m.counts['impressions'], re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
    )
    rows, peak = {}, {}
    for name in ("small", "large"):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / name, tmp_path / f"{name}-out"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "POLARS_MAX_THREADS": "2"},
        )
        rows[name], peak[name] = map(int, done.stdout.split())
    assert rows["large"] > 7 * rows["small"]
    grown = (peak["large"] - peak["small"]) * 1024
    held = 1_400_000 * 60  # bytes of seven times as many rows, each in memory once
    assert grown < held / 2, f"peak memory grew by {grown / 1e6:.0f} MB"


def test_errors_of_threads_are_raised_in_order() -> None:
    seen: list[int] = []

    def check(k: int) -> int:
        time.sleep(0.02 if k == 5 else 0)  # the first fault is found last
        if k in (5, 6):
            raise BadInput(f"row {k}")
        return k

    def rows() -> Iterator[int]:
        yield from range(7)
        raise BadInput("end of the file")

    with pytest.raises(BadInput, match="row 5"):
        seen.extend(ordered_map(check, rows(), workers=3))
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(BadInput, match="end of the file"):
        list(ordered_map(int, rows(), workers=3))


@pytest.mark.parametrize("span", [3, 2**40, 2**63])
def test_packed_sorts_are_stable(span: int) -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 4097):
        values = rng.integers(-span, span, n)
        values[n // 2 :] = values[: n - n // 2]
        np.testing.assert_array_equal(stable_argsort(values), np.argsort(values, kind="stable"))
        times = rng.integers(-1, 3, n)
        order = sort_by_member_and_time(values, times)
        np.testing.assert_array_equal(order, np.lexsort((times, values)))


def test_ids_of_repetitive_text_equal_those_of_single_values() -> None:
    spelled = ["17", "+17", "017", "-0", "0", "-17", "9", "10", "99", "100", "999999999999999999"]
    spelled += [str(x) for x in (2**63 - 1, -(2**63) + 1, 2**63 + 5, 2**64 - 1, 2**64)]
    spelled += ["58.0", "true", "", "x", "1e5", "- 1"]
    values = pl.Series([*spelled, None], dtype=pl.String)
    expected = []
    for value in values:
        ids, rules = parse_ids(pl.Series([value], dtype=pl.String))
        assert not any(rows.any() for rows, _ in rules)
        signed = value and value.removeprefix("-").isdigit() and str(int(value)) == value
        if signed and -(2**63) <= int(value) < 2**64:
            assert ids[0] == np.array(int(value) % 2**64, np.uint64).view(np.int64)
        expected.append(ids[0])
    assert len(set(expected)) == len(values)
    many = values.sample(5000, with_replacement=True, seed=0)
    by_value = dict(zip(values, expected))
    np.testing.assert_array_equal(parse_ids(many)[0], [by_value[v] for v in many])


def test_distinct_ids_are_exact_below_the_sketch_and_close_above() -> None:
    rng = np.random.default_rng(0)
    for n in (1000, 300_000):
        sketch = DistinctIds()
        ids = rng.integers(0, 2**60, n)
        for part in np.array_split(np.concatenate([ids, ids]), 7):
            sketch.add(np.append(part, MISSING))
        assert sketch.exact == (n < 65_536)
        assert sketch.count() == pytest.approx(n, rel=0 if sketch.exact else 0.015)


def test_quantile_sample_does_not_depend_on_grouping() -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    rows = np.arange(5000)
    whole, parts = Quantiles(size=500), Quantiles(size=500)
    whole.add(values, rows)
    for at in np.array_split(rows[::-1], 13):
        parts.add(values[at], at)
    assert whole.at() == parts.at()
    assert (whole.at()[0], whole.at()[-1]) == (values.min(), values.max())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "log", days=10)
    parser = argparse.ArgumentParser(prog="ligr prepare")
    command.add_arguments(parser)
    assert "ligr prepare KuaiRand-Pure/data" in (command.__doc__ or "")
    until = ["--train-until", "2022-04-22T05:20+08:00", "--validation-until", "1650700000000"]
    base = [str(tmp_path / "log"), "--out", str(tmp_path / "out"), "--session-gap", "6h"]
    command.run(parser.parse_args([*base, *until]))
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert made["splits"]["train"]["end_ms"] == 1_650_576_000_000
    assert made["source"]["options"]["session_gap_ms"] == 6 * 3_600_000
    printed = capsys.readouterr().out
    assert load_manifest(tmp_path / "out").digest in printed
    with pytest.raises(BadInput, match="both --train-until and --validation-until"):
        command.run(parser.parse_args([*base, *until[:2]]))


@pytest.mark.parametrize(
    ("text", "ms"),
    [("2022-05-05", 1_651_708_800_000), ("2022-05-05T00:00+08:00", 1_651_680_000_000), ("12", 12)],
)
def test_times_are_iso_or_milliseconds(text: str, ms: int) -> None:
    assert parse_time(text) == ms
    assert (parse_duration("30m"), parse_duration("1.5h")) == (1_800_000, 5_400_000)
    for wrong in ("yesterday", "2022-13-01"):
        with pytest.raises(BadInput, match="is not a time"):
            parse_time(wrong)


def test_open_source_names_the_formats_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BadInput, match=r"Looked for log.json .*contains \['notes.txt'\]"):
        open_source(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        open_source(tmp_path / "nowhere")
