"""`ligr report`: what a sweep found, as one self-contained page, PNG figures, fit.json, runs.csv.

`study` computes everything once; the page, the files and the three lines for the terminal only
word it. Runs suspected of a leak (`beats_oracle`) and diverged runs are shown and never fitted.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling import figures
from ligr_jax.scaling.fit import (
    CONFIDENCE,
    Law,
    LeftOut,
    fit_line,
    fit_power,
    leave_out_largest,
    resample,
)
from ligr_jax.scaling.page import Drawn, engineering, page
from ligr_jax.scaling.runs import Runs, column, read_metrics, read_runs, shapes, varied

FEWEST = 5  # finished runs below which no law is drawn
DIMENSIONS = {
    "config/data.seq_len": "T",
    "config/model.depth": "depth",
    "config/model.width": "width",
    "config/model.table_width": "table width",
}
PREFERRED = ("long_dwell", "click", "contribution")  # actions drawn first, three at most
CHEAP = np.log10(1.07)  # decades of compute per doubling below which a dimension is as good as free
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """Everything a report says, before it is worded."""

    runs: Runs
    table: pl.DataFrame  # the runs that were fitted
    metric: str
    axis: str
    oracle: float | None
    suspect: tuple[str, ...]
    diverged: tuple[str, ...]
    notes: tuple[str, ...]
    laws: dict[str, dict[str, Law]] = field(default_factory=dict)  # axis -> floor -> law
    actions: dict[str, Law] = field(default_factory=dict)
    left_out: dict[int, list[LeftOut]] = field(default_factory=dict)
    dimensions: dict[str, dict[str, Any]] = field(default_factory=dict)  # axis -> gains
    reason: str = ""  # why there is no law

    @property
    def law(self) -> Law | None:
        return self.laws.get(self.axis, {}).get("free")


def write_report(directory: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Writes report.html, figures/*.png, fit.json and runs.csv into `out` (default: `directory`).

    Each file appears whole or not at all. Returns what fit.json holds, with `lines` (the summary
    for a terminal) and `page` (the path). Raises BadInput where there are no finished runs.
    """
    directory, out = Path(directory), Path(out or directory)
    found = study(read_runs(directory))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    drawn = _figures(found, directory)
    for name, each in drawn.items():
        figures.save_png(each.figure, out / "figures" / f"{name}.png")
    numbers = to_json(found)
    _write(out / "fit.json", json.dumps(numbers, indent=1) + "\n")
    _write(out / "runs.csv", found.runs.table.write_csv())
    _write(out / "report.html", page(found, drawn, summary_lines(found)))
    return numbers | {"page": str(out / "report.html")}


def study(runs: Runs, axis: str = "flops_model", resamples: int = 1000) -> Study:
    """Fits every law the report speaks of. Raises BadInput without finished runs or without NE."""
    table = runs.table
    if table.is_empty():
        raise BadInput(
            f"{runs.name}: no finished runs ({len(runs.unfinished)} unfinished, "
            f"{len(runs.failed)} failed)"
        )
    metric = "validation/ne"
    if metric not in table.columns and "test/ne" in table.columns:
        metric = "test/ne"
    leaks = np.zeros(len(table), bool)
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False).to_numpy()
    lost = ~np.isfinite(column(table, metric)) & ~leaks
    kept = table.filter(~(leaks | lost))
    oracle, notes = _oracle(kept, metric)
    trunk = [c for c in varied(kept) if kept[c].dtype == pl.String and "/model." in c]
    if trunk:
        notes.append(f"The runs differ in {', '.join(c[7:] for c in trunk)}: one law mixes them.")
    result: dict[str, Any] = {}
    if len(kept) < FEWEST:
        result["reason"] = f"{len(kept)} usable runs are too few for a law; {FEWEST} are needed"
    else:
        try:
            result = _laws(kept, metric, axis, oracle, resamples)
        except BadInput as e:
            result["reason"] = str(e)
    names = table["run"].to_numpy()
    return Study(
        runs, kept, metric, axis, oracle, tuple(names[leaks]), tuple(names[lost]), tuple(notes),
        **result,
    )  # fmt: skip


def dimension_gains(
    table: pl.DataFrame, metric: str, axis: str, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What each dimension of the shape buys: metric and log10 compute regressed on log2 dimensions.

    Gain per decade of dimension d is -(d metric / d log2 d) / (d log10 C / d log2 d): the fall of
    the metric when a tenfold of compute is spent on d alone. Dimensions that move together are one
    ("width + table width"). Returns {"rows", "best", "share"} or {"together" or "reason": why not}.
    """
    used = [c for c in DIMENSIONS if c in table.columns and table[c].n_unique() > 1]
    if not used:
        return {"reason": "every run has the same shape"}
    x = np.log2(np.stack([column(table, c) for c in used], 1))
    bundles: list[list[int]] = []
    for i in range(len(used)):
        same = [b for b in bundles if abs(np.corrcoef(x[:, b[0]], x[:, i])[0, 1]) > 0.9]
        if same:
            same[0].append(i)
        else:
            bundles.append([i])
    names = [" + ".join(DIMENSIONS[used[i]] for i in b) for b in bundles]
    if len(bundles) == 1:
        return {"together": names[0]}
    x = np.stack([x[:, b[0]] for b in bundles], 1)
    strength = np.linalg.svd((x - x.mean(0)) / x.std(0), compute_uv=False)
    if strength[-1] < 0.25 * strength[0] or len(x) < len(names) + 3:
        return {"together": ", ".join(names)}
    design = np.concatenate([np.ones((len(x), 1)), x], 1)
    compute = column(table, axis)
    y = np.stack([-column(table, metric), np.log10(compute)], 1)
    counts, _, _ = resample(compute, shapes(table), design.shape[1], resamples, seed)
    counts = np.concatenate([np.ones((1, len(x))), counts])
    gram = np.einsum("np,bn,nq->bpq", design, counts, design, optimize=True)
    solvable = np.linalg.cond(gram) < 1e8
    right = np.einsum("np,bn,nk->bpk", design, counts, y, optimize=True)
    slopes = np.linalg.solve(gram[solvable], right[solvable])[:, 1:]
    gain, cost = slopes[..., 0], slopes[..., 1]
    rate = np.where(cost > CHEAP, gain / np.maximum(cost, CHEAP), np.nan)
    comparable = np.isfinite(rate[0])
    score = np.where(comparable & np.isfinite(rate), rate, -np.inf)
    best = int(np.argmax(score[0]))
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    rows = [
        {
            "dimension": name,
            "range": [float(2 ** x[:, i].min()), float(2 ** x[:, i].max())],
            "gain_per_doubling": float(gain[0, i]),
            "compute_per_doubling": float(10 ** cost[0, i]),
            "gain_per_decade": float(rate[0, i]) if comparable[i] else None,
            "interval": np.nanpercentile(rate[:, i], tails).tolist() if comparable[i] else None,
        }
        for i, name in enumerate(names)
    ]
    share = float(np.mean(np.argmax(score, axis=1) == best))
    return {"rows": rows, "best": names[best], "share": share}


def summary_lines(found: Study) -> tuple[str, str, str]:
    """Three plain lines: gain per decade with interval; distance to the oracle; what to scale."""
    law = found.law
    if law is None:
        gain = f"no law: {found.reason}"
    else:
        low, high = law.intervals.get("gain_per_decade", (np.nan, np.nan))
        gain = (
            f"{_words(found.metric)} falls by {law.params['gain_per_decade']:.4f} over the last "
            f"decade of {found.axis} ({law.confidence:.0%} interval {low:.4f} to {high:.4f}, "
            f"{law.points} runs up to {engineering(law.compute[1])} FLOPs)"
        )
    return gain, _oracle_words(found), _next_words(found)


def to_json(found: Study) -> dict[str, Any]:
    """All numbers of the study as plain JSON values."""
    laws = {a: {k: v.to_json() for k, v in kinds.items()} for a, kinds in found.laws.items()}
    left = {
        str(k): [vars(row) | {"error": row.error, "covered": row.covered} for row in rows]
        for k, rows in found.left_out.items()
    }
    return {
        "name": found.runs.name,
        "metric": found.metric,
        "axis": found.axis,
        "finished": len(found.runs.table),
        "unfinished": [list(pair) for pair in found.runs.unfinished],
        "failed": [list(pair) for pair in found.runs.failed],
        "not_started": found.runs.not_started,
        "suspect": list(found.suspect),
        "diverged": list(found.diverged),
        "oracle": found.oracle,
        "reason": found.reason,
        "notes": list(found.notes),
        "laws": laws,
        "actions": {k: v.to_json() for k, v in found.actions.items()},
        "left_out": left,
        "dimensions": found.dimensions,
        "lines": list(summary_lines(found)),
    }


def _laws(
    table: pl.DataFrame, metric: str, axis: str, oracle: float | None, resamples: int
) -> dict[str, Any]:
    """The fields of `Study` that need fits. A law that cannot be had raises BadInput."""
    y, labels, names = column(table, metric), shapes(table), table["run"].to_list()
    groups = labels if len(set(labels)) < len(labels) else None
    common: dict[str, Any] = {"runs": names, "groups": groups, "resamples": resamples}
    laws: dict[str, dict[str, Law]] = {}
    axes = [a for a in ("flops_model", "flops_paper") if a in table.columns]
    for each in dict.fromkeys([axis, *axes]):
        c = column(table, each)
        laws[each] = {"free": fit_power(c, y, **common)}
        if oracle is not None and oracle < y.min():
            laws[each]["oracle"] = fit_power(c, y, floor=oracle, **common)
    c, split = column(table, axis), metric.split("/")[0]
    actions = {
        a: fit_line(c, column(table, f"{split}/{a}/auc"), **common)
        for a in drawn_actions(table, split)
    }
    left_out: dict[int, list[LeftOut]] = {}
    for k in (1, 2):
        try:
            left_out[k] = leave_out_largest(fit_power, c, y, k, **common)
        except BadInput:  # too few budgets would remain
            break
    gains = {each: dimension_gains(table, metric, each, resamples) for each in laws}
    return {"laws": laws, "actions": actions, "left_out": left_out, "dimensions": gains}


def drawn_actions(table: pl.DataFrame, split: str) -> list[str]:
    """Up to three actions whose AUC every run has, the preferred ones first."""
    found = [c.split("/")[1] for c in table.columns if c.startswith(f"{split}/")]
    found = [a for a in dict.fromkeys(found) if f"{split}/{a}/auc" in table.columns]
    whole = [a for a in found if np.isfinite(column(table, f"{split}/{a}/auc")).all()]
    return sorted(whole, key=lambda a: (a not in PREFERRED, whole.index(a)))[:3]


def _oracle(table: pl.DataFrame, metric: str) -> tuple[float | None, list[str]]:
    """The oracle's value of the metric, and a note where runs were evaluated on different sets."""
    if f"oracle/{metric}" not in table.columns:
        return None, []
    values = column(table, f"oracle/{metric}")
    values = values[np.isfinite(values)]
    if not len(values):
        return None, []
    notes = []
    if np.ptp(values) > 1e-4 * abs(values.mean()):
        notes.append(
            f"The oracle's {metric} differs between runs ({values.min():.4f} to "
            f"{values.max():.4f}): they were not evaluated on one set and compare poorly."
        )
    return float(np.median(values)), notes


def _oracle_words(found: Study) -> str:
    y = column(found.table, found.metric)
    if not len(y):
        return "no usable run to compare with an oracle"
    best = int(np.argmin(y))
    name = f"best run {found.table['run'][best]} has {_words(found.metric)} {y[best]:.4f}"
    if found.oracle is None:
        return f"{name}; this data has no true probabilities, so the distance left is unknown"
    left = y[best] - found.oracle
    share = (1.0 - y[best]) / (1.0 - found.oracle)
    return (
        f"{name}, {left:.4f} above the oracle's {found.oracle:.4f} "
        f"({share:.0%} of the way from the base rate to the oracle)"
    )


def _words(metric: str) -> str:
    return metric.replace("/ne", " NE")


def _next_words(found: Study) -> str:
    gains = found.dimensions.get(found.axis)
    if gains is None:
        return "finish more runs: nothing can be said from these about what to scale"
    if "together" in gains:
        grow = gains["together"].replace(" + ", ", ")
        if "," not in grow:
            return f"only {grow} varies here; to compare it, run sweeps that vary the others"
        return (
            f"{grow} grow together, so this sweep cannot separate them; "
            "run the sweeps seq_len, depth and embed_dim, which vary one at a time"
        )
    if "reason" in gains:
        return f"{gains['reason']}, so nothing can be said about what to scale"
    best = next(row for row in gains["rows"] if row["dimension"] == gains["best"])
    if best["gain_per_decade"] is None or best["gain_per_decade"] <= 0:
        return "no dimension lowers the metric for its compute here; look at data and training"
    other = {a: g["best"] for a, g in found.dimensions.items() if g.get("best") != gains["best"]}
    turn = "".join(f"; on {axis} it would be {name}" for axis, name in other.items() if name)
    if gains["share"] < CONFIDENCE:
        return (
            f"{gains['best']} leads but is not told apart from the rest "
            f"(best in {gains['share']:.0%} of resamples): add seeds or a wider range{turn}"
        )
    low, high = best["interval"]
    return (
        f"scale {gains['best']}: {_words(found.metric)} falls by {best['gain_per_decade']:.4f} "
        f"per tenfold of compute spent on it ({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f}; "
        f"best in {gains['share']:.0%} of resamples){turn}"
    )


def _figures(found: Study, directory: Path) -> dict[str, Drawn]:
    """Figure and caption by file name."""
    table, axis = found.table, found.axis
    if table.is_empty():
        return {}
    y, split = column(table, found.metric), found.metric.split("/")[0]
    law, known = found.law, [c for c in DIMENSIONS if c in table.columns][:3]
    letters = {"config/data.seq_len": "T", "config/model.depth": "L", "config/model.width": "D"}
    rows = table.select(known).iter_rows()
    labels = [" ".join(f"{letters[c]}{v}" for c, v in zip(known, r) if c in letters) for r in rows]
    drawn: dict[str, Drawn] = {}
    count = f"{len(table)} runs"
    if law:
        unit = "runs" if law.units == law.points else "shapes with all their seeds"
        band = f"{law.confidence:.0%} percentile interval of {law.resamples} resamples of {unit}"
    for each in [a for a in figures.AXES if a in table.columns]:
        if each == "flops_6nd" and "flops_paper" in table.columns:
            continue  # six times flops_paper: the same picture
        here = found.laws.get(each, {}).get("free")
        figure = figures.metric_against_compute(
            column(table, each), y, axis=each, label=f"NE ({split})", law=here,
            oracle=found.oracle, shapes=labels,
        )  # fmt: skip
        caption = f"Normalized entropy against {figures.AXES[each]}; {count}, lower is better."
        if here:
            caption += f" Law E + A C^-alpha, alpha {here.params['alpha']:.3f}; band: {band}."
        drawn[f"ne_{each}"] = Drawn(figure, caption)
    aucs = {a: column(table, f"{split}/{a}/auc") for a in drawn_actions(table, split)}
    if aucs and axis in table.columns:
        figure = figures.actions_against_compute(
            column(table, axis), aucs, found.actions, axis=axis, label=f"AUC ({split})"
        )
        caption = f"AUC per action against {figures.AXES[axis]}; {count}."
        rates = [f"{a} {v.params['slope']:+.4f}" for a, v in found.actions.items()]
        if rates:
            caption += f" Straight lines in log compute, gain per decade: {', '.join(rates)}."
        drawn["auc"] = Drawn(figure, caption + (f" Bands: {band}." if law else ""))
    curves = _curves(directory, found, axis)
    if curves:
        figure = figures.training_curves(curves, axis=axis, label="training loss")
        caption = f"Training loss of {len(curves)} runs while they spend {figures.AXES[axis]}"
        drawn["training"] = Drawn(figure, caption + "; darker is larger. Running means of 4 %.")
    return drawn


def _curves(directory: Path, found: Study, axis: str) -> list[tuple[Array, Array]]:
    curves = []
    for run in found.table["run"]:
        rows = read_metrics(directory / str(run))
        pairs = [(r[axis], r["train/loss"]) for r in rows if r.get(axis) and "train/loss" in r]
        points = np.array(pairs, np.float64).reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        if len(points) > 1:
            curves.append((points[:, 0], points[:, 1]))
    return curves


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
