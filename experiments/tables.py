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
perfect_hash.py (which needs `pip install bbhash`), quantize.py and ten_million.py too: 13 minutes.

Expected: 2 to 5 times as fast as PyTorch's sparse optimizers; V = 1e7 takes 1.4 to 1.8 times V =
1e5; planned and sent bytes are equal. Numbers: experiments/results/tables.json. Time: 4 minutes.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, Worker, allocator, alternate, quartiles, ratio

ROWS = (100_000, 1_000_000, 10_000_000)
TORCH = ("Adagrad", "SparseAdam", "row-wise")
# data x model: the whole batch on 2, 4 and 8 devices.
MESHES = ((1, 2), (1, 4), (1, 8), (2, 4))
MESH_ROWS = 1_000_000  # at most, on meshes: eight simulated devices have a copy each
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
    study = Study.of(__file__, __doc__)
    workers = Workers(env, args.meshes)
    report = {part: PARTS[part](study, args, workers) for part in args.parts}
    workers.close()
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(args.out)
    study.record(args.record)
    for script in OTHERS if args.all else ():
        print(f"\n{script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


class Workers:
    """The environment of the workers, and those with simulated devices, which two parts share."""

    def __init__(self, env: dict[str, str], meshes: list[tuple[int, int]]) -> None:
        self.env = env
        self.meshes = meshes
        self._simulated: dict[str, Worker] = {}

    def simulated(self) -> dict[str, Worker]:
        """Return a process per mesh, with that number of simulated devices."""
        # The last of two such flags applies.
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count={}"
        self._simulated = self._simulated or {
            f"{d} x {m}": Worker(
                sys.executable, "tables_jax", {**self.env, "XLA_FLAGS": flags.format(d * m)}
            )
            for d, m in self.meshes
        }
        return self._simulated

    def close(self) -> None:
        """End the processes with simulated devices."""
        for worker in self._simulated.values():
            worker.close()


def race(
    study: Study, args: argparse.Namespace, workers: Workers
) -> dict[str, dict[str, list[float]]]:
    """Add one device against PyTorch."""
    ours = Worker(sys.executable, "tables_jax", workers.env)
    theirs = Worker(args.torch, "tables_torch", workers.env) if args.torch else None
    sides = [side for side in (ours, theirs) if side]
    for side in sides:
        print(side.ask("hello"))
    seconds: dict[str, dict[str, list[float]]] = {}
    rows: list[list[Cell]] = []
    for law, v in itertools.product(("zipf", "uniform"), args.rows):
        samples: dict[str, Any] = {}
        for kind in ("rowwise", "host") + ("dense",) * (v <= DENSE_UP_TO):
            samples[kind] = contestant(ours, kind, law, v, args.lookups)
        if theirs:
            samples |= {kind: contestant(theirs, kind, law, v, args.lookups) for kind in TORCH}
        alternate(samples, 2)  # compiles and warms
        seconds[f"{law} {v}"] = times = alternate(samples, args.rounds)
        cells = (1e3 * quartiles(times[k])[1] if k in times else None for k in COLUMNS)
        rows.append([law, v, *cells])
    for side in sides:
        side.close()
    columns = [Column("ids"), Column("V", ",d"), *(Column(name, ".1f") for name in COLUMNS)]
    study.add("times", "One device: medians, ms.", columns, rows)
    add_ratios(study, seconds)
    return seconds


def on_meshes(study: Study, args: argparse.Namespace, workers: Workers) -> list[dict[str, Any]]:
    """Add the same global batch on 2, 4 and 8 simulated devices with every placement."""
    simulated = workers.simulated()
    results = []
    rows: list[list[Cell]] = []
    for placement, v in itertools.product(PLACEMENTS, fewest_and_most(args.rows, args.mesh_rows)):
        samples, sent = {}, {}
        for (data, model), (key, worker) in zip(workers.meshes, simulated.items()):
            mesh = {"data": data, "model": model, "placement": placement}
            case = {"law": "zipf", "rows": v, "count": args.lookups, **mesh}
            sent[key] = worker.ask("prepare", kind="rowwise", **case)
            samples[key] = partial(worker.ask, "sample", kind="rowwise")
        alternate(samples, 2)
        times = alternate(samples, args.rounds)
        results.append({"placement": placement, "rows": v, "seconds": times, "bytes": sent})
        for key, size in sent.items():
            mib = (size[kind] / 2**20 for kind in ("planned", "sent"))
            rows.append([placement, v, key, 1e3 * quartiles(times[key])[1], *mib])
    columns = [
        Column("placement"),
        Column("V", ",d"),
        Column("data x model"),
        Column("step, ms", ".1f"),
        Column("planned, MiB", ".1f"),
        Column("sent, MiB", ".1f"),
    ]
    caption = "One table on simulated devices: time of a step, and what each device sends in it."
    study.add("mesh", caption, columns, rows)
    return results


def whole_steps(study: Study, args: argparse.Namespace, workers: Workers) -> list[dict[str, Any]]:
    """Add a training step of a model with two tables sharded by columns over all devices."""
    simulated = workers.simulated()
    results = []
    rows: list[list[Cell]] = []
    for v in fewest_and_most(args.rows, args.mesh_rows):
        samples = {}
        for (data, model), (key, worker) in zip(workers.meshes, simulated.items()):
            mesh = {"data": data, "model": model, "placement": "column_wise"}
            worker.ask(
                "prepare_step",
                case=args.case,
                layers={**MODEL, "depth": args.depth},
                rows=v,
                mesh=mesh,
            )
            samples[key] = partial(worker.ask, "sample", kind="step")
        alternate(samples, 1)
        times = alternate(samples, args.rounds)
        results.append({"rows": v, "seconds": times})
        rows.append([v, *(1e3 * quartiles(times[key])[1] for key in simulated)])
    columns = [Column("V", ",d"), *(Column(f"{key}, ms", ".0f") for key in simulated)]
    study.add("step", "A whole training step, tables by columns.", columns, rows)
    return results


PARTS = {"race": race, "mesh": on_meshes, "step": whole_steps}
OTHERS = ("perfect_hash.py", "quantize.py", "ten_million.py")


def contestant(side: Worker, kind: str, law: str, rows: int, count: int) -> Callable[[], float]:
    side.ask("prepare", kind=kind, law=law, rows=rows, count=count)
    return lambda: side.ask("sample", kind=kind)


def mesh(text: str) -> tuple[int, int]:
    """Return the sizes of both axes of "2x4"."""
    data, model = text.split("x")
    return int(data), int(model)


def fewest_and_most(rows: list[int], most: int) -> list[int]:
    """Return the numbers of rows that are measured on meshes: the fewest, and at most `most`."""
    return sorted({min(rows), min(max(rows), most)})


def add_ratios(study: Study, seconds: dict[str, dict[str, list[float]]]) -> None:
    """Add the ratios of PyTorch's times to ours; print those of a hundred times the rows."""
    rows: list[list[Cell]] = []
    for case, times in seconds.items():
        law, v = case.split()
        if TORCH[0] in times:
            cells = []
            for kind in TORCH:
                low, middle, high = ratio(times[kind], times["rowwise"])
                cells.append(interval(middle, low, high))
            rows.append([law, int(v), *cells])
    if rows:
        columns = [Column("ids"), Column("V", ",d"), *(Column(name, ".1f") for name in TORCH)]
        caption = "PyTorch's times over ours: medians of the rounds' ratios, with quartiles."
        study.add("ratios", caption, columns, rows)
    for law in ("zipf", "uniform"):
        of_law = [times["rowwise"] for case, times in seconds.items() if law in case]
        if len(of_law) > 1:
            grown = quartiles(of_law[-1])[1] / quartiles(of_law[0])[1]
            print(f"{law}: rowwise at the largest V over the smallest {grown:.2f}")


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/tables.json"), help="[%(default)s]")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="[all]")
    add(
        "--all", action="store_true", help="run perfect_hash.py, quantize.py and ten_million.py too"
    )
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--rows", type=int, nargs="+", default=ROWS, metavar="V")
    add("--mesh-rows", type=int, default=MESH_ROWS, metavar="V", help="at most [%(default)s]")
    add("--meshes", type=mesh, nargs="+", default=MESHES, metavar="DATAxMODEL", help="[all]")
    add("--lookups", type=int, default=100_000, help="a step [%(default)s]")
    add("--tokens", type=int, default=CASE["tokens"], help="of the whole step [%(default)s]")
    add("--depth", type=int, default=MODEL["depth"], help="of the whole step [%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    args = parser.parse_args()
    args.case = {**CASE, "tokens": args.tokens, "batch": 16}
    return args


if __name__ == "__main__":
    main()
