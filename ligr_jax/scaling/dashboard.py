"""A W&B workspace with the report's panels, and the report's fits as a W&B run.

Panels refer to the columns of metrics.jsonl and the keys of summary.json, which have the same names
in W&B. The workspace can therefore be built from finished runs on disk, without a server.

A server that refuses or does not answer is a `ServerError` after two minutes at most; with the
client's own settings, a request would be repeated for several minutes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ligr_jax.config import unescape
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import read_plain_json
from ligr_jax.errors import LigrError
from ligr_jax.runs import wandb_client
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.table import Runs, varied

AXES = ("flops_model", "flops_paper", "device_seconds")
METRICS = ("ne", "auc")
SLICES = ("cold_items", "cold_members")
CURVES = (
    "train/loss", "train/grad_norm", "lr/dense", "lr/tables",
    *map(metric_name, ("mfu", "tokens_per_s", "input_wait", "packing")),
)  # fmt: skip
LAWS = "laws"  # keys of the run that has the fits
FIGURES = "figures"
# How messages begin in the client's log where a part of a report was not sent.
_UPLOADS = ("filestream", "runfiles", "file transfer", "put http")
_RETRIES = 2  # of a request that the server answers with 5xx or not at all
_RETRY_AFTER_S = 1.0


class ServerError(LigrError):
    """W&B's server does not answer, or it refuses the report or the workspace."""


@dataclass(frozen=True)
class Contents:
    """What the panels can show.

    Attributes:
        split: evaluated split.
        actions: names of actions with metrics.
        slices: "action/slice" of the cold-start slices with metrics.
        parameters: swept settings, as keys of summary.json such as `config/model.depth`.
        figures: names of the report's PNG files.
    """

    split: str = "validation"
    actions: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


def contents(runs: Runs, directory: Path) -> Contents:
    """Return what a sweep's finished runs, and the report's figures in `directory`, can show."""
    names = runs.table.columns
    split = "validation" if "validation/ne" in names else "test"
    parts = [n.split("/") for n in names if n.startswith(f"{split}/") and n.endswith("/auc")]
    return Contents(
        split=split,
        actions=tuple(p[1] for p in parts if len(p) == 3),
        slices=tuple("/".join(p[1:3]) for p in parts if len(p) == 4 and p[2] in SLICES),
        parameters=tuple(varied(runs.table)),
        figures=tuple(sorted(p.stem for p in (directory / "figures").glob("*.png"))),
    )


def workspace(entity: str, project: str, shown: Contents) -> ws.Workspace:
    """Return the workspace, not saved: `.save()` needs a server, `workspace_json` does not."""
    sections = {
        "Quality against compute": _quality(shown),
        "Actions": _scatters([f"{shown.split}/{a}" for a in shown.actions]),
        "Cold start": _scatters([f"{shown.split}/{s}" for s in shown.slices]),
        "Training": _training(),
        "Sweep": _sweep(shown),
        "Fits": _fits(shown),
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="LiGR scaling",
        sections=[ws.Section(name=n, panels=p, is_open=True) for n, p in sections.items() if p],
        settings=ws.WorkspaceSettings(x_axis="step"),
    )


def workspace_json(space: ws.Workspace) -> str:
    """Return the workspace as JSON in W&B's own format."""
    return str(space._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)) + "\n"


def upload_report(directory: Path, entity: str, project: str) -> str:
    """Log fit.json as a table and figures/*.png as images, in a W&B run of type `report`.

    The run is named after the directory, so another upload updates the same run.

    Args:
        directory: directory of a report.
        entity: W&B entity.
        project: W&B project.

    Returns:
        The URL of the run.

    Raises:
        BadInput: `directory` has no report.
        ServerError: the server does not take the report.
    """
    path = directory / "fit.json"
    if not path.is_file():
        raise BadInput(f"{path}: no such file; run `ligr report {directory}` first")
    numbers = read_plain_json(path, "run `ligr report` again")
    name = f"report-{directory.resolve().name}"
    columns: list[str | int] = ["law", "form", "runs", "parameter", "value", "low", "high"]
    table = wandb.Table(columns=columns, data=list(_parameters(numbers)))
    images = {f"{FIGURES}/{p.stem}": wandb.Image(str(p)) for p in directory.glob("figures/*.png")}
    settings = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        init_timeout=wandb_client.INIT_S,
        finish_timeout=wandb_client.FINISH_S,
        finish_timeout_raises=True,
    )
    with _server_errors("report"):
        run = wandb.init(
            entity=entity,
            project=project,
            mode="online",
            job_type="report",
            id=name,
            name=name,
            dir=str(directory),
            resume="allow",
            notes="\n".join(numbers.get("lines", [])),
            settings=settings,
        )
        run.log({LAWS: table, **images})
        url, segment = str(run.url), Path(run.dir).parent
        run.finish()
        reason = wandb_client.upload_error(segment, _UPLOADS)
        if reason:
            raise RuntimeError(reason)
    return url


def save_workspace(space: ws.Workspace) -> str:
    """Save the workspace as a new view of its project.

    Returns:
        The URL of the view.

    Raises:
        ServerError: the server does not take the workspace.
    """
    with _server_errors("workspace"):
        space.save()
    return str(space.url)


@contextlib.contextmanager
def _server_errors(what: str) -> Iterator[None]:
    """Report every error of the client in the block as a `ServerError`; bound its retries."""
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    settings.x_graphql_retry_max = _RETRIES
    settings.x_file_stream_retry_max = _RETRIES
    settings.x_file_transfer_retry_max = _RETRIES
    settings.x_graphql_retry_wait_min_seconds = _RETRY_AFTER_S
    settings.x_file_stream_retry_wait_min_seconds = _RETRY_AFTER_S
    settings.x_file_transfer_retry_wait_min_seconds = _RETRY_AFTER_S
    try:
        yield
    except Exception as e:  # the client has no common base class of its errors
        reason = wandb_client.error_text(e)
        raise ServerError(
            f"W&B server {settings.base_url} did not take the {what}: {reason}; check "
            "--entity, --project and the permissions of your key (`wandb login`), or write the "
            "workspace to a file with --out FILE"
        ) from e


def _parameters(numbers: Any, path: tuple[str, ...] = ()) -> Iterator[list[Any]]:
    """Yield a row per parameter of every law in fit.json, at any depth."""
    if not isinstance(numbers, dict):
        return
    if "params" in numbers and "intervals" in numbers:
        for name, value in numbers["params"].items():
            low, high = numbers["intervals"].get(name, (None, None))
            law = "/".join(path)
            yield [law, numbers["form"], numbers["points"], name, value, low, high]
        return
    for key, value in numbers.items():
        yield from _parameters(value, (*path, key))


def _quality(shown: Contents) -> list[Any]:
    return [_scatter(axis, f"{shown.split}/{m}") for m in METRICS for axis in AXES]


def _scatters(prefixes: Sequence[str]) -> list[Any]:
    return [_scatter(AXES[0], f"{prefix}/{m}") for prefix in prefixes for m in METRICS]


def _scatter(x: str, y: str, log_x: bool = True) -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title=f"{unescape(y)} against {x}",
        x=wr.SummaryMetric(x),
        y=wr.SummaryMetric(y),
        log_x=log_x,
        regression=log_x,  # on a logarithmic axis its slope is the gain per decade
    )


def _training() -> list[Any]:
    curves = [wr.LinePlot(title=key, x="step", y=[key]) for key in CURVES]
    by_compute = wr.LinePlot(
        title=f"{CURVES[0]} against {AXES[0]}", x=metric_name(AXES[0]), y=[CURVES[0]], log_x=True
    )
    return [by_compute, *curves]


def _sweep(shown: Contents) -> list[Any]:
    if not shown.parameters:
        return []
    target = f"{shown.split}/ne"
    names = [*shown.parameters, AXES[0], target]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(n)) for n in names]
    return [
        wr.ParallelCoordinatesPlot(title="parameters", columns=columns),
        wr.ParameterImportancePlot(with_respect_to=target),
        *(_scatter(name, target, log_x=False) for name in shown.parameters),
    ]


def _fits(shown: Contents) -> list[Any]:
    keys = [f"{FIGURES}/{name}" for name in shown.figures]
    images = [wr.MediaBrowser(title="figures", media_keys=keys)] if keys else []
    return [*images, wr.WeavePanelSummaryTable(table_name=LAWS)]
