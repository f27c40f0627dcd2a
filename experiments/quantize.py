"""What do 8 and 4 bits per value cost in error, size, time, and NE of a trained model?

    python experiments/quantize.py                     all of it
    python experiments/quantize.py --parts error       one part: error, files, model

error    Root mean square error of values read back, for rows of standard normal values.
         Middle-max is the library's; min-max keeps the minimum and has unsigned codes; max-abs
         keeps a scale alone and has zero at zero. "float16" is read back in float16 arithmetic.
files    A table of 1e6 x 64 to sharded zarr3 and rows back, by this process, files in the cache.
model    `demo-5` trained on a synthetic world of 3,000 members, its tables replaced by what is read
         back; the validation split.

Expected: 8 bits change nothing and 4 bits next to nothing, in a small model whose rows stay near
their initial values. Numbers: experiments/results/quantize.json. Time: 2 minutes.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Cell, Column, Study

from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores

ROWS, WIDTH = 1_000_000, 64


def main() -> None:
    show_messages()
    use_all_cores()  # before JAX starts
    args = arguments()
    study = Study.of(__file__, __doc__, (0,))
    for part in args.parts:
        PARTS[part](study, args.out / part)
    study.record(args.record)


def middle_max(x: np.ndarray, bits: int) -> np.ndarray:
    from ligr_jax.ops.quantization import dequantize, quantize

    result: np.ndarray = dequantize(quantize(x, bits))
    return result


def min_max(x: np.ndarray, bits: int, read: type = np.float32) -> np.ndarray:
    """Quantize to codes 0..2^bits - 1 from the minimum."""
    low = x.min(axis=1, keepdims=True)
    scale = (x.max(axis=1, keepdims=True) - low) / np.float32(2**bits - 1)
    codes = np.rint((x - low) / scale)
    result: np.ndarray = low.astype(read) + codes.astype(read) * scale.astype(read)
    return result


def max_abs(x: np.ndarray, bits: int) -> np.ndarray:
    """Quantize to codes -m..m with m = 2^(bits-1) - 1, where zero is code 0."""
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    result: np.ndarray = np.rint(x / np.where(scale > 0, scale, 1)) * scale
    return result


def middle_max_float16(x: np.ndarray, bits: int) -> np.ndarray:
    from ligr_jax.ops.quantization import quantize, unpack

    q = quantize(x, bits)
    codes = unpack(q.codes, x.shape[1]) if bits == 4 else q.codes
    scale, middle = q.scale.astype(np.float16), q.middle.astype(np.float16)
    result: np.ndarray = middle[:, None] + codes.astype(np.float16) * scale[:, None]
    return result


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "middle-max": middle_max,
    "min-max": min_max,
    "max-abs": max_abs,
    "middle-max, float16": middle_max_float16,
    "min-max, float16": lambda x, bits: min_max(x, bits, np.float16),
}


def error(study: Study, _: Path) -> None:
    """Add the RMSE of every method on normal rows."""
    rows: list[list[Cell]] = []
    for width in (32, 64, 128):
        x = np.random.default_rng(width).normal(size=(50_000, width)).astype(np.float32)
        for bits in (8, 4):
            off = (method(x, bits).astype(np.float64) - x for method in METHODS.values())
            cells = (float(np.sqrt(np.mean(d**2))) for d in off)
            size = (-(-width * bits // 8) + 8) / (4 * width)
            rows.append([width, bits, *cells, 100 * size])
    columns = [
        Column("E", "d"),
        Column("bits", "d"),
        *(Column(name, ".6f") for name in METHODS),
        Column("bytes of float32, %", ".1f"),
    ]
    study.add("error", "Root mean square error of standard normal values.", columns, rows)


def files(study: Study, out: Path) -> None:
    """Add the time to write a table and to read rows of it."""
    import jax

    from ligr_jax.tables.export import export
    from ligr_jax.tables.exported import ExportedTable
    from ligr_jax.tables.pieces import Source

    rng = np.random.default_rng(0)
    table = jax.device_put(rng.standard_normal((ROWS, WIDTH), np.float32)).block_until_ready()
    print(f"\n{ROWS:,} x {WIDTH}, {table.nbytes / 1e6:.0f} MB of float32 on {table.device}\n")
    rows: list[list[Cell]] = []
    for bits in (32, 8, 4):
        seconds, memory = [], []
        for _ in range(3):
            shutil.rmtree(out, ignore_errors=True)
            before = peak_bytes(reset=True)
            began = time.perf_counter()
            index = export([Source("table", table, ROWS, WIDTH)], out, bits)
            seconds.append(time.perf_counter() - began)
            memory.append(peak_bytes() - before)
        read = ExportedTable.open(out, "table")
        one, many = (
            np.median([clock(read, rng.integers(0, ROWS, n)) for _ in range(rounds)])
            for n, rounds in ((1, 2000), (256, 50))
        )
        speeds = [table.nbytes / 1e6 / s for s in seconds]
        rows.append(
            [
                bits,
                100 * index["tables"]["table"]["bytes"] / table.nbytes,
                {"low": min(speeds), "high": max(speeds)},
                max(memory) / 1e6,
                1e3 * float(one),
                1e3 * float(many),
            ]
        )
    columns = [
        Column("bits", "d"),
        Column("bytes of float32, %", ".1f"),
        Column("write, MB/s of float32", ".0f"),
        Column("peak memory above the table, MB", ".0f"),
        Column("a row, ms", ".2f"),
        Column("256 rows, ms", ".0f"),
    ]
    study.add("files", f"A table of {ROWS:,} x {WIDTH} to zarr3 and back.", columns, rows)


def clock(read: Any, ids: np.ndarray) -> float:
    began = time.perf_counter()
    read.rows(ids)
    return time.perf_counter() - began


def peak_bytes(reset: bool = False) -> int:
    """Return the peak memory of this process, since the last reset where Linux permits one."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    if not status.exists():
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def model(study: Study, out: Path) -> None:
    """Add NE and AUC of a trained run with quantized tables."""
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions
    from ligr_jax.data.sources.canonical import canonical_source
    from ligr_jax.data.world.generate import WorldConfig, generate_world
    from ligr_jax.scaling.ladder import configure
    from ligr_jax.tables.table import TABLES
    from ligr_jax.train.evaluate import restore
    from ligr_jax.train.loop import train
    from ligr_jax.train.optimizer import split_tables

    data, run = out / "prepared", out / "run"
    if not (data / "manifest.json").exists():
        generate_world(WorldConfig(members=3000), out / "log")
        prepare(canonical_source(out / "log"), data, PrepareOptions())
    settings = ["preset=demo-5", "track.wandb=off"]
    train(configure(load_manifest(data), data, settings), run)
    evaluator, state = restore(run)
    dense, tables = split_tables(state.params)
    trained = {name: np.asarray(table) for name, table in tables.items()}
    for name, table in trained.items():
        print(f"{name}: {table.shape[0]:,} x {table.shape[1]}, deviation {table.std():.4f}")
    reference = None
    rows: list[list[Cell]] = []
    cases = [(None, 32), *((m, b) for b in (8, 4) for m in ("middle-max", "min-max", "max-abs"))]
    for method, bits in cases:
        read = {k: METHODS[method](x, bits) if method else x for k, x in trained.items()}
        off = np.mean([np.sqrt(np.mean((read[k] - x) ** 2)) / x.std() for k, x in trained.items()])
        numbers = evaluator(state._replace(params={**dense, TABLES: read}), "validation")
        ne, auc = numbers["validation/ne"], numbers["validation/auc"]
        reference = ne if reference is None else reference
        name = f"{method}, {bits} bits" if method else "float32"
        rows.append([name, float(off) if method else None, ne, ne - reference, auc])
    columns = [
        Column("tables"),
        Column("RMSE over deviation", ".4f"),
        Column("NE", ".6f"),
        Column("above float32", "+.6f"),
        Column("AUC", ".6f"),
    ]
    study.add("model", "A trained model with quantized tables, validation split.", columns, rows)


PARTS = {"error": error, "files": files, "model": model}


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="[all]")
    add("--out", type=Path, default=Path("runs/quantize"), help="[%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
