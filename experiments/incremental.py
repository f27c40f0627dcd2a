"""Can one day's data with a Fisher penalty replace retraining on all days?

    python experiments/incremental.py                  tune, train three seeds, print; resumable
    python experiments/incremental.py --seeds 5

On each of six days a model is trained for the next day: LiRank's tables 3 to 5 (3.6, 5.1) in small.
The synthetic world has 3,000 members and 1,000 items, half of which appear during its 60 days and
differ strongly in quality, so that a model that is not updated becomes outdated. (In the default
world, with 20,000 items and half the spread of quality, retraining gained nothing over no update,
with two seeds of 1,000 members; such a world cannot separate the methods.)

    never         the cold start of day 0, trained on the first 53 days, without updates
    cold          trained from scratch every day on all days so far
    warm          trained on the day's impressions only, from yesterday's weights
    incremental   the same with a penalty on the distance from yesterday's and the cold start's
                  weights, weighted by their Fisher information (lambda, alpha)

All methods read earlier days as history, and each is evaluated on the following day. The learning
rates of a day, then lambda and alpha, are tuned on the last three of the 53 days, from a cold start
before these. Numbers are means over days, then over seeds. Differences are from `never`, the
paper's baseline, in ten-thousandths, with 90 % intervals (Student's t) over seeds. `start` is the
time to restore, compile and compute the Fisher information. Column statistics are from the first 53
days; all methods and days use the same model, tables and optimizer.

Expected: one day's data is enough; the gain comes from the warm start, not from the penalty.
Numbers: experiments/results/incremental.json. Time: 9 minutes for the seeds, and about the same for
tuning.
"""

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.comparison import t_interval
from lib.options import make_parser
from lib.results import Cell, Column, Study

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.records import Records
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.world.config import DAY, START_MS, Planted, WorldConfig
from ligr_jax.data.world.generate import generate_world
from ligr_jax.scaling.ladder import configure
from ligr_jax.train.evaluate import Evaluator, restore
from ligr_jax.train.incremental import warm_assignments
from ligr_jax.train.loop import train
from ligr_jax.train.program import Program

COLD_DAYS, TUNED_DAYS, DAYS = 53, 3, 6
ARMS = ("never", "cold", "warm", "incremental")
MODEL = (
    "model.actions=click,long_dwell,like",
    "model.prior=",
    "model.width=16",
    "model.depth=1",
    "model.heads=1",
    "model.table_width=8",
    "model.action_token=actions_and_item",
    "model.position=relative_session",
    "model.table_init=0.02",
    "data.seq_len=32",
    "batch_tokens=1024",
    "eval.splits=validation",
    "eval.batch=64",
    "mesh.data=1",
    "track.wandb=off",
    "train.log_every=1000",
    "train.checkpoint_every=100000",
    "train.warm.examples=1024",
)
COLD_RATE = "optim.dense_lr=4e-3"
# Grids of a day's training. The first two are tuned together, then the others, on the days before
# those that are reported.
RATES = {"optim.dense_lr": (3e-4, 1e-3, 3e-3), "optim.table_lr": (0.02, 0.05, 0.1)}
HOLD = {"train.warm.fisher_weight": (10, 50, 250), "train.warm.cold_weight": (0, 0.1, 0.3, 0.6)}
PAPER = """the paper, against its cold start: feed contributions +1.02 % and training time -96 %
(21 days, then 6 of one day each); ads CTR, AUC +0.18 % and -96 % (14 days, then 4 halves of one)"""

Measures = dict[str, float]
Grid = Mapping[str, tuple[float, ...]]


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    # A day's program is compiled once for all seeds.
    jax.config.update("jax_compilation_cache_dir", str(args.out / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    data = args.out / "prepared"
    world = WorldConfig(members=args.members, items=1000, planted=Planted(quality=1.0))
    generate_world(world, args.out / "log")
    cut = SplitTimes(day_end(COLD_DAYS), day_end(COLD_DAYS + 1))
    prepare(canonical_source(args.out / "log"), data, PrepareOptions(splits=cut))
    began = time.perf_counter()
    rates, penalized = tuned(Line(data, args.out / "tuning", 0, COLD_DAYS - TUNED_DAYS))
    study = Study.of(__file__, __doc__, range(args.seeds))
    results = list[dict[str, Any]]()
    for seed in range(args.seeds):
        line = Line(data, args.out / f"seed-{seed}", seed, COLD_DAYS)
        days = {
            "never": line.never(),
            "cold": line.from_scratch(),
            "warm": line.train_daily("warm", DAYS, rates),
            "incremental": line.train_daily("incremental", DAYS, penalized, hold=True),
        }
        for arm, days_results in days.items():
            results += [
                {"seed": seed, "arm": arm, "day": k, **f} for k, f in enumerate(days_results, 1)
            ]
        write_atomically(args.out / "incremental.json", json.dumps(results, indent=1) + "\n")
    add_methods(study, results)
    add_differences(study, results)
    study.record(args.record)
    print(f"\n{PAPER}\n\n{time.perf_counter() - began:.0f} s in all")


class Line:
    """Runs of one seed that start from one cold start; finished runs are skipped."""

    def __init__(self, data: Path, out: Path, seed: int, cold_days: int) -> None:
        self.data, self.out, self.seed, self.cold_days = data, out, seed, cold_days
        cold = self._run("cold-0", 0, cold_days, COLD_RATE)
        print(f"{out.name}: cold start, NE {cold['ne']:.4f}, {cold['seconds']:.1f} s", flush=True)

    def never(self) -> list[Measures]:
        """Evaluate the cold start on every day."""
        _, state = restore(self.out / "cold-0")
        days_results = []
        for k in range(1, DAYS + 1):
            config = self._config(0, self.cold_days + k, COLD_RATE)
            evaluator = Evaluator(Program(config), Records(self.data, config.data.edges))
            days_results.append(quality(evaluator(state, "validation")))
        return days_results

    def from_scratch(self) -> list[Measures]:
        """Train each day on all days so far."""
        days = range(1, DAYS + 1)
        return [self._run(f"cold-{k}", 0, self.cold_days + k, COLD_RATE) for k in days]

    def train_daily(
        self, name: str, days: int, settings: tuple[str, ...], hold: bool = False
    ) -> list[Measures]:
        """Train on each day's impressions, from the weights of the day before."""
        cold = before = self.out / "cold-0"
        days_results = []
        for day in range(self.cold_days + 1, self.cold_days + days + 1):
            warm = warm_assignments(before, cold if hold else None)
            run = f"{name}-{day - self.cold_days}"
            days_results.append(self._run(run, day - 1, day, "optim.warmup=0.2", *warm, *settings))
            before = self.out / run
        return days_results

    def _run(self, name: str, first: int, day: int, *assignments: str) -> Measures:
        summary = train(self._config(first, day, *assignments), self.out / name)
        cost = {key: summary[key] for key in ("targets", "seconds", "start_seconds")}
        return {**quality(summary), **cost}

    def _config(self, first: int, day: int, *assignments: str) -> Config:
        """Return the configuration that trains on days first < d <= day and tests on the next."""
        edges = ",".join(str(day_end(d)) for d in (first, day, day + 1, day + 1))
        settings = [*MODEL, f"train.seed={self.seed}", f"data.edges={edges}", *assignments]
        return configure(load_manifest(self.data), self.data, settings)


def tuned(line: Line) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the best settings of a day without and with a penalty."""

    def best(grid: Grid, *settings: str, hold: bool) -> tuple[str, ...]:
        ne = {}
        for values in itertools.product(*grid.values()):
            tried = (*settings, *(f"{k}={v}" for k, v in zip(grid, values, strict=True)))
            name = "-".join(a.partition("=")[2] for a in tried)
            days_results = line.train_daily(name, TUNED_DAYS, tried, hold)
            ne[tried] = float(np.mean([f["ne"] for f in days_results]))
            print(f"tuning: {' '.join(tried)}  NE {ne[tried]:.4f}", flush=True)
        return min(ne, key=ne.__getitem__)

    rates = best(RATES, hold=False)
    return rates, best(HOLD, *rates, hold=True)


def quality(summary: dict[str, Any]) -> Measures:
    return {"ne": summary["validation/ne"], "auc": summary["validation/auc"]}


def day_end(day: int) -> int:
    return START_MS + day * DAY


def by_seed(results: list[dict[str, Any]], arm: str, key: str) -> np.ndarray:
    """Return the mean over the days for each seed."""
    seeds = sorted({r["seed"] for r in results})
    days = [[r.get(key, 0) for r in results if (r["seed"], r["arm"]) == (s, arm)] for s in seeds]
    result: np.ndarray = np.mean(days, axis=1)
    return result


def gains(results: list[dict[str, Any]], arm: str, base: str) -> list[Cell]:
    """Return by how much NE is less and AUC more than for `base`, in ten-thousandths."""
    return [
        t_interval(1e4 * sign * (by_seed(results, arm, key) - by_seed(results, base, key)))
        for key, sign in (("ne", -1), ("auc", 1))
    ]


def add_methods(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for arm in ARMS:
        ne_gain, auc_gain = gains(results, arm, "never")
        ne, auc, *cost = (
            float(by_seed(results, arm, key).mean())
            for key in ("ne", "auc", "targets", "seconds", "start_seconds")
        )
        rows.append([arm, ne, ne_gain, auc, auc_gain, *cost])
    columns = [
        Column("method"),
        Column("NE", ".4f"),
        Column("NE less by, 1e-4", "+.1f", "+.0f"),
        Column("AUC", ".4f"),
        Column("AUC more by, 1e-4", "+.1f", "+.0f"),
        Column("impressions a day", ",.0f"),
        Column("steps, s", ".1f"),
        Column("start, s", ".1f"),
    ]
    caption = "Means over days and seeds; differences from `never`, 90 % intervals over the seeds."
    study.add("methods", caption, columns, rows)


def add_differences(study: Study, results: list[dict[str, Any]]) -> None:
    rows = [[f"against {arm}", *gains(results, "incremental", arm)] for arm in ("cold", "warm")]
    columns = [
        Column("incremental"),
        Column("NE less by, 1e-4", "+.1f", "+.0f"),
        Column("AUC more by, 1e-4", "+.1f", "+.0f"),
    ]
    study.add("differences", "`incremental` against the others, in ten-thousandths.", columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/incremental"), help="where all goes [%(default)s]")
    add("--members", type=int, default=3000, help="of the world [%(default)s]")
    add("--seeds", type=int, default=3, help="[%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
