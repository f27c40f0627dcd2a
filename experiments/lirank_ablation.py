"""Are LiRank's ablations (tables 1, 6, 8 and 5.3) reproduced on a small synthetic world?

    python experiments/lirank_ablation.py                    all, resumable, in runs/lirank_ablation
    python experiments/lirank_ablation.py --data PREPARED    on data prepared before

A world of 3,000 members, half of them trained on (811 steps of 512 impressions), three seeds.
Half of the steps are warm-up, as in the paper (6.2). Changes are relative and paired by seed; the
90 % interval is Student's t with the standard deviation pooled over the table. `agrees`: our sign
is the paper's and the interval excludes zero, or the paper has no change and the interval contains
zero; `open`: it contains zero; `differs`: it excludes zero on the other side. The verdict is for
the table's main task: contribution for Feed, click for Ads and Jobs.

Our interpretation of the paper: each line of table 6 is one change of one baseline, that of tables
1 and 9, except the sparse mixture, which is added to the line above it. The baseline has no ids and
no member features, and one tower of two layers, 32 wide, for all tasks. Large: four layers,
128 wide. Low rank: 16; the full rank of table 8 is as wide as the input. TransAct reads 8
impressions (the paper's 100). Ids are 16 wide (30). Groups are the two towers of 3.1; Ads has three
groups for its three chargeabilities.

Left out, and why:
    contribution rate of replay   the world shows no session in a shuffled order; AUC stands for it,
                                  so compare signs, not sizes
    IDs+quantization (table 8)    done to a table after training: experiments/quantize.py
    Job Search (5.3)              the world has no search; ours is compared with JYMBII's number
    ablations of A.8              the paper refers to a table that is not in it

Expected: history, large layers and ids gain as in the paper; gates lose on Feed. Numbers:
experiments/results/lirank_ablation.json. Time: 50 minutes, with other processes on the machine.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from lib.comparison import TASKS, against, verdict
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from lib.sweeps import arms_sweep, changes_of_runs, prepared_world, run_sweep, write_sweep

from ligr_jax.runs.table import column, read_runs

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
SETTINGS = {
    "data.fraction": 0.5,
    "data.seq_len": 64,
    "batch_tokens": 1024,
    "model.table_width": 16,
    "optim.warmup": 0.5,
    "optim.rank_weight": 0,  # LiRank is trained point by point
    "eval.splits": "validation",
    "track.wandb": "off",
    "train.checkpoint_every": 10**6,
}
REST = "item_type,surface,age_h,content,dwell_s"
IDS = {"model.features": f"item_id,actor_id,{REST}"}
ISOTONIC = {"model.head.calibration": "true"}
TRANSACT = {"model.lirank.history": 8}
LARGE = {"model.head.widths": "128,128,128,128"}
LOW_RANK = {"model.lirank.cross_layers": 2}
RESIDUAL = LOW_RANK | {"model.lirank.residual": "true"}
FULL_RANK = LOW_RANK | {"model.lirank.rank": 112}  # as wide as its input: any matrix
PLAIN = {
    "model.kind": "lirank",
    "model.set_depth": 0,
    "model.features": REST,
    "model.head.kind": "mlp",
    "model.head.widths": "32,32",
    "model.lirank.gated": "false",
    "model.lirank.residual": "false",
    "model.lirank.rank": 16,
    "model.lirank.cross_layers": 0,
    "model.lirank.history": 0,
    "model.lirank.history_width": 8,
}
FEED = PLAIN | {"model.head.groups": "click+long_dwell+like+comment+share+contribution"}
GROUPED = {"model.head.groups": "click+long_dwell,like+comment+share+contribution"}
ADS = PLAIN | {
    "model.lirank.variant": "ads",
    "model.lirank.mlp": "32,32",
    "model.head.kind": "linear",
    "model.head.groups": "click+long_dwell,like+contribution,comment+share",
}
JOBS = PLAIN | GROUPED | {"model.lirank.variant": "jobs"}
GATED = {"model.head.gated": "true"}
ALL = LARGE | TRANSACT
SPARSE = {"model.lirank.mlp": "64", "model.lirank.experts": 4, "model.lirank.chosen": 2}
SMALL_TABLES = {
    "model.features.item_id.lookup": "qr",
    "model.features.item_id.rows": 5000,
    "model.features.actor_id.lookup": "qr",
    "model.features.actor_id.rows": 125,
}
ARMS = {
    "feed": FEED,
    "feed, grouping": FEED | GROUPED,
    "feed, MMoE": FEED | GROUPED | {"model.head.kind": "mmoe"},
    "feed, PLE": FEED | GROUPED | {"model.head.kind": "ple"},
    "feed, IDs": FEED | IDS,
    "feed, isotonic": FEED | ISOTONIC,
    "feed, LMLP": FEED | LARGE,
    "feed, gating": FEED | GATED,
    "feed, LDCNv2": FEED | LOW_RANK,
    "feed, TransAct": FEED | TRANSACT,
    "feed, RDCN": FEED | RESIDUAL,
    "feed, LDCNv2+LMLP+TransAct": FEED | LOW_RANK | ALL,
    "feed, RDCN+LMLP+TransAct": FEED | RESIDUAL | ALL,
    "feed, RDCN+LMLP+TransAct+sMoE": FEED | RESIDUAL | ALL | SPARSE,
    "ads": ADS,
    "ads, IDs": ADS | IDS,
    "ads, IDs+DCNv2": ADS | IDS | FULL_RANK,
    "ads, IDs+LDCNv2": ADS | IDS | LOW_RANK,
    "ads, IDs+isotonic": ADS | IDS | ISOTONIC,
    "ads, IDs+LDCNv2+isotonic": ADS | IDS | LOW_RANK | ISOTONIC,
    "ads, IDs+TransAct": ADS | IDS | TRANSACT,
    "jobs": JOBS,
    "jobs, IDs+LDCNv2": JOBS | IDS | LOW_RANK,
    "jobs, IDs+LDCNv2+gating": JOBS | IDS | LOW_RANK | GATED,
    "jobs, IDs+LDCNv2+QR": JOBS | IDS | LOW_RANK | SMALL_TABLES,
}


# For each table: the task whose AUC decides, and per arm its baseline and the paper's relative
# change in per cent.
TABLES = {
    "Table 1: contribution rate, Feed": (
        "contribution",
        {
            "feed, grouping": ("feed", 0.75),
            "feed, MMoE": ("feed", 1.19),
            "feed, PLE": ("feed", 1.34),
        },
    ),
    "Table 6: contribution rate, Feed": (
        "contribution",
        {
            "feed, IDs": ("feed", 1.89),
            "feed, isotonic": ("feed", 1.08),
            "feed, LMLP": ("feed", 1.23),
            "feed, gating": ("feed", 1.00),
            "feed, grouping": ("feed", 0.75),
            "feed, LDCNv2": ("feed", 1.26),
            "feed, TransAct": ("feed", 1.66),
            "feed, RDCN": ("feed", 2.15),
            "feed, LDCNv2+LMLP+TransAct": ("feed", 3.45),
            "feed, RDCN+LMLP+TransAct": ("feed", 3.62),
            "feed, RDCN+LMLP+TransAct+sMoE": ("feed", 4.14),
        },
    ),
    "Table 8: test AUC, Ads": (
        "click",
        {
            "ads, IDs": ("ads", 1.27),
            "ads, IDs+DCNv2": ("ads", 1.45),
            "ads, IDs+LDCNv2": ("ads", 1.37),
            "ads, IDs+isotonic": ("ads", 1.39),
            "ads, IDs+LDCNv2+isotonic": ("ads", 1.47),
            "ads, IDs+TransAct": ("ads", 2.20),
        },
    ),
    "5.3: AUC, Jobs": (
        "click",
        {
            "jobs, IDs+LDCNv2": ("jobs", 2.10),
            "jobs, IDs+LDCNv2+gating": ("jobs, IDs+LDCNv2", 0),
            "jobs, IDs+LDCNv2+QR": ("jobs, IDs+LDCNv2", 0),
        },
    ),
}
CALIBRATED = {
    "feed, isotonic": "feed",
    "ads, IDs+isotonic": "ads, IDs",
    "ads, IDs+LDCNv2+isotonic": "ads, IDs+LDCNv2",
}


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS)
    runs = args.out / "runs"
    if not args.no_runs:
        data = args.data or prepared_world(args.out / "world", members=3000)
        sweep = arms_sweep(SETTINGS, [change_of(arm) for arm in ARMS], SEEDS)
        run_sweep([write_sweep(args.out / "arms.yaml", sweep)], data, runs)
    names = {change_of(arm): arm for arm in ARMS}
    arm_of = {run: names[change] for run, change in changes_of_runs(runs).items()}
    table = read_runs(runs).table.with_columns(change=pl.col("run").replace_strict(arm_of))
    finished = set(table["change"])
    for title, (judged, lines) in TABLES.items():
        known = {arm: line for arm, line in lines.items() if {arm, line[0]} <= finished}
        add_ablations(study, title, table, judged, known)
    add_calibration(study, table)
    study.record(args.record)


def change_of(arm: str) -> str:
    return ";".join(f"{name}={value}" for name, value in ARMS[arm].items())


def add_ablations(
    study: Study, title: str, table: pl.DataFrame, judged: str, lines: dict[str, tuple[str, float]]
) -> None:
    """Add a table of the paper: changes of AUC, with the deviation pooled over the table."""
    bases = {base for base, _ in lines.values()}
    compared = table.filter(pl.col("change").is_in({*lines, *bases}))
    rows: list[list[Cell]] = []
    for arm, (base, paper) in lines.items():
        changes = {t: against(compared, base, f"validation/{t}/auc")[arm] for t in TASKS}
        agreement = verdict(np.sign(paper), *changes[judged][1:])
        size = parameters(compared, arm) / parameters(compared, base)
        cells = (interval(*change) for change in changes.values())
        rows.append([arm, base, paper or "no change", *cells, agreement, size])
    columns = [
        Column("arm"),
        Column("over"),
        Column("paper, %", "+.2f"),
        *(Column(f"{task} AUC, %", "+.1f") for task in TASKS),
        Column("verdict"),
        Column("times the dense parameters", ".1f"),
    ]
    caption = f"{title}; relative changes of AUC, 90 % intervals. The verdict is for {judged}."
    study.add(title, caption, columns, rows)
    for base in sorted(bases):
        part = compared.filter(change=base)
        means = (f"{task} {column(part, f'validation/{task}/auc').mean():.4f}" for task in TASKS)
        print(f"{base}: AUC of {', '.join(means)}")


def parameters(table: pl.DataFrame, arm: str) -> float:
    result: float = column(table.filter(change=arm), "params_dense")[0]
    return result


def add_calibration(study: Study, table: pl.DataFrame) -> None:
    """Add expected calibration error, and observed over expected positives, means over seeds."""
    compared = table.filter(pl.col("change").is_in({*CALIBRATED, *CALIBRATED.values()}))
    rows: list[list[Cell]] = []
    for arm, base in CALIBRATED.items():
        if not {arm, base} <= set(compared["change"]):
            continue
        for task in TASKS:
            cells: list[Cell] = []
            for name in (base, arm):
                part = compared.filter(change=name)
                ratio = column(part, f"validation/{task}/calibration")
                cells += [column(part, f"validation/{task}/ece").mean(), (1 / ratio).mean()]
            change = against(compared, base, f"validation/{task}/ece")[arm]
            rows.append([arm, task, *map(float, cells), interval(*change)])
    columns = [
        Column("arm"),
        Column("task"),
        *(
            Column(f"{measure} {which} the layer", form)
            for which in ("without", "with")
            for measure, form in (("ECE", ".4f"), ("observed / expected", ".3f"))
        ),
        Column("change of ECE, %", "+.0f"),
    ]
    study.add("calibration", "Calibration with the isotonic layer.", columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "lirank_ablation")
    parser.add_argument("--data", type=Path, help="prepared data [its own world]")
    parser.add_argument("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
