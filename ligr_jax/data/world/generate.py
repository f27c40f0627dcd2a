"""The synthetic world: a feed whose true probabilities are known, written as a canonical log.

    generate(WorldConfig(members=50_000, seed=1), Path("world"))

writes

    impressions-00000.parquet ...  the log, one file per block of members, by member and time
    items.parquet                  the item table, content vectors included
    world.json                     the configuration with every planted constant
    log.json                       the `LogSchema`, written last: a directory with it is complete

Log columns beyond the schema: `position`, the display rank, which biases the utility and which no
model may read. Columns `true_*` of the item table are likewise for readers of results only.

Each block is a pure function of the configuration and its number, so the bytes do not depend on the
number of workers, and a run that was stopped is completed by running it again. They depend on the
machine only through the version of pyarrow (see `ligr_jax.data.world.arithmetic` for the
arithmetic).
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.atomic import whole, write_atomically
from ligr_jax.contents import LOG, require_no_other
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.world.block import block_table
from ligr_jax.data.world.catalog import build_catalog, item_tables
from ligr_jax.data.world.config import ACTIONS, LABELS, VERSION, Planted, WorldConfig
from ligr_jax.digests import read_plain_json
from ligr_jax.lock import exclusive
from ligr_jax.stop import end_silently, held_signals

__all__ = ["Planted", "WorldConfig", "generate", "world_schema"]

DICTIONARY_COLUMNS = ["member_id", "session_id", "item_id", "actor_id", "item_type", "surface"]
ITEMS = "items.parquet"
ROW_GROUP = 2**20  # rows of a Parquet file that are written, and held, together


def world_schema(config: WorldConfig) -> LogSchema:
    """The schema of the log of a world."""
    return LogSchema(
        actions=LABELS,
        columns={
            "item_id": Column("categorical"),
            "actor_id": Column("categorical"),
            "item_type": Column("categorical"),
            "surface": Column("categorical"),
            "age_h": Column("numeric"),
            "content": Column("vector", width=config.content_width),
            "dwell_s": Column("numeric", outcome=True),
        },
        truth=True,
        items=ITEMS,
        notes=(
            "Synthetic: p_<action> is the true probability each label was drawn with.",
            "Labels depend on the display rank, which no feature tells.",
        ),
    )


def generate(
    config: WorldConfig,
    out: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LogSchema:
    """Writes the world to directory `out` (made where absent) and returns the log's schema.

    A directory that already holds this world is left as it is; one that holds part of it is
    completed. Each process holds one block at a time.

    Args:
        workers: processes, all cores by default. They are spawned, so a script that calls this
            with more than one needs an `if __name__ == "__main__"` guard.
        progress: called as progress(blocks done, blocks of the world) after every block.

    Raises:
        BadInput: `out` holds something else, or `workers` is below 1.
    """
    out = Path(out)
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise BadInput(f"workers={workers}; give at least 1, or None for all cores")
    schema = world_schema(config)
    require_no_other(out, LOG)
    if not _is_complete(config, out):
        with exclusive(out, "is making a world there"):
            _complete(config, schema, out, workers, progress)
    return schema


def _is_complete(config: WorldConfig, out: Path) -> bool:
    """Whether `out` holds this world; raises BadInput where it holds something else."""
    is_ours = _require_this_world(config, out)
    return is_ours and (out / "log.json").is_file() and not _missing(config, out)


def _missing(config: WorldConfig, out: Path) -> list[int]:
    """Numbers of the blocks that are not written; -1 for the item table."""
    blocks = [b for b in range(config.blocks) if not (out / block_name(b)).is_file()]
    return blocks if (out / ITEMS).is_file() else [-1, *blocks]


def _complete(
    config: WorldConfig,
    schema: LogSchema,
    out: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write what the directory lacks of the world."""
    for stale in out.glob(".*.partial"):  # of a process that was killed: this one has the lock
        stale.unlink()
    _claim(config, out)
    items = out / ITEMS
    todo = [b for b in _missing(config, out) if b >= 0]
    workers = min(workers, len(todo))
    if not items.is_file():
        _write_tables(item_tables(config, ROW_GROUP), items, ["item_type"])
        if workers > 1:
            build_catalog.cache_clear()  # each has its own
    with closing(_write_blocks(config, todo, out, workers)) as written:
        for done, _ in enumerate(written, config.blocks - len(todo) + 1):
            if progress is not None:
                progress(done, config.blocks)
    save_schema(schema, out)


def block_name(number: int) -> str:
    """File name of a block of the log."""
    return f"impressions-{number:05d}.parquet"


def _write_blocks(
    config: WorldConfig, todo: list[int], out: Path, workers: int
) -> Generator[int, None, None]:
    """Writes the blocks, yielding the number of each when it is on disk."""
    if workers <= 1:
        yield from (_write_block(config, number, out) for number in todo)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, end_silently) as pool:
        try:
            with held_signals():  # a worker inherits that, until it has its handler
                futures = [pool.submit(_write_block, config, number, out) for number in todo]
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_block(config: WorldConfig, number: int, out: Path) -> int:
    _write_tables([block_table(config, number)], out / block_name(number), DICTIONARY_COLUMNS)
    return number


def _write_tables(tables: Iterable[pa.Table], path: Path, dictionary: list[str]) -> None:
    """Write the tables one after the other into one file, `ROW_GROUP` rows each but the last.

    The file has another name until it is complete.
    """
    rest = iter(tables)
    first = next(rest)
    with (
        whole(path) as part,
        pq.ParquetWriter(
            part, first.schema, compression="zstd", use_dictionary=dictionary
        ) as writer,
    ):
        for table in itertools.chain([first], rest):
            writer.write_table(table, ROW_GROUP)


def _description(config: WorldConfig) -> dict[str, Any]:
    """What world.json holds."""
    ours = {
        "format": "ligr-world",
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "actions": [dataclasses.asdict(a) for a in ACTIONS],
    }
    return json.loads(json.dumps(ours))  # lists for tuples


def _require_this_world(config: WorldConfig, out: Path) -> bool:
    """Whether `out` holds this world, complete or not.

    Raises:
        BadInput: it holds something else.
    """
    ours, path = _description(config), out / "world.json"
    if path.is_file():
        theirs = read_plain_json(path, "give another directory")
        differences = list(_differences(theirs, ours))
        if differences:
            raise BadInput(
                f"{out} holds another world: {'; '.join(differences)}; "
                "give another directory or remove this one"
            )
        return True
    if (out / "log.json").exists() or any(out.glob("*.parquet")):
        raise BadInput(f"{out} holds a log that is no world; give another directory")
    return False


def _claim(config: WorldConfig, out: Path) -> None:
    """Make `out` this world's directory, as a world with other settings then refuses it."""
    if not _require_this_world(config, out):
        write_atomically(out / "world.json", json.dumps(_description(config), indent=1) + "\n")


def _differences(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """Phrases `where is X there and Y here` for all leaves in which two JSON values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted(theirs.keys() | ours.keys()):
            inner = f"{where}.{name}" if where else name
            yield from _differences(theirs.get(name), ours.get(name), inner)
    elif theirs != ours:
        yield f"{where} is {theirs!r} there and {ours!r} here"
