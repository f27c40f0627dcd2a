"""Does a world of ten million items, with a table row per item, train within 6 GiB?

    python experiments/ten_million.py

Makes a world of 10 M items with content vectors, prepares it, and trains a small model whose item
table has 10,000,001 rows of 16 columns (640 MB, and 40 MB of row-wise AdaGrad), three checkpoints
and the final evaluation included: on one device and sharded by columns over two, with and without
jemalloc. Then the trained run is evaluated again with `ligr eval`. Peaks are of resident memory: of
the largest process of a command, and of all its processes together, sampled every 50 ms. Mapped
files count while they are in memory; `prepared/items.arrow` is 1.3 GiB of that.

Last, one process trains with 1e5 and with 1e7 rows in turn: a step's time must not grow with them.

Expected: at most 4.7 GiB; steps of 23 ms with 1e5 and with 1e7 rows. The model learns nothing here:
60 steps see a thousandth of the items. Numbers: experiments/results/ten_million.json. Time: 5
minutes; 4 GB on disk.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, alternate, quartiles

ITEMS, ROWS = 10_000_000, (100_000, 10_000_001)
SETTINGS = {
    "model.table_width": 16,
    "model.depth": 2,
    "model.width": 32,
    "data.seq_len": 128,
    "optim.batch": 16,
    "train.steps": 60,
    "train.checkpoint_every": 25,
    "eval.splits": "validation",
    "track.wandb": "off",
}
ONE = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
COLUMNS = ("mesh.model=2", "mesh.placement=column_wise")
LIMIT_MIB = 6 * 1024
STEPS = 5  # of a sample


def main() -> None:
    args = arguments()
    log, data = args.out / "log", args.out / "prepared"
    if args.times:
        print(json.dumps(step_times(data, args.rounds)))
        return
    neighbours = Neighbours()
    study = Study.of(__file__, __doc__, (0,))
    members = ("--members", str(args.members))
    peaks = [
        measured("world", ["world", "--items", str(ITEMS), *members, "--out", str(log)]),
        measured("prepare", ["prepare", str(log), "--out", str(data)]),
    ]
    for name, env, mesh in (("one device", ONE, ()), ("two, by columns", TWO, COLUMNS)):
        for allocator in ("auto", "none"):
            run = args.out / f"run-{'columns' if mesh else 'one'}-{allocator}"
            command = ["train", "--data", str(data), "--out", str(run), *settings(ROWS[1]), *mesh]
            label = f"train, {name}, LIGR_ALLOCATOR={allocator}"
            peaks.append(measured(label, command, env | {"LIGR_ALLOCATOR": allocator}))
    peaks.append(measured("eval, two, by columns", ["eval", str(run), "--split", "test"], TWO))
    columns = [
        Column("command"),
        Column("seconds", ".0f"),
        Column("largest process, MiB", ",d"),
        Column("all processes, MiB", ",d"),
    ]
    study.add("memory", "Time and peak of resident memory of each command.", columns, peaks)
    largest = max(row[-1] for row in peaks)
    print(f"largest: {largest:,} MiB, {'within' if largest <= LIMIT_MIB else 'ABOVE'} 6 GiB")
    again = [sys.executable, __file__, "--times", "--out", str(args.out)]
    again += ["--rounds", str(args.rounds)]
    times = subprocess.run(again, env=os.environ | ONE, check=True, capture_output=True, text=True)
    steps: list[list[Cell]] = []
    for rows, seconds in json.loads(times.stdout.splitlines()[-1]).items():
        low, middle, high = (1e3 * x for x in quartiles(seconds))
        steps.append([int(rows), interval(middle, low, high)])
    caption = "A step by rows of the item table: median and quartiles."
    study.add("step", caption, [Column("V", ",d"), Column("step, ms", ".1f")], steps)
    print(f"all processes of the machine but this took {neighbours.share():.0%} of its cores")
    study.record(args.record)


def measured(label: str, words: Sequence[str], env: dict[str, str] | None = None) -> list[Cell]:
    """Run `ligr WORDS` and return its row: label, seconds, and peaks in MiB."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ligr_jax", *words]
    process = subprocess.Popen(
        command, env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output: list[bytes] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: output.extend(out), args=(process.stdout,))
    reader.start()
    largest = together = 0
    while process.poll() is None:
        processes = family(process.pid)
        largest = max(largest, *(resident(p, "VmHWM") for p in processes))
        together = max(together, sum(resident(p, "VmRSS") for p in processes))
        time.sleep(0.05)
    reader.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{b''.join(output).decode()}")
    largest, together = largest // 1024, max(largest, together) // 1024
    seconds = time.perf_counter() - began
    print(f"{label}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return [label, seconds, largest, together]


def family(root: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    processes = [root]
    for process in processes:
        processes += children.get(process, [])
    return processes


def resident(process: int, what: str) -> int:
    """Return KiB of a process: VmRSS now, or VmHWM at its peak; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(what)), 0)


def settings(rows: int) -> list[str]:
    return [f"{k}={v}" for k, v in (SETTINGS | {"model.features.item_id.rows": rows}).items()]


def step_times(data: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds per step by rows of the item table, measured in turns, without the batches."""
    contestants = {str(rows): stepper(data, rows) for rows in ROWS}
    alternate(contestants, 2)
    return alternate(contestants, rounds)


def stepper(data: Path, rows: int) -> Callable[[], float]:
    import jax

    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.data.pipeline import plan_for, train_batches
    from ligr_jax.data.records import Records
    from ligr_jax.scaling.ladder import configure
    from ligr_jax.train.program import Program

    config = configure(load_manifest(data), data, settings(rows))
    records, program = Records(data), Program(config)
    batches = train_batches(records, plan_for(records, config, "train"), config, program.process)
    first = program.shard_batch(next(batches))
    state = program.init_state(first.batch)
    step = program.compile_step(first)

    def sample() -> float:
        nonlocal state
        sharded = [program.shard_batch(next(batches)) for _ in range(STEPS)]
        began = time.perf_counter()
        for inputs in sharded:
            state, metrics = step(state, inputs)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - began) / STEPS

    return sample


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/ten_million"), help="new or empty [%(default)s]")
    add("--members", type=int, default=20_000, help="[%(default)s]")
    add("--rounds", type=int, default=11, help="of the steps [%(default)s]")
    add("--times", action="store_true", help="only the steps, on data that exist")
    return parser.parse_args()


if __name__ == "__main__":
    main()
