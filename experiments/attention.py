"""Is attention with key ranges faster on CPU than PyTorch's attention with a boolean mask?

    python experiments/attention.py --torch TORCH_ENV/bin/python      the whole table
    python experiments/attention.py                                   JAX alone

TORCH_ENV is a separate virtual environment with PyTorch 2.13 (CPU) and NumPy. Both sides get the
same arrays, the same allocator and all cores. Their processes stay alive and take turns, one sample
each per round. A time is the median over the rounds; a ratio is the median of the rounds' ratios,
with its quartiles in brackets. Outputs and gradients are compared before timing. Run it on an idle
machine; the output ends with the CPU share of other processes.

    attend      `ligr_jax.ops.attention.attend`, B = 8 split over one simulated device per core
    dense       the same by its dense form, up to T = 2048
    sdpa        `scaled_dot_product_attention` with the boolean mask [B, 1, T, T], built beforehand
    flex        FlexAttention, compiled, its block mask built beforehand: forward alone, because on
                CPU it has no backward

H = 4 heads of K = 64. Session and T count tokens; `4 members` are packed in a row, T / 4 each.

Expected: 1.9 to 15.7 times as fast as sdpa from T = 512 on; temporaries of 1.5 % of those of the
dense form at T = 2048. Numbers: experiments/results/attention.json. Time: 12 minutes.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.cases import Case
from peers.race import TOLERANCE, Contestant, milliseconds, race, times
from peers.workers import Neighbours, Worker, allocator, quartiles, ratio

from ligr_jax.parallel.host import use_all_cores

KINDS = ("history", "in_session")
# Kind of attention and members of a row -> name in the table of speed.
NAMES = {
    ("history", 1): "history, one member per row",
    ("history", 4): "history, four packed",
    ("in_session", 1): "in-session",
}
DENSE_AT_MOST = 2048  # tokens; longer ones take gigabytes
TEMPORARIES_AT = (512, 1024, 2048, 4096)


def main() -> None:
    use_all_cores()  # for the worker
    args, neighbours = arguments(), Neighbours()
    name, env = allocator(args.allocator)
    sides = {"jax": Worker(sys.executable, "attention_jax", env)}
    if args.torch:
        sides["torch"] = Worker(args.torch, "attention_torch", env)
    about = [worker.ask("hello") for worker in sides.values()]
    study = Study.of(__file__, __doc__)
    report: dict[str, Any] = {"allocator": name, "sides": about, "cases": [], "temporaries": []}
    print(f"allocator: {name}; {args.rounds} rounds")
    print(*about, TABLE, sep="\n", flush=True)
    for case in cases(args):
        entered = contestants(sides, case, args.implementation)
        result = race(entered, case, args.rounds, checked_rows=case.batch)
        if result["failed"]:
            raise SystemExit(f"not timed: {case}: {result['failed']}")
        report["cases"].append(result)
        print(row(result), flush=True)
        write(args.out, report)
    print("\n".join(comparisons(report["cases"])), flush=True)
    add_speed(study, report["cases"])
    report["temporaries"] = [
        temporaries(sides["jax"], kind, tokens, args.implementation)
        for kind, tokens in itertools.product(KINDS, args.temporaries)
    ]
    add_temporaries(study, report["temporaries"])
    for worker in sides.values():
        worker.close()
    report["neighbours"] = neighbours.share()
    print(f"\nother processes took {report['neighbours']:.0%} of the cores meanwhile")
    write(args.out, report)
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/attention.json"), help="[%(default)s]")
    add("--rounds", type=int, default=11, help="samples of each contestant [%(default)s]")
    add("--tokens", type=int, nargs="+", default=[128, 512, 1024, 2048], metavar="T")
    add("--sessions", type=int, nargs="+", default=[8, 33], metavar="S", help="mean tokens")
    add("--members", type=int, nargs="+", default=[1, 4], metavar="M", help="packed in a row")
    add("--dtypes", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    add("--temporaries", type=int, nargs="*", default=TEMPORARIES_AT, metavar="T")
    add("--implementation", default="auto", help="of attend [%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    return parser.parse_args()


def cases(args: argparse.Namespace) -> list[Case]:
    dials = itertools.product(KINDS, args.sessions, args.members, args.tokens, args.dtypes)
    return [Case(kind, t, session, members, d) for kind, session, members, t, d in dials]


def contestants(sides: dict[str, Worker], case: Case, form: str) -> dict[str, Contestant]:
    chosen = {"attend": Contestant(sides["jax"], form)}
    if case.tokens <= DENSE_AT_MOST:
        chosen["dense"] = Contestant(sides["jax"], "dense")
    if "torch" in sides:
        chosen["sdpa"] = Contestant(sides["torch"], "sdpa")
        chosen["attend forward"] = Contestant(sides["jax"], form, backward=False)
        chosen["flex forward"] = Contestant(sides["torch"], "flex", backward=False)
    return chosen


def temporaries(worker: Worker, kind: str, tokens: int, implementation: str) -> dict[str, Any]:
    case = dataclasses.asdict(Case(kind, tokens, session=33, members=1, dtype="float32"))
    forms = {"attend": implementation, "dense": "dense"}
    sizes = {name: worker.ask("temporaries", case=case, form=f) for name, f in forms.items()}
    return {"kind": kind, "tokens": tokens, **sizes}


def write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


# ---- Tables ----

TABLE = """
Forward and backward, ms; sdpa's and flex's time over attend's.

| kind | session | members | T | dtype | attend | dense | sdpa | sdpa / attend | \
attend forward | flex forward | flex / attend |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def row(result: dict[str, Any]) -> str:
    cells = [str(result[k]) for k in ("kind", "session", "members", "tokens", "dtype")]
    cells += [milliseconds(result, name) for name in ("attend", "dense", "sdpa")]
    cells += [times(result, "sdpa", "attend")]
    cells += [milliseconds(result, name) for name in ("attend forward", "flex forward")]
    cells += [times(result, "flex forward", "attend forward")]
    return f"| {' | '.join(cells)} |"


def add_speed(study: Study, results: list[dict[str, Any]]) -> None:
    """Add the time of PyTorch's attention over ours, for the shortest sessions that were run."""
    session = min(r["session"] for r in results)
    over: dict[tuple[str, int], dict[str, Cell]] = {}
    for r in results:
        seconds = r["seconds"]
        if r["session"] == session and "sdpa" in seconds and (r["kind"], r["members"]) in NAMES:
            low, middle, high = ratio(seconds["sdpa"], seconds["attend"])
            cells = over.setdefault((NAMES[r["kind"], r["members"]], r["tokens"]), {})
            cells[r["dtype"]] = interval(middle, low, high)
    if not over:
        return
    rows = [[name, t, *(cells.get(d) for d in TOLERANCE)] for (name, t), cells in over.items()]
    columns = [Column("attention"), Column("T", "d"), *(Column(d, ".1f") for d in TOLERANCE)]
    caption = f"PyTorch's time over ours, sessions of {session} tokens, forward and backward."
    study.add("speed", caption, columns, rows)


def add_temporaries(study: Study, results: list[dict[str, Any]]) -> None:
    rows = [
        [
            r["kind"],
            r["tokens"],
            r["attend"] / 1e6,
            r["dense"] / 1e6,
            100 * r["attend"] / r["dense"],
        ]
        for r in results
    ]
    columns = [
        Column("attention"),
        Column("T", "d"),
        Column("attend, MB", ",.1f"),
        Column("dense, MB", ",.1f"),
        Column("attend / dense, %", ".1f"),
    ]
    caption = "Temporaries of a forward and backward call, B = 8, float32."
    study.add("temporaries", caption, columns, rows)


def comparisons(results: list[dict[str, Any]]) -> list[str]:
    """Return lines that compare packed with single rows, and bfloat16 with float32, by medians."""
    keys = ("kind", "session", "members", "tokens", "dtype")
    median = {tuple(r[k] for k in keys): quartiles(r["seconds"]["attend"])[1] for r in results}
    lines = []
    for (kind, session, members, tokens, dtype), seconds in median.items():
        what = f"{kind}, sessions of {session}, T = {tokens}"
        one = median.get((kind, session, 1, tokens, dtype))
        if members > 1 and one:
            lines.append(f"{what}, {dtype}: {members} members cost {seconds / one:.2f} of one")
        f32 = median.get((kind, session, members, tokens, "float32"))
        if dtype == "bfloat16" and f32:
            lines.append(f"{what}, {members} members: bfloat16 / float32 {seconds / f32:.2f}")
    return ["", *sorted(lines)]


if __name__ == "__main__":
    main()
