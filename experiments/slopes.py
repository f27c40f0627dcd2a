"""How does quality grow with compute, for each of the unified rankers, on one footing?

    python experiments/slopes.py                          both data sets, everything, resumable
    python experiments/slopes.py --data world --parts ladder
    python experiments/slopes.py --quick                  four small rungs of the world, one seed

Data: a synthetic world of 1,500 members, and the slice of KuaiRand-Pure in the protocol of
kuairand_law.py. All architectures have the same rows in the same order, features, tables, heads and
losses, and serving-faithful histories: no model sees an action of the session that it scores. The
learning rate of each architecture is tuned at a width of 16 (two seeds, powers of two, extended
until the best has neighbours) and transferred to every rung by muP; part `rate` shows for four of
them that the best rate stays where it is at eight times the width. The two-stream models have four
candidate tokens, and no model has set-wise layers: they see items of the scored session, which the
rivals do not.

Each architecture is a sweep of its own, whose largest run is predicted (prediction.json) before it
starts. Slopes are changes per decade of compute, with 90 % intervals over rungs; differences from
LiGR are paired by seed, and are also given with the smallest difference that three seeds can show.

Expected: numbers are in experiments/results/slopes.json. Time: a night on two cores.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
from lib.kuairand.data import SLICE, Form, prepare_days
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval, mean_cell
from lib.sweeps import prepared_world, run_sweep, write_sweep

from ligr_jax.data.assemble import Assembler
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.runs.table import column, read_runs
from ligr_jax.scaling.fit import compare_slopes, fit_line, score
from ligr_jax.scaling.shipped import UNIFIED, grid
from ligr_jax.serve import Scorer

SEEDS = (0, 1, 2)
TUNING_SEEDS = (0, 1)
FIRST = range(-9, -4)  # log2 of the rates
AXES = ("flops_model", "flops_paper", "device_seconds")
TRANSFERRED = ("ligr", "onetrans", "tokenmixer", "hstu")
WIDE = {"model.width": 128, "model.heads": 8}  # eight times the width of the base
CANDIDATES = 256
ROUNDS = 200  # timed requests


class Source(NamedTuple):
    """A data set.

    prefix: of its presets; rung: preset at which rates are tuned; rungs: of the ladder.
    metrics: column and words, of each metric; True if it rises.
    """

    prefix: str
    rung: str
    rungs: tuple[str, ...]
    metrics: Mapping[str, tuple[str, bool]]


SOURCES = {
    "world": Source(
        prefix="demo",
        rung="demo-2",
        rungs=tuple(f"demo-{i}" for i in range(7)),
        metrics={
            "validation/ne": ("NE, mean of all actions", False),
            "validation/long_dwell/auc": ("long dwell AUC", True),
        },
    ),
    "kuairand": Source(
        prefix="kuairand",
        rung="kuairand-2",
        rungs=tuple(f"kuairand-{i}" for i in range(6)),
        metrics={
            "test/ne": ("NE, mean of four actions", False),
            "test/click/auc": ("click AUC", True),
            "test/long_dwell/auc": ("long dwell AUC", True),
        },
    ),
}


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, args.seeds)
    for name in args.data:
        bench = Bench(args, name)
        for part in args.parts:
            PARTS[part](bench, study)
    study.record(args.record)


class Bench:
    """Trains and reads the runs of one data set."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        self.name = name
        self.source = SOURCES[name]
        self.arms = args.arms
        self.seeds = args.seeds
        self.rungs = self.source.rungs[1:5] if args.quick else self.source.rungs
        self.out = args.out / name
        self.trains = not args.no_runs
        if name == "world":
            self.data = prepared_world(args.out / "world" / "data", args.members)
        else:
            form = Form("targets", context_block=10)
            self.data = prepare_days(args.slice, args.out / "kuairand" / "data", form)

    def train(self, part: str, arm: str, axes: Mapping[str, Any], together: int) -> Path:
        """Train a sweep of one architecture, and return the directory of its runs."""
        out: Path = self.out / part / arm
        if self.trains:
            sweep = grid(f"{arm}: {part}", {"change": UNIFIED[arm], **axes})
            file = write_sweep(self.out / "sweeps" / f"{part}-{arm}.yaml", {"name": arm, **sweep})
            run_sweep([file], self.data, out, "track.wandb=off", together=together)
        return out

    def rate(self, arm: str) -> float:
        """Return the best learning rate at the tuned rung, with worse rates on both sides."""
        exponents = FIRST
        while True:
            rates = [2.0**k for k in exponents]
            axes = {
                "preset": self.source.rung,
                "train.seed": TUNING_SEEDS,
                "optim.dense_lr": rates,
            }
            ne = mean_by_rate(self.train("tuning", arm, axes, together=8))
            best = min(ne, key=lambda rate: ne[rate])
            if not self.trains or min(rates) < best < max(rates):
                return best
            first = exponents[0] - (best == min(rates))
            exponents = range(first, exponents[-1] + 1 + (best == max(rates)))

    def runs(self) -> pl.DataFrame:
        """Return the finished runs of the ladders, with their architecture."""
        tables = [
            read_runs(self.out / "ladder" / arm).table.with_columns(arm=pl.lit(arm))
            for arm in self.arms
        ]
        return pl.concat(tables, how="diagonal_relaxed").sort("arm", "flops_model")


def mean_by_rate(out: Path) -> dict[float, float]:
    """Return the validation NE by learning rate, as a mean over seeds."""
    table = read_runs(out).table
    mean = table.group_by("config/optim.dense_lr").agg(pl.col("validation/ne").mean())
    return dict(mean.sort("config/optim.dense_lr").iter_rows())


def add_rates(bench: Bench, study: Study) -> None:
    """Add the NE by learning rate at a width of 16 and of 128: does the best rate move?"""
    rows: list[list[Cell]] = []
    for arm in (a for a in TRANSFERRED if a in bench.arms):
        best = bench.rate(arm)
        rates = [best * 2.0**k for k in (-2, -1, 0, 1, 2)]
        for width, sizes in ((16, {}), (128, WIDE)):
            axes = {"preset": bench.source.rung, "optim.dense_lr": rates, "train.seed": 0}
            ne = mean_by_rate(bench.train(f"rate-{width}", arm, axes | sizes, together=5))
            rows.append([arm, width, f"2^{np.log2(best):.0f}", *(ne[rate] for rate in rates)])
    columns = [
        Column("architecture"),
        Column("width", "d"),
        Column("tuned rate"),
        *(Column(f"x {2.0**k:g}", ".4f") for k in (-2, -1, 0, 1, 2)),
    ]
    caption = "Validation NE at multiples of the rate that was tuned at width 16; one seed."
    study.add(f"{bench.name}_rate", caption, columns, rows)


def add_ladder(bench: Bench, study: Study) -> None:
    """Train the ladders and add runs, slopes, differences, predictions and costs."""
    rates = {arm: bench.rate(arm) for arm in bench.arms}
    for arm, rate in rates.items():
        axes = {"preset": list(bench.rungs), "train.seed": bench.seeds, "optim.dense_lr": rate}
        bench.train("ladder", arm, axes, together=len(bench.seeds))
    table = bench.runs()
    add_runs(bench, study, table, rates)
    add_slopes(bench, study, table)
    add_differences(bench, study, table)
    add_predictions(bench, study, table)
    add_costs(bench, study, table)


def add_runs(bench: Bench, study: Study, table: pl.DataFrame, rates: Mapping[str, float]) -> None:
    """Add the metrics of every architecture at every rung."""
    rows: list[list[Cell]] = []
    for arm in bench.arms:
        of_arm = table.filter(arm=arm)
        for rung in of_arm.partition_by("config/data.seq_len", maintain_order=True):
            cells = [mean_cell(column(rung, name).tolist()) for name in bench.source.metrics]
            shape = (rung[f"config/{n}"][0] for n in ("data.seq_len", "model.depth", "model.width"))
            rows.append(
                [
                    arm,
                    ", ".join(map(str, shape)),
                    f"2^{np.log2(rates[arm]):.0f}",
                    float(column(rung, "flops_model").mean()),
                    rung.height,
                    *cells,
                ]
            )
    columns = [
        Column("architecture"),
        Column("tokens, layers, width"),
        Column("rate"),
        Column("FLOPs", ".1e"),
        Column("seeds", "d"),
        *(Column(words, ".4f") for words, _ in bench.source.metrics.values()),
    ]
    study.add(f"{bench.name}_runs", "Mean ± standard deviation over the seeds.", columns, rows)


def add_slopes(bench: Bench, study: Study, table: pl.DataFrame) -> None:
    """Add the change of each metric per decade of every compute axis."""
    rows: list[list[Cell]] = []
    for name, (words, rises) in bench.source.metrics.items():
        for arm in bench.arms:
            of_arm = table.filter(arm=arm)
            row: list[Cell] = [words, arm]
            for axis in AXES:
                law = fit_line(
                    column(of_arm, axis),
                    column(of_arm, name),
                    higher_is_better=rises,
                    groups=of_arm["config/data.seq_len"].to_list(),
                )
                ends = law.intervals.get("slope")
                slope = law.params["slope"]
                row.append(interval(slope, *ends) if ends else slope)
            rows.append(row)
    columns = [
        Column("metric"),
        Column("architecture"),
        *(Column(f"per decade of {axis}", "+.4f") for axis in AXES),
    ]
    study.add(
        f"{bench.name}_slopes", "Change per decade of compute, 90 % intervals.", columns, rows
    )


def add_differences(bench: Bench, study: Study, table: pl.DataFrame) -> None:
    """Add slope and level less LiGR's, paired by seed."""
    rows: list[list[Cell]] = []
    for name, (words, _) in bench.source.metrics.items():
        comparisons = compare_slopes(
            column(table, "flops_model"),
            column(table, name),
            table["arm"].to_list(),
            table["config/train.seed"].to_list(),
            baseline="ligr",
        )
        for c in comparisons:
            cells = [
                interval(d.value, d.low, d.high) if d.low == d.low else d.value
                for d in (c.slope, c.level)
            ]
            seen = [d.detectable if d.detectable == d.detectable else None
                    for d in (c.slope, c.level)]  # fmt: skip
            rows.append([words, c.arm, cells[0], seen[0], c.at, cells[1], seen[1]])
    columns = [
        Column("metric"),
        Column("architecture"),
        Column("slope less LiGR's", "+.4f"),
        Column("detectable", ".4f"),
        Column("FLOPs", ".1e"),
        Column("level less LiGR's", "+.4f"),
        Column("detectable level", ".4f"),
    ]
    caption = (
        "Differences on flops_model, paired by seed, 90 %; detectable: the smallest true "
        "difference that so many seeds show with 80 % probability. Levels are those of the lines "
        "in the middle of the common compute."
    )
    study.add(f"{bench.name}_differences", caption, columns, rows)


def add_predictions(bench: Bench, study: Study, table: pl.DataFrame) -> None:
    """Add the prediction of each largest run, which was written before the run started."""
    rows: list[list[Cell]] = []
    for arm in bench.arms:
        for path in sorted((bench.out / "ladder" / arm).glob("prediction*.json")):
            run = score(path, float("nan")).run
            measured = table.filter(run=run)
            if not measured.height:
                continue
            outcome = score(path, float(measured["validation/ne"][0]))
            rows.append(
                [
                    arm,
                    outcome.compute,
                    interval(outcome.predicted, outcome.low, outcome.high),
                    outcome.observed,
                    "yes" if outcome.covered else "no",
                ]
            )
    columns = [
        Column("architecture"),
        Column("FLOPs", ".1e"),
        Column("predicted", ".4f"),
        Column("measured", ".4f"),
        Column("inside the interval"),
    ]
    caption = "Validation NE of the largest run, predicted from the other rungs before it started."
    study.add(f"{bench.name}_predictions", caption, columns, rows)


def add_costs(bench: Bench, study: Study, table: pl.DataFrame) -> None:
    """Add what the largest run of each architecture costs in training and in serving."""
    largest = {arm: table.filter(arm=arm).sort("flops_model").tail(1) for arm in bench.arms}
    serving = request_times(bench, {arm: str(run["run"][0]) for arm, run in largest.items()})
    rows: list[list[Cell]] = []
    for arm, run in largest.items():
        milliseconds = 1e3 * serving[arm]
        rows.append(
            [
                arm,
                int(run["params/dense"][0]),
                float(run["flops_model"][0]),
                float(run["estimate/memory_bytes"][0]) / 2**20,
                1e3 * float(run["seconds"][0]) / float(run["steps"][0]),
                100 * float(run["input_wait"][0]),
                float(np.median(milliseconds)),
                float(np.quantile(milliseconds, 0.99)),
            ]
        )
    columns = [
        Column("architecture"),
        Column("dense parameters", ",d"),
        Column("FLOPs", ".1e"),
        Column("memory, MiB", ".0f"),
        Column("ms per step", ".1f"),
        Column("input wait, %", ".1f"),
        Column("request, ms", ".2f"),
        Column("request p99, ms", ".2f"),
    ]
    caption = (
        f"The largest run of each architecture. A request scores {CANDIDATES} candidates against "
        "an encoded history; architectures take turns."
    )
    study.add(f"{bench.name}_costs", caption, columns, rows)


def request_times(bench: Bench, runs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the seconds of requests with an encoded history, by architecture."""
    requests: dict[str, Callable[[], Any]] = {}
    for arm, run in runs.items():
        requests[arm] = request_of(Scorer.from_run(bench.out / "ladder" / arm / run), bench.data)
    for request in requests.values():
        request()  # compiles
    seconds: dict[str, list[float]] = {arm: [] for arm in requests}
    for _ in range(ROUNDS):
        for arm, request in requests.items():
            start = time.perf_counter()
            request()
            seconds[arm].append(time.perf_counter() - start)
    return {arm: np.array(values) for arm, values in seconds.items()}


def request_of(scorer: Scorer, data: Path) -> Callable[[], Any]:
    """Return a request: the longest history of some rows is encoded, and candidates are scored."""
    config = scorer.config
    records = Records(data, config.data.edges)
    plan = plan_for(records, config, "validation")
    rows = Assembler(records, plan, config.model)(np.arange(min(64, len(plan))))
    longest = int((rows.member == 1).sum(1).argmax())
    history = jax.tree.map(lambda x: np.asarray(x)[longest : longest + 1], rows)
    history = history._replace(member=(history.member == 1).astype(np.int32))
    cache = scorer.encode(history)

    valid = np.flatnonzero(np.asarray(rows.member).ravel())[:CANDIDATES]
    valid = np.resize(valid, CANDIDATES)
    candidates = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:])[:, valid], rows)
    shape = candidates.member.shape
    candidates = candidates._replace(
        member=np.ones(shape, np.int32),
        session=np.full(shape, -1, np.int32),
        time=np.full(shape, np.nan, np.float32),
    )
    return lambda: scorer.score(cache, candidates)


PARTS: dict[str, Callable[[Bench, Study], None]] = {"rate": add_rates, "ladder": add_ladder}


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=SOURCES, default=list(SOURCES), help="[all]")
    add("--slice", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/slopes"), help="[%(default)s]")
    add("--members", type=int, default=1500, help="of the world [%(default)s]")
    add("--arms", nargs="+", choices=UNIFIED, default=list(UNIFIED), help="[all]")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="[all]")
    add("--no-runs", action="store_true", help="report finished runs only")
    add("--quick", action="store_true", help="four small rungs of the world, one seed")
    args = parser.parse_args()
    args.seeds = SEEDS[:1] if args.quick else SEEDS
    if args.quick:
        args.data, args.parts = ["world"], ["ladder"]
    return args


if __name__ == "__main__":
    main()
