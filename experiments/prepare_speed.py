"""How many rows per second does `ligr prepare` read, and what bounds it?

    git worktree add ../before 25b7615
    python experiments/prepare_speed.py --against ../before

Prepares a synthetic world of about 3 M impressions, from Parquet (23 columns with true
probabilities) and from CSV (17 columns as text), with an earlier version (`--against`), and with
this version on one and on two threads. Every sample is a process of its own that opens the log and
prepares it; starting Python is not counted. The versions take turns; numbers are medians over the
rounds. Rows per second of wall time are fair only on idle cores; those of CPU time suffer less on
busy ones. `--profile` prints the share of each stage in the CPU time of this version instead.

Expected: every version writes the same digest; this version needs two thirds of the CPU time of
25b7615. Numbers: experiments/results/prepare_speed.json.
Time: 6 minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
from lib.options import make_parser
from lib.results import Column, Study
from peers.workers import Neighbours, alternate, quartiles

ROOT = Path(__file__).parents[1]
# Both versions run this program: log, output, number of threads or 0.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.table_columns import TableColumns

log, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
columns = TableColumns()
if not (log / "log.json").exists():
    columns = TableColumns(
        actions=("click", "long_dwell", "like", "comment", "share", "contribution"),
        categorical=("item_type", "surface"),
        numeric=("age_h", "position"),
        outcome=("dwell_s",),
    )
"""
MEASURE = """
options = PrepareOptions(**({"workers": workers} if workers else {}))
wall, cpu = time.perf_counter(), time.process_time()
manifest = prepare(open_source(log, columns=columns), out, options)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
rows = manifest.counts["rows"]
print(json.dumps({"wall": rows / wall, "cpu": rows / cpu, "digest": manifest.digest}))
"""
# In one thread, because the clock counts the CPU time of the whole process. The functions of the
# stages do not call each other.
PROFILE = """
import cProfile, pstats
from ligr_jax.data.prepare import build, partition
STAGES = {
    "unit of times": ("table_source.py", "_time_rule"),
    "read and decode": ("files.py", "_deferred"),
    "normalize and check": ("partition.py", "check_log_batch"),
    "write to partitions": ("partition.py", "write"),
    "add up totals": ("partition.py", "merge"),
    "sort histories": ("shards.py", "sort_histories"),
    "gather and measure columns": ("shard_build.py", "_list_columns"),
    "write shards": ("shards.py", "write_batch"),
}
build.ordered_map = partition.ordered_map = lambda function, values, workers: map(function, values)
profile, begun = cProfile.Profile(time.process_time), time.process_time()
manifest = profile.runcall(lambda: prepare(open_source(log, columns=columns), out))
total = time.process_time() - begun
stats = {(Path(f).name, name): row[3] for (f, _, name), row in pstats.Stats(profile).stats.items()}
print(f"{manifest.counts['rows']:,} rows, {total:.1f} s of CPU time")
for stage, function in STAGES.items():
    print(f"  {stage:28}{stats.get(function, 0) / total:6.1%}")
"""


def main() -> None:
    args, neighbours = arguments(), Neighbours()
    logs = {"Parquet": args.out / "log", "CSV": args.out / "csv"}
    write_logs(logs["Parquet"], logs["CSV"], args.members)
    versions = {"this version, 1 thread": (ROOT, 1), "this version, 2 threads": (ROOT, 2)}
    if args.profile:
        for name, log in logs.items():
            print(f"{name}: {profile(log, args.out / 'prepared')}")
        return
    if args.against:
        versions = {"before": (args.against, 0), **versions}
    study = Study.of(__file__, __doc__)
    rows = []
    for name, log in logs.items():
        trials = {v: Trial(log, args.out / "prepared", *versions[v]) for v in versions}
        alternate({v: trial.sample for v, trial in trials.items()}, args.rounds)
        (digest,) = {d for trial in trials.values() for d in trial.digests}
        print(f"{name}: digest {digest}")
        for version, trial in trials.items():
            wall, cpu = (quartiles(trial.rates[clock])[1] / 1e6 for clock in ("wall", "cpu"))
            rows.append([name, version, wall, max(trial.rates["wall"]) / 1e6, cpu])
    caption = "Millions of rows per second of wall time (median and best sample) and of CPU time."
    numbers = [Column(name, ".2f") for name in ("wall", "best wall", "CPU")]
    columns = [Column("log"), Column("version"), *numbers]
    study.add("rows", caption, columns, rows)
    print(f"\nother processes took {neighbours.share():.0%} of the cores meanwhile")
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/prepare_speed"), help="scratch [%(default)s]")
    add("--against", type=Path, metavar="DIR", help="a checkout of an earlier version")
    add("--members", type=int, default=20_000, help="of the world [%(default)s]")
    add("--rounds", type=int, default=5, help="[%(default)s]")
    add("--profile", action="store_true", help="print the shares of the stages and stop")
    return parser.parse_args()


def profile(log: Path, out: Path) -> str:
    """Prepare a log, and return the shares of the stages."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", PROGRAM + PROFILE, str(log.resolve()), str(out.resolve()), "1"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_logs(world: Path, text: Path, members: int) -> None:
    """Write the world, and its rows without true probabilities as four text files."""
    if not world.is_dir():
        ligr = [sys.executable, "-m", "ligr_jax", "world", "-q", "--out", str(world)]
        subprocess.run([*ligr, "--members", str(members)], check=True, cwd=ROOT)
    if text.is_dir():
        return
    text.mkdir()
    log = pl.read_parquet(world / "impressions-*.parquet").select(pl.exclude("^p_.*$"))
    log = log.with_columns(pl.col("is_random").cast(pl.Int8))
    for k in range(4):
        part = log[k * log.height // 4 : (k + 1) * log.height // 4]
        part.write_csv(text / f"log-{k}.csv")


class Trial:
    """Preparation of a log by one version.

    rates: rows per second of every sample, by clock. digests: digests of the outputs.
    """

    def __init__(self, log: Path, out: Path, version: Path, workers: int) -> None:
        self.out, self.version = out, version.resolve()
        arguments = [str(log.resolve()), str(out.resolve()), str(workers)]
        self.command = [sys.executable, "-c", PROGRAM + MEASURE, *arguments]
        self.env = {**os.environ, "PYTHONPATH": str(self.version)}
        self.rates: dict[str, list[float]] = {"wall": [], "cpu": []}
        self.digests: set[str] = set()

    def sample(self) -> float:
        shutil.rmtree(self.out, ignore_errors=True)
        # Python searches the working directory before PYTHONPATH.
        done = subprocess.run(
            self.command, env=self.env, cwd=self.version, check=True, stdout=subprocess.PIPE
        )
        sample = json.loads(done.stdout)
        self.digests.add(sample["digest"])
        for clock, rates in self.rates.items():
            rates.append(sample[clock])
        return float(1 / sample["wall"])


if __name__ == "__main__":
    main()
