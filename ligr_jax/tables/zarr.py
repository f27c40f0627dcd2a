"""Format of exported tables on disk: sharded zarr3 arrays, and an index that is written last.

DIR/index.json           tables, shapes, bits, sizes, the run; without it the export is unfinished
DIR/zarr.json            a group, marked as an export, so that the next export may remove it
DIR/TABLE/zarr.json      a group with the table's shape and bits as attributes
DIR/TABLE/values/        float32 [V, E]                        at 32 bits
DIR/TABLE/codes/         int8 [V, E] or uint8 [V, ceil(E/2)]   at 8 or 4 bits
DIR/TABLE/scale/ middle/ float32 [V]                           at 8 or 4 bits

TABLE is the table's name, escaped (`ligr_jax.config.escaping`). A file is a shard of 65,536 rows;
it is read in chunks of 512 rows. Every chunk and the index of every shard end with a CRC-32C, so
that a flipped bit is an error, not a value.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts

from ligr_jax.atomic import make_directory, write_atomically
from ligr_jax.config import escape
from ligr_jax.digests import digest_file, read_json, read_plain_json
from ligr_jax.digests import write_json as write_sealed
from ligr_jax.errors import LigrError
from ligr_jax.lock import LOCK
from ligr_jax.store.stage import stage
from ligr_jax.tables.versions import tables_directory

SHARD_ROWS, CHUNK_ROWS = 65_536, 512
INDEX = "index.json"
_MARK = "ligr_export"


class ExportError(LigrError, ValueError):
    """An export cannot be written or opened."""


class DamagedTable(ExportError):
    """Files of a finished export differ from those written."""


class ReplacedExport(ExportError):
    """A reader has opened an export that another export has replaced since."""


def arrays_of(rows: int, width: int, bits: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the data type and shape of each array of a table."""
    if bits == 32:
        return {"values": ("float32", (rows, width))}
    codes = ("int8", (rows, width)) if bits == 8 else ("uint8", (rows, -(-width // 2)))
    return {"codes": codes, "scale": ("float32", (rows,)), "middle": ("float32", (rows,))}


def open_array(path: Path, dtype: str, shape: tuple[int, ...], columns: int) -> ts.TensorStore:
    """Open an array for writing and create it if necessary; its chunks are `columns` wide."""
    rest = (columns,) * (len(shape) - 1)
    chunk = min(CHUNK_ROWS, shape[0])
    shard = chunk * min(SHARD_ROWS // CHUNK_ROWS, -(-shape[0] // chunk))  # small tables: one shard
    checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharded = {"chunk_shape": (chunk, *rest), "codecs": checked, "index_codecs": checked}
    spec = {
        "driver": "zarr3",
        "kvstore": _files(path),
        "metadata": {
            "shape": shape,
            "data_type": dtype,
            "fill_value": "NaN" if dtype == "float32" else 0,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": (shard, *rest)},
            },
            "codecs": [{"name": "sharding_indexed", "configuration": sharded}],
        },
        # Otherwise chunks of zeros would have no file and would look like lost chunks.
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True, open=True).result()


def existing_array(path: Path) -> ts.TensorStore:
    """Open an array for reading; raise ValueError if it cannot be opened."""
    return ts.open({"driver": "zarr3", "kvstore": _files(path)}, open=True, read=True).result()


def _files(path: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{path.absolute()}/"}


def table_directory(directory: Path, name: str) -> Path:
    """Return the directory of a table; raise ExportError for an empty or too long name."""
    if not 0 < len(escape(name).encode()) < 256:
        raise ExportError(f"table name {name!r} cannot name a directory; rename the feature")
    return directory / escape(name)


def require_free(directory: Path, overwrite: bool) -> None:
    """Raise ExportError if an export may not be written to `directory`.

    This is so if it has a finished export and `overwrite` is false, or if it has other files.
    """
    stage(directory, [INDEX, "zarr.json"])
    if (directory / INDEX).exists() and not overwrite:
        raise ExportError(
            f"{directory} holds a finished export; choose another directory, or overwrite it"
        )
    others = [p for p in directory.iterdir() if p.name != LOCK] if directory.exists() else []
    if others and not _is_ours(directory):
        raise ExportError(f"{directory} holds other files; choose an empty or new directory")


def start(directory: Path, overwrite: bool) -> None:
    """Create the directory, or remove what an earlier export left in it (see `require_free`)."""
    require_free(directory, overwrite)
    make_directory(directory)
    # The index goes first, so that an interrupted removal leaves an unfinished export.
    (directory / INDEX).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    write_group(directory, {_MARK: 1})


def _is_ours(directory: Path) -> bool:
    path = directory / "zarr.json"
    try:
        return _MARK in read_plain_json(path, "")["attributes"]
    except (OSError, ValueError, KeyError):
        return False


def write_group(directory: Path, attributes: dict[str, Any]) -> None:
    """Create a zarr group with attributes."""
    make_directory(directory)
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_metadata(directory / "zarr.json", group)


def write_metadata(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def load_index(directory: Path) -> dict[str, Any]:
    """Return the index of a finished export; see `export`.

    Args:
        directory: artifact, of which the current version is taken, or exported tables.

    Raises:
        ExportError: the directory has no index.
    """
    path = tables_directory(Path(directory)) / INDEX
    if not path.is_file():
        raise ExportError(
            f"{directory} is not a finished export: it has no {INDEX}; run `ligr export` again"
        )
    return read_json(path, "export again")


def metadata_digests(directory: Path) -> dict[str, str]:
    """Return the digest of each file that describes arrays; their chunks have checksums."""
    described = sorted(directory.rglob("zarr.json"))
    return {str(p.relative_to(directory)): digest_file(p) for p in described}


def write_index(directory: Path, index: dict[str, Any]) -> None:
    """Write the index of an export, last."""
    write_sealed(directory / INDEX, index)


def bytes_of(directory: Path) -> int:
    """Return the total size of all files below a directory."""
    return sum(
        (Path(folder) / file).stat().st_size
        for folder, _, files in os.walk(directory)
        for file in files
    )
