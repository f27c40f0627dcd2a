"""How fast are requests with an encoded history, against encoding it for each and PyTorch?

    python experiments/serving.py --torch TORCH_ENV/bin/python
    python experiments/serving.py --sizes 1024x512 --rounds 5      T/2 impressions x candidates

LiGR-S: D = 128, 4 historical layers and a set-wise one, H = 4, float32, random parameters and ids.
A request has one member and C candidates, which are ranked; its arrays are ready, so reading the
activity store and HTTP are not part of it. Contestants take turns, one request of each per round:

    warm               the history is encoded: all candidates in one pass, set-wise layer for K = 10
    warm, point-wise   the same without the set-wise layer
    cold               the history is encoded for the request
    one by one         encoded history, a call for each candidate, without the set-wise layer
    PyTorch            one forward pass over history and candidates, eager or under torch.compile,
                       with a boolean mask that is made for the request

Both sides must agree on the logits. The float32 peak is that of a product of 2048 x 2048 matrices;
FLOPs are those of `ligr plan --serve-ms`. The second table has the load: requests arrive at random
times (Poisson) and are scored one after another, each in a time drawn from the measured ones, warm
with the probability of a hit. The rate is the largest whose 99th percentile of waiting and scoring
is below 80 ms, the limit of MLPerf's DLRMv3.

Expected: warm is 3 to 5 times as fast as cold at T = 2048 and C = 512, by arithmetic: 1 + T / 2C in
pairs of attention and 1 + T / C in projections. Numbers: experiments/results/serving.json. Time: 6
minutes on an idle machine.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, Worker, allocator, alternate, ratio

from ligr_jax.parallel.host import use_all_cores

OURS = {
    "warm": "warm",
    "warm, point-wise": "warm_pointwise",
    "cold": "cold",
    "one by one": "one_by_one",
}
TORCH = {"PyTorch, eager": "eager", "PyTorch, compiled": "compiled"}
MATMUL = "a product of 2048 x 2048 matrices"
MATMUL_FLOPS = 2 * 2048**3
LIMIT_S = 0.080
HIT_RATES = (1.0, 0.9, 0.5, 0.0)
TOLERANCE = 1e-3  # of a logit, between both sides


def main() -> None:
    use_all_cores()  # for the worker
    args, neighbours = arguments(), Neighbours()
    name, env = allocator(args.allocator)
    print(f"allocator: {name}; {args.rounds} rounds", flush=True)
    study = Study.of(__file__, __doc__)
    contestants = [*OURS, *(TORCH if args.torch else ())]
    times: list[list[Cell]] = []
    loads: list[list[Cell]] = []
    for impressions, candidates in args.sizes:
        seconds, started = measure(args, env, impressions, candidates)
        size = [2 * impressions, candidates]
        for contestant in contestants:
            s = seconds[contestant]
            low, middle, high = ratio(s, seconds["warm"])
            p50, p99 = (1e3 * float(x) for x in np.percentile(s, (50, 99)))
            rate = started["flops"].get(contestant, np.nan) / float(np.median(s))
            share = (
                None if np.isnan(rate) else 100 * rate * np.median(seconds[MATMUL]) / MATMUL_FLOPS
            )
            times.append([*size, contestant, p50, p99, interval(middle, low, high), share])
        loads += [
            [*size, 100 * rate, largest_rate(seconds["warm"], seconds["cold"], rate)]
            for rate in HIT_RATES
        ]
        print(f"{started['cache_mb']:.1f} MiB for an encoded history", flush=True)
    columns = [
        *(Column("T", "d"), Column("C", "d"), Column("request")),
        *(Column("p50, ms", ".1f"), Column("p99, ms", ".1f"), Column("over warm", ".2f")),
        Column("% of the float32 peak", ".0f"),
    ]
    study.add("requests", "Time of a request; quartiles of its ratio to warm.", columns, times)
    columns = [
        *(Column("T", "d"), Column("C", "d"), Column("hit rate, %", ".0f")),
        Column("requests/s with p99 below 80 ms", ".1f"),
    ]
    study.add("load", "Largest load; 0 if a single request takes longer.", columns, loads)
    print(f"other processes took {neighbours.share():.0%} of the cores meanwhile")
    study.record(args.record)


def measure(
    args: argparse.Namespace, env: dict[str, str], impressions: int, candidates: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of requests by contestant, and the answer of our side's start."""
    ours = Worker(sys.executable, "serving_jax", env)
    sides = [ours]
    folder = str(args.out / f"{impressions}x{candidates}")
    started = ours.ask(
        "start",
        out=folder,
        impressions=impressions,
        candidates=candidates,
        width=args.width,
        depth=args.depth,
        heads=4,
    )
    samples = {name: partial(ours.ask, "sample", kind=kind) for name, kind in OURS.items()}
    if args.torch:
        theirs = Worker(args.torch, "serving_torch", env)
        sides.append(theirs)
        difference = theirs.ask("start", folder=folder, started=started, candidates=candidates)
        print(f"largest difference of a logit: {difference:.2g}")
        if difference > TOLERANCE:
            raise SystemExit(f"the logits of both sides differ by {difference:.3g}")
        samples |= {name: partial(theirs.ask, "sample", kind=kind) for name, kind in TORCH.items()}
    samples[MATMUL] = partial(ours.ask, "matmul")
    alternate(samples, 1)  # warm
    seconds = alternate(samples, args.rounds)
    for side in sides:
        print(side.ask("hello"))
        side.close()
    return seconds, started


def largest_rate(warm: list[float], cold: list[float], hit_rate: float) -> float:
    """Return the largest rate of requests per second whose 99th percentile is within the limit."""
    rng = np.random.default_rng(0)
    n = 20_000
    is_hit = rng.random(n) < hit_rate
    service = np.where(is_hit, rng.choice(warm, n), rng.choice(cold, n))
    gaps = rng.exponential(1.0, n)

    def p99(rate: float) -> float:
        return float(np.percentile(waiting(service, gaps / rate) + service, 99))

    low, high = 0.0, 1.0 / service.mean()
    if np.percentile(service, 99) > LIMIT_S:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if p99(middle) <= LIMIT_S else (low, middle)
    return low


def waiting(service: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Return the time that each request waits, if they are served one after another.

    This is Lindley's recursion in closed form: the wait is the excess of the work over its smallest
    value before.

    Args:
        service: seconds of service of each request, [n].
        gaps: seconds between each arrival and the one before, [n]; the first one is not used.
    """
    excess = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    result: np.ndarray = excess - np.minimum.accumulate(excess)
    return result


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--out", type=Path, default=Path("runs/serving"), help="where all goes [%(default)s]")
    add(
        "--sizes",
        type=size,
        nargs="+",
        default=[(256, 512), (1024, 512), (1024, 2048)],
        metavar="NxC",
        help="impressions of the history, and candidates",
    )
    add("--width", type=int, default=128, metavar="D", help="[%(default)s]")
    add("--depth", type=int, default=4, help="historical layers [%(default)s]")
    add("--rounds", type=int, default=9, help="[%(default)s]")
    add("--allocator", default="auto", help="auto, none, or the path of a library [%(default)s]")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    """Return impressions and candidates of a text such as 1024x512."""
    impressions, candidates = text.split("x")
    return int(impressions), int(candidates)


if __name__ == "__main__":
    main()
