"""Exported tables: rows equal those of the table; damaged or incomplete exports are not read."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ligr_jax.lock import LOCK, Busy
from ligr_jax.ops.quantization import dequantize, quantize
from ligr_jax.tables.export import Source, export
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.tables.pieces import blocks_of, pieces_of
from ligr_jax.tables.zarr import DamagedTable, ExportError, ReplacedExport, load_index

V, E = 66_001, 22  # two shards of rows; padded to divide by 8 and by 4
P = PartitionSpec
PLACES = {
    "replicated": P(),
    "columns": P(None, ("data", "model")),
    "rows": P(("data", "model")),
    "both": P("data", "model"),
}


def table(rows: int = V, width: int = E) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def as_read_back(x: np.ndarray, bits: int) -> np.ndarray:
    return x if bits == 32 else dequantize(quantize(x, bits))


def placed(x: np.ndarray, place: str) -> Any:
    """The table on eight devices, with padding of NaN that must not be read."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    padded = np.full((V + 7, 32), np.nan, np.float32)
    padded[:V, :E] = x
    return jax.device_put(padded, NamedSharding(mesh, PLACES[place]))


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("place", [*PLACES, "host"])
def test_rows_equal_the_tables_for_all_shardings(tmp_path: Path, place: str, bits: int) -> None:
    x = table()
    array = x if place == "host" else placed(x, place)
    export([Source("item_id", array, V, E)], tmp_path / "out", bits)
    read = ExportedTable.open(tmp_path / "out", "item_id")
    assert (read.shape, read.bits) == ((V, E), bits)
    wanted = as_read_back(x, bits)
    np.testing.assert_array_equal(read.rows(np.arange(V)), wanted)
    few = [65_536, 3, V - 1, 3, 65_535]
    np.testing.assert_array_equal(read.rows(few), wanted[few])
    about = load_index(tmp_path / "out")["tables"]["item_id"]
    assert about["rmse"] == pytest.approx(np.sqrt(np.mean((wanted - x) ** 2)), rel=1e-5)


@pytest.mark.parametrize("place", [*PLACES, "host"])
def test_every_value_is_transferred_once_and_at_most_a_shard_at_once(place: str) -> None:
    x = table()
    source = Source("t", x if place == "host" else placed(x, place), V, E)
    seen = np.zeros((V, E), int)
    for piece, begin, end in blocks_of(pieces_of(source, bits=8)):
        block = piece.read(begin, end)
        assert begin // 65_536 == (end - 1) // 65_536
        seen[begin:end, piece.column : piece.column + block.shape[1]] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 7), (513, 3), (600, 128)])
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_small_tables_are_small_files(tmp_path: Path, rows: int, width: int, bits: int) -> None:
    x = table(rows, width)
    index = export([Source("t", x, rows, width)], tmp_path, bits, run={"digest": "abc"})
    read = ExportedTable.open(tmp_path, "t")
    np.testing.assert_array_equal(read.rows(range(rows)), as_read_back(x, bits))
    # Whole chunks, and what is fixed: a description and a shard's index per array.
    assert index["tables"]["t"]["bytes"] < 2 * rows * (width * bits / 8 + 8) + 6000
    assert load_index(tmp_path) == index


@pytest.fixture
def exported(tmp_path: Path) -> Callable[[int], Path]:
    def make(bits: int) -> Path:
        out = tmp_path / f"bits{bits}"
        export([Source("t", table(), V, E)], out, bits)
        return out

    return make


@pytest.mark.parametrize(
    ("bits", "array"), [(32, "values"), (8, "codes"), (4, "codes"), (8, "scale"), (8, "middle")]
)
def test_one_flipped_bit_is_an_error_that_names_its_rows(
    exported: Callable[[int], Path], bits: int, array: str
) -> None:
    out = exported(bits)
    shard = min((out / "t" / array / "c").glob("0*/**/*"), default=out / "t" / array / "c" / "0")
    content = bytearray(shard.read_bytes())
    row = len(content) // 128 // 512  # bytes of one
    content[row * 512 * 3 + 40] ^= 4  # the fourth chunk: rows 1536 to 2047
    shard.write_bytes(content)
    read = ExportedTable.open(out, "t")
    with pytest.raises(
        DamagedTable, match=rf"t/{array}: rows 1536 to 2047 are damaged .*DATA_LOSS"
    ):
        read.rows([5, 1600, 40_000])
    np.testing.assert_array_equal(
        read.rows([1535, 2048]), as_read_back(table(), bits)[[1535, 2048]]
    )


def test_missing_truncated_and_swapped_files_are_detected_on_opening(
    exported: Callable[[int], Path],
) -> None:
    out = exported(8)
    shard, saved = out / "t" / "codes" / "c" / "0" / "0", []
    saved = shard.read_bytes()
    for content in (None, saved[:-100], b""):
        shard.unlink() if content is None else shard.write_bytes(content)
        with pytest.raises(DamagedTable, match="bytes"):
            ExportedTable.open(out, "t")
    shard.write_bytes(saved)
    description = out / "t" / "codes" / "zarr.json"
    for old, new in (("66001", "66002"), ("zarr_format", "zarr_fromat")):
        text = description.read_text()
        description.write_text(text.replace(old, new))
        with pytest.raises(DamagedTable, match="t/codes"):
            ExportedTable.open(out, "t")
        description.write_text(text)
    ExportedTable.open(out, "t")


@pytest.mark.parametrize("bad", [-1, V, 2**40])
def test_ids_out_of_range_are_refused(exported: Callable[[int], Path], bad: int) -> None:
    read = ExportedTable.open(exported(8), "t")
    with pytest.raises(IndexError, match=rf"id {bad} is outside 0\.\.66000"):
        read.rows([0, bad])
    assert read.rows([]).shape == (0, E)


def test_interrupted_export_is_unfinished_and_can_be_repeated(tmp_path: Path) -> None:
    x, out = table(600), tmp_path / "out"

    def dying() -> Iterator[Source]:
        yield Source("t", x, 600, E)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(dying(), out, 8)
    with pytest.raises(ExportError, match="not a finished export"):
        ExportedTable.open(out, "t")
    export([Source("t", x[:, :4], 600, 4)], out, 8)
    np.testing.assert_array_equal(
        ExportedTable.open(out, "t").rows([7]), as_read_back(x[:, :4], 8)[[7]]
    )
    before = sorted(out.rglob("*"))
    with pytest.raises(ExportError, match="finished export"):
        export([Source("u", x, 600, E)], out, 8)
    assert sorted(out.rglob("*")) == before
    with pytest.raises(KeyboardInterrupt):
        export(dying(), out, 8, overwrite=True)
    with pytest.raises(ExportError, match="not a finished export"):
        ExportedTable.open(out, "t")
    export([Source("u", x, 600, E)], out, 32, overwrite=True)
    with pytest.raises(ExportError, match="no table 't'; it has u"):
        ExportedTable.open(out, "t")


def test_one_export_at_a_time_writes_a_directory_and_readers_see_no_mixture(
    tmp_path: Path,
) -> None:
    x, out = table(600), tmp_path / "out"
    export([Source("t", x, 600, E)], out, 8)
    reader = ExportedTable.open(out, "t")

    def during() -> Iterator[Source]:
        """The second export and the reader of the replaced tables come in the middle."""
        with pytest.raises(Busy, match="another process is exporting tables there"):
            export([Source("t", x, 600, E)], out, 8, overwrite=True)
        yield Source("t", x + 1, 600, E)
        with pytest.raises(ReplacedExport, match="open it again"):
            reader.rows([7])

    export(during(), out, 8, overwrite=True)
    with pytest.raises(ReplacedExport, match="open it again"):
        reader.rows([7])
    again = ExportedTable.open(out, "t")
    np.testing.assert_array_equal(again.rows([7]), as_read_back(x + 1, 8)[[7]])
    assert not (out / LOCK).exists()
    # A kill between taking the lock and the first file leaves a directory that can be used.
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / LOCK).touch()
    export([Source("t", x, 600, E)], tmp_path / "killed", 8)


def test_foreign_files_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ExportError, match="holds other files"):
        export([Source("t", table(600), 600, E)], tmp_path, 8, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


def test_invalid_exports_are_refused_with_the_reason(tmp_path: Path) -> None:
    x = table(600)
    x[123, 4] = np.nan
    for bits in (32, 4):
        with pytest.raises(ExportError, match=r"table 't': row 123 .*finite"):
            export([Source("t", x, 600, E)], tmp_path / "nan", bits)
    columns = placed(table(), "columns")
    with pytest.raises(ExportError, match=r"at most that of the array"):
        export([Source("t", columns, V, 33)], tmp_path / "wide", 8)
    narrow = jax.device_put(np.ones((600, 24), np.float32), columns.sharding)
    with pytest.raises(ExportError, match="3 columns per device"):
        export([Source("t", narrow, 600, 24)], tmp_path / "odd", 4)
    for name in ("", "t" * 256):
        with pytest.raises(ExportError, match="cannot name a directory"):
            export([Source(name, table(600), 600, E)], tmp_path / "name", 8)
    with pytest.raises(ExportError, match="bits=16"):
        export([], tmp_path / "bits", 16)


PROCESS = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ligr_jax.tables.export import Source, export
rank, port, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, rank)
x = np.load(out / "table.npy")
for axes in ((None, "all"), ("all",)):
    place = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), P(*axes))
    array = jax.make_array_from_callback(x.shape, place, lambda index: x[index])
    export([Source("t", array, *x.shape)], out / f"split{len(axes)}", 8)
"""


def test_two_processes_write_one_table(tmp_path: Path, child_env: dict[str, str]) -> None:
    """Sharded by columns, where a row's range needs both processes; and by rows within a shard."""
    x = table(1200, 8)
    np.save(tmp_path / "table.npy", x)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", PROCESS]
    processes = [
        subprocess.Popen(
            [*command, str(rank), port, str(tmp_path)], env=child_env, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
    for split in ("split1", "split2"):
        read = ExportedTable.open(tmp_path / split, "t")
        np.testing.assert_array_equal(read.rows(range(1200)), as_read_back(x, 8))
