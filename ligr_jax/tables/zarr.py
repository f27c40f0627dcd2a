"""Where exported tables lie on disk: sharded zarr3 arrays, and an index that is written last.

DIR/index.json           tables, shapes, bits, sizes, the run; a directory without it is unfinished
DIR/zarr.json            a group, marked as an export: what may be removed by the next one
DIR/TABLE/zarr.json      a group with the table's shape and bits as attributes
DIR/TABLE/values/        float32 [V, E]                        at 32 bits
DIR/TABLE/codes/         int8 [V, E] or uint8 [V, ceil(E/2)]   at 8 or 4 bits
DIR/TABLE/scale/ middle/ float32 [V]                           at 8 or 4 bits

TABLE is the table's name, escaped (`ligr_jax.config.escape`).
A file is a shard of 65,536 rows; within it 512 rows are read at a time. Every chunk, and every
shard's own index, ends with a CRC-32C: a flipped bit is an error, not a value.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts

from ligr_jax.atomic import make_directory, write_atomically
from ligr_jax.config import escape
from ligr_jax.digests import read_plain_json
from ligr_jax.errors import LigrError

SHARD_ROWS, CHUNK_ROWS = 65_536, 512
INDEX = "index.json"
_MARK = "ligr_export"


class ExportError(LigrError, ValueError):
    """An export that cannot be made or opened as asked."""


class DamagedTable(ExportError):
    """Files of a finished export are not what was written."""


def arrays_of(rows: int, width: int, bits: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape of each array of a table."""
    if bits == 32:
        return {"values": ("float32", (rows, width))}
    codes = ("int8", (rows, width)) if bits == 8 else ("uint8", (rows, -(-width // 2)))
    return {"codes": codes, "scale": ("float32", (rows,)), "middle": ("float32", (rows,))}


def open_array(path: Path, dtype: str, shape: tuple[int, ...], columns: int) -> ts.TensorStore:
    """An array to write to, made if need be; its chunks are `columns` wide."""
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
        # Or chunks of zeros would have no file, and be the same as chunks that are lost.
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True, open=True).result()


def existing_array(path: Path) -> ts.TensorStore:
    """An array to read from; raises ValueError where it cannot be opened."""
    return ts.open({"driver": "zarr3", "kvstore": _files(path)}, open=True, read=True).result()


def _files(path: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{path.absolute()}/"}


def table_directory(directory: Path, name: str) -> Path:
    """Where a table lies; raises ExportError for a name that is empty or too long."""
    if not 0 < len(escape(name).encode()) < 256:
        raise ExportError(f"table name {name!r} cannot name a directory; rename the feature")
    return directory / escape(name)


def require_free(directory: Path, overwrite: bool) -> None:
    """Raises ExportError where an export may not go: a finished one is there, or something else."""
    if (directory / INDEX).exists() and not overwrite:
        raise ExportError(
            f"{directory} holds a finished export; choose another directory, or overwrite it"
        )
    if directory.exists() and any(directory.iterdir()) and not _is_ours(directory):
        raise ExportError(f"{directory} holds other files; choose an empty or new directory")


def start(directory: Path, overwrite: bool) -> None:
    """Makes the directory, without what an earlier export left in it; as `require_free` permits."""
    require_free(directory, overwrite)
    make_directory(directory)
    (directory / INDEX).unlink(missing_ok=True)  # first: what is half removed is unfinished
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
    make_directory(directory)
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_json(directory / "zarr.json", group)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def load_index(directory: Path) -> dict[str, Any]:
    """What a finished export says of itself; see `export`.

    Raises:
        ExportError: there is none.
    """
    path = Path(directory) / INDEX
    if not path.is_file():
        raise ExportError(
            f"{directory} is no finished export: it has no {INDEX}; run `ligr export` again"
        )
    return read_plain_json(path, "export again")


def bytes_of(directory: Path) -> int:
    """Sum of the sizes of all files below."""
    return sum(
        (Path(folder) / file).stat().st_size
        for folder, _, files in os.walk(directory)
        for file in files
    )
