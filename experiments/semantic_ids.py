"""Do semantic ids replace item ids (LiGR 5.1, table 5), and what do they do for cold items?

    python experiments/semantic_ids.py                    all, resumable, in runs/semantic_ids
    python experiments/semantic_ids.py --data PREPARED    on data whose items have `content`

A world of 3,000 members and 20,000 items; a third of the validation impressions are of items with
fewer than five train impressions (cold). The encoder, 3 x 32 codes, learns from the content vectors
of the items in the train split alone and is frozen; items that come later get their codes from it.
Six arms, three seeds, one configuration (preset demo-4, tables 16 wide); the surface and the dwell
of earlier impressions stay in all of them, since neither is the item's:

    baseline          item id, actor, type, age, content vector
    add SID           all of these, and the prefixes of one, two and three codes, concatenated
    no id, add SID    these without the item id, and the prefixes
    only SID          the prefixes, of the item nothing else
    only id           the item id, of the item nothing else            (not in the paper)
    no id             the baseline without the item id                 (not in the paper)

The paper says only "only SID"; we assume that no other item feature remains, because of the size of
the loss (table 2: a single feature costs 5 to 11 %). Differences from the baseline are paired by
seed; the 90 % interval is Student's t with the standard deviation pooled over the arms. `agrees`:
our sign is the paper's and the interval excludes zero; `open`: the interval contains zero.

Expected: the six signs of table 5 are the paper's, and only the loss of the other features is
significant. Numbers: experiments/results/semantic_ids.json. Time: 6 minutes on two cores.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from lib.comparison import TASKS, against, verdict
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from lib.sweeps import (
    arms_sweep,
    changes_of_runs,
    prepared_world,
    run_command,
    run_sweep,
    write_sweep,
)

from ligr_jax.data.columns import feature_column
from ligr_jax.data.records import Records
from ligr_jax.runs.table import column, read_runs

ROOT = Path(__file__).parents[1]
ITEM, REST = ("actor_id", "item_type", "age_h", "content"), ("surface", "dwell_s")
SID = ("sid1", "sid2", "sid3")
SEEDS = (0, 1, 2)
ARMS = {
    "baseline": ("item_id", *ITEM),
    "add SID": ("item_id", *ITEM, *SID),
    "no id, add SID": (*ITEM, *SID),
    "only SID": SID,
    "only id": ("item_id",),
    "no id": ITEM,
}
# Relative change of the AUC of long dwell and of contribution, in per cent.
PAPER = {"only SID": (-6.5, -4.6), "no id, add SID": (0.4, 0.11), "add SID": (0.26, 0.22)}
# Explicit settings, so that the numbers above do not depend on the defaults.
ENCODER = {"codes": 32, "steps": 2000, "rate": 1e-3, "gamma": 1, "temperature": 1}
SETTINGS = {
    "preset": "demo-4",
    "model.table_width": 16,
    # In total a fifth of the item id's rows; in the paper about a quarter.
    "model.features.sid3.lookup": "hash",
    "model.features.sid3.rows": 4096,
}
SLICES = {"all": "", "cold items": "cold_items/"}


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS)
    data = attached(args.data or prepared_world(args.out / "world", members=3000), args.out / "sid")
    runs = args.out / "runs"
    arms = {f"model.features={','.join((*a, *REST))}": name for name, a in ARMS.items()}
    sweep = arms_sweep(SETTINGS, list(arms), SEEDS)
    run_sweep([write_sweep(args.out / "arms.yaml", sweep)], data, runs)
    arm_of = {run: arms[change] for run, change in changes_of_runs(runs).items()}
    table = read_runs(runs).table.with_columns(
        change=pl.col("run").replace_strict(arm_of),
        **{f"mean/{s}{m}": mean(s, m) for s in SLICES.values() for m in ("ne", "auc")},
    )
    add_table5(study, table)
    for name, part in SLICES.items():
        add_arms(study, table, name, part)
    add_pairs(study, table)
    study.record(args.record)


def attached(data: Path, directory: Path) -> Path:
    """Return `data` with semantic ids of an encoder trained only on items of the train split."""
    model, ids, out = directory / "model", directory / "ids.parquet", directory / "prepared"
    if not (out / "manifest.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        known = directory / "known.parquet"
        train_items(Records(data)).write_parquet(known)
        options = [f"--{name}={value}" for name, value in ENCODER.items()]
        run_command("sid", "train", str(known), "--out", str(model), *options)
        run_command("sid", "assign", str(model), str(data), "--out", str(ids))
        run_command("sid", "attach", str(ids), str(data), "--out", str(out))
    return out


def train_items(records: Records) -> pl.DataFrame:
    """Return ids and content vectors of the items in the train split."""
    items = records.items
    if items is None:
        raise SystemExit(f"{records.directory} has no item table; choose another --data")
    content = items.numbers[feature_column("content")]
    table = pl.DataFrame({"item_id": items.ids, "content": content})
    return table.filter(records.train_counts("item_id", items.ids) > 0)


def mean(part: str, metric: str) -> pl.Expr:
    """Return the mean over the three tasks."""
    return pl.mean_horizontal(f"validation/{task}/{part}{metric}" for task in TASKS)


def add_table5(study: Study, table: pl.DataFrame) -> None:
    rows: list[list[Cell]] = []
    for arm, paper in PAPER.items():
        cells: list[Cell] = []
        verdicts = []
        for task, theirs in zip(TASKS[1:], paper):
            ours = against(table, "baseline", f"validation/{task}/auc")[arm]
            cells += [theirs, interval(*ours)]
            verdicts.append(verdict(np.sign(theirs), *ours[1:]))
        rows.append([arm, *cells, ", ".join(dict.fromkeys(verdicts))])
    columns = [
        Column("arm"),
        *(
            Column(f"{task} AUC, {who}, %", "+g" if who == "paper" else "+.2f")
            for task in ("long dwell", "contribution")
            for who in ("paper", "ours")
        ),
        Column("verdict"),
    ]
    study.add("table5", "Table 5: relative changes from the baseline.", columns, rows)


def add_arms(study: Study, table: pl.DataFrame, name: str, part: str) -> None:
    """Add means over the three tasks and the seeds, and changes from the baseline."""
    changes = {m: against(table, "baseline", f"mean/{part}{m}") for m in ("ne", "auc")}
    rows: list[list[Cell]] = []
    for arm in ARMS:
        runs = table.filter(change=arm)
        cells: list[Cell] = []
        for metric, change in changes.items():
            cells.append(float(column(runs, f"mean/{part}{metric}").mean()))
            cells.append(interval(*change[arm]) if arm in change else None)
        rows.append([arm, int(column(runs, "params_tables")[0]), *cells])
    columns = [
        Column("arm"),
        Column("table parameters", ",d"),
        Column("NE", ".4f"),
        Column("change of NE, %", "+.2f"),
        Column("AUC", ".4f"),
        Column("change of AUC, %", "+.2f"),
    ]
    caption = f"Impressions: {name}. Means of click, long dwell and contribution."
    study.add(name, caption, columns, rows)


def add_pairs(study: Study, table: pl.DataFrame) -> None:
    """Add the effect of semantic ids as the only ids, against the item id and against no id."""
    rows: list[list[Cell]] = []
    for arm, base in (("only SID", "only id"), ("no id, add SID", "no id")):
        for name, part in SLICES.items():
            change = against(table, base, f"mean/{part}auc")[arm]
            rows.append([f"{arm} against {base}", name, interval(*change)])
    columns = [Column("arms"), Column("impressions"), Column("change of AUC, %", "+.2f")]
    study.add("pairs", "Semantic ids against item ids.", columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "semantic_ids")
    parser.add_argument("--data", type=Path, help="prepared data [its own world]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
