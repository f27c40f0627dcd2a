"""Are the LiGR paper's findings (5.1 and A.1) reproduced on a small synthetic world?

    python experiments/ligr_paper.py                     everything, resumable, in runs/paper
    python experiments/ligr_paper.py --parts table4      one part; without training: --no-runs

A world of 3,000 members and the shipped tiny sweeps: three seeds for single changes, one seed for
growing dimensions. Each finding of the paper is compared with ours. A difference is paired by seed;
its 90 % interval is Student's t, with the standard deviation pooled over all changes of the table.
`agrees`: our sign is the paper's and the interval excludes zero; `open`: the interval contains
zero; `differs`: it excludes zero on the other side. The paper's model has 10 M dense parameters and
110 M sequences, these have 50 k and 3 k: effects that need scale cannot be seen here.

Expected (21 November 2026, two AMD cores shared with others; NE and AUC of the validation split):

    figures 6-9        paper                ours, a decade of flops_model
    NE                 falls                -0.029 [-0.046, -0.023]    agrees
    long dwell AUC     +0.015               +0.036 [+0.029, +0.055]    agrees, and is steeper
    contribution AUC   rises                +0.057 [+0.051, +0.077]    agrees

    figures 10-12      paper          NE               long dwell AUC   contribution AUC
    length 16 to 256   improves all   0.974 to 0.931   0.661 to 0.714   0.598 to 0.688     agrees
    depth 1 to 8       not always     0.951 to 0.947   0.690 to 0.694   0.651 to 0.658     agrees
    id width 4 to 64   not always     0.953 to 0.950   0.687 to 0.689   0.648 to 0.653     agrees

    Length improves in 11 of 12 steps, and by ten times as much as depth and id width, whose gains
    are about the difference between seeds and not monotonic.

    tables 2-3         paper: long dwell / contribution   ours
    item id                 0.703 / 0.857                 0.606 / 0.612
    actor id                0.731 / 0.893                 0.617 / 0.620
    item type               0.706 / 0.883                 0.668 / 0.611
    age                     0.680 / 0.854                 0.598 / 0.607
    content                 0.703 / 0.878                 0.614 / 0.629
    content + actor         0.755 / 0.911                 0.628 / 0.639
    content + type          0.741 / 0.897                 0.679 / 0.635
    content + item id       0.752 / 0.895                 0.618 / 0.632
    all                     0.767 / 0.912                 0.686 / 0.649

    Differs: here the type of an item predicts a long dwell best, in the paper its actor does.
    All features together are best in both; age alone is worst in both.

    table 4            paper     ours, relative
    click              +0.50 %   +0.71 % [-0.69, +2.11]    open
    long dwell         +0.20 %   +0.47 % [-0.60, +1.53]    open
    contribution       -0.04 %   +0.63 % [+0.12, +1.15]    differs

    A.1, AUC in %         paper           click              long dwell         contribution
    SiLU attention        subpar          -2.1 [-3.5, -0.7]  -1.4 [-2.4, -0.3]  -2.2 [-2.7, -1.7]
    sigmoid attention     subpar          -1.6 [-3.0, -0.2]  -1.3 [-2.4, -0.2]  -2.2 [-2.8, -1.7]
    no feed-forward       minor drop      +0.4 [-1.0, +1.8]  +0.3 [-0.8, +1.4]  +0.5 [-0.0, +1.0]
    no gate               less stable     -1.3 [-2.7, +0.1]  -0.9 [-2.0, +0.1]  -1.2 [-1.7, -0.7]
    learned positions     no difference   -0.1 [-1.4, +1.4]  +0.0 [-1.0, +1.1]  +0.0 [-0.5, +0.5]
    no positions                          -0.1 [-1.5, +1.3]  -0.1 [-1.1, +1.0]  -0.0 [-0.5, +0.5]
    no rank loss                          +0.9 [-0.5, +2.3]  +0.7 [-0.4, +1.8]  +0.7 [+0.2, +1.2]
    sessions lag by one                   -3.3 [-4.7, -1.9]  -2.2 [-3.2, -1.1]  -4.0 [-4.5, -3.5]
    plain causal mask                     +10.3 [+8.9, +11.7] +7.4 [+6.3, +8.5]  +40 [+39, +40]

    As in the paper, both other activations are worse, positions do not matter, and the gate helps.
    These small models need no feed-forward layers. The gain of the causal mask is a leak: it reads
    actions on earlier items of the same session, which are unknown in serving, and a contribution
    there reveals the kind of session. Three seeds are too few to decide table 4.

Tables 2 to 4 and A.1 use the middle rung as it was when they ran, kept in SETTINGS. Time: about 40
minutes on two cores, estimated; it was not run on an idle machine.
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
    for part in args.parts:
        names, show = PARTS[part]
        if not args.no_runs:
            train(args, names)
        print(f"\n## {part}\n")
        show(table_of(args.out / "runs", names))


def train(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Train the sweeps of a part; finished runs are skipped."""
    world = args.out / "world"
    if not (world / "prepared" / "manifest.json").exists():
        ligr(["world", "--out", str(world / "log"), "--members", "3000", "--seed", "0"])
        ligr(["prepare", str(world / "log"), "--out", str(world / "prepared")])
    files = [str(ROOT / "sweeps" / "tiny" / f"{name}.yaml") for name in names]
    where = ["--data", str(world / "prepared"), "--out", str(args.out / "runs")]
    where += SETTINGS if {"features", "ablations"} & set(names) else ()
    if ligr(["sweep", *files, *where, "--together", "3"]):
        raise SystemExit("some points failed; run again")


def table_of(runs: Path, names: Iterable[str]) -> pl.DataFrame:
    """Return the finished runs of these sweeps, one row per sweep of a run, with the change."""
    points = json.loads((runs / "sweep.json").read_text())["points"]
    rows = []
    for point in points:
        given = dict(a.split("=", 1) for a in point["assignments"])
        for sweep in set(point["sweeps"]) & set(names):
            rows.append({"run": point["run"], "of": sweep, "change": given.get("change", "none")})
    return read_runs(runs).table.join(pl.DataFrame(rows), on="run")


def ladder(table: pl.DataFrame) -> None:
    """Report figures 6 to 9: +0.015 long dwell AUC per decade of compute, and NE falls."""
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
    """Report figures 10 to 12: only length, not depth or id width, improves every metric."""
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
    """Report table 4: in-session attention changes AUC by +0.50, +0.20 and -0.04 %."""
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
    """Report appendix A.1, and other changes of the configuration."""
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
    """Report tables 2 and 3: one feature alone, and the content vector with one more."""
    rows, ours = [], {}
    for change, group in table.group_by("change"):
        mean = [column(group, f"validation/{t}/auc").mean() for t in TASKS[1:]]
        ours[change[0]] = mean
    full = ours.pop("none")
    for change, mean in sorted(ours.items()):
        names = change.removeprefix("model.features=").split(",")[:-1]
        paper = ALONE.get(names[0]) if len(names) == 1 else WITH_CONTENT.get(names[1])
        said = " / ".join(f"{x:.3f}" for x in paper) if paper else ""
        rows.append((" + ".join(names), said, " / ".join(f"{x:.3f}" for x in mean)))
    rows.append(("all", "0.767 / 0.912", " / ".join(f"{x:.3f}" for x in full)))
    show(("features", "paper: long dwell / contribution", "ours"), rows)
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


def differences(table: pl.DataFrame, metric: str) -> dict[str, tuple[float, float, float]]:
    """Return relative changes of a metric, paired by seed: mean and 90 % interval per change."""
    value = {
        (c, s): v for c, s, v in table.select("change", "config/train.seed", metric).iter_rows()
    }
    seeds = sorted({s for _, s in value})
    names = sorted({c for c, _ in value} - {"none"})
    ratios = {
        c: np.array([value[c, s] / value["none", s] - 1 for s in seeds if (c, s) in value])
        for c in names
    }
    # Noise of the changed run, and of the unchanged run, which is common to all changes.
    free = sum(len(r) - 1 for r in ratios.values())
    pooled = np.sqrt(sum(((r - r.mean()) ** 2).sum() for r in ratios.values()) / free)
    reach = {c: stats.t.ppf(0.95, free) * pooled / np.sqrt(len(r)) for c, r in ratios.items()}
    return {
        c: (float(r.mean()), float(r.mean() - reach[c]), float(r.mean() + reach[c]))
        for c, r in ratios.items()
    }


def verdict(sign: float, low: float, high: float) -> str:
    """Return whether an interval has the paper's sign; 0 means that it should contain zero."""
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
    parser.add_argument("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
