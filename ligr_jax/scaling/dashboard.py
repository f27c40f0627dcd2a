"""A W&B workspace with the report's panels.

Panels refer to the names of rows, summaries and configurations in W&B (`ligr_jax.runs.columns`).
The workspace can therefore be built from finished runs on disk, without a server. Runs that differ
only in their seed are one group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ligr_jax.config import unescape
from ligr_jax.digests import read_plain_json
from ligr_jax.runs.columns import config_field, metric_name
from ligr_jax.runs.table import Runs, varied

AXES = ("flops_model", "flops_paper", "device_seconds")
METRICS = ("ne", "auc")
SLICES = ("cold_items", "cold_members")
THROUGHPUT = tuple(map(metric_name, ("mfu", "input_wait", "tokens_per_s", "packing")))
CURVES = ("train/loss", "train/grad_norm", "lr/dense", "lr/tables", *THROUGHPUT)
SIZE = metric_name("params_dense")
TOKENS = metric_name("tokens")
LAWS = "laws"  # keys of the run that has the fits
PREDICTIONS = "predictions"
FIGURES = "figures"


@dataclass(frozen=True)
class Contents:
    """What the panels can show.

    Attributes:
        split: evaluated split.
        actions: names of actions with metrics.
        slices: "action/slice" of the cold-start slices with metrics.
        parameters: swept settings, e.g. `model.depth`.
        figures: names of the report's PNG files.
        laws: metrics of the report's laws.
    """

    split: str = "validation"
    actions: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    laws: tuple[str, ...] = ()


def law_metric(architecture: str) -> str:
    """Return the metric of the law of an architecture; "" is the only one of a study."""
    return f"law/{architecture or 'ne'}"


def contents(runs: Runs, directory: Path) -> Contents:
    """Return what a sweep's finished runs, and the report in `directory`, can show."""
    names = runs.table.columns
    split = "validation" if "validation/ne" in names else "test"
    parts = [n.split("/") for n in names if n.startswith(f"{split}/") and n.endswith("/auc")]
    report = directory / "fit.json"
    numbers = read_plain_json(report, "run `ligr report` again") if report.is_file() else {}
    return Contents(
        split=split,
        actions=tuple(p[1] for p in parts if len(p) == 3),
        slices=tuple("/".join(p[1:3]) for p in parts if len(p) == 4 and p[2] in SLICES),
        parameters=tuple(map(config_field, varied(runs.table))),
        figures=tuple(sorted(p.stem for p in (directory / "figures").glob("*.png"))),
        laws=tuple(map(law_metric, numbers.get("laws", {}).get(AXES[0], {}))),
    )


def workspace(entity: str, project: str, shown: Contents) -> ws.Workspace:
    """Return the workspace, not saved: `.save()` needs a server, `workspace_json` does not."""
    sections = {
        "Quality against compute": _quality(shown),
        "Evaluations": _evaluations(shown),
        "Actions": _scatters([f"{shown.split}/{a}" for a in shown.actions]),
        "Cold start": _scatters([f"{shown.split}/{s}" for s in shown.slices]),
        "Training": _training(),
        "Throughput against size": [_scatter(SIZE, name) for name in THROUGHPUT],
        "Sweep": _sweep(shown),
        "Fits and predictions": _fits(shown),
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="LiGR scaling",
        sections=[ws.Section(name=n, panels=p, is_open=True) for n, p in sections.items() if p],
        settings=ws.WorkspaceSettings(x_axis="step"),
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric("group")]),
    )


def workspace_json(space: ws.Workspace) -> str:
    """Return the workspace as JSON in W&B's own format."""
    return str(space._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)) + "\n"


def _quality(shown: Contents) -> list[Any]:
    """Return scatters of final metrics; log-log for NE, whose law is a line above its floor."""
    axes = [metric_name(axis) for axis in AXES]
    ne, auc = (f"{shown.split}/{m}" for m in METRICS)
    return [
        *(_scatter(axis, ne, log_y=True, regression=True) for axis in axes),
        *(_scatter(axis, auc, regression=True) for axis in axes),
        _scatter(auc, ne, log_x=False),
    ]


def _evaluations(shown: Contents) -> list[Any]:
    """Return curves of the evaluations within runs, against compute with the fitted laws."""
    ne = f"{shown.split}/ne"
    flops = metric_name(AXES[0])
    law = wr.LinePlot(
        title=f"{ne} and its law against {flops}",
        x=flops,
        y=[ne, *shown.laws],
        log_x=True,
        log_y=True,
    )
    return [law, *(wr.LinePlot(title=f"{ne} against {x}", x=x, y=[ne]) for x in (TOKENS, "step"))]


def _scatters(prefixes: Sequence[str]) -> list[Any]:
    flops = metric_name(AXES[0])
    return [
        _scatter(flops, f"{prefix}/{m}", regression=True) for prefix in prefixes for m in METRICS
    ]


def _scatter(
    x: str, y: str, log_x: bool = True, log_y: bool = False, regression: bool = False
) -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title=f"{unescape(y)} against {x}",
        x=wr.SummaryMetric(x),
        y=wr.SummaryMetric(y),
        log_x=log_x,
        log_y=log_y,
        regression=regression,  # on a logarithmic axis its slope is the gain per decade
    )


def _training() -> list[Any]:
    curves = [wr.LinePlot(title=key, x="step", y=[key]) for key in CURVES]
    flops = metric_name(AXES[0])
    by_compute = wr.LinePlot(
        title=f"{CURVES[0]} against {flops}", x=flops, y=[CURVES[0]], log_x=True
    )
    return [by_compute, *curves]


def _sweep(shown: Contents) -> list[Any]:
    compare = wr.RunComparer(diff_only="split")
    if not shown.parameters:
        return [compare]
    target = f"{shown.split}/ne"
    metrics: list[Any] = [wr.Config(name) for name in shown.parameters]
    metrics += [wr.SummaryMetric(metric_name(AXES[0])), wr.SummaryMetric(target)]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in metrics]
    return [
        compare,
        wr.ParallelCoordinatesPlot(title="parameters", columns=columns),
        wr.ParameterImportancePlot(with_respect_to=target),
        *(
            wr.ScatterPlot(
                title=f"{target} against {name}", x=wr.Config(name), y=wr.SummaryMetric(target)
            )
            for name in shown.parameters
        ),
    ]


def _fits(shown: Contents) -> list[Any]:
    keys = [f"{FIGURES}/{name}" for name in shown.figures]
    images = [wr.MediaBrowser(title="figures", media_keys=keys)] if keys else []
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in (LAWS, PREDICTIONS)]
    return [*images, *tables]
