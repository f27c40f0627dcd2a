"""Do the LiGR paper's findings (5.1 and A.1) come out on a small synthetic world?

    python experiments/ligr_paper.py                     all of it, resumable, in runs/paper
    python experiments/ligr_paper.py --parts table4      one part; without training: --no-runs

A world of 3,000 members, the shipped sweeps in their tiny form: three seeds where one thing is
changed, one where a dimension grows. Each finding of the paper stands beside ours. A difference is
taken seed by seed; its 90 % interval is Student's, with the deviation pooled over all changes of
its table. `agrees`: our sign is the paper's and the interval excludes zero; `open`: the interval
holds zero; `differs`: it excludes zero on the other side. The paper's model has 10 M dense
parameters and 110 M sequences, these have 50 k and 3 k: what needs scale cannot be seen here.

@EXPECTED@
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ligr_jax.cli import main as ligr
from ligr_jax.scaling.fit import fit_line
from ligr_jax.scaling.runs import column, read_runs

ROOT = Path(__file__).parents[1]
TASKS = ("click", "long_dwell", "contribution")
# AUC of long dwell and contribution: tables 2 and 3.
ALONE = {
    "item_id": (0.703, 0.857),
    "actor_id": (0.731, 0.893),
    "item_type": (0.706, 0.883),
    "age_h": (0.680, 0.854),
    "content": (0.703, 0.878),
}
BESIDE = {"actor_id": (0.755, 0.911), "item_type": (0.741, 0.897), "item_id": (0.752, 0.895)}
# What A.1 says a change does to AUC: -1 lowers it, 0 nothing to speak of.
CHANGES = {
    "model.attention=silu": (-1, "SiLU attention: subpar"),
    "model.attention=sigmoid": (-1, "sigmoid attention: subpar"),
    "model.ffn=none": (-1, "no feed-forward: a minor drop"),
    "model.gate=none": (-1, "no gate: less stable, scales worse"),
    "model.position=learned": (0, "learned for relative positions: no difference"),
}


def main() -> None:
    args = arguments()
    for part in args.parts:
        names, show = PARTS[part]
        if not args.no_runs:
            train(args, names)
        print(f"\n## {part}\n")
        show(table_of(args.out / "runs", names))


def train(args: argparse.Namespace, names: Iterable[str]) -> None:
    """The sweeps of a part; what is finished is not trained again."""
    world = args.out / "world"
    if not (world / "prepared" / "manifest.json").exists():
        ligr(["world", "--out", str(world / "log"), "--members", "3000", "--seed", "0"])
        ligr(["prepare", str(world / "log"), "--out", str(world / "prepared")])
    files = [str(ROOT / "sweeps" / "tiny" / f"{name}.yaml") for name in names]
    where = ["--data", str(world / "prepared"), "--out", str(args.out / "runs")]
    if ligr(["sweep", *files, *where, "--together", "3"]):
        raise SystemExit("some points failed; run again")


def table_of(runs: Path, names: Iterable[str]) -> pl.DataFrame:
    """Finished runs of these sweeps, one row for each sweep of a run, with what was changed."""
    points = json.loads((runs / "sweep.json").read_text())["points"]
    rows = []
    for point in points:
        given = dict(a.split("=", 1) for a in point["assignments"])
        for sweep in set(point["sweeps"]) & set(names):
            rows.append({"run": point["run"], "of": sweep, "change": given.get("change", "none")})
    return read_runs(runs).table.join(pl.DataFrame(rows), on="run")


def ladder(table: pl.DataFrame) -> None:
    """Figures 6 to 9: +0.015 long dwell AUC a decade of compute, and NE falls."""
    rows = []
    for axis in ("flops_paper", "flops_model"):
        compute = column(table, axis)
        for name, better, paper in (
            ("ne", False, "falls"),
            ("long_dwell/auc", True, "+0.015 a decade"),
            ("contribution/auc", True, "rises"),
        ):
            shape = [
                json.dumps(r)
                for r in table.select(
                    "config/data.seq_len", "config/model.width", "config/model.depth"
                ).iter_rows()
            ]
            law = fit_line(
                compute, column(table, f"validation/{name}"), higher_is_better=better, groups=shape
            )
            low, high = law.intervals["slope"]
            sign = 1 if better else -1
            rows.append(
                (
                    axis,
                    name,
                    paper,
                    f"{law.params['slope']:+.4f} [{low:+.4f}, {high:+.4f}]",
                    verdict(sign, low, high),
                )
            )
    show(("axis", "metric", "paper", "ours, a decade", ""), rows)


def one_dimension(table: pl.DataFrame) -> None:
    """Figures 10 to 12: length alone helps every metric, depth and id width alone not always."""
    dimensions = {
        "seq_len": "data.seq_len",
        "depth": "model.depth",
        "embed_dim": "model.table_width",
    }
    rows = []
    for sweep, name in dimensions.items():
        part = table.filter(pl.col("of") == sweep).sort(f"config/{name}")
        sizes = part[f"config/{name}"].to_list()
        for metric in ("ne", "long_dwell/auc", "contribution/auc"):
            y = column(part, f"validation/{metric}")
            better = -1 if metric == "ne" else 1
            steps = np.sign(np.diff(y)) * better
            paper = "improves" if sweep == "seq_len" else "not always"
            rows.append(
                (
                    sweep,
                    f"{sizes[0]} to {sizes[-1]}",
                    metric,
                    paper,
                    f"{y[0]:.4f} to {y[-1]:.4f}",
                    f"{int((steps > 0).sum())} of {len(steps)} steps improve",
                )
            )
    show(("alone", "range", "metric", "paper", "ours", ""), rows)


def setwise(table: pl.DataFrame) -> None:
    """Table 4: in-session attention changes AUC by +0.50, +0.20 and -0.04 %."""
    paper = dict(zip(TASKS, (0.50, 0.20, -0.04)))
    rows = []
    for task in TASKS:
        without = differences(table, f"validation/{task}/auc")["model.set_depth=0"]
        value, low, high = (-100 * x for x in (without[0], without[2], without[1]))
        rows.append(
            (
                task,
                f"{paper[task]:+.2f} %",
                f"{value:+.2f} % [{low:+.2f}, {high:+.2f}]",
                verdict(np.sign(paper[task]), low, high),
            )
        )
    show(("AUC", "paper", "ours, relative", ""), rows)


def changes(table: pl.DataFrame) -> None:
    """Appendix A.1, and what else the configuration can change."""
    rows = []
    found = {task: differences(table, f"validation/{task}/auc") for task in TASKS}
    for change in sorted(found["click"]):
        sign, words = CHANGES.get(change, (None, ""))
        cells = []
        for task in TASKS:
            value, low, high = (100 * x for x in found[task][change])
            said = "" if sign is None else f" {verdict(sign, low, high)}"
            cells.append(f"{value:+.2f} [{low:+.2f}, {high:+.2f}]{said}")
        rows.append((change, words, *cells))
    show(("change", "paper", *(f"{t} AUC, %" for t in TASKS)), rows)


def features(table: pl.DataFrame) -> None:
    """Tables 2 and 3: one feature alone, and the content vector with one more."""
    rows, ours = [], {}
    for change, group in table.group_by("change"):
        mean = [column(group, f"validation/{t}/auc").mean() for t in TASKS[1:]]
        ours[change[0]] = mean
    full = ours.pop("none")
    for change, mean in sorted(ours.items()):
        names = change.removeprefix("model.features=").split(",")[:-1]
        paper = ALONE.get(names[0]) if len(names) == 1 else BESIDE.get(names[1])
        said = " / ".join(f"{x:.3f}" for x in paper) if paper else ""
        rows.append((" + ".join(names), said, " / ".join(f"{x:.3f}" for x in mean)))
    rows.append(("all", "0.767 / 0.912", " / ".join(f"{x:.3f}" for x in full)))
    show(("features", "paper: long dwell / contribution", "ours"), rows)
    for i, task in enumerate(TASKS[1:]):
        for title, known, prefix in (("alone", ALONE, ""), ("with content", BESIDE, "content,")):
            have = [ours[f"model.features={prefix}{k},dwell_s"][i] for k in known]
            rank = stats.spearmanr(have, [v[i] for v in known.values()]).statistic
            best = max(known, key=lambda k: ours[f"model.features={prefix}{k},dwell_s"][i])
            theirs = max(known, key=lambda k: known[k][i])
            print(f"{task}, {title}: best {best} (paper {theirs}), rank correlation {rank:+.2f}")


def differences(table: pl.DataFrame, metric: str) -> dict[str, tuple[float, float, float]]:
    """Relative change of a metric by each change, seed by seed: mean and 90 % interval."""
    value = {
        (c, s): v for c, s, v in table.select("change", "config/train.seed", metric).iter_rows()
    }
    seeds = sorted({s for _, s in value})
    names = sorted({c for c, _ in value} - {"none"})
    ratios = {
        c: np.array([value[c, s] / value["none", s] - 1 for s in seeds if (c, s) in value])
        for c in names
    }
    # The changed run's noise and the unchanged one's, which all changes share.
    free = sum(len(r) - 1 for r in ratios.values())
    pooled = np.sqrt(sum(((r - r.mean()) ** 2).sum() for r in ratios.values()) / free)
    reach = {c: stats.t.ppf(0.95, free) * pooled / np.sqrt(len(r)) for c, r in ratios.items()}
    return {
        c: (float(r.mean()), float(r.mean() - reach[c]), float(r.mean() + reach[c]))
        for c, r in ratios.items()
    }


def verdict(sign: float, low: float, high: float) -> str:
    """Whether an interval has the sign the paper gives; 0: it should hold zero."""
    if low <= 0 <= high:
        return "open" if sign else "agrees"
    return "agrees" if sign * low > 0 else "differs"


def show(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    head = list(head)
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


PARTS: dict[str, tuple[tuple[str, ...], Callable[[pl.DataFrame], None]]] = {
    "figures6-9": (("ladder", "seeds"), ladder),
    "figures10-12": (("seq_len", "depth", "embed_dim"), one_dimension),
    "tables2-3": (("features",), features),
    "table4": (("ablations",), setwise),
    "A1": (("ablations",), changes),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "paper")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--no-runs", action="store_true", help="only tell what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
