import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from ligr_paper import TASKS, show, verdict
from semantic_ids import against, told, world

from ligr_jax.atomic import write_atomically
from ligr_jax.cli import main as ligr
from ligr_jax.scaling.runs import column, read_runs

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "data.fraction": 0.2,
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


# Of each table: the task whose AUC is judged; arms, what each is compared with, and the paper's
# relative change in per cent.
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
    runs = args.out / "runs"
    if not args.no_runs:
        train(args.data or world(args.out / "world"), runs)
    table = read_runs(runs).table.with_columns(change=pl.col("run").replace_strict(arm_of(runs)))
    for title, (judged, lines) in TABLES.items():
        print(f"\n## {title}\n")
        ablations(table, judged, lines)
    print("\n## What the isotonic layer does to calibration\n")
    calibration(table)


def change_of(arm: str) -> str:
    return ";".join(f"{name}={value}" for name, value in ARMS[arm].items())


def train(data: Path, runs: Path) -> None:
    """Every arm with three seeds, seeds together; what is finished is not trained again."""
    parameters: dict[str, Any] = {name: {"value": value} for name, value in SETTINGS.items()}
    parameters["change"] = {"values": [change_of(arm) for arm in ARMS]}
    parameters["train.seed"] = {"values": [0, 1, 2]}
    runs.mkdir(parents=True, exist_ok=True)
    sweep = runs.parent / "arms.yaml"
    write_atomically(
        sweep, yaml.safe_dump({"method": "grid", "parameters": parameters}, sort_keys=False)
    )
    if ligr(["sweep", str(sweep), "--data", str(data), "--out", str(runs), "--together", "3"]):
        raise SystemExit("some points failed; run again")


def arm_of(runs: Path) -> dict[str, str]:
    """The arm of each run."""
    names = {f"change={change_of(arm)}": arm for arm in ARMS}
    points = json.loads((runs / "sweep.json").read_text())["points"]
    return {p["run"]: names[a] for p in points for a in p["assignments"] if a in names}


def ablations(table: pl.DataFrame, judged: str, lines: dict[str, tuple[str, float]]) -> None:
    """A table of the paper: changes of AUC, the deviation pooled over the table."""
    here = table.filter(pl.col("change").is_in({*lines, *(base for base, _ in lines.values())}))
    rows = []
    for arm, (base, paper) in lines.items():
        found = {task: against(here, base, f"validation/{task}/auc")[arm] for task in TASKS}
        said = verdict(np.sign(paper), *found[judged][1:])
        size = f"{parameters(here, arm) / parameters(here, base):.1f}"
        paper_said = f"{paper:+.2f} %" if paper else "no change"
        rows.append((arm, base, paper_said, *map(told, found.values()), said, size))
    head = ("arm", "over", "paper", *(f"{task} AUC" for task in TASKS), judged, "dense parameters")
    show(head, rows)
    for base in {base for base, _ in lines.values()}:
        part = here.filter(change=base)
        means = (f"{task} {column(part, f'validation/{task}/auc').mean():.4f}" for task in TASKS)
        print(f"{base}: AUC of {', '.join(means)}")


def parameters(table: pl.DataFrame, arm: str) -> float:
    return column(table.filter(change=arm), "params_dense")[0]


def calibration(table: pl.DataFrame) -> None:
    """Expected calibration error and observed over expected positives, means of the seeds."""
    here = table.filter(pl.col("change").is_in({*CALIBRATED, *CALIBRATED.values()}))
    rows = []
    for arm, base in CALIBRATED.items():
        for task in TASKS:
            change = told(against(here, base, f"validation/{task}/ece")[arm])
            cells = []
            for each in (base, arm):
                part = here.filter(change=each)
                ece, ratio = (
                    column(part, f"validation/{task}/{m}") for m in ("ece", "calibration")
                )
                cells.append(f"{ece.mean():.4f}, {(1 / ratio).mean():.3f}")
            rows.append((arm, task, *cells, change))
    show(("arm", "task", "ECE, O/E without", "ECE, O/E with", "change of ECE"), rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "lirank_ablation")
    parser.add_argument("--data", type=Path, help="prepared data [its own world]")
    parser.add_argument("--no-runs", action="store_true", help="only tell what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
