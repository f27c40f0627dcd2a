"""Do set-wise layers replace diversity rules where the items of a session satiate?

    python experiments/diversity.py                 finished runs are kept
    python experiments/diversity.py --seeds 2 --members 300

LiGR 3.2 and 6.1 replace rules (two other items between items of an actor) by set-wise layers. Two
synthetic worlds have strong satiation by topic and actor: in `earlier` an item is satiated by the
items before it, in `whole session` by all others. LiGR is trained on clicks without set-wise layers
(point-wise) and with one, otherwise equal. The candidates of a request are the items of a logged
test session of ten or more; one forward pass scores them, they are sorted, re-ranked by the rule or
not, and the first five are shown. The worlds have no network, so the rule for out-of-network items
does not apply.

Utility is exact: the expected clicks on the five items by the world's true probabilities for this
slate at positions 0 to 4, satiation and position effect included. References know the truth: ideal
point-wise scores are the click probabilities of items alone, ideal set-wise scores those among all
candidates in random order, and a greedy choice takes the largest true gain of the expected clicks.
Diversity of the five: distinct actors and topics, mean cosine of content vectors, alpha-NDCG (alpha
0.5; the judgment is the true click probability of the item alone, for its main topic). Intervals
are 90 %, Student's t over seeds; differences are paired by seed.

Replay: random traffic shows two of the candidates; slates that equal a policy's first two give the
rate of a click, which is compared with the exact rate. Intervals are 95 %.

Expected: ideal set-wise scores gain more than the rule and leave little to it. With models this
small the rule gains more than half of what it gains for ideal scores, and the set-wise layer gains
AUC but no clicks. Numbers: experiments/results/diversity.json. Time: 30 minutes, with other
processes on the machine.
"""

import argparse
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib.comparison import t_interval
from lib.options import make_parser
from lib.results import Cell, Column, Study
from lib.slates import (
    Requests,
    Traffic,
    greedy,
    random_traffic,
    replayed,
    requests_of,
    set_wise_truth,
)

from ligr_jax import TrainedModel, fit_model
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.world.config import Planted, WorldConfig
from ligr_jax.data.world.generate import generate_world

LATER = {"earlier": 0.0, "whole session": 1.0}  # weight of later items in the satiation
CASES = (("earlier", 2, 5), ("whole session", 2, 5), ("whole session", 8, 3))  # epochs, seeds
SET_DEPTH = {"point-wise": 0, "set-wise": 1}
WITH_RULES = " with rules"
POLICIES = tuple(f"{model}{rules}" for model in SET_DEPTH for rules in ("", WITH_RULES))
COMPARED = (
    ("point-wise with rules", "point-wise"),
    ("set-wise", "point-wise"),
    ("set-wise", "point-wise with rules"),
    ("set-wise with rules", "set-wise"),
)
LEAST = 10  # candidates of a request
ROWS = 64  # of a batch that is scored
MODEL = (
    "model.actions=click,long_dwell",
    "model.width=32",
    "model.depth=1",
    "model.table_width=16",
    "model.action_token=actions_and_item",
    "model.position=relative_session",
    "model.table_init=0.02",
    "data.seq_len=128",
    "data.workers=0",
    "batch_tokens=1024",
    "optim.dense_lr=4e-3",
    "train.log_every=100000",
    "train.checkpoint_every=100000",
    "eval.splits=validation",
    "mesh.data=1",
    "track.wandb=off",
)
COLUMNS = {
    "clicks": Column("clicks", ".3f"),
    "actors": Column("actors", ".2f"),
    "topics": Column("topics", ".2f"),
    "similarity": Column("cosine", ".3f"),
    "alpha_ndcg": Column("alpha-NDCG", ".3f"),
}
CASE_COLUMNS = (Column("satiation by"), Column("epochs", "d"))

Result = dict[str, Any]


def main() -> None:
    args = arguments()
    logging.getLogger("ligr_jax").setLevel(logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    # The program of a model is compiled once for all seeds.
    jax.config.update("jax_compilation_cache_dir", str(args.out / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    study = Study.of(__file__, __doc__, range(args.seeds))
    results, references = list[Result](), list[Result]()
    for world, later in LATER.items():
        config = world_config(args.members, later)
        directory = args.out / world.replace(" ", "-")
        generate_world(config, directory / "log")
        prepare(canonical_source(directory / "log"), directory / "prepared", PrepareOptions())
        requests = requests_of(config, directory, LEAST)
        references += [{"world": world, **row} for row in measured_references(requests)]
        traffic = random_traffic(requests, args.random)
        for _, epochs, seeds in (case for case in CASES if case[0] == world):
            for seed in range(min(seeds, args.seeds)):
                case = {"world": world, "epochs": epochs, "seed": seed}
                rows = measured_models(directory, requests, traffic, epochs, seed)
                results += [case | row for row in rows]
    add_references(study, references)
    add_policies(study, results)
    add_differences(study, results)
    add_replay(study, results)
    study.record(args.record)


def measured_models(
    directory: Path, requests: Requests, traffic: Traffic, epochs: int, seed: int
) -> Iterator[Result]:
    """Train both models and yield the measures of each, without and with the rule."""
    for name, depth in SET_DEPTH.items():
        settings = [f"model.set_depth={depth}", f"train.seed={seed}", f"train.epochs={epochs}"]
        run = directory / f"{name}-{epochs}-{seed}"
        model = fit_model([*MODEL, *settings], directory / "prepared", run)
        score_RC = split_logits(model, directory / "prepared")[requests.row_RC]
        for rules in ("", WITH_RULES):
            order_RC = requests.ranked(score_RC, bool(rules))
            measures = requests.measure(order_RC)
            print(f"{run}{rules}: {measures['clicks']:.3f} clicks", flush=True)
            yield {
                "policy": f"{name}{rules}",
                "auc": model.summary["validation/click/auc"],
                **measures,
                **replayed(requests, order_RC, traffic),
            }


def world_config(members: int, later: float) -> WorldConfig:
    """Return a world with few topics and actors and strong satiation, in one block."""
    planted = Planted(
        topic_satiation=3.0, actor_satiation=2.4, satiation_half=1.0, satiation_later=later
    )
    return WorldConfig(
        members=members, items=2000, parents=6, leaves=4, block_members=members, planted=planted
    )


def split_logits(model: TrainedModel, data: Path) -> np.ndarray:
    """Return the click logits of all impressions, float32 [N]; NaN outside of the test split."""
    records = Records(data, model.config.data.edges)
    plan = plan_for(records, model.config, "test")
    assemble = Assembler(records, plan, model.config.model)
    logits = np.full(records.offsets[-1], np.nan, np.float32)
    for first in range(0, len(plan), ROWS):
        number = np.arange(first, first + ROWS)
        batch_rows = np.where(number < len(plan), number, -1)  # batches of one shape
        index_BN, _, target_BN = plan.gather(batch_rows)
        predicted_BN = model.predict(assemble(batch_rows)).logits["click"]
        logits[index_BN[target_BN]] = predicted_BN[target_BN]
    return logits


def measured_references(requests: Requests) -> list[Result]:
    """Return the measures of policies that know the truth, and of a random order."""
    scores = {
        "random": np.random.default_rng(0).random(requests.row_RC.shape),
        "ideal point-wise": requests.alone[requests.row_RC],
        "ideal set-wise": set_wise_truth(requests),
    }
    orders = {}
    for name, score_RC in scores.items():
        for rules in ("", WITH_RULES):
            orders[f"{name}{rules}"] = requests.ranked(score_RC, bool(rules))
    orders["largest true gain"] = greedy(requests)
    return [{"policy": name, **requests.measure(order)} for name, order in orders.items()]


def by_seed(results: Sequence[Result], case: tuple[str, int, int], policy: str, key: str) -> Any:
    """Return a measure of a policy for each seed of a case, float64 [seeds]."""
    found = {
        r["seed"]: r[key]
        for r in results
        if (r["world"], r["epochs"], r["policy"]) == (*case[:2], policy)
    }
    return np.array([found[seed] for seed in sorted(found)])


def add_references(study: Study, references: Sequence[Result]) -> None:
    rows = [[r["world"], r["policy"], *(r[key] for key in COLUMNS)] for r in references]
    columns = [Column("satiation by"), Column("policy"), *COLUMNS.values()]
    study.add("references", "Policies that know the truth, and a random order.", columns, rows)


def add_policies(study: Study, results: Sequence[Result]) -> None:
    rows: list[list[Cell]] = []
    for case, policy in itertools.product(CASES, POLICIES):
        values = (by_seed(results, case, policy, key) for key in ("auc", *COLUMNS))
        rows.append([*case[:2], policy, *(t_interval(x) for x in values)])
    columns = [*CASE_COLUMNS, Column("policy"), Column("AUC", ".3f"), *COLUMNS.values()]
    caption = (
        "Expected clicks and diversity of the five items shown, and the click AUC of the model on "
        "the validation split; means and 90 % intervals over the seeds."
    )
    study.add("policies", caption, columns, rows)


def add_differences(study: Study, results: Sequence[Result]) -> None:
    rows: list[list[Cell]] = []
    for case, (policy, base) in itertools.product(CASES, COMPARED):
        pairs = {key: [by_seed(results, case, p, key) for p in (policy, base)] for key in COLUMNS}
        clicks, base_clicks = pairs.pop("clicks")
        cells = [t_interval(100 * (clicks / base_clicks - 1))]
        cells += [t_interval(x - y) for x, y in pairs.values()]
        rows.append([*case[:2], f"{policy} against {base}", *cells])
    signed = [Column(c.name, f"+{c.format}") for c in list(COLUMNS.values())[1:]]
    columns = [*CASE_COLUMNS, Column("policies"), Column("clicks, %", "+.1f"), *signed]
    study.add("differences", "Differences, paired by seed, 90 % intervals.", columns, rows)


def add_replay(study: Study, results: Sequence[Result]) -> None:
    rows: list[list[Cell]] = []
    for case, policy in itertools.product(CASES, POLICIES):
        exact, rate, low, high, matched = (
            by_seed(results, case, policy, key)
            for key in ("exact", "replay", "low", "high", "matched")
        )
        inside = int(((low <= exact) & (exact <= high)).sum())
        means = [float(x.mean()) for x in (exact, rate, (high - low) / 2, matched)]
        rows.append([*case[:2], policy, *means, f"{inside} of {len(exact)}"])
    columns = [
        *CASE_COLUMNS,
        Column("policy"),
        Column("exact", ".3f"),
        Column("replay", ".3f"),
        Column("half interval", ".3f"),
        Column("matched slates", ",.0f"),
        Column("intervals with the exact rate"),
    ]
    caption = "Rate of a click in the first two items, means over the seeds; 95 % intervals."
    study.add("replay", caption, columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/diversity"), help="where all goes [%(default)s]")
    add("--members", type=int, default=1500, help="of each world [%(default)s]")
    add("--seeds", type=int, default=5, help="at most, of each case [%(default)s]")
    add("--random", type=int, default=200, help="random slates of a request [%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
