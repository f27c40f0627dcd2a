"""How fast are attention with key ranges, and the whole step, on one data-centre GPU?

    python experiments/attention_gpu.py --torch PYTHON     all of it, in one call
    python experiments/attention_gpu.py --smoke            tiny sizes, on CPU, to see that it runs

PYTHON is an interpreter with PyTorch for CUDA and NumPy, possibly this one; without it only the
rows of JAX are measured. bfloat16, forward and backward, 65,536 tokens and H = 8 heads per call,
equal arrays for all, sessions of 33 tokens on average. The programs are warm and run in turns;
times are medians over the rounds. Outputs and gradients are compared with `attend` before timing.

    attend    `ligr_jax.ops.attention.attend`
    flex      FlexAttention, compiled, with a block mask of the same ranges, in a CUDA graph
    xla       `jax.nn.dot_product_attention` with the dense mask, by XLA
    cudnn     the same by cuDNN

TFLOP/s count 14 K per allowed pair and head: 4 K forward, 10 K backward with recomputed scores.
Then steps of whole models, with MFU: the FLOPs of `ligr_jax.cost.flops` (forward times three)
over the data sheet's peak, and over the rate of an 8192^3 product measured in the same run.

Expected: not measured yet.

Time: not measured yet.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.options import make_parser
from lib.results import Cell, Column, Study
from peers.cases import Case, allowed_pairs
from peers.race import Contestant, milliseconds, race, times
from peers.workers import Worker, alternate, quartiles

ENV = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # both sides share the memory
SESSION = 33
FORMS = ("attend", "flex", "xla", "cudnn")
Results = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Tokens per call, and (T, members per row, model) of the full training steps."""

    tokens: int
    heads: int
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    at: int  # T of in-session attention, next to history's
    rate: tuple[int, int]  # T, K of one more case
    step_tokens: int
    table_rows: int  # of each of two tables
    product: int
    steps: tuple[tuple[int, int, dict[str, int]], ...]


FULL = Sizes(
    tokens=65_536,
    heads=8,
    lengths=(512, 2048, 8192),
    widths=(64, 128),
    at=2048,
    rate=(4096, 128),
    step_tokens=65_536,
    table_rows=1_000_000,
    product=8192,
    steps=(
        (2048, 1, {"width": 256, "depth": 16, "heads": 4}),
        (2048, 4, {"width": 256, "depth": 16, "heads": 4}),
        (4096, 1, {"width": 1024, "depth": 8, "heads": 8}),
    ),
)
SMOKE = Sizes(
    tokens=256,
    heads=2,
    lengths=(128,),
    widths=(16,),
    at=128,
    rate=(256, 16),
    step_tokens=128,
    table_rows=1000,
    product=64,
    steps=((64, 1, {"width": 16, "depth": 1, "heads": 2}),),
)


def main() -> None:
    args = arguments()
    sizes = SMOKE if args.smoke else FULL
    env = {**ENV, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} if args.smoke else ENV
    report: dict[str, Any] = {"implementation": args.implementation}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        report[part] = []
        for result in PARTS[part](args, sizes, env):
            report[part].append(result)
            args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(args.out)
    study = Study.of(__file__, __doc__)
    if report.get("attention"):
        add_attention(study, report["attention"])
    if report.get("step"):
        add_steps(study, report["step"])
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/attention_gpu.json"), help="[%(default)s]")
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--implementation", default="auto", help="of attend [%(default)s]")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--smoke", action="store_true", help="tiny sizes, on CPU")
    return parser.parse_args()


def cases(sizes: Sizes) -> list[Case]:
    def case(kind: str, length: int, width: int, members: int) -> Case:
        batch = max(1, sizes.tokens // length)
        return Case(kind, length, SESSION, members, "bfloat16", batch, sizes.heads, width)

    history = itertools.product(("history",), sizes.lengths, sizes.widths, (1, 4))
    in_session = itertools.product(("in_session",), (sizes.at,), sizes.widths, (1,))
    rate = ((kind, *sizes.rate, 1) for kind in ("history", "in_session"))
    return list(itertools.starmap(case, itertools.chain(history, in_session, rate)))


def race_attention(args: argparse.Namespace, sizes: Sizes, env: dict[str, str]) -> Results:
    ours = Worker(sys.executable, "attention_jax", env)
    sides = [ours]
    entered = {"attend": Contestant(ours, args.implementation)}
    if args.torch:
        sides.append(Worker(args.torch, "attention_torch", env))
        entered["flex"] = Contestant(sides[1], "flex")
    entered |= {form: Contestant(ours, form) for form in ("xla", "cudnn")}
    print(*(side.ask("hello") for side in sides), ATTENTION, sep="\n", flush=True)
    results = []
    for case in cases(sizes):
        result = race(entered, case, args.rounds, checked_rows=2)
        result["flops"] = 14 * case.width * case.heads * allowed_pairs(case)
        results.append(result)
        print(attention_row(result), flush=True)
        yield result
    for side in sides:
        side.close()
    print(*set_against_history(results), sep="\n", flush=True)


def time_steps(args: argparse.Namespace, sizes: Sizes, env: dict[str, str]) -> Results:
    worker = Worker(sys.executable, "step_gpu", env)
    sample = {"product": lambda: worker.ask("sample", key="product")}
    flops = worker.ask("prepare_product", key="product", size=sizes.product)
    reach = flops / quartiles(alternate(sample, args.rounds)["product"])[1]
    sheet = worker.ask("peak")
    print(f"\nproduct of {sizes.product}: {reach / 1e12:.3g} TFLOP/s; peak {sheet / 1e12:.3g}")
    print(STEPS, flush=True)
    for length, members, model in sizes.steps:
        batch = max(1, sizes.step_tokens // length)
        case = Case("history", length, SESSION, members, "bfloat16", batch)
        result = {"tokens": length, "batch": batch, "members": members, "model": model}
        result |= {"peak": sheet, "product": reach}
        settings = {**model, "set_depth": 0, "implementation": args.implementation}
        try:
            result["flops"] = worker.ask(
                "prepare",
                key="step",
                case=dataclasses.asdict(case),
                model=settings,
                table_rows=sizes.table_rows,
            )
        except RuntimeError as e:
            result["failed"] = str(e)
        else:
            sample = {"step": lambda: worker.ask("sample", key="step")}
            result |= {"seconds": alternate(sample, args.rounds)["step"]}
        worker.ask("forget")
        print(step_row(result), flush=True)
        yield result
    worker.close()


PARTS = {"attention": race_attention, "step": time_steps}


# ---- Tables ----

ATTENTION = """
Forward and backward, ms.

| kind | K | T | members | attend | its TFLOP/s | flex | flex / attend | xla | cudnn |
|---|---|---|---|---|---|---|---|---|---|"""
STEPS = """
| D | layers | T | members | rows | ms a step | tokens/s | MFU | of the product's rate |
|---|---|---|---|---|---|---|---|---|"""


def attention_row(result: dict[str, Any]) -> str:
    cells = [str(result[k]) for k in ("kind", "width", "tokens", "members")]
    seconds = result["seconds"].get("attend")
    rate = f"{result['flops'] / quartiles(seconds)[1] / 1e12:.3g}" if seconds else "-"
    cells += [milliseconds(result, "attend"), rate, milliseconds(result, "flex")]
    cells += [times(result, "flex", "attend")]
    cells += [milliseconds(result, form) for form in ("xla", "cudnn")]
    return f"| {' | '.join(cells)} |"


def set_against_history(results: list[dict[str, Any]]) -> list[str]:
    keys = ("kind", "width", "tokens", "members")
    median = {
        tuple(r[k] for k in keys): quartiles(r["seconds"]["attend"])[1]
        for r in results
        if "attend" in r["seconds"]
    }
    return [
        f"in-session / history at K = {width}, T = {tokens}: "
        f"{seconds / median['history', width, tokens, members]:.3f}"
        for (kind, width, tokens, members), seconds in median.items()
        if kind == "in_session" and ("history", width, tokens, members) in median
    ]


def add_attention(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for r in results:
        median = {name: quartiles(s)[1] for name, s in r["seconds"].items()}
        ours = median.get("attend")
        cells = [None if s is None else 1e3 * s for s in map(median.get, FORMS)]
        rate = None if ours is None else r["flops"] / ours / 1e12
        rows.append([r["kind"], r["width"], r["tokens"], r["members"], *cells, rate])
    columns = [
        Column("attention"),
        Column("K", "d"),
        Column("T", "d"),
        Column("members of a row", "d"),
        *(Column(f"{name}, ms", ".2f") for name in FORMS),
        Column("attend, TFLOP/s", ".3g"),
    ]
    study.add("attention", "Forward and backward: medians over the rounds.", columns, rows)


def add_steps(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for r in results:
        cells: list[Cell] = [None] * 4
        if "failed" not in r:
            seconds = quartiles(r["seconds"])[1]
            rate = r["flops"] / seconds
            tokens = r["tokens"] * r["batch"] / seconds
            cells = [1e3 * seconds, tokens, 100 * rate / r["peak"], 100 * rate / r["product"]]
        model = r["model"]
        rows.append([model["width"], model["depth"], r["tokens"], r["members"], r["batch"], *cells])
    columns = [
        *(Column(name, "d") for name in ("D", "layers", "T", "members of a row", "rows")),
        Column("step, ms", ".1f"),
        Column("tokens/s", ",.0f"),
        Column("MFU, %", ".1f"),
        Column("% of the product's rate", ".1f"),
    ]
    study.add("step", "Whole training steps: medians over the rounds.", columns, rows)


def step_row(result: dict[str, Any]) -> str:
    cells = [result["model"][k] for k in ("width", "depth")]
    cells += [result[k] for k in ("tokens", "members", "batch")]
    if "failed" in result:
        cells += [f"failed: {result['failed']}", "-", "-", "-"]
    else:
        seconds = quartiles(result["seconds"])[1]
        rate = result["flops"] / seconds
        cells += [f"{1e3 * seconds:.1f}", f"{result['tokens'] * result['batch'] / seconds:,.0f}"]
        cells += [f"{rate / result['peak']:.1%}", f"{rate / result['product']:.1%}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
