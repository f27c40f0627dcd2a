"""How often is a history already encoded when the requests of a real feed arrive in time order?

    python experiments/serving_kuairand.py

Data: the slice of KuaiRand-Pure. The activity store has everything to 5 May, and the sessions of 6
May are the requests, in the order of their time, of --members of its members at random. A request
has the items that the session showed, and random other items up to C. After a request, what the
member did is appended to the store, so the next request of the member finds a longer history. The
model is LiGR with D = 128, 4 layers and one set-wise layer, T = 512, exported after two steps:
times do not depend on its quality.

The engine of `ligr serve` answers one request after another, once with memory for encoded histories
and once without. A time includes reading the store, assembling the arrays and ranking, but not
HTTP. Programs are compiled before, on the same requests.

Expected: few members return on the day, so few histories are encoded before. Numbers:
experiments/results/serving_kuairand.json. Time: 5 minutes.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lib.kuairand.data import DAY_ENDS, LIGR, SLICE, USER, positive_rates, prepare_days
from lib.options import make_parser
from lib.results import Cell, Column, Study

from ligr_jax.config import digest
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.prepare.options import parse_time
from ligr_jax.data.records import Records
from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores
from ligr_jax.scaling.ladder import configure
from ligr_jax.serve.activity import ActivityStore
from ligr_jax.serve.activity_build import build_store
from ligr_jax.serve.activity_layout import Impressions
from ligr_jax.serve.artifact import Artifact, load_artifact
from ligr_jax.serve.service.engine import Engine
from ligr_jax.serve.service.requests import Request
from ligr_jax.serve.write import ExportOptions, export_artifact
from ligr_jax.tables.versions import listed_versions
from ligr_jax.train.loop import train

SETTINGS = {
    **{name: value for name, value in LIGR.items() if name != "train.epochs"},
    "model.width": 128,
    "model.depth": 4,
    "model.set_depth": 1,
    "model.heads": 4,
    "data.seq_len": 512,
    "train.steps": 2,
}
MEMORY = {"1 GiB": 2**30, "none": 0}
Session = tuple[int, Impressions]  # member and what was shown


def main() -> None:
    show_messages()
    use_all_cores()  # before JAX starts
    args = arguments()
    study = Study.of(__file__, __doc__)
    prepared = prepare_days(args.data, args.out / "prepared")
    artifact = exported(prepared, args.out, args.candidates)
    sessions = sessions_of_the_day(prepared, args.out, args.members)
    rows: list[list[Cell]] = []
    for name, memory in MEMORY.items():
        for _ in range(2):  # the first time compiles
            store_path = args.out / "served"
            build_store(prepared, store_path, parse_time(DAY_ENDS[1]), overwrite=True)
            with ActivityStore(store_path) as store:
                engine = Engine(store, memory)
                seconds = list(answered(engine, store, artifact, sessions, args.candidates))
        found = engine.lookups
        p50, p99 = (1e3 * float(x) for x in np.percentile(seconds, (50, 99)))
        shares = (100 * found[how] / found.total() for how in ("hits", "extended", "misses"))
        rows.append([name, len(sessions), p50, p99, *shares])
    columns = [
        *(Column("memory for encoded histories"), Column("requests", "d")),
        *(Column("p50, ms", ".1f"), Column("p99, ms", ".1f")),
        *(Column(f"{name}, %", ".0f") for name in ("encoded", "extended", "not encoded")),
    ]
    caption = f"Requests of {args.members} members, {args.candidates} candidates, in time order."
    study.add("replay", caption, columns, rows)
    study.record(args.record)


def exported(prepared: Path, out: Path, candidates: int) -> Artifact:
    """Return the artifact of a model that was trained for two steps."""
    settings = {**SETTINGS, "model.prior": positive_rates(prepared)}
    config = configure(load_manifest(prepared), prepared, [f"{k}={v}" for k, v in settings.items()])
    run, directory = out / f"run-{digest(config)}", out / f"artifact-{digest(config)}-{candidates}"
    train(config, run)
    if not listed_versions(directory):
        export_artifact(run, directory, ExportOptions(candidates=candidates))
    return load_artifact(directory)


def sessions_of_the_day(prepared: Path, out: Path, members: int) -> list[Session]:
    """Return the sessions of 6 May of some members, in the order of their time."""
    begin = parse_time(DAY_ENDS[1])
    build_store(prepared, out / "all")
    sessions = []
    with ActivityStore(out / "all") as store:
        for member in Records(prepared).member_ids.tolist():
            impressions = store.read(member, newest=2**30)
            shown = impressions[np.flatnonzero(impressions.records["timestamp_ms"] >= begin)]
            for number in np.unique(shown.records["session"]):
                sessions.append((member, shown[np.flatnonzero(shown.records["session"] == number)]))
    present = np.unique([member for member, _ in sessions])
    chosen = set(np.random.default_rng(0).permutation(present)[:members].tolist())
    by_time = sorted(sessions, key=lambda session: int(session[1].records["timestamp_ms"][0]))
    return [session for session in by_time if session[0] in chosen]


def answered(
    engine: Engine,
    store: ActivityStore,
    artifact: Artifact,
    sessions: Sequence[Session],
    candidates: int,
) -> Iterator[float]:
    """Answer the requests of sessions and append what happened; yield the seconds of answers."""
    pool = Impressions.concatenate([shown for _, shown in sessions])
    rng = np.random.default_rng(0)
    for member, shown in sessions:
        others = pool[rng.integers(0, len(pool), max(0, candidates - len(shown)))]
        request = Request(member, None, as_candidates(shown, others, store, candidates))
        began = time.perf_counter()
        engine.answer(artifact, artifact.directory.name, [request])
        yield time.perf_counter() - began
        store.append_parsed(np.full(len(shown), member), shown)


def as_candidates(
    shown: Impressions, others: Impressions, store: ActivityStore, most: int
) -> Impressions:
    """Return the items of a session and others, with the member and the time of the session."""
    joined = Impressions.concatenate([shown, others])[np.arange(most)]
    records = joined.records
    records["timestamp_ms"] = shown.records["timestamp_ms"][0]
    for name in USER:
        records[feature_column(name)] = shown.records[feature_column(name)][0]
    for action in store.manifest.actions:
        records[action_column(action)] = -1
    return joined


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/serving_kuairand"), help="[%(default)s]")
    add("--members", type=int, default=1000, help="[%(default)s]")
    add("--candidates", type=int, default=512, metavar="C", help="[%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
