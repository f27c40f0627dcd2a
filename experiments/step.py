"""Is a full training step of LiGR on CPU faster than that of the same model in PyTorch?

    python experiments/step.py --torch TORCH_ENV/bin/python                 T = 512 and T = 2048
    python experiments/step.py --torch TORCH_ENV/bin/python --sizes 512x16  tokens x rows of a batch

LiGR-S: D = 128, 4 layers, H = 4, F = 4 D, float32, four looked-up features (16 k lookups in a batch
of 8,192 tokens), one of them in a table of 1e6 x 32. The JAX side is the trainer: its compiled
step, fed by its pipeline from a prepared synthetic world, with metrics read one step later. The
PyTorch side is `peers/ligr_torch.py` under `torch.compile`, SDPA with the boolean mask built once
per batch, fused AdamW, on batches of the same data in memory. Its tables are updated in three ways;
the fastest is compared:

    AdamW              dense gradients, as this side's optimizer is defined
    SparseAdam         only rows looked up
    Adagrad, sparse    only rows looked up

TORCH_ENV is a separate virtual environment with PyTorch 2.13 (CPU) and NumPy. Both sides use the
same allocator, stay alive, and take turns of several steps per round; times are medians over the
rounds. Before timing, both must agree on the loss and the gradient norm of one batch with random
parameters, on the number of dense parameters, and on the FLOPs of matrix products outside
attention. Run it on an idle machine.

Expected: 1.85 times as fast as the fastest of PyTorch at T = 512, 2.5 times at T = 2048; 49 and
47 % of the float32 peak that a product of 2048 x 2048 matrices reaches. Numbers:
experiments/results/step.json. Time: 4 and 6 minutes.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, Worker, allocator, alternate, quartiles, ratio

from ligr_jax.parallel.host import use_all_cores

SETTINGS = {
    "model.features": "item_id,actor_id,item_type,surface",
    "model.features.item_id.rows": 1_000_000,
    "model.table_width": 32,
    "optim.decay": "none",
    "train.steps": 1_000_000,  # never reached
    "track.wandb": "off",
}
BATCHES = 8  # that the side of PyTorch repeats
TORCH_TABLES = ("AdamW", "SparseAdam", "Adagrad, sparse")


def main() -> None:
    use_all_cores()  # for the worker
    args, neighbours = arguments(), Neighbours()
    name, env = allocator(args.allocator)
    print(f"allocator: {name}; {args.rounds} rounds of {args.steps} steps", flush=True)
    study = Study.of(__file__, __doc__)
    rows: list[list[Cell]] = []
    for seq_len, batch in args.sizes:
        report = {"allocator": name, **measure(args, env, seq_len, batch)}
        print(table(report))
        path = args.out / f"step-{seq_len}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(path)
        rows.append([seq_len, batch, *row_cells(report)])
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    columns = [
        Column("T", "d"),
        Column("B", "d"),
        Column("ligr_jax, ms", ".0f"),
        *(Column(f"{name}, ms", ".0f") for name in TORCH_TABLES),
        Column("the fastest over ligr_jax", ".2f"),
        Column("ligr_jax, % of the float32 peak", ".0f"),
    ]
    study.add("step", "A training step: medians, with quartiles of the ratio.", columns, rows)
    study.record(args.record)


def measure(
    args: argparse.Namespace, env: dict[str, str], seq_len: int, batch: int
) -> dict[str, Any]:
    """Return the seconds of a step on each side, and what both sides trained."""
    ours = Worker(sys.executable, "step_jax", env)
    sides = [ours]
    folder = args.out / f"step-{seq_len}"
    chosen = settings(args, seq_len, batch)
    started = ours.ask(
        "start",
        out=str(folder),
        impressions=args.impressions,
        batches=BATCHES,
        settings=chosen,
    )
    samples = {
        "ligr_jax": lambda: ours.ask("steps", count=args.steps),
        "matmul, JAX": lambda: ours.ask("matmul"),
    }
    if args.torch:
        theirs = Worker(args.torch, "step_torch", env)
        sides.append(theirs)
        answer = theirs.ask("start", folder=str(folder), started=started, batches=BATCHES)
        require_agreement(started, answer)
        samples |= {
            f"PyTorch, {t}": partial(theirs.ask, "steps", tables=t, count=args.steps)
            for t in TORCH_TABLES
        }
        samples["matmul, PyTorch"] = lambda: theirs.ask("matmul")
    alternate(samples, 1)  # warm
    report = {
        "seconds": alternate(samples, args.rounds),
        "sides": [side.ask("hello") for side in sides],
        "settings": chosen,
        **{k: started[k] for k in ("parameters", "lookups", "packing")},
        "flops": ours.ask("flops"),
    }
    ours.ask("close")
    for side in sides:
        side.close()
    return report


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/step"), help="where all goes [%(default)s]")
    add("--sizes", type=size, nargs="+", default=[(512, 16), (2048, 4)], metavar="TxB")
    add("--width", type=int, default=128, metavar="D", help="[%(default)s]")
    add("--depth", type=int, default=4, help="historical layers [%(default)s]")
    add("--set-depth", type=int, default=0, help="set-wise layers after them [%(default)s]")
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--steps", type=int, default=4, help="of each side in a round [%(default)s]")
    add("--impressions", type=int, default=400_000, help="of the world, about [%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    add(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="e.g. model.implementation=dense"
    )
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    """Return tokens of a row and rows of a batch of a text such as 512x16."""
    tokens, rows = text.split("x")
    return int(tokens), int(rows)


def settings(args: argparse.Namespace, seq_len: int, batch: int) -> list[str]:
    dials = {
        "data.seq_len": seq_len,
        "optim.batch": batch,
        "model.width": args.width,
        "model.depth": args.depth,
        "model.set_depth": args.set_depth,
        "model.heads": 4,
    }
    return [*(f"{k}={v}" for k, v in {**SETTINGS, **dials}.items()), *args.set]


def require_agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise an error if the two models are not equal."""
    dense = ours["parameters"]["dense"]
    if dense != theirs["dense"]:
        raise SystemExit(f"{dense:,} dense parameters against {theirs['dense']:,} in PyTorch")
    # PyTorch's count omits gradients of inputs that are not needed.
    for name, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3), ("product_flops", 0.02)):
        if abs(ours[name] / theirs[name] - 1) > tolerance:
            raise SystemExit(f"{name}: {ours[name]:.7g} against {theirs[name]:.7g} in PyTorch")


def float32_peak(report: dict[str, Any]) -> float:
    """Return FLOP/s of the product of 2048 x 2048 matrices, on the faster side."""
    products = [s for name, s in report["seconds"].items() if name.startswith("matmul")]
    return 2 * 2048**3 / min(quartiles(s)[1] for s in products)


def times_of_steps(report: dict[str, Any]) -> dict[str, list[float]]:
    return {k: v for k, v in report["seconds"].items() if not k.startswith("matmul")}


def row_cells(report: dict[str, Any]) -> list[Cell]:
    """Return medians in ms, the ratio of the fastest to ours, and our share of the peak."""
    times = times_of_steps(report)
    median = {name: quartiles(s)[1] for name, s in times.items()}
    theirs = [median.get(f"PyTorch, {name}") for name in TORCH_TABLES]
    fastest = min((n for n in median if n != "ligr_jax"), key=lambda n: median[n], default=None)
    over: Cell = None
    if fastest is not None:
        low, middle, high = ratio(times[fastest], times["ligr_jax"])
        over = interval(middle, low, high)
    share = 100 * report["flops"] / median["ligr_jax"] / float32_peak(report)
    milliseconds = (None if s is None else 1e3 * s for s in (median["ligr_jax"], *theirs))
    return [*milliseconds, over, share]


def table(report: dict[str, Any]) -> str:
    """Return times, rates relative to the measured peak, and ratios."""
    peak, seconds = float32_peak(report), times_of_steps(report)
    lines = [
        "",
        *report["sides"],
        f"{report['parameters']['dense']:,} dense and {report['parameters']['tables']:,} table "
        f"parameters, {report['lookups']:,} lookups, {report['flops'] / 1e9:.1f} GFLOP a step, "
        f"rows {report['packing']:.1%} full",
        f"float32 peak, by a product of 2048 x 2048 matrices: {peak / 1e9:.0f} GFLOP/s",
        "",
        "| | ms a step | quartiles | GFLOP/s | of the peak | its time over ligr_jax's |",
        "|---|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        low, middle, high = quartiles(times)
        rate = report["flops"] / middle
        r = ratio(times, seconds["ligr_jax"])
        lines.append(
            f"| {name} | {1e3 * middle:.1f} | {1e3 * low:.1f}, {1e3 * high:.1f} | "
            f"{rate / 1e9:.1f} | {rate / peak:.0%} | {r[1]:.2f} [{r[0]:.2f}, {r[2]:.2f}] |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
