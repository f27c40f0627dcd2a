"""Do published points follow the laws that are read from them, and do the laws have intervals?

    python experiments/public_points.py                       the six questions
    python experiments/public_points.py DIR                   points in another directory

No training: the points are runs that others published, extracted into tables; the page
docs/public-points.md names the repositories and the columns. Three suites are used: SASRec with
text features on five sizes of Amazon (srt), rankers of KuaiRand-27K (UniRank), and a ladder of
language models (OLMo).

Expected: the last epoch inverts the law in loss on three of five data sizes; width helps NDCG and
depth does not; the worth of a repeat depends on the metric; two of six published curves of click
AUC have a slope that its interval separates from 0, and three of six of the mean AUC; the spread
within one architecture exceeds that between 15; both targets of OLMo are inside their intervals.
Numbers: experiments/results/public_points.json. Time: three minutes on one busy core.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import polars as pl
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ligr_jax.errors import LigrError
from ligr_jax.messages import show_messages
from ligr_jax.scaling.fit import (
    FORMS,
    Law,
    fit_factors,
    fit_form,
    fit_line,
    fit_power,
    fit_surface,
    noise_floor,
)
from ligr_jax.scaling.report.style import BLUE, GREY, ORANGE, STYLE, compute_axis, save

POINTS = Path(__file__).parents[2] / "shared" / "data" / "public_points"
FILES = ("srt_runs", "srt_marks", "unirank_scaling", "unirank_metrics", "olmo_ladder")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
NEGATIVES = 100  # of the loss: a loss with 300 negatives is another loss
WARM_UP = 15  # epochs in which the learning rate of srt rises
SEEDS_AUC = 0.001  # what the authors of UniRank say that a seed moves AUC by
SWEEPS = [(m, a) for m in ("OneTrans", "RankMixer") for a in ("width", "length", "depth")]
CURVES = {"test_is_click_auc": "click AUC", "test_auc_mean": "mean AUC of six actions"}
TASKS = ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward")
SEED = 0
LEGEND: Mapping[str, Any] = {"loc": "outside upper center", "ncols": 2, "frameon": False}

Tables = Mapping[str, pl.DataFrame]


class Answer(NamedTuple):
    """A question, the answer that was expected, the answer of the fits, and whether they agree."""

    question: str
    expected: str
    found: str
    agrees: bool


def main() -> None:
    show_messages()
    args = arguments()
    tables = read_points(args.points)
    study = Study.of(__file__, __doc__, [SEED])
    questions: list[Callable[[Study, Tables, int], Answer]] = [
        add_marks,
        add_factors,
        add_repeats,
        add_curves,
        add_spread,
        add_ladder,
    ]
    answers = [add(study, tables, args.resamples) for add in questions]
    add_answers(study, answers)
    save(figure_of_marks(tables), IMAGES / "public-marks.png")
    save(figure_of_curves(tables, args.resamples), IMAGES / "public-curves.png")
    study.record(args.record)


def read_points(directory: Path) -> dict[str, pl.DataFrame]:
    """Return the tables of points; of srt, the runs with 100 negatives without exact repeats.

    Raises:
        SystemExit: a table is not in the directory.
    """
    missing = [name for name in FILES if not (directory / f"{name}.csv").exists()]
    if missing:
        raise SystemExit(
            f"{directory} has no {', '.join(f'{name}.csv' for name in missing)}: give the "
            "directory of the points; docs/public-points.md lists their sources and columns"
        )
    tables = {n: pl.read_csv(directory / f"{n}.csv", infer_schema_length=None) for n in FILES}
    for name in ("srt_runs", "srt_marks"):
        tables[name] = tables[name].filter(negatives=NEGATIVES, repeat=0)
    return tables


def add_marks(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the change of loss and NDCG with N at each data size, at the last and the best mark."""
    rows: list[list[Cell]] = []
    inverted = refused = falls = sinks = 0
    by_size = tables["srt_runs"].sort("D").partition_by("D", maintain_order=True)
    for part in by_size:
        n = part["N"].to_numpy()
        lines = [
            fit_line(n, part[metric].to_numpy(), resamples=resamples, seed=SEED)
            for metric in ("last_valid_loss", "best_valid_loss", "last_valid_ndcg5")
        ]
        last, best, ndcg = (law.intervals["slope"] for law in lines)
        inverted += last[0] > 0
        falls += best[1] < 0
        sinks += ndcg[1] < 0
        laws = [
            _power(n, part[m].to_numpy(), resamples) for m in ("last_valid_loss", "best_valid_loss")
        ]
        refused += laws[0] is None
        rank = float(stats.spearmanr(n, part["last_valid_loss"]).statistic)
        slopes = [parameter(law, "slope") for law in lines]
        alphas = [parameter(law, "alpha") if law else "refused: no fall" for law in laws]
        rows.append(
            [
                part["D"][0],
                len(part),
                rank,
                slopes[0],
                alphas[0],
                *[slopes[1], alphas[1]],
                slopes[2],
            ]
        )
    columns = [
        Column("training targets", ",d"),
        Column("runs", "d"),
        Column("rank correlation of N and last loss", "+.2f"),
        Column("last loss, a decade of N", "+.3f"),
        Column("alpha of last loss", ".3f"),
        Column("least loss, a decade of N", "+.3f"),
        Column("alpha of least loss", ".3f"),
        Column("last NDCG@5, a decade of N", "+.4f"),
    ]
    caption = (
        "srt, loss with 100 negatives and NDCG@5 on validation against N at fixed data. "
        "90 % intervals; lines in log10 N, and alpha of E + A N^-alpha."
    )
    study.add("marks", caption, columns, rows)
    total = len(by_size)
    return Answer(
        "Does the epoch that one reads decide the law?",
        "yes: the last epoch inverts the law in loss on 3 of 5 data sizes, NDCG never inverts",
        f"the last loss rises with N on {inverted} of {total}, and the power law is refused on "
        f"{refused}; the least loss falls on {falls}; NDCG@5 falls on {sinks}",
        inverted == 3 and falls == total and sinks == 0,
    )


def _power(n: np.ndarray, loss: np.ndarray, resamples: int) -> Law | None:
    """Return the power law of a loss in N; None if the loss does not fall."""
    try:
        return fit_power(n, loss, resamples=resamples, seed=SEED)
    except LigrError:
        return None


def parameter(law: Any, name: str) -> Cell:
    """Return the cell of a parameter, with its interval if it has one."""
    value = law.params[name]
    return interval(value, *law.intervals[name]) if name in law.intervals else value


def add_factors(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the effects of a doubling of width and of depth on NDCG and loss, of each data size."""
    runs = tables["srt_runs"]
    factors = {name: runs[name].to_numpy() for name in ("width", "layers")}
    metrics = {"best NDCG@5": "best_valid_ndcg5", "least loss": "best_valid_loss"}
    rows: list[list[Cell]] = []
    better: dict[tuple[str, str], bool] = {}
    for title, metric in metrics.items():
        law = fit_factors(
            factors,
            runs[metric].to_numpy(),
            family=runs["D"].to_list(),
            resamples=resamples,
            seed=SEED,
        )
        for name in factors:
            low, high = law.intervals[name]
            better[title, name] = high < 0 if metric.endswith("loss") else low > 0
        rows.append([title, len(runs), *[parameter(law, name) for name in factors]])
    columns = [
        Column("metric"),
        Column("runs", "d"),
        Column("a doubling of width", "+.4f"),
        Column("a doubling of depth", "+.4f"),
    ]
    caption = "srt: effects of a doubling, with a level per data size; 90 % intervals."
    study.add("factors", caption, columns, rows)
    help_ = {
        title: [n for (t, n), good in better.items() if t == title and good] for title in metrics
    }
    words = {
        title: " and ".join(names).replace("layers", "depth") or "neither"
        for title, names in help_.items()
    }
    return Answer(
        "Does the metric decide what to scale?",
        "yes: width and not depth for NDCG, both for the loss",
        f"NDCG@5 improves with {words['best NDCG@5']}, the loss with {words['least loss']}",
        help_ == {"best NDCG@5": ["width"], "least loss": ["width", "layers"]},
    )


def add_repeats(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add R_D by metric and marks, and the form for a loss that turns up, at each data size."""
    marks = tables["srt_marks"].with_columns(gap=1.0 - pl.col("valid_ndcg5"))
    late = marks.filter(pl.col("epoch") >= WARM_UP)
    sizes = marks.sort("D").partition_by("D", maintain_order=True)
    worth: dict[tuple[str, str], Any] = {}
    rows: list[list[Cell]] = []
    for title, metric in (("loss", "valid_loss"), ("1 - NDCG@5", "gap")):
        for name, part in (("all", marks), (f"from epoch {WARM_UP}", late)):
            law = worth[title, name] = _repeated(part, metric, resamples, turns_up=False)
            cells = [_cell(law, k) for k in ("alpha", "beta", "R_D")]
            rows.append([title, "all", name, "worth of repeats", *cells, None, _note(law)])
    turned = 0
    for part in sizes:
        law = _repeated(part, "valid_loss", resamples, turns_up=True)
        turned += not isinstance(law, str) and law.params["C"] > 0
        alpha, beta, gamma = (_cell(law, k) for k in ("alpha", "beta", "gamma"))
        size = f"{part['D'][0]:,d}"
        rows.append(["loss", size, "all", "turns up", alpha, beta, None, gamma, _note(law)])
    columns = [
        Column("metric"),
        Column("training targets"),
        Column("marks"),
        Column("form"),
        Column("alpha", ".3f"),
        Column("beta", ".3f"),
        Column("R_D", ".3g"),
        Column("gamma", ".3f"),
        Column("note of the fit"),
    ]
    caption = (
        "srt, marks of every 5 epochs; 90 % intervals from resampled runs. R_D: number of repeats "
        "over which a repeat loses its worth, searched from 0.01 to 10,000. gamma: exponent of the "
        "term that turns the loss up."
    )
    study.add("repeats", caption, columns, rows)
    loss, gap = (worth[title, "all"] for title in ("loss", "1 - NDCG@5"))
    words = [
        law if isinstance(law, str) else f"R_D = {law.params['R_D']:.3g}" for law in (loss, gap)
    ]
    return Answer(
        "What is a repeated interaction worth?",
        "it depends on the metric: nothing for the loss (R_D at its lower bound), as much as new "
        "data for NDCG (R_D at its upper bound)",
        f"loss: {words[0]}; 1 - NDCG@5: {words[1]}; the form that turns up fits the loss of "
        f"{turned} of {len(sizes)} data sizes",
        words == ["R_D = 0.01", "R_D = 1e+04"],
    )


def _repeated(part: pl.DataFrame, metric: str, resamples: int, turns_up: bool) -> Any:
    """Return the law in N and repeated D, or a text if the fit refuses the rows."""
    n, d, unique, y = (part[c].to_numpy() for c in ("N", "D_seen", "D", metric))
    options: dict[str, Any] = {
        "groups": part["run"].to_list(),
        "resamples": resamples,
        "seed": SEED,
    }
    try:
        if turns_up:
            return fit_form(FORMS["overfitted"], {"n": n, "d": d, "unique": unique}, y, **options)
        return fit_surface(n, d, y, unique=unique, **options)
    except LigrError as error:
        return f"refused, {str(error).partition(' in these rows')[0]}"


def _cell(law: Any, name: str) -> Cell:
    return None if isinstance(law, str) else parameter(law, name)


def _note(law: Any) -> str:
    """Return the refusal of a fit, or the first clause of each of its warnings."""
    if isinstance(law, str):
        return law
    return "; ".join(warning.partition(":")[0] for warning in law.warnings)


def sweep(scaling: pl.DataFrame, model: str, axis: str) -> pl.DataFrame:
    """Return the runs of a published curve that have FLOPs.

    The curve of RankMixer's depth begins at the run of width 256, which has two layers.
    """
    runs = scaling.filter(pl.col("model") == model, pl.col("train_flops").is_not_null())
    chosen = pl.col("axis") == axis
    if axis == "depth" and model == "RankMixer":
        chosen |= (pl.col("axis") == "width") & (pl.col("token_dim") == 256)
    return runs.filter(chosen)


def add_curves(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the change of each metric per decade of training FLOPs along each published curve."""
    metrics = CURVES | {"test_logloss_sum": "summed log loss"}
    rows: list[list[Cell]] = []
    clear = dict.fromkeys(metrics, 0)
    falling = 0
    for model, axis in SWEEPS:
        runs = sweep(tables["unirank_scaling"], model, axis)
        slopes: list[Cell] = []
        for metric in metrics:
            law = fit_line(
                runs["train_flops"].to_numpy(),
                runs[metric].to_numpy(),
                resamples=resamples,
                seed=SEED,
            )
            if len(runs) < 3:  # a line through two runs has no interval
                slopes.append(law.params["slope"])
                continue
            low, high = law.intervals["slope"]
            clear[metric] += not low <= 0 <= high
            falling += metric == "test_is_click_auc" and high < 0
            slopes.append(parameter(law, "slope"))
        rows.append([f"{model}, {axis}", len(runs), *slopes])
    columns = [
        Column("curve"),
        Column("runs", "d"),
        *(Column(title, "+.4f") for title in metrics.values()),
    ]
    caption = (
        "UniRank on KuaiRand-27K, test: change per decade of training FLOPs; 90 % intervals. "
        "A line through two runs has none."
    )
    study.add("curves", caption, columns, rows)
    click, mean, _ = clear.values()
    return Answer(
        "Which published scaling curves survive an interval?",
        "2 of 6 of click AUC, one of them falling; 3 of 6 of the mean AUC",
        f"{click} of {len(SWEEPS)} of click AUC, {falling} of them falling; {mean} of "
        f"{len(SWEEPS)} of the mean AUC",
        (click, falling, mean) == (2, 1, 3),
    )


def add_spread(study: Study, tables: Tables, _: int) -> Answer:
    """Add the range of test AUC over the runs of one architecture, and over the architectures."""
    auc = tables["unirank_metrics"].filter(dataset="KuaiRand_Video", split="test")
    rows: list[list[Cell]] = []
    for task in TASKS:
        runs = auc.filter(task=task)
        one = runs.filter(model="OneTrans")["auc"].to_numpy()
        between = runs.filter(group="main")["auc"].to_numpy()
        ranges: list[Cell] = [
            {"low": float(x.min()), "high": float(x.max())} for x in (one, between)
        ]
        rows.append(
            [
                task,
                len(one),
                ranges[0],
                float(np.ptp(one)),
                len(between),
                ranges[1],
                float(np.ptp(between)),
            ]
        )
    columns = [
        Column("action"),
        Column("runs of OneTrans", "d"),
        Column("AUC of OneTrans", ".4f"),
        Column("its range", ".4f"),
        Column("architectures", "d"),
        Column("their AUC", ".4f"),
        Column("their range", ".4f"),
    ]
    caption = (
        "UniRank on KuaiRand-27K, test AUC, lowest to highest: all runs of OneTrans, whatever "
        "their settings, and one run of each architecture."
    )
    study.add("spread", caption, columns, rows)
    click = rows[0]
    larger = sum(row[3] > row[6] for row in rows)
    return Answer(
        "Is a model's spread smaller than the differences between models?",
        "no: .040 of click AUC within OneTrans, .032 between 15 architectures",
        f"{click[3]:.3f} within OneTrans, {click[6]:.3f} between {click[4]} architectures; larger "
        f"within on {larger} of {len(rows)} actions",
        bool(click[3] > click[6]),
    )


def add_ladder(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the losses that the ladder predicts of OLMo's two large models, by two forms."""
    olmo = tables["olmo_ladder"]
    ladder, targets = olmo.filter(role="ladder"), olmo.filter(role="target").sort("flops")
    n, d, loss = (ladder[c].to_numpy() for c in ("N", "D", "c4_loss"))
    options: dict[str, Any] = {"resamples": resamples, "seed": SEED}
    surface = fit_surface(n, d, loss, **options)
    laws: dict[str, Any] = {
        "E + A N^-alpha + B D^-beta": surface,
        "alpha = beta": fit_form(FORMS["tied"], {"n": n, "d": d}, loss, **options),
    }
    rows: list[list[Cell]] = []
    inside, errors = 0, []
    for title, law in laws.items():
        for row in targets.iter_rows(named=True):
            value, low, high = (float(v) for v in law.predict(row["N"], row["D"], run_noise=True))
            error = value - row["c4_loss"]
            if law is surface:
                inside += low <= row["c4_loss"] <= high
                errors.append(error)
            ratio = row["flops"] / ladder["flops"].to_numpy().max()
            rows.append(
                [
                    title,
                    f"{row['N'] / 1e9:.1f} B, {row['D'] / 1e12:.1f} T tokens",
                    ratio,
                    interval(value, low, high),
                    row["c4_loss"],
                    error,
                ]
            )
    columns = [
        Column("form"),
        Column("target"),
        Column("times the largest FLOPs", ".1f"),
        Column("predicted loss", ".4f"),
        Column("observed", ".4f"),
        Column("error", "+.4f"),
    ]
    reruns = olmo.filter(pl.col("role") != "target", chinchilla_multiple=1)
    noise = noise_floor(reruns["c4_loss"].to_numpy(), reruns["size"].to_list()).pooled
    caption = (
        f"OLMo: C4 loss of two targets, predicted from the ladder's {len(ladder)} runs, with 90 % "
        f"intervals of one run. Standard deviation of a rerun: {noise[0]:.5f} "
        f"[{noise[1]:.5f}, {noise[2]:.5f}]."
    )
    study.add("ladder", caption, columns, rows)
    return Answer(
        "Can a ladder predict runs far beyond its largest FLOPs?",
        "yes: both targets inside the interval, errors -.0007 and -.0112",
        f"{inside} of {len(targets)} inside, errors {', '.join(f'{e:+.4f}' for e in errors)}",
        inside == len(targets),
    )


def add_answers(study: Study, answers: list[Answer]) -> None:
    columns = [Column(name) for name in ("question", "expected", "came out", "as expected")]
    rows = [[a.question, a.expected, a.found, "yes" if a.agrees else "no"] for a in answers]
    study.add("answers", "The six questions.", columns, rows)


def figure_of_marks(tables: Tables) -> Figure:
    """Draw loss and NDCG against N at each data size, at the last mark and at the best."""
    runs = tables["srt_runs"]
    parts = runs.sort("D").partition_by("D", maintain_order=True)
    metrics = {
        "validation loss": ("last_valid_loss", "best_valid_loss"),
        "NDCG@5": ("last_valid_ndcg5", "best_valid_ndcg5"),
    }
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(2.2 * len(parts), 4.8))
        panels = drawing.subplots(2, len(parts), sharex=True, sharey="row", squeeze=False)
        for row, (label, columns) in zip(panels, metrics.items()):
            for axes, part in zip(row, parts):
                for column, name, color, mark in zip(
                    columns, ("last epoch", "best epoch"), (ORANGE, BLUE), "so"
                ):
                    axes.plot(part["N"], part[column], mark, color=color, ms=5, label=name)
                compute_axis(axes, runs["N"].to_numpy(), "")
            row[0].set_ylabel(label)
        for axes, part in zip(panels[0], parts):
            axes.set_title(f"{part['D'][0] / 1e6:.2g} M targets", fontsize=11)
        for axes in panels[1]:
            axes.set_xlabel("parameters N")
        drawing.legend(*panels[0][0].get_legend_handles_labels(), **LEGEND)
        return drawing


def figure_of_curves(tables: Tables, resamples: int) -> Figure:
    """Draw the published curves of two AUCs with the band of the line and what seeds move."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(8.6, 5.4))
        panels = drawing.subplots(2, 3, sharey=True)
        for axes, (model, axis) in zip(panels.ravel(), SWEEPS):
            runs = sweep(tables["unirank_scaling"], model, axis)
            for metric, color in zip(CURVES, (BLUE, ORANGE)):
                _curve(axes, runs, metric, color, resamples)
            axes.set_title(f"{model}, {axis}", fontsize=11)
        for row in panels:
            row[0].set_ylabel("change of test AUC")
        for axes in panels[1]:
            axes.set_xlabel("training FLOPs")
        drawing.legend(*panels[0][0].get_legend_handles_labels(), **LEGEND)
        return drawing


def _curve(axes: Axes, runs: pl.DataFrame, metric: str, color: str, resamples: int) -> None:
    """Draw runs relative to their mean, their line, and its band where it has one."""
    c, y = runs["train_flops"].to_numpy(), runs[metric].to_numpy()
    y = y - y.mean()
    axes.axhspan(-SEEDS_AUC, SEEDS_AUC, color=GREY, alpha=0.25, lw=0)
    axes.plot(c, y, "o", color=color, ms=5, label=CURVES[metric])
    compute_axis(axes, c, "")
    law = fit_line(c, y, resamples=resamples, seed=SEED)
    grid = np.geomspace(c.min(), c.max(), 50)
    value, low, high = law.predict(grid)
    axes.plot(grid, value, color=color, lw=1.2)
    if len(c) > 2:
        axes.fill_between(grid, low, high, color=color, alpha=0.15, lw=0)
    axes.set_ylim(-0.015, 0.015)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("points", type=Path, nargs="?", default=POINTS, metavar="DIR", help="[%(default)s]")
    add("--resamples", type=int, default=1000, help="of each bootstrap [%(default)s]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
