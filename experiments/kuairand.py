"""Does LiGR beat past rates and boosted trees on a real feed if both sides know the same?

    python experiments/kuairand.py --quick      one seed, without the tries and controls
    python experiments/kuairand.py              three seeds, tries and controls; resumable

Data: the slice of KuaiRand-Pure: 167,408 impressions to 4 May to train on, 13,087 of 5 May to
choose on, 13,469 of 6 May to report (days in UTC+8). 785,266 earlier impressions have an order but
no times: long_view and like are known, click is not, and they are the newest 50 of a user. Two
protocols, which are never compared with each other:

    log only                 no model sees an earlier impression
    everything to everyone   LiGR: history and training targets; baselines: counters

Baselines also count the labels of 5 May for 6 May, and earlier sessions of the same day, which the
chosen LiGR does not see. LiGR's answer to the popularity of the day are LiRank's random effects
(3.9) of videos, authors and surfaces, which are refitted every day on top of its logits. Every dial
is chosen on 5 May by the mean of AUC and GAUC. Tries: trees 20 per action (2 sets of counters x 10
sizes), regression 3, rates 4; LiGR the settings of the table of changes with one seed, and 19 sets
of random effects per action.

Expected: LiGR with random effects is above the trees in everything to everyone, by less than the
90 % interval of one day. Numbers: experiments/results/kuairand.json. Time: about 30 minutes on two
idle cores, 80 minutes measured with other work on the machine.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lib.kuairand.baselines import BASELINES
from lib.kuairand.data import (
    LIGR,
    SLICE,
    Form,
    Rows,
    positive_rates,
    prepare_days,
    read_rows,
)
from lib.kuairand.effects import Effects, with_effects
from lib.kuairand.judge import CHOICE, REPORT, SHOWN, Scores, differences, measure
from lib.options import make_parser
from lib.results import Cell, Column, Study, mean_cell

from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores

LOG_ONLY, SHARED = "log only", "everything to everyone"
TREES = [*BASELINES][-1]
LIGR_ALONE, LIGR_EFFECTS = "LiGR", "LiGR with random effects"
LEAST = 400  # impressions of a surface that is reported
COLUMNS = tuple((a, m) for m in ("auc", "gauc", "ne") for a in SHOWN if m == "auc" or a != "like")
BASE: Mapping[str, Any] = {
    **LIGR,
    "model.features.actor_id.width": 8,
    "model.head.kind": "mlp",
    "model.head.widths": 64,
    "model.table_width": 16,
    "optim.rank_weight": 0.05,
    "train.epochs": 2,
    "eval.splits": "validation",  # 6 May is measured below, for the chosen settings
}
# Settings that were tried with one seed on 5 May: data, and changes of the base.
DAYS, PAUSES = Form("targets", whole_days=True), Form("targets")
LOG, SET = Form("none", whole_days=True), {"model.set_depth": 1}
ONE_EPOCH = {"train.epochs": 1}
SLOW_TABLES = {"optim.table_lr": 0.01, "optim.table_weight_decay": 0.2}
LINEAR = {**SET, "model.head.kind": "linear"}
CALIBRATED = {
    "model.head.gated": True,
    "model.head.calibration": True,
    "model.head.calibration_features": "surface",
}
TRIES: Mapping[str, tuple[Form, Mapping[str, Any]]] = {
    "chosen: sessions are days": (DAYS, {}),
    "blocks of 25 earlier impressions": (replace(DAYS, context_block=25), {}),
    "three epochs": (DAYS, {"train.epochs": 3}),
    "no rank loss": (DAYS, {"optim.rank_weight": 0.0}),
    "rank loss 0.2": (DAYS, {"optim.rank_weight": 0.2}),
    "half the rate of tables": (DAYS, SLOW_TABLES),
    "two layers, rank loss 0.2": (DAYS, {"model.depth": 2, "optim.rank_weight": 0.2}),
    "width 64": (DAYS, {"model.width": 64, "model.heads": 4}),
    "control: earlier impressions as history only": (replace(DAYS, earlier="context"), {}),
    "sessions by pauses, set-wise layer": (PAUSES, SET),
    "the same, dropout 0.1": (PAUSES, {**SET, "model.dropout": 0.1}),
    "the same, twice the history": (PAUSES, {**SET, "data.seq_len": 256, "optim.batch": 4}),
    "the same, gates and calibration by surface": (PAUSES, {**SET, **CALIBRATED}),
    "the same, linear head": (PAUSES, LINEAR),
    "the same, linear head, rank loss 0.2": (PAUSES, {**LINEAR, "optim.rank_weight": 0.2}),
    "log only, chosen: one epoch": (LOG, ONE_EPOCH),
    "log only: two epochs": (LOG, {}),
    "log only: four epochs": (LOG, {"train.epochs": 4}),
    "log only: two epochs, sessions by pauses, set-wise layer": (Form("none"), SET),
}


@dataclass(frozen=True)
class Outcome:
    """Scores of all models of a protocol, by model and run, and the chosen random effects."""

    rows: Rows
    scores: Mapping[str, Sequence[Scores]]
    effects: Mapping[str, Effects]


def main() -> None:
    show_messages()
    use_all_cores()  # before JAX starts
    args = arguments()
    seeds = range(1 if args.quick else 3)
    study = Study.of(__file__, __doc__, seeds)
    outcomes = {
        LOG_ONLY: compete(args, Form("none"), ONE_EPOCH, seeds),
        SHARED: compete(args, Form("targets"), {}, seeds),
    }
    add_test(study, outcomes)
    add_differences(study, outcomes)
    add_effects(study, outcomes)
    add_surfaces(study, outcomes[SHARED])
    if not args.quick:
        add_changes(study, args, outcomes)
    study.record(args.record)


def compete(
    args: argparse.Namespace, form: Form, changes: Mapping[str, Any], seeds: Sequence[int]
) -> Outcome:
    """Return the scores of all models with one form of the earlier impressions.

    Args:
        args: arguments of the command.
        form: data of the baselines; LiGR has whole days as sessions.
        changes: what is chosen for LiGR, as changes of the base.
        seeds: seeds of LiGR.
    """
    rows = read_rows(prepare_days(args.data, args.out / str(form), form))
    days = replace(form, whole_days=True)
    prepared = prepare_days(args.data, args.out / str(days), days)
    scores: dict[str, Sequence[Scores]] = {
        name: [once(args.out / f"{file_stem(name)}-{form}.npz", partial(baseline, rows))]
        for name, baseline in BASELINES.items()
    }
    runs = [ligr(prepared, args.out, {**changes, "train.seed": seed}) for seed in seeds]
    refitted, effects = with_effects(rows, runs)
    return Outcome(rows, {**scores, LIGR_ALONE: runs, LIGR_EFFECTS: refitted}, effects)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/kuairand"), help="where all goes [%(default)s]")
    add("--quick", action="store_true", help="one seed, without tries and controls")
    return parser.parse_args()


def file_stem(name: str) -> str:
    return name.partition(",")[0].replace(" ", "_")


def once(path: Path, compute: Callable[[], Scores]) -> dict[str, np.ndarray]:
    """Return the result of `compute`, cached in `path`."""
    if not path.exists():
        np.savez(path, allow_pickle=False, **compute())
    with np.load(path) as arrays:
        return dict(arrays)


def ligr(
    prepared: Path,
    out: Path,
    changes: Mapping[str, Any],
    splits: Sequence[str] = ("train", CHOICE, REPORT),
) -> dict[str, np.ndarray]:
    """Train the base with `changes` and return its scores, or read the run if it is finished."""
    from ligr_jax.config import digest
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.scaling.ladder import configure
    from ligr_jax.train.loop import train

    settings = {**BASE, "model.prior": positive_rates(prepared), **changes}
    config = configure(load_manifest(prepared), prepared, [f"{k}={v}" for k, v in settings.items()])
    run = out / digest(config)
    train(config, run)
    return once(run / f"{'-'.join(splits)}.npz", partial(predicted, run, splits))


def predicted(run: Path, splits: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the logits of a run by action, [impressions]; NaN where it has no prediction."""
    from ligr_jax.train.evaluate import restore

    evaluator, state = restore(run)
    actions = evaluator.config.model.actions
    scores = {a: np.full(len(evaluator.records), np.nan, np.float32) for a in actions}
    for split in splits:
        predictions = evaluator.predict(state, split)
        for column, action in enumerate(actions):
            scores[action][predictions.impression] = predictions.logits[:, column]
    return scores


def columns(first: Sequence[str], shown: Sequence[tuple[str, str]] = COLUMNS) -> list[Column]:
    spread = {"auc": None, "ne": None, "gauc": ".3f"}
    heads = (Column(f"{a} {m.upper()}", ".4f", spread[m]) for a, m in shown)
    return [*map(Column, first), *heads]


def metric_cells(
    rows: Rows, runs: Sequence[Scores], split: str, shown: Sequence[tuple[str, str]] = COLUMNS
) -> list[Cell]:
    """Return mean and standard deviation over the runs of each metric of a day."""
    values = [{a: measure(rows, a, run[a], split) for a in SHOWN} for run in runs]
    return [mean_cell([v[action][metric] for v in values]) for action, metric in shown]


def add_test(study: Study, outcomes: Mapping[str, Outcome]) -> None:
    table = [
        [protocol, name, *metric_cells(outcome.rows, runs, REPORT)]
        for protocol, outcome in outcomes.items()
        for name, runs in outcome.scores.items()
    ]
    caption = (
        "6 May: mean ± standard deviation over the seeds; baselines have one result each. "
        "Protocols are not comparable with each other."
    )
    study.add("test", caption, columns(["protocol", "model"]), table)


def add_differences(study: Study, outcomes: Mapping[str, Outcome]) -> None:
    """Add by how much LiGR exceeds the trees, with intervals over the members."""
    table: list[list[Cell]] = []
    for protocol, outcome in outcomes.items():
        for name in (LIGR_ALONE, LIGR_EFFECTS):
            cells: list[Cell] = []
            for action in ("click", "long_dwell"):
                ours = [run[action] for run in outcome.scores[name]]
                cells += differences(outcome.rows, action, ours, outcome.scores[TREES][0][action])
            table.append([protocol, name, *cells])
    heads = [
        f"{action} {metric}" for action in ("click", "long_dwell") for metric in ("AUC", "GAUC")
    ]
    caption = (
        "6 May: more than the boosted trees of the same protocol: mean of the seeds, and 90 % "
        "interval of a paired bootstrap over 1,000 resamples of the members."
    )
    first = [Column("protocol"), Column("model")]
    study.add("differences", caption, [*first, *(Column(h, "+.4f") for h in heads)], table)


def add_effects(study: Study, outcomes: Mapping[str, Outcome]) -> None:
    table = [[p, *(str(outcome.effects[a]) for a in SHOWN)] for p, outcome in outcomes.items()]
    caption = "Random effects chosen on 5 May: levels with the precision of their prior."
    study.add("effects", caption, [Column("protocol"), *map(Column, SHOWN)], table)


def add_surfaces(study: Study, outcome: Outcome) -> None:
    """Add the metrics of each surface with at least `LEAST` impressions on 6 May."""
    shown = [(action, "auc") for action in ("click", "long_dwell")]
    rows = outcome.rows
    day, surface = rows.splits[REPORT], rows.columns["surface"]
    table: list[list[Cell]] = []
    for value in np.unique(surface[day]):
        on_surface = day & (surface == value)
        if on_surface.sum() < LEAST:
            continue
        part = replace(rows, splits={REPORT: on_surface})
        rate = float(rows.labels["click"][on_surface].mean())
        for name in (TREES, LIGR_EFFECTS):
            cells = metric_cells(part, outcome.scores[name], REPORT, shown)
            table.append([str(value), int(on_surface.sum()), rate, name, *cells])
    first = [Column("tab"), Column("impressions", ",.0f"), Column("click rate", ".2f")]
    caption = f"Everything to everyone, 6 May: surfaces with at least {LEAST} impressions."
    study.add("surfaces", caption, [*first, *columns(["model"], shown)], table)


def add_changes(study: Study, args: argparse.Namespace, outcomes: Mapping[str, Outcome]) -> None:
    """Add the settings that were tried on 5 May, one seed each, and the controls."""
    shown = [(a, m) for a in ("click", "long_dwell") for m in ("auc", "gauc", "ne")]
    table: list[list[Cell]] = []
    for name, (form, changes) in TRIES.items():
        prepared = prepare_days(args.data, args.out / str(form), form)
        run = ligr(prepared, args.out, changes, (CHOICE,))
        rows = outcomes[LOG_ONLY if form.earlier == "none" else SHARED].rows
        table.append([name, *metric_cells(rows, [run], CHOICE, shown)])
    caption = "5 May: LiGR without random effects, seed 0; everything to everyone unless stated."
    study.add("changes", caption, columns(["settings"], shown), table)


if __name__ == "__main__":
    main()
