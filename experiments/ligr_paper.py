"""Are the LiGR paper's findings (5.1 and A.1) reproduced on a small synthetic world?

    python experiments/ligr_paper.py                     everything, resumable, in runs/paper
    python experiments/ligr_paper.py --parts table4      one part; without training: --no-runs

A world of 3,000 members and the shipped tiny sweeps: three seeds for single changes, one seed for
growing dimensions. A difference is paired by seed; its 90 % interval is Student's t, with the
standard deviation pooled over all changes of the table. `agrees`: our sign is the paper's and the
interval excludes zero; `open`: the interval contains zero; `differs`: it excludes zero on the other
side. The paper's model has 10 M dense parameters and 110 M sequences, these have 50 k and 3 k:
effects that need scale cannot be seen here.

Expected: figures 6 to 12 agree; activations, positions and the gate of A.1 agree; table 4 is open.
Numbers: experiments/results/ligr_paper.json. Time: about 40 minutes on two cores, estimated.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
from lib.comparison import TASKS, differences, verdict
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from lib.sweeps import prepared_world, run_sweep
from scipy import stats

from ligr_jax.runs.table import column, read_runs
from ligr_jax.scaling.fit import fit_line

ROOT = Path(__file__).parents[1]
# The rung of the parts with single changes as it was when they ran; `demo-4` may have changed.
SETTINGS = (
    "data.fraction=0.7",
    "model.width=32",
    "model.table_width=16",
    "model.parametrization=standard",
    "optim.dense_lr=3e-3",
)
# AUC of long dwell and contribution: tables 2 and 3.
ALONE = {
    "item_id": (0.703, 0.857),
    "actor_id": (0.731, 0.893),
    "item_type": (0.706, 0.883),
    "age_h": (0.680, 0.854),
    "content": (0.703, 0.878),
}
WITH_CONTENT = {"actor_id": (0.755, 0.911), "item_type": (0.741, 0.897), "item_id": (0.752, 0.895)}
# Effect of a change on AUC by A.1: -1 lower, 0 about equal.
CHANGES = {
    "model.attention=silu": (-1, "SiLU attention: subpar"),
    "model.attention=sigmoid": (-1, "sigmoid attention: subpar"),
    "model.ffn=none": (-1, "no feed-forward: a minor drop"),
    "model.gate=none": (-1, "no gate: less stable, scales worse"),
    "model.position=learned": (0, "learned for relative positions: no difference"),
}


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, (0, 1, 2))
    for part in args.parts:
        names, add = PARTS[part]
        if not args.no_runs:
            train(args, names)
        add(study, table_of(args.out / "runs", names))
    study.record(args.record)


def train(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Train the sweeps of a part; finished runs are skipped."""
    data = prepared_world(args.out / "world", members=3000)
    files = [ROOT / "sweeps" / "tiny" / f"{name}.yaml" for name in names]
    changes = SETTINGS if {"features", "ablations"} & set(names) else ()
    run_sweep(files, data, args.out / "runs", *changes)


def table_of(runs: Path, names: Iterable[str]) -> pl.DataFrame:
    """Return the finished runs of these sweeps, one row per sweep of a run, with the change."""
    points = json.loads((runs / "sweep.json").read_text())["points"]
    rows = []
    for point in points:
        assignments = dict(a.split("=", 1) for a in point["assignments"])
        change = assignments.get("change", "none")
        rows += [
            {"run": point["run"], "of": sweep, "change": change}
            for sweep in set(point["sweeps"]) & set(names)
        ]
    return read_runs(runs).table.join(pl.DataFrame(rows), on="run")


def ladder(study: Study, table: pl.DataFrame) -> None:
    """Add figures 6 to 9: +0.015 long dwell AUC per decade of compute, and NE falls."""
    shapes = table.select("config/data.seq_len", "config/model.width", "config/model.depth")
    groups = [json.dumps(shape) for shape in shapes.iter_rows()]
    rows: list[list[Cell]] = []
    for axis in ("flops_paper", "flops_model"):
        for name, sign, paper in (
            ("ne", -1, "falls"),
            ("long_dwell/auc", 1, "+0.015"),
            ("contribution/auc", 1, "rises"),
        ):
            law = fit_line(
                column(table, axis),
                column(table, f"validation/{name}"),
                higher_is_better=sign > 0,
                groups=groups,
            )
            low, high = law.intervals["slope"]
            change = interval(law.params["slope"], low, high)
            rows.append([axis, name, paper, change, verdict(sign, low, high)])
    columns = [
        Column("compute axis"),
        Column("metric"),
        Column("paper"),
        Column("ours, per decade of compute", "+.3f"),
        Column("verdict"),
    ]
    study.add("figures6-9", "Figures 6 to 9: length, depth and widths grow.", columns, rows)


def one_dimension(study: Study, table: pl.DataFrame) -> None:
    """Add figures 10 to 12: only length, not depth or id width, improves every metric."""
    dimensions = {
        "seq_len": "data.seq_len",
        "depth": "model.depth",
        "embed_dim": "model.table_width",
    }
    rows: list[list[Cell]] = []
    for sweep, name in dimensions.items():
        part = table.filter(pl.col("of") == sweep).sort(f"config/{name}")
        sizes = part[f"config/{name}"].to_list()
        paper = "improves all" if sweep == "seq_len" else "not always"
        row: list[Cell] = [f"{name}, {sizes[0]} to {sizes[-1]}", paper]
        improved = 0
        for metric in ("ne", "long_dwell/auc", "contribution/auc"):
            y = column(part, f"validation/{metric}")
            steps = np.diff(y) * (-1 if metric == "ne" else 1)
            improved += int((steps > 0).sum())
            row.append({"low": float(y[0]), "high": float(y[-1])})
        rows.append([*row, f"{improved} of {3 * (len(sizes) - 1)}"])
    columns = [
        Column("dimension"),
        Column("paper"),
        *(Column(name, ".3f") for name in ("NE", "long dwell AUC", "contribution AUC")),
        Column("steps that improve"),
    ]
    caption = "Figures 10 to 12: one dimension grows; metric at its smallest and largest size."
    study.add("figures10-12", caption, columns, rows)


def setwise(study: Study, table: pl.DataFrame) -> None:
    """Add table 4: in-session attention changes AUC by +0.50, +0.20 and -0.04 %."""
    rows: list[list[Cell]] = []
    for task, paper in zip(TASKS, (0.50, 0.20, -0.04)):
        without = differences(table, f"validation/{task}/auc")["model.set_depth=0"]
        value, low, high = (-100 * x for x in (without[0], without[2], without[1]))
        rows.append([task, paper, interval(value, low, high), verdict(np.sign(paper), low, high)])
    columns = [
        Column("AUC of"),
        Column("paper, %", "+.2f"),
        Column("ours, relative, %", "+.2f"),
        Column("verdict"),
    ]
    study.add("table4", "Table 4: the effect of in-session attention.", columns, rows)


def changes(study: Study, table: pl.DataFrame) -> None:
    """Add appendix A.1, and other changes of the configuration."""
    effects = {task: differences(table, f"validation/{task}/auc") for task in TASKS}
    rows: list[list[Cell]] = []
    for change in sorted(effects["click"]):
        sign, paper = CHANGES.get(change, (None, ""))
        cells = [interval(*(100 * x for x in effects[task][change])) for task in TASKS]
        verdicts = [
            "" if sign is None else verdict(sign, cell["low"], cell["high"]) for cell in cells
        ]
        rows.append([change, paper, *cells, ", ".join(filter(None, verdicts))])
    columns = [
        Column("change"),
        Column("paper"),
        *(Column(f"{task} AUC, %", "+.1f") for task in TASKS),
        Column("verdicts"),
    ]
    study.add("A1", "Appendix A.1: relative changes of AUC.", columns, rows)


def features(study: Study, table: pl.DataFrame) -> None:
    """Add tables 2 and 3: one feature alone, and the content vector with one more."""
    ours: dict[str, list[float]] = {}
    for (change,), group in table.group_by("change"):
        means = [float(column(group, f"validation/{t}/auc").mean()) for t in TASKS[1:]]
        ours[str(change)] = means
    full = ours.pop("none")
    rows: list[list[Cell]] = []
    for change, means in sorted(ours.items()):
        names = change.removeprefix("model.features=").split(",")[:-1]
        paper = ALONE.get(names[0]) if len(names) == 1 else WITH_CONTENT.get(names[1])
        rows.append([" + ".join(names), *(paper or (None, None)), *means])
    rows.append(["all", 0.767, 0.912, *full])
    columns = [
        Column("features"),
        *(Column(f"{who}: {task}", ".3f") for who in ("paper", "ours") for task in TASKS[1:]),
    ]
    study.add("tables2-3", "Tables 2 and 3: AUC with few features.", columns, rows)
    for i, task in enumerate(TASKS[1:]):
        for title, known, prefix in (
            ("alone", ALONE, ""),
            ("with content", WITH_CONTENT, "content,"),
        ):
            have = [ours[f"model.features={prefix}{k},dwell_s"][i] for k in known]
            rank = stats.spearmanr(have, [v[i] for v in known.values()]).statistic
            best = max(known, key=lambda k: ours[f"model.features={prefix}{k},dwell_s"][i])
            theirs = max(known, key=lambda k: known[k][i])
            print(f"{task}, {title}: best {best} (paper {theirs}), rank correlation {rank:+.2f}")


PARTS: dict[str, tuple[tuple[str, ...], Callable[[Study, pl.DataFrame], None]]] = {
    "figures6-9": (("ladder", "seeds"), ladder),
    "figures10-12": (("seq_len", "depth", "embed_dim"), one_dimension),
    "tables2-3": (("features",), features),
    "table4": (("ablations",), setwise),
    "A1": (("ablations",), changes),
}


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "paper")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
