"""What do 8 and 4 bits per value cost in error, size, time, and NE of a trained model?

    python experiments/quantize.py                     all of it
    python experiments/quantize.py --parts error       one part: error, files, model

error    Root mean square error of values read back, for rows of standard normal values.
         Middle-max is the library's; min-max keeps the minimum and has unsigned codes; max-abs
         keeps a scale alone and has zero at zero. "float16" is read back in float16 arithmetic.
files    A table of 1e6 x 64 to sharded zarr3 and rows back, by this process, files in the cache.
model    `demo-5` trained on a synthetic world of 3,000 members, its tables replaced by what is read
         back; the validation split.

Expected (21 November 2026, two AMD cores, shared with others during `files`):

    error     E    bits   middle-max   min-max    max-abs   float16: middle-max   min-max   bytes
              32    8       0.004604   0.004604   0.005348             0.004619   0.004680  31.2 %
              32    4       0.078290   0.078290   0.097107             0.078291   0.078295  18.8 %
              64    8       0.005263   0.005263   0.005916             0.005276   0.005347  28.1 %
              64    4       0.089473   0.089473   0.107385             0.089474   0.089478  15.6 %
             128    8       0.005868   0.005868   0.006465             0.005880   0.005955  26.6 %
             128    4       0.099789   0.099789   0.117310             0.099790   0.099794  14.1 %

Middle-max and min-max have the same grid, so the same error; LiRank's argument for the middle holds
where the sum that reads back is coarse, by 1.3 % at 8 bits in float16. Against max-abs, which
leaves unused what a row does not reach, both gain 9 to 14 % at 8 bits and 15 to 19 % at 4.

    files   bits   of float32   write, MB/s of float32   peak memory, MB   ms a row   ms for 256
             32      100.1 %               570 to 920           up to 120       0.12           12
              8       28.2 %               230 to 390           up to 120       0.17            9
              4       15.7 %               200 to 360            up to 85       0.19            7

    model               RMSE over deviation        NE   above float32       AUC
    float32                                  0.930247                  0.701312
    middle-max, 8 bits               0.0039  0.930250       +0.000003  0.701317
    min-max, 8 bits                  0.0039  0.930250       +0.000003  0.701317
    max-abs, 8 bits                  0.0046  0.930243       -0.000005  0.701309
    middle-max, 4 bits               0.0656  0.930302       +0.000055  0.701288
    min-max, 4 bits                  0.0656  0.930302       +0.000055  0.701288
    max-abs, 4 bits                  0.0835  0.930265       +0.000017  0.701268

Eight bits change nothing, four next to nothing: this model is small and its rows stay near where
they began. One seed, one world; LiRank's gain of 0.9 % CTR by quantizing is not to be seen here.

Time: 2 minutes.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores

ROWS, WIDTH = 1_000_000, 64


def main() -> None:
    show_messages()
    use_all_cores()  # before JAX starts
    args = arguments()
    for part in args.parts:
        PARTS[part](args.out / part)


def middle_max(x: np.ndarray, bits: int) -> np.ndarray:
    from ligr_jax.ops.quantization import dequantize, quantize

    return dequantize(quantize(x, bits))


def min_max(x: np.ndarray, bits: int, read: type = np.float32) -> np.ndarray:
    """Quantize to codes 0..2^bits - 1 from the minimum."""
    low = x.min(axis=1, keepdims=True)
    scale = (x.max(axis=1, keepdims=True) - low) / np.float32(2**bits - 1)
    codes = np.rint((x - low) / scale)
    return low.astype(read) + codes.astype(read) * scale.astype(read)


def max_abs(x: np.ndarray, bits: int) -> np.ndarray:
    """Quantize to codes -m..m with m = 2^(bits-1) - 1, where zero is code 0."""
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    return np.rint(x / np.where(scale > 0, scale, 1)) * scale


def middle_max_float16(x: np.ndarray, bits: int) -> np.ndarray:
    from ligr_jax.ops.quantization import quantize, unpack

    q = quantize(x, bits)
    codes = unpack(q.codes, x.shape[1]) if bits == 4 else q.codes
    scale, middle = q.scale.astype(np.float16), q.middle.astype(np.float16)
    return middle[:, None] + codes.astype(np.float16) * scale[:, None]


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "middle-max": middle_max,
    "min-max": min_max,
    "max-abs": max_abs,
    "middle-max, float16": middle_max_float16,
    "min-max, float16": lambda x, bits: min_max(x, bits, np.float16),
}


def error(_: Path) -> None:
    """Report the RMSE of every method on normal rows."""
    print("\n| E | bits |", " | ".join(METHODS), "| bytes of float32 |\n" + "|---" * 8 + "|")
    for width in (32, 64, 128):
        x = np.random.default_rng(width).normal(size=(50_000, width)).astype(np.float32)
        for bits in (8, 4):
            cells = []
            for method in METHODS.values():
                off = method(x, bits).astype(np.float64) - x
                cells.append(f"{np.sqrt(np.mean(off**2)):.6f}")
            size = (-(-width * bits // 8) + 8) / (4 * width)
            print(f"| {width} | {bits} |", " | ".join(cells), f"| {size:.1%} |", flush=True)


def files(out: Path) -> None:
    """Report the time to write a table and to read rows of it."""
    import jax

    from ligr_jax.tables.export import Source, export
    from ligr_jax.tables.exported import ExportedTable

    rng = np.random.default_rng(0)
    table = jax.device_put(rng.standard_normal((ROWS, WIDTH), np.float32)).block_until_ready()
    print(f"\n{ROWS:,} x {WIDTH}, {table.nbytes / 1e6:.0f} MB of float32 on {table.device}\n")
    columns = "bits | bytes | of float32 | float32 MB/s | memory above the table, MB | ms a row"
    print(f"| {columns} | ms for 256 rows |\n" + "|---" * 7 + "|")
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
        size = index["tables"]["table"]["bytes"]
        print(
            f"| {bits} | {size:,} | {size / table.nbytes:.1%} "
            f"| {table.nbytes / 1e6 / np.median(seconds):.0f} | {max(memory) / 1e6:.0f} "
            f"| {1e3 * one:.2f} | {1e3 * many:.1f} |",
            flush=True,
        )


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


def model(out: Path) -> None:
    """Report NE and AUC of a trained run with quantized tables."""
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
    held = {name: np.asarray(table) for name, table in tables.items()}
    for name, table in held.items():
        print(f"{name}: {table.shape[0]:,} x {table.shape[1]}, deviation {table.std():.4f}")
    print("\n| tables | RMSE over deviation | NE | above float32 | AUC |\n" + "|---" * 5 + "|")
    reference = None
    cases = [(None, 32), *((m, b) for b in (8, 4) for m in ("middle-max", "min-max", "max-abs"))]
    for method, bits in cases:
        read = {k: METHODS[method](x, bits) if method else x for k, x in held.items()}
        off = np.mean([np.sqrt(np.mean((read[k] - x) ** 2)) / x.std() for k, x in held.items()])
        numbers = evaluator(state._replace(params={**dense, TABLES: read}), "validation")
        ne, auc = numbers["validation/ne"], numbers["validation/auc"]
        reference = ne if reference is None else reference
        name = f"{method}, {bits} bits" if method else "float32"
        print(f"| {name} | {off:.4f} | {ne:.6f} | {ne - reference:+.6f} | {auc:.6f} |", flush=True)


PARTS = {"error": error, "files": files, "model": model}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="[all]")
    add("--out", type=Path, default=Path("runs/quantize"), help="[%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
