"""Is a full training step of LiGR on CPU faster than that of the same model in PyTorch?

    python experiments/step.py --torch TORCH_ENV/bin/python                          T = 512
    python experiments/step.py --torch TORCH_ENV/bin/python --seq-len 2048 --rows 4

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

Expected (21 November 2026, two shared AMD cores with AVX-512, jemalloc, PyTorch 2.13), ms a step:

    T      B    ligr_jax   AdamW   SparseAdam   Adagrad, sparse   the fastest over ligr_jax
    512    16      307       589         564               565     1.85 [1.82, 1.90]
    2048    4      488      1238        1241              1257     2.52 [2.50, 2.65]

This is 49 and 47 % of the float32 peak that a product of 2048 x 2048 matrices reaches. Profile at
T = 512: two fifths of the time are attention, whose tile products reach half the peak (see
attention.py); two fifths are other matrix products, near their peak; one fifth is GELU, norms,
gates, and one device waiting for the other while the input pipeline uses its core.

Time: 4 and 6 minutes.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

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
BATCHES = 8  # that PyTorch's side goes round
TORCH_TABLES = ("AdamW", "SparseAdam", "Adagrad, sparse")


def main() -> None:
    use_all_cores()  # for the worker
    args, neighbours = arguments(), Neighbours()
    name, env = allocator(args.allocator)
    ours = Worker(sys.executable, "step_jax", env)
    sides = [ours]
    print(f"allocator: {name}; {args.rounds} rounds of {args.steps} steps", flush=True)
    folder = args.out / f"step-{args.seq_len}"
    started = ours.ask(
        "start",
        out=str(folder),
        impressions=args.impressions,
        batches=BATCHES,
        settings=settings(args),
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
    seconds = alternate(samples, args.rounds)
    report = {
        "allocator": name,
        "sides": [side.ask("hello") for side in sides],
        "settings": settings(args),
        **{k: started[k] for k in ("parameters", "lookups", "packing")},
        "flops": ours.ask("flops"),
        "seconds": seconds,
    }
    ours.ask("close")
    for side in sides:
        side.close()
    report["neighbours"] = neighbours.share()
    print(table(report))
    path = args.out / f"step-{args.seq_len}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/step"), help="where all goes [%(default)s]")
    add("--seq-len", type=int, default=512, metavar="T", help="tokens of a row [%(default)s]")
    add("--rows", type=int, default=16, metavar="B", help="of a batch [%(default)s]")
    add("--width", type=int, default=128, metavar="D", help="[%(default)s]")
    add("--depth", type=int, default=4, help="historical layers [%(default)s]")
    add("--set-depth", type=int, default=0, help="set-wise layers after them [%(default)s]")
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--steps", type=int, default=4, help="of each side in a round [%(default)s]")
    add("--impressions", type=int, default=400_000, help="of the world, about [%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    add("overrides", nargs="*", metavar="name=value", help="e.g. model.implementation=dense")
    return parser.parse_args()


def settings(args: argparse.Namespace) -> list[str]:
    dials = {
        "data.seq_len": args.seq_len,
        "optim.batch": args.rows,
        "model.width": args.width,
        "model.depth": args.depth,
        "model.set_depth": args.set_depth,
        "model.heads": 4,
    }
    return [*(f"{k}={v}" for k, v in {**SETTINGS, **dials}.items()), *args.overrides]


def require_agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise an error if the two models are not equal."""
    dense = ours["parameters"]["dense"]
    if dense != theirs["dense"]:
        raise SystemExit(f"{dense:,} dense parameters against {theirs['dense']:,} in PyTorch")
    # PyTorch's count omits gradients of inputs that are not needed.
    for name, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3), ("product_flops", 0.02)):
        if abs(ours[name] / theirs[name] - 1) > tolerance:
            raise SystemExit(f"{name}: {ours[name]:.7g} against {theirs[name]:.7g} in PyTorch")


def table(report: dict[str, Any]) -> str:
    """Return times, rates relative to the measured peak, and ratios."""
    seconds = dict(report["seconds"])
    products = [seconds.pop(k) for k in list(seconds) if k.startswith("matmul")]
    peak = 2 * 2048**3 / min(quartiles(times)[1] for times in products)
    lines = [
        "",
        *report["sides"],
        f"{report['parameters']['dense']:,} dense and {report['parameters']['tables']:,} table "
        f"parameters, {report['lookups']:,} lookups, {report['flops'] / 1e9:.1f} GFLOP a step, "
        f"rows {report['packing']:.1%} full",
        f"float32 peak, by a product of 2048 x 2048 matrices: {peak / 1e9:.0f} GFLOP/s",
        f"other processes took {report['neighbours']:.0%} of the cores meanwhile",
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
    theirs = {name: quartiles(times)[1] for name, times in seconds.items() if name != "ligr_jax"}
    if theirs:
        fastest = min(theirs, key=lambda name: theirs[name])
        middle = ratio(seconds[fastest], seconds["ligr_jax"])[1]
        lines += ["", f"the one to beat: {fastest}, {middle:.2f} times ligr_jax's time"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
