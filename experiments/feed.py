"""How many tokens per second does one core of the host make, and how many did it make before?

    python experiments/feed.py

Times the input pipeline alone (rows of a plan to a batch with the unique ids of its tables) at the
shapes of the paper's ladder, on a synthetic world of 20,000 members in 2 and in 16 shards. The
baseline is the pipeline of commit 25b7615, which a Git worktree provides; it runs in a process of
its own. Baseline and current version take turns, batch by batch of the same rows, and both report
a digest of each batch: they must be equal bit for bit. Times are CPU seconds of the process.

Then the CPU time of each stage, the page faults of a batch (memory that the allocator did not
reuse), and start-up: mapping the index and making the plan for 10 M and 100 M members, whose
made-up index has 200 impressions in 20 sessions per member and is removed again. Each plan is made
in a process of its own. The peak of a process includes the pages of the index that it has read,
which the processes of a host share.

Expected: 5 to 7 times the baseline, and 2 GB for a plan of 10 M members, 5 GB for 100 M. Numbers:
experiments/results/feed.json. Time: 12 minutes; 22 GB on disk, 8 GB of memory.
"""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from peers.workers import Neighbours, quartiles

BASELINE = "25b7615"
ROOT = Path(__file__).parents[1]
SHARD_ROWS = {2: 2_000_000, 16: 200_000}  # by number of shards
IMPRESSIONS, SESSIONS = 200, 20  # per member of a made-up index
LENGTHS = {10_000_000: (2048, 128), 100_000_000: (2048, 512)}  # T of the plans, by members


def main() -> None:
    args = arguments()
    if args.side:
        serve(args.side)
        return
    if args.start_up:
        print(json.dumps(start_up(args.start_up, args.seq_len)))
        return
    neighbours = Neighbours()
    study = Study.of(__file__, __doc__, (0,))
    add_speed(study, args)
    add_start_up(study, args.out.resolve(), args.members)
    print(f"\nother processes took {neighbours.share():.0%} of the cores meanwhile")
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/feed"), help="where all goes [%(default)s]")
    add("--presets", nargs="+", default=["paper-1", "paper-5"], metavar="NAME")
    add("--rounds", type=int, default=40, help="batches of each [%(default)s]")
    add("--members", type=int, nargs="*", default=list(LENGTHS), help="of plans [%(default)s]")
    add("--side", type=Path, help=argparse.SUPPRESS)  # a child: code to import
    add("--start-up", type=Path, help=argparse.SUPPRESS)  # a child: directory of the index
    add("--seq-len", type=int, help=argparse.SUPPRESS)  # of the child's plan
    return parser.parse_args()


def add_speed(study: Study, args: argparse.Namespace) -> None:
    """Add tokens per second of both versions, and the CPU time of each stage."""
    out = args.out.resolve()
    baseline = out / "baseline"
    if not baseline.is_dir():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(baseline), BASELINE)
    rows: list[list[Cell]] = []
    stages: list[list[Cell]] = []
    for shards, shard_rows in SHARD_ROWS.items():
        data = prepared(baseline, out, shards, shard_rows)
        for preset in args.presets:
            sides = [Side(baseline, data, preset), Side(ROOT, data, preset)]
            answers = race(sides, args.rounds)
            times = [[answer["seconds"] for answer in side] for side in answers]
            faults = np.median([answer["faults"] for answer in answers[1]])
            tokens = sides[0].tokens
            rates = [[tokens / t / 1e6 for t in side] for side in times]
            ratios = [old / new for old, new in zip(*times)]
            cells = (interval(m, low, high) for low, m, high in map(quartiles, (*rates, ratios)))
            rows.append([preset, shards, *cells, float(faults)])
            if shards == 2:
                stages += [[preset, *stage] for stage in stage_times(sides)]
            for side in sides:
                side.close()
    columns = [
        Column("shape"),
        Column("shards", "d"),
        Column("before, M tokens/s", ".1f"),
        Column("now, M tokens/s", ".1f"),
        Column("ratio", ".1f"),
        Column("page faults of a batch now", ".0f"),
    ]
    caption = "Tokens per CPU second of one core: medians and quartiles of batches of 2^17 tokens."
    study.add("speed", caption, columns, rows)
    columns = [
        Column("shape"),
        Column("stage"),
        Column("before, ms", ".1f"),
        Column("now, ms", ".1f"),
    ]
    study.add("stages", "CPU time of the stages of a batch, medians.", columns, stages)


def race(sides: "list[Side]", rounds: int) -> list[list[dict[str, Any]]]:
    """Return CPU seconds and page faults of every batch by side; sides take turns on the rows."""
    kept: list[list[dict[str, Any]]] = [[] for _ in sides]
    for number in range(-3, rounds):  # the first batches warm up
        answers = [side.ask("batch", number + 3) for side in sides]
        if len({answer["digest"] for answer in answers}) > 1:
            raise SystemExit("the batches differ")
        if number >= 0:
            for of_side, answer in zip(kept, answers):
                of_side.append(answer)
    return kept


def stage_times(sides: "list[Side]") -> list[tuple[str, float, float]]:
    """Return the median milliseconds of each stage by side."""
    old, new = (side.ask("stages", 0) for side in sides)
    return [(stage, 1e3 * old[stage], 1e3 * new[stage]) for stage in new]


class Side:
    """A process that makes batches with one version of the package."""

    def __init__(self, code: Path, data: Path, preset: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--side", str(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tokens: int = self.ask("open", [str(data), preset])

    def ask(self, what: str, value: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, value]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(code: Path) -> None:
    """Answer the questions of `Side` with the package of a directory."""
    sys.path.insert(0, str(code))
    for name in [name for name in sys.modules if name.partition(".")[0] == "ligr_jax"]:
        del sys.modules[name]  # lib.results imported the current version
    from ligr_jax.data.assemble import Assembler
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.data.pipeline import plan_for
    from ligr_jax.data.records import Records
    from ligr_jax.data.unique_ids import UniqueIdMapper
    from ligr_jax.scaling.ladder import configure

    made: dict[str, Any] = {}
    for line in sys.stdin:
        what, value = json.loads(line)
        answer: Any
        if what == "open":
            data, preset = value
            config = configure(load_manifest(Path(data)), data, [f"preset={preset}"])
            records = Records(data)
            plan = plan_for(records, config, "train")
            made = {
                "assemble": Assembler(records, plan, config.model),
                "map": UniqueIdMapper(config.model),
                "rows": np.random.default_rng(0).integers(0, len(plan), (256, config.optim.batch)),
                "plan": plan,
            }
            answer = config.optim.batch * config.data.seq_len
        elif what == "batch":
            rows = made["rows"][value]
            began = time.process_time()
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            batch = made["map"](made["assemble"](rows))
            seconds = time.process_time() - began
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
            answer = {"seconds": seconds, "faults": faults, "digest": digest(batch)}
        else:
            answer = stage_seconds(made)
        print(json.dumps(answer), flush=True)


def stage_seconds(made: dict[str, Any]) -> dict[str, float]:
    """Return the median CPU seconds of placing windows, of reading and mapping, of unique ids."""
    batches = [made["assemble"](rows) for rows in made["rows"][:20]]

    def median(function: Callable[[Any], Any], arguments: Any) -> float:
        times = []
        for argument in arguments:
            began = time.process_time()
            function(argument)
            times.append(time.process_time() - began)
        return float(np.median(times))

    placed = median(made["plan"].gather, made["rows"][:20])
    assembled = median(made["assemble"], made["rows"][:20])
    return {
        "placing windows in rows": placed,
        "reading columns, hashing, buckets": assembled - placed,
        "unique ids": median(made["map"], batches),
    }


def digest(tree: Any) -> str:
    """Return a digest of all arrays of a batch."""
    state = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, dict):
            for name in sorted(node):
                state.update(name.encode())
                add(node[name])
        elif isinstance(node, tuple):
            for child in node:
                add(child)
        else:
            state.update(f"{node.dtype} {node.shape}".encode())
            state.update(np.ascontiguousarray(node).tobytes())

    add(tree)
    return state.hexdigest()


def prepared(baseline: Path, out: Path, shards: int, shard_rows: int) -> Path:
    """Return data that the baseline prepared, because it cannot read later ones."""
    data = out / f"prepared-{shards}"
    if not data.is_dir():
        log = out / "log"
        if not log.is_dir():
            ligr(baseline, "world", "--out", str(log), "--members", "20000", "--seed", "0")
        ligr(baseline, "prepare", str(log), "--out", str(data), "--shard-rows", str(shard_rows))
    return data


def add_start_up(study: Study, out: Path, members: list[int]) -> None:
    """Add time and memory of plans for many members, each made in a process of its own."""
    rows: list[list[Cell]] = []
    for count in members:
        directory = out / f"index-{count}"
        write_made_up_index(directory, count)
        for length in LENGTHS.get(count, LENGTHS[10_000_000]):
            words = ["--start-up", str(directory), "--seq-len", str(length)]
            command = [sys.executable, __file__, *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append([count, length, *json.loads(done.stdout)])
            print(rows[-1], flush=True)
        shutil.rmtree(directory)
    columns = [
        Column("members", ",d"),
        Column("T", "d"),
        Column("windows", ",d"),
        Column("mapping the index, CPU s", ".2f"),
        Column("plan, CPU s", ".1f"),
        Column("peak, GB", ".1f"),
        Column("peak without mapped files, GB", ".1f"),
    ]
    caption = f"Plans, {IMPRESSIONS} impressions in {SESSIONS} sessions per member."
    study.add("start", caption, columns, rows)


def start_up(directory: Path, length: int) -> list[float]:
    """Return windows, CPU seconds to map the index and to make a plan, and peaks of memory."""
    from ligr_jax.data.index import open_index
    from ligr_jax.data.manifest import SPLITS, Manifest, Shard
    from ligr_jax.data.packing import make_packing_plan

    offsets = np.load(directory / "index-offsets.npy", mmap_mode="r")
    files = (Shard("", len(offsets) - 1, int(offsets[-1]), ""),)
    manifest = Manifest((), {}, {}, shards=files, counts={}, index=files)
    memory = PeakOfOwnMemory()
    began = time.process_time()
    index = open_index(directory, manifest)
    mapped = time.process_time()
    records: Any = SimpleNamespace(
        offsets=index.offsets,
        counts=index.counts,
        member_ids=index.members,
        manifest=SimpleNamespace(splits=SPLITS),
        session_ends=lambda: index.sessions,
    )
    plan = make_packing_plan(records, "train", length // 2)
    seconds = [mapped - began, time.process_time() - mapped]
    peak = memory_gb("VmHWM")  # the peak of `getrusage` includes that of the parent process
    return [len(plan.start), *seconds, peak, memory.peak]


class PeakOfOwnMemory:
    """The peak of this process's memory without mapped files, in GB, sampled every 10 ms."""

    def __init__(self) -> None:
        self.peak = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, memory_gb("RssAnon"))
            time.sleep(0.01)


def memory_gb(field: str) -> float:
    """Return a field of `/proc/self/status` in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(field))
    return kib * 1024 / 1e9


def write_made_up_index(directory: Path, members: int) -> None:
    """Write the index of members with about `IMPRESSIONS` each, in sessions of equal length."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    length = rng.integers(IMPRESSIONS // 2, 3 * IMPRESSIONS // 2, members)
    offsets = np.concatenate([[0], np.cumsum(length)])
    np.save(directory / "index-offsets.npy", offsets)
    np.save(directory / "index-members.npy", np.arange(members))
    counts = np.zeros((members, 4), np.int32)
    counts[:, 1], counts[:, 2] = 0.8 * length, 0.1 * length
    counts[:, 3] = length - counts.sum(1)
    np.save(directory / "index-counts.npy", counts)
    per_session = IMPRESSIONS // SESSIONS
    sessions = -(-length // per_session)
    last = np.cumsum(sessions)
    shape = (int(last[-1]) + 1,)
    path = directory / "index-sessions.npy"
    ends = np.lib.format.open_memmap(path, "w+", np.int64, shape)
    for first in range(0, members, 2**18):
        part = slice(first, first + 2**18)
        n, stop = sessions[part], last[part]
        begin = int(stop[0] - n[0])
        made = np.repeat(offsets[:-1][part] - per_session * (stop - n), n)
        made += per_session * np.arange(begin + 1, int(stop[-1]) + 1)
        made[stop - begin - 1] = offsets[1:][part]
        ends[begin + 1 : int(stop[-1]) + 1] = made


def git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True)


def ligr(code: Path, *words: str) -> None:
    """Run a command of one version of the package."""
    command = [sys.executable, "-m", "ligr_jax", *words, "--quiet"]
    subprocess.run(command, check=True, cwd=code, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
