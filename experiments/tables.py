"""Does the cost of training an embedding table grow with its rows, and is it below PyTorch's?

    python experiments/tables.py --torch TORCH_ENV/bin/python      the whole table
    python experiments/tables.py                                   JAX alone

E = 32, 100,000 lookups a step, drawn from a Zipf law or uniformly, in V = 1e5, 1e6 and 1e7 rows. A
step looks the rows up, takes a given gradient of what was looked up, and moves the table. Both
sides get the same ids; this side gets their distinct rows and places from the host, as its input
pipeline gives them. Processes are kept alive and take turns; a time is the median over the rounds.

    rowwise               `tables.sparse` with row-wise AdaGrad, table and state donated
    host                  what the input pipeline does for it, in threads beside the step
    dense                 optax's Adam over the whole table, up to V = 1e6
    Adagrad, SparseAdam   PyTorch's nn.Embedding(sparse=True) with its optimizers
    row-wise              the same embedding with a row-wise AdaGrad written out by hand

Expected (21 November 2026, two AMD cores with AVX-512, one device, jemalloc, PyTorch 2.13), ms:

    law      V       rowwise   host   dense   Adagrad   SparseAdam   row-wise
    zipf     1e5         5.2    2.7     5.9      15.6         19.2       11.5
    zipf     1e6         9.4    2.6    39.3      26.4         27.6       15.0
    zipf     1e7        26.9    4.1              68.9         78.5       43.4
    uniform  1e5        11.7    3.2    13.7      23.0         30.9       23.9
    uniform  1e6        12.9    2.0    45.7      32.9         48.7       17.2
    uniform  1e7        16.5    2.4              51.0         74.6       22.0

By ratios of rounds 2.4 to 2.9 times as fast as Adagrad, 1.4 to 2.2 times the row-wise one written
by hand. Under the Zipf law a larger table has more distinct rows in a batch: that, not V, makes its
steps longer. Gathers and scatters of XLA run on one core here.

Time: 2 minutes.
"""

import argparse
import itertools
import json
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
PLACEMENTS = ("replicated", "column", "row", "table")
COLUMNS = ("rowwise", "host", "dense", *TORCH)
DENSE_UP_TO = 1_000_000


def main() -> None:
    args, neighbours = arguments(), Neighbours()
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
    """One device against PyTorch."""
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
        for kind in TORCH if theirs else ():
            samples[kind] = contestant(theirs, kind, law, v, args.lookups)
        alternate(samples, 2)  # compiles and warms
        seconds[f"{law} {v}"] = times = alternate(samples, args.rounds)
        cells = (f"{1e3 * quartiles(times[k])[1]:.1f}" if k in times else "" for k in COLUMNS)
        print(f"| {law} | {v:,} |", " | ".join(cells), "|", flush=True)
    for side in sides:
        side.close()
    print(*ratios(seconds), sep="\n")
    return seconds


def on_meshes(args: argparse.Namespace, env: dict[str, str]) -> list[dict[str, Any]]:
    """The same global batch on 2, 4 and 8 simulated devices, placed in every way."""
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
    for placement, v in itertools.product(
        PLACEMENTS, (min(args.rows), min(max(args.rows), MESH_ROWS))
    ):
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
    """A training step of a model whose two tables are split by columns over all devices."""
    print(
        "\nA whole training step, tables by columns: ms.\n\n| V |",
        " | ".join(f"{d} x {m}" for d, m in MESHES),
        "|\n" + "|---" * (1 + len(MESHES)) + "|",
    )
    workers, found = simulated(env), []
    for v in (min(args.rows), min(max(args.rows), MESH_ROWS)):
        samples = {}
        for (data, model), (key, worker) in zip(MESHES, workers.items()):
            mesh = {"data": data, "model": model, "placement": "column"}
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
    """A process for each mesh, with so many simulated devices."""
    flag = "--xla_force_host_platform_device_count={}"
    return {
        f"{d} x {m}": Worker(sys.executable, "tables_jax", {**env, "XLA_FLAGS": flag.format(d * m)})
        for d, m in MESHES
    }


PARTS = {"race": race, "mesh": on_meshes, "step": whole_steps}
# Their heads say what they found.
OTHERS = ("perfect_hash.py", "quantize.py", "ten_million.py")


def contestant(side: Worker, kind: str, law: str, rows: int, count: int) -> Callable[[], float]:
    side.ask("prepare", kind=kind, law=law, rows=rows, count=count)
    return lambda: side.ask("sample", kind=kind)


def ratios(seconds: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """PyTorch's times over ours, and what a hundred times the rows cost."""
    yield ""
    for case, times in seconds.items():
        for kind in (k for k in TORCH if k in times):
            low, middle, high = ratio(times[kind], times["rowwise"])
            yield f"{case}: {kind} / rowwise {middle:.2f} [{low:.2f}, {high:.2f}]"
    for law in ("zipf", "uniform"):
        small, *_, large = (times["rowwise"] for case, times in seconds.items() if law in case)
        grown = quartiles(large)[1] / quartiles(small)[1]
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
