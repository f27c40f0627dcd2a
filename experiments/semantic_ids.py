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
seed; the 90 % interval is Student's t with the standard deviation pooled over the arms, as in
experiments/ligr_paper.py. `agrees`: our sign is the paper's and the interval excludes zero; `open`:
the interval contains zero.

Expected (21 November 2026, two AMD cores; validation split):

    table 5            long dwell AUC: paper, ours          contribution AUC: paper, ours
    only SID           -6.5 %   -11.56 [-11.89, -11.23]     -4.6 %   -5.10 [-5.63, -4.57]  agrees
    no id, add SID     +0.4 %    +0.13 [-0.20, +0.46]      +0.11 %   +0.44 [-0.09, +0.97]  open
    add SID           +0.26 %    +0.17 [-0.16, +0.51]      +0.22 %   +0.53 [-0.00, +1.06]  open

    means of click, long dwell and contribution
                       tables    NE      change                 AUC     change
    all
    baseline           410,672   0.9476                         0.6600
    add SID            493,136   0.9463  -0.14 [-0.34, +0.06]   0.6620  +0.30 [-0.05, +0.66]
    no id, add SID      93,552   0.9465  -0.11 [-0.31, +0.09]   0.6613  +0.19 [-0.16, +0.54]
    only SID            82,992   0.9752  +2.91 [+2.71, +3.12]   0.6124  -7.21 [-7.56, -6.86]
    only id            400,112   0.9757  +2.96 [+2.76, +3.17]   0.6124  -7.21 [-7.56, -6.86]
    no id               11,088   0.9472  -0.04 [-0.25, +0.16]   0.6601  +0.02 [-0.33, +0.37]
    cold items
    baseline           410,672   0.9524                         0.6525
    add SID            493,136   0.9500  -0.25 [-0.46, -0.04]   0.6555  +0.46 [+0.11, +0.82]
    no id, add SID      93,552   0.9505  -0.20 [-0.41, +0.01]   0.6545  +0.30 [-0.05, +0.66]
    only SID            82,992   0.9805  +2.96 [+2.75, +3.17]   0.6025  -7.67 [-8.02, -7.31]
    only id            400,112   0.9829  +3.21 [+3.00, +3.42]   0.5955  -8.74 [-9.10, -8.39]
    no id               11,088   0.9501  -0.24 [-0.45, -0.03]   0.6552  +0.41 [+0.06, +0.77]

    only SID against only id, AUC: all +0.00 [-0.50, +0.50], cold items +1.18 [+0.47, +1.89]
    no id, add SID against no id, AUC: all +0.17 [-0.28, +0.62], cold -0.11 [-0.52, +0.30]

All six signs of table 5 are those of the paper; only the loss of the other features is significant.
With a fifth of the rows, semantic ids are as informative as item ids, and more for cold items, by
AUC. They can replace the item id, which saves 77 % of the table parameters (the paper: from 5.4 to
1.3 billion). Here the item id can also be dropped without them: with the content vector, neither
adds a gain that three seeds can show, and cold items gain as much without the item id as with
additional semantic ids. Whether this holds with many impressions per item, or with richer content
than this world's, is not known.

Time: 6 minutes on two cores, the world and its encoder included.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from ligr_paper import TASKS, differences, show, verdict

from ligr_jax.cli import main as ligr
from ligr_jax.data.records import Records
from ligr_jax.scaling.runs import column, read_runs

ROOT = Path(__file__).parents[1]
ITEM, REST = ("actor_id", "item_type", "age_h", "content"), ("surface", "dwell_s")
SID = ("sid1", "sid2", "sid3")
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
    data = args.data or world(args.out / "world")
    runs = args.out / "runs"
    train(attached(data, args.out / "sid"), runs)
    table = read_runs(runs).table.with_columns(
        change=pl.col("run").replace_strict(arm_of(runs)),
        **{f"mean/{s}{m}": mean(s, m) for s in SLICES.values() for m in ("ne", "auc")},
    )
    print("\n## Table 5\n")
    table5(table)
    for name, part in SLICES.items():
        print(f"\n## Impressions: {name}\n")
        arms(table, part)
    print("\n## Semantic ids against item ids\n")
    pairs(table)


def world(directory: Path) -> Path:
    """Return the prepared data of a small world."""
    prepared = directory / "prepared"
    if not (prepared / "manifest.json").exists():
        ligr(["world", "--out", str(directory / "log"), "--members", "3000", "--seed", "0"])
        ligr(["prepare", str(directory / "log"), "--out", str(prepared)])
    return prepared


def attached(data: Path, directory: Path) -> Path:
    """Return `data` with semantic ids of an encoder trained only on items of the train split."""
    model, ids, out = directory / "model", directory / "ids.parquet", directory / "prepared"
    if not (out / "manifest.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        known = directory / "known.parquet"
        train_items(Records(data)).write_parquet(known)
        options = [f"--{name}={value}" for name, value in ENCODER.items()]
        for part in (
            ("train", str(known), "--out", str(model), *options),
            ("assign", str(model), str(data), "--out", str(ids)),
            ("attach", str(ids), str(data), "--out", str(out)),
        ):
            if ligr(["sid", *part]):
                raise SystemExit(f"ligr sid {part[0]} failed")
    return out


def train_items(records: Records) -> pl.DataFrame:
    """Return ids and content vectors of the items in the train split."""
    items = records.items
    if items is None:
        raise SystemExit(f"{records.directory} has no item table; choose another --data")
    table = pl.DataFrame([pl.Series(n, items[n]) for n in ("item_id", "content")])
    return table.filter(records.train_counts("item_id", items["item_id"].to_numpy()) > 0)


def train(data: Path, runs: Path) -> None:
    """Train every arm with three seeds, seeds together; finished runs are skipped."""
    features = {name: f"model.features={','.join((*a, *REST))}" for name, a in ARMS.items()}
    parameters = {name: {"value": value} for name, value in SETTINGS.items()}
    parameters["change"] = {"values": [*features.values()]}
    parameters["train.seed"] = {"values": [0, 1, 2]}
    runs.mkdir(parents=True, exist_ok=True)
    sweep = runs.parent / "arms.yaml"
    sweep.write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}, sort_keys=False))
    if ligr(["sweep", str(sweep), "--data", str(data), "--out", str(runs), "--together", "3"]):
        raise SystemExit("some points failed; run again")


def arm_of(runs: Path) -> dict[str, str]:
    """Return the arm of each run."""
    names = {f"model.features={','.join((*a, *REST))}": name for name, a in ARMS.items()}
    found = {}
    for point in json.loads((runs / "sweep.json").read_text())["points"]:
        given = dict(a.split("=", 1) for a in point["assignments"])
        found[point["run"]] = names[given["change"]]
    return found


def mean(part: str, metric: str) -> pl.Expr:
    """Return the mean over the three tasks."""
    return pl.mean_horizontal(f"validation/{task}/{part}{metric}" for task in TASKS)


def against(table: pl.DataFrame, base: str, metric: str) -> dict[str, tuple[float, ...]]:
    """Return relative changes of a metric from arm `base` to each other arm, in %: mean, interval.

    The table must have all arms, because the deviation is pooled over them.
    """
    found = differences(table.with_columns(pl.col("change").replace(base, "none")), metric)
    return {arm: tuple(100 * x for x in change) for arm, change in found.items()}


def table5(table: pl.DataFrame) -> None:
    rows = []
    for arm, paper in PAPER.items():
        cells = []
        for task, theirs in zip(TASKS[1:], paper):
            ours = against(table, "baseline", f"validation/{task}/auc")[arm]
            cells += [f"{theirs:+} %", f"{change_text(ours)} {verdict(np.sign(theirs), *ours[1:])}"]
        rows.append((arm, *cells))
    show(("AUC", "paper: long dwell", "ours", "paper: contribution", "ours"), rows)


def arms(table: pl.DataFrame, part: str) -> None:
    """Report means over the three tasks and the seeds, and changes from the baseline."""
    changes = {m: against(table, "baseline", f"mean/{part}{m}") for m in ("ne", "auc")}
    rows = []
    for arm in ARMS:
        here = table.filter(change=arm)
        cells = []
        for metric, found in changes.items():
            cells.append(f"{column(here, f'mean/{part}{metric}').mean():.4f}")
            cells.append(change_text(found[arm]) if arm in found else "")
        rows.append((arm, f"{int(column(here, 'params_tables')[0]):,}", *cells))
    show(("arm", "table parameters", "NE", "change", "AUC", "change"), rows)


def pairs(table: pl.DataFrame) -> None:
    """Report the effect of semantic ids as the only ids, against the item id and against no id."""
    rows = []
    for arm, base in (("only SID", "only id"), ("no id, add SID", "no id")):
        for name, part in SLICES.items():
            found = [
                change_text(against(table, base, f"mean/{part}{m}")[arm]) for m in ("ne", "auc")
            ]
            rows.append((f"{arm} against {base}", name, *found))
    show(("arms", "impressions", "NE", "AUC"), rows)


def change_text(change: tuple[float, ...]) -> str:
    return "{:+.2f} % [{:+.2f}, {:+.2f}]".format(*change)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "semantic_ids")
    parser.add_argument("--data", type=Path, help="prepared data [its own world]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
