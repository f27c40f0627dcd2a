"""Does LiGR beat past rates and boosted trees on a real feed, and does a larger model help?

    python experiments/kuairand.py --quick      one seed of the chosen model, and the baselines
    python experiments/kuairand.py              three seeds, and the sweep over size and length

Data: the slice of KuaiRand-Pure: 167,408 impressions to 4 May to train on, 13,087 of 5 May to
choose on, 13,469 of 6 May to report (days in UTC+8 by `time_ms`; a pause of six hours ends a
session). All models are trained to 4 May; the baselines (`lib/kuairand/baselines.py`) count earlier
days of the same rows. LiGR also reads sessions of the same day that ended at least six hours
before (16 % of the rows have one).

Expected: LiGR's AUC is above rates and regression and below the trees; no larger model is
significantly better. Numbers: experiments/results/kuairand.json. Time: 28 minutes on two cores.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lib.kuairand.baselines import BASELINES
from lib.kuairand.data import ACTIONS, LIGR, SLICE, positive_rates, prepare_days, read_rows
from lib.options import make_parser
from lib.results import Cell, Column, Study, mean_cell

from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores

METRICS = ("ne", "auc", "gauc")
# Columns of the table of 6 May.
SHOWN = (
    ("click", "auc"),
    ("click", "ne"),
    ("click", "gauc"),
    ("long_dwell", "auc"),
    ("long_dwell", "ne"),
    ("like", "auc"),
    ("contribution", "auc"),
)
CAPTION = "6 May: mean ± standard deviation over the seeds; the baselines have one result each."

# Single changes with one seed, evaluated on 5 May.
SWEEP: Mapping[str, Mapping[str, Any]] = {
    "the chosen model": {},
    "twice the width": {"model.width": 64},
    "two layers": {"model.depth": 2},
    "half the history": {"data.seq_len": 64},
    "twice the history": {"data.seq_len": 256, "optim.batch": 4},
    "two epochs": {"train.epochs": 2},
    "one set-wise layer": {"model.set_depth": 1, "optim.rank_weight": 0.05},
    "action tokens without their item": {"model.action_token": "actions"},
}


def main() -> None:
    show_messages()
    use_all_cores()  # before JAX starts
    args = arguments()
    seeds = range(1 if args.quick else 3)
    study = Study.of(__file__, __doc__, seeds)
    prepared = prepare_days(args.data, args.out / "prepared")
    rows = read_rows(prepared)
    results = {
        name: [once(args.out / f"{file_stem(name)}.json", partial(baseline, rows))]
        for name, baseline in BASELINES.items()
    }
    results["LiGR, no counters"] = [ligr(prepared, args.out, {"train.seed": s}) for s in seeds]
    study.add("test", CAPTION, columns(), table_rows(results))
    if not args.quick:
        changed = {name: ligr(prepared, args.out, change) for name, change in SWEEP.items()}
        add_changes(study, changed)
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/kuairand"), help="where all goes [%(default)s]")
    add("--quick", action="store_true", help="one seed, no sweep")
    return parser.parse_args()


def file_stem(name: str) -> str:
    return name.partition(",")[0].replace(" ", "_")


def once(path: Path, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the result of `compute`, cached in `path`."""
    if not path.exists():
        path.write_text(json.dumps(compute(), indent=1) + "\n")
    result: dict[str, float] = json.loads(path.read_text())
    return result


def ligr(prepared: Path, out: Path, changes: Mapping[str, Any]) -> dict[str, float]:
    """Train the chosen model with `changes`, or read the run if it is finished."""
    from ligr_jax.config import digest
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.scaling.ladder import configure
    from ligr_jax.train.loop import train

    settings = {**LIGR, "model.prior": positive_rates(prepared), **changes}
    assignments = [f"{k}={v}" for k, v in settings.items()]
    config = configure(load_manifest(prepared), prepared, assignments)
    summary = train(config, out / digest(config))
    keys = [f"{s}/{a}/{m}" for s in ("validation", "test") for a in ACTIONS for m in METRICS]
    return {k: summary[k] for k in (*keys, "test/impressions") if k in summary}


def columns(shown: Sequence[tuple[str, str]] = SHOWN) -> list[Column]:
    heads = (f"{action} {metric.upper()}" for action, metric in shown)
    return [Column("model"), *(Column(head, ".4f") for head in heads)]


def table_rows(
    results: Mapping[str, Sequence[Mapping[str, float]]],
    split: str = "test",
    shown: Sequence[tuple[str, str]] = SHOWN,
) -> list[list[Cell]]:
    """Return a row per model: mean and standard deviation over its runs."""
    return [
        [model, *(mean_cell([run[f"{split}/{a}/{m}"] for run in runs]) for a, m in shown)]
        for model, runs in results.items()
    ]


def add_changes(study: Study, changed: Mapping[str, Mapping[str, float]]) -> None:
    """Add the table of single changes, one seed each, on 5 May."""
    shown = (("click", "auc"), ("long_dwell", "auc"))
    rows = table_rows({name: [run] for name, run in changed.items()}, "validation", shown)
    caption = "5 May: one change at a time, one seed. Seeds differ by about 0.001."
    study.add("changes", caption, columns(shown), rows)


if __name__ == "__main__":
    main()
