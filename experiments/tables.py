"""Does the cost of training an embedding table grow with its rows, and is it less than PyTorch's?

    python experiments/tables.py --torch TORCH_ENV/bin/python      the whole table
    python experiments/tables.py                                   JAX alone

E = 32, 100,000 lookups a step, drawn from a Zipf law or uniformly, in V = 1e5, 1e6 and 1e7 rows. A
step gathers the rows, takes a given gradient of them, and updates the table. Both
sides get the same ids; JAX gets their unique ids and indices from the host, as its input
pipeline gives them. Processes are kept alive and take turns; a time is the median over the rounds.

    rowwise               the library's step with row-wise AdaGrad, updated in place
    host                  what the input pipeline does for it, in threads during the step
    dense                 optax's Adam over the whole table, up to V = 1e6
    Adagrad, SparseAdam   PyTorch's nn.Embedding(sparse=True) with its optimizers
    row-wise              the same embedding with a row-wise AdaGrad written out by hand

Then the same on simulated devices (data x model) with every placement, with the bytes a device
sends per step as predicted by the planner and as read from the compiled program; and a full
training step (D = 128, 4 layers, T = 512, B = 16) with its two tables split by columns. --all runs
perfect_hash.py (which needs `pip install bbhash`), quantize.py and ten_million.py too, whose heads
have the results; with --all 13 minutes.

Expected (21 November 2026, two AMD cores with AVX-512, jemalloc, PyTorch 2.13), ms:

    law      V       rowwise   host   dense   Adagrad   SparseAdam   row-wise
    zipf     1e5         6.4    4.4     9.3      19.0         23.4       13.8
    zipf     1e6         9.3    5.1    43.6      32.0         39.9       23.4
    zipf     1e7        11.4    4.0              26.3         34.3       17.1
    uniform  1e5         9.3    4.0     7.7      21.4         25.7       15.8
    uniform  1e6        10.0    3.5    45.6      31.7         45.8       16.5
    uniform  1e7        13.1    3.6              41.9         58.4       23.6

By ratios of rounds 3.0, 3.1, 2.4, 2.3, 3.4, 3.2 times as fast as Adagrad, 2.2, 2.0, 1.6, 1.7, 1.7,
1.7 times the row-wise one written by hand; V = 1e7 takes 1.8 (Zipf) and 1.4 (uniform) times V =
1e5. Another run of the same day, slower on both sides, had 2.5 to 3.8 and 1.4 to 2.3. The traffic
bound is 2 ms. Most of the time is XLA's gather on a CPU.

On two cores simulated devices only share them; ms, and MiB that each sends:

    placement    V      1 x 2         1 x 4         1 x 8         2 x 4
    replicated   1e5    11.3   12.2   16.7   18.3   28.4   21.4   28.4   21.4
    replicated   1e6    15.5   12.2   22.4   18.3   37.7   21.4   36.0   21.4
    column_wise  1e5    13.3    6.9   13.9    5.7   15.7    4.0   20.6    6.2
    column_wise  1e6    14.7    6.9   14.4    5.7   20.1    4.0   23.2    6.2
    row_wise     1e6    16.4   12.6   26.2   18.9   46.1   22.0   36.0   21.6
    table_wise   1e6    19.2   12.6   28.9   18.9   51.0   22.0   38.8   21.6

Planned and sent bytes are equal in every case. A whole step: 339, 326, 350, 350 ms at V = 1e5 and
284, 297, 312, 306 ms at 1e6.

Time: 4 minutes.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from peers.workers import Neighbours, Worker, allocator, alternate, quartiles, ratio

ROWS = (100_000, 1_000_000, 10_000_000)
TORCH = ("Adagrad", "SparseAdam", "row-wise")
# data x model: the whole batch on 2, 4 and 8 devices.
MESHES = ((1, 2), (1, 4), (1, 8), (2, 4))
MESH_ROWS = 1_000_000  # eight simulated devices have a copy each
CASE = {"kind": "history", "tokens": 512, "session": 8, "members": 1, "dtype": "float32"}
MODEL = {"width": 128, "depth": 4, "set_depth": 0, "heads": 4}
PLACEMENTS = ("replicated", "column_wise", "row_wise", "table_wise")
COLUMNS = ("rowwise", "host", "dense", *TORCH)
DENSE_UP_TO = 1_000_000


def main() -> None:
    args, neighbours = arguments(), Neighbours()
    if args.all and importlib.util.find_spec("bbhash") is None:
        sys.exit("--all needs BBHash: pip install bbhash")
    name, env = allocator(args.allocator)
    print(f"allocator: {name}; {args.rounds} rounds", flush=True)
    report = {part: PARTS[part](args, env) for part in args.parts}
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(args.out)
    for script in OTHERS if args.all else ():
        print(f"\n{script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


def race(args: argparse.Namespace, env: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    """Report one device against PyTorch."""
    ours = Worker(sys.executable, "tables_jax", env)
    theirs = Worker(args.torch, "tables_torch", env) if args.torch else None
    sides = [side for side in (ours, theirs) if side]
    for side in sides:
        print(side.ask("hello"))
    seconds = {}
    print("\nMedians, ms.\n\n| law | V |", " | ".join(COLUMNS), "|\n" + "|---" * 8 + "|")
    for law, v in itertools.product(("zipf", "uniform"), args.rows):
        samples: dict[str, Any] = {}
        for kind in ("rowwise", "host") + ("dense",) * (v <= DENSE_UP_TO):
            samples[kind] = contestant(ours, kind, law, v, args.lookups)
        if theirs:
            samples |= {kind: contestant(theirs, kind, law, v, args.lookups) for kind in TORCH}
        alternate(samples, 2)  # compiles and warms
        seconds[f"{law} {v}"] = times = alternate(samples, args.rounds)
        cells = (f"{1e3 * quartiles(times[k])[1]:.1f}" if k in times else "" for k in COLUMNS)
        print(f"| {law} | {v:,} |", " | ".join(cells), "|", flush=True)
    for side in sides:
        side.close()
    print(*ratios(seconds), sep="\n")
    return seconds


def on_meshes(args: argparse.Namespace, env: dict[str, str]) -> list[dict[str, Any]]:
    """Report the same global batch on 2, 4 and 8 simulated devices with every placement."""
    print(
        "\nOne table on simulated devices: ms a step, and KiB a device sends in it, as planned and "
        "as compiled.\n\n| placement | V | "
        + " | ".join(f"{d} x {m} | planned | sent" for d, m in MESHES)
        + " |\n"
        + "|---" * (2 + 3 * len(MESHES))
        + "|"
    )
    workers = simulated(env)
    found = []
    for placement, v in itertools.product(PLACEMENTS, fewest_and_most(args.rows)):
        samples, sent = {}, {}
        for (data, model), (key, worker) in zip(MESHES, workers.items()):
            mesh = {"data": data, "model": model, "placement": placement}
            case = {"law": "zipf", "rows": v, "count": args.lookups, **mesh}
            sent[key] = worker.ask("prepare", kind="rowwise", **case)
            samples[key] = partial(worker.ask, "sample", kind="rowwise")
        alternate(samples, 2)
        times = alternate(samples, args.rounds)
        found.append({"placement": placement, "rows": v, "seconds": times, "bytes": sent})
        cells = []
        for key, size in sent.items():
            kib = (f"{size[x] / 1024:,.0f}" for x in ("planned", "sent"))
            cells += [f"{1e3 * quartiles(times[key])[1]:.1f}", *kib]
        print(f"| {placement} | {v:,} |", " | ".join(cells), "|", flush=True)
    for worker in workers.values():
        worker.close()
    return found


def whole_steps(args: argparse.Namespace, env: dict[str, str]) -> list[dict[str, Any]]:
    """Report a training step of a model with two tables sharded by columns over all devices."""
    print(
        "\nA whole training step, tables by columns: ms.\n\n| V |",
        " | ".join(f"{d} x {m}" for d, m in MESHES),
        "|\n" + "|---" * (1 + len(MESHES)) + "|",
    )
    workers, found = simulated(env), []
    for v in fewest_and_most(args.rows):
        samples = {}
        for (data, model), (key, worker) in zip(MESHES, workers.items()):
            mesh = {"data": data, "model": model, "placement": "column_wise"}
            worker.ask("prepare_step", case=args.case, layers=MODEL, rows=v, mesh=mesh)
            samples[key] = partial(worker.ask, "sample", kind="step")
        alternate(samples, 1)
        times = alternate(samples, args.rounds)
        found.append({"rows": v, "seconds": times})
        cells = (f"{1e3 * quartiles(times[key])[1]:.0f}" for key in workers)
        print(f"| {v:,} |", " | ".join(cells), "|", flush=True)
    for worker in workers.values():
        worker.close()
    return found


def simulated(env: dict[str, str]) -> dict[str, Worker]:
    """Return a process per mesh, with that number of simulated devices."""
    # The last of two such flags applies.
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count={}"
    return {
        f"{d} x {m}": Worker(
            sys.executable, "tables_jax", {**env, "XLA_FLAGS": flags.format(d * m)}
        )
        for d, m in MESHES
    }


PARTS = {"race": race, "mesh": on_meshes, "step": whole_steps}
# Their docstrings have the results.
OTHERS = ("perfect_hash.py", "quantize.py", "ten_million.py")


def contestant(side: Worker, kind: str, law: str, rows: int, count: int) -> Callable[[], float]:
    side.ask("prepare", kind=kind, law=law, rows=rows, count=count)
    return lambda: side.ask("sample", kind=kind)


def fewest_and_most(rows: list[int]) -> list[int]:
    """Return the numbers of rows that are measured on meshes: fewest, and most up to MESH_ROWS."""
    return sorted({min(rows), min(max(rows), MESH_ROWS)})


def ratios(seconds: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """Return the ratios of PyTorch's times to ours, and of a hundred times the rows."""
    yield ""
    for case, times in seconds.items():
        for kind in (k for k in TORCH if k in times):
            low, middle, high = ratio(times[kind], times["rowwise"])
            yield f"{case}: {kind} / rowwise {middle:.2f} [{low:.2f}, {high:.2f}]"
    for law in ("zipf", "uniform"):
        of_law = [times["rowwise"] for case, times in seconds.items() if law in case]
        if len(of_law) > 1:
            grown = quartiles(of_law[-1])[1] / quartiles(of_law[0])[1]
            yield f"{law}: rowwise at the largest V over the smallest {grown:.2f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/tables.json"), help="[%(default)s]")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="[all]")
    add("--all", action="store_true", help="and what tables are hashed, quantized, filled with")
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--rows", type=int, nargs="+", default=ROWS, metavar="V")
    add("--lookups", type=int, default=100_000, help="a step [%(default)s]")
    add("--tokens", type=int, default=CASE["tokens"], help="of the whole step [%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    args = parser.parse_args()
    args.case = {**CASE, "tokens": args.tokens, "batch": 16}
    return args


if __name__ == "__main__":
    main()
