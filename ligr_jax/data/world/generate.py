"""Generation of a synthetic world as a canonical log.

    generate_world(WorldConfig(members=50_000, seed=1), Path("world"))

writes

    impressions-00000.parquet ...  the log, one file per block of members, by member and time
    items.parquet                  the item table, content vectors included
    world.json                     the configuration with every planted constant
    log.json                       the `LogSchema`, written last, so that a directory with it is
                                   complete

The log also has the column `position`, the display rank, which affects the utility and must not be
an input of a model. The columns `true_*` of the item table are for the analysis of results.

Each block is a pure function of the configuration and its number. The bytes therefore do not depend
on the number of workers, and running the command again completes a world that was interrupted. The
bytes depend on the machine only through the version of pyarrow (see
`ligr_jax.data.world.arithmetic`).
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.atomic import atomic_path, write_atomically
from ligr_jax.contents import LOG, require_no_other
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.world.block import block_table
from ligr_jax.data.world.catalog import build_catalog, item_tables
from ligr_jax.data.world.config import ACTIONS, LABELS, VERSION, Planted, WorldConfig
from ligr_jax.digests import read_plain_json
from ligr_jax.host_limits import host_cores
from ligr_jax.lock import exclusive
from ligr_jax.stop import end_silently, signals_blocked

__all__ = ["Planted", "WorldConfig", "generate_world", "world_schema"]

DICTIONARY_COLUMNS = ["member_id", "session_id", "item_id", "actor_id", "item_type", "surface"]
ITEMS = "items.parquet"
# Effects that earlier releases did not have, with the values that leave their worlds unchanged.
# With these values world.json omits them, so that it keeps its bytes.
ADDED = {"satiation_later": 1.0}
ROW_GROUP = 2**20  # rows of a Parquet file that are written at a time


def world_schema(config: WorldConfig) -> LogSchema:
    """Return the schema of the log of a world."""
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


def generate_world(
    config: WorldConfig,
    out: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LogSchema:
    """Write a world to a directory.

    A complete world of the same configuration is not changed, and a part of it is completed. Every
    process has one block in memory at a time.

    Args:
        config: configuration of the world.
        out: output directory; it is created if necessary.
        workers: number of processes; default: all cores. Processes are spawned, so a script that
            uses more than one needs an `if __name__ == "__main__"` guard.
        progress: called as progress(blocks written, blocks of the world) after every block.

    Returns:
        The schema of the log.

    Raises:
        BadInput: the directory has another world or log, or `workers` is below 1.
    """
    out = Path(out)
    workers = host_cores() if workers is None else workers
    if workers < 1:
        raise BadInput(f"workers={workers} must be at least 1, or None for all cores")
    schema = world_schema(config)
    require_no_other(out, LOG)
    if not _is_complete(config, out):
        with exclusive(out, "is making a world there"):
            _complete(config, schema, out, workers, progress)
    return schema


def _is_complete(config: WorldConfig, out: Path) -> bool:
    """Return whether a directory has the complete world.

    Raises:
        BadInput: the directory has another world or another log.
    """
    is_ours = _require_this_world(config, out)
    return is_ours and (out / "log.json").is_file() and not _missing(config, out)


def _missing(config: WorldConfig, out: Path) -> list[int]:
    """Return the numbers of the missing blocks, and -1 if the item table is missing."""
    blocks = [b for b in range(config.blocks) if not (out / block_name(b)).is_file()]
    return blocks if (out / ITEMS).is_file() else [-1, *blocks]


def _complete(
    config: WorldConfig,
    schema: LogSchema,
    out: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the missing files of the world."""
    for stale in out.glob(".*.partial"):  # left by a killed process; this process has the lock
        stale.unlink()
    _claim(config, out)
    items = out / ITEMS
    todo = [b for b in _missing(config, out) if b >= 0]
    workers = min(workers, len(todo))
    if not items.is_file():
        _write_tables(item_tables(config, ROW_GROUP), items, ["item_type"])
        if workers > 1:
            build_catalog.cache_clear()  # every worker builds its own
    with closing(_write_blocks(config, todo, out, workers)) as written:
        for done, _ in enumerate(written, config.blocks - len(todo) + 1):
            if progress is not None:
                progress(done, config.blocks)
    save_schema(schema, out)


def block_name(number: int) -> str:
    """Return the file name of a block of the log."""
    return f"impressions-{number:05d}.parquet"


def _write_blocks(
    config: WorldConfig, todo: list[int], out: Path, workers: int
) -> Generator[int, None, None]:
    """Write blocks, and yield the number of each block after it is written."""
    if workers <= 1:
        yield from (_write_block(config, number, out) for number in todo)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, end_silently) as pool:
        try:
            with signals_blocked():  # a worker inherits the mask until its handler is installed
                futures = [pool.submit(_write_block, config, number, out) for number in todo]
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_block(config: WorldConfig, number: int, out: Path) -> int:
    _write_tables([block_table(config, number)], out / block_name(number), DICTIONARY_COLUMNS)
    return number


def _write_tables(tables: Iterable[pa.Table], path: Path, dictionary: list[str]) -> None:
    """Write tables to one file with row groups of `ROW_GROUP` rows.

    The file has a temporary name until it is complete.
    """
    remaining = iter(tables)
    first = next(remaining)
    with (
        atomic_path(path) as part,
        pq.ParquetWriter(
            part, first.schema, compression="zstd", use_dictionary=dictionary
        ) as writer,
    ):
        for table in itertools.chain([first], remaining):
            writer.write_table(table, ROW_GROUP)


def _description(config: WorldConfig) -> dict[str, Any]:
    """Return the content of world.json."""
    description = {
        "format": "ligr-world",
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "actions": [dataclasses.asdict(a) for a in ACTIONS],
    }
    result: dict[str, Any] = json.loads(json.dumps(description))  # tuples become lists
    planted = result["config"]["planted"]
    for name, default in ADDED.items():
        if planted[name] == default:
            del planted[name]
    return result


def _require_this_world(config: WorldConfig, out: Path) -> bool:
    """Return whether a directory has this world, complete or not.

    Raises:
        BadInput: the directory has another world or another log.
    """
    path = out / "world.json"
    if path.is_file():
        existing = read_plain_json(path, "choose another directory")
        differences = list(_differences(existing, _description(config)))
        if differences:
            raise BadInput(
                f"{out} contains another world: {'; '.join(differences)}; "
                "choose another directory or remove this one"
            )
        return True
    if (out / "log.json").exists() or any(out.glob("*.parquet")):
        raise BadInput(f"{out} contains a log that is not a world; choose another directory")
    return False


def _claim(config: WorldConfig, out: Path) -> None:
    """Write world.json first, so that a world with other settings refuses the directory."""
    if not _require_this_world(config, out):
        write_atomically(out / "world.json", json.dumps(_description(config), indent=1) + "\n")


def _differences(existing: Any, requested: Any, name: str = "") -> Iterator[str]:
    """Yield a description of every leaf in which two JSON values differ."""
    if isinstance(existing, dict) and isinstance(requested, dict):
        for key in sorted(existing.keys() | requested.keys()):
            inner = f"{name}.{key}" if name else key
            yield from _differences(existing.get(key), requested.get(key), inner)
    elif existing != requested:
        yield f"{name} is {existing!r} in the directory and {requested!r} in the request"
