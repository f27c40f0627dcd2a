"""Uploads of `ligr dashboard`: the workspace, and the report's fits as a W&B run.

A server that refuses or does not answer is a `ServerError` after two minutes at most; with the
client's own settings, a request would be repeated for several minutes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import wandb
import wandb_workspaces.workspaces as ws

from ligr_jax.data.schema import BadInput
from ligr_jax.digests import read_plain_json
from ligr_jax.errors import LigrError
from ligr_jax.runs import wandb_client
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.files import PREDICTION_FILES
from ligr_jax.runs.table import column
from ligr_jax.scaling.dashboard import AXES, FIGURES, LAWS, PREDICTIONS, law_metric

# How messages begin in the client's log where a part of a report was not sent.
_UPLOADS = (
    "filestream", "runfiles", "file transfer", "put http", "sender: failed to log artifact",
)  # fmt: skip
_RETRIES = 2  # of a request that the server answers with 5xx or not at all
_RETRY_AFTER_S = 1.0
_LAW_POINTS = 50
_COLUMNS: list[str | int] = ["law", "form", "runs", "parameter", "value", "low", "high"]
_FORECAST = ("architecture", "how", "run", "compute", "predicted", "low", "high", "observed")


class ServerError(LigrError):
    """W&B's server does not answer, or it refuses the report or the workspace."""


def upload_report(directory: Path, entity: str, project: str) -> str:
    """Log a report in a W&B run of type `report`.

    Laws and predictions become tables, figures become images, laws of NE in FLOPs become curves
    that panels show with the runs, and fit.json, runs.csv and the predictions an artifact. The run
    is named after the directory, so another upload updates the same run.

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
    forecasts = [[f.get(key) for key in _FORECAST] for f in numbers.get("forecasts", ())]
    logged: dict[str, Any] = {
        LAWS: wandb.Table(columns=_COLUMNS, data=list(_parameters(numbers))),
        PREDICTIONS: wandb.Table(columns=list(_FORECAST), data=forecasts),
    }
    for figure in directory.glob("figures/*.png"):
        logged[f"{FIGURES}/{figure.stem}"] = wandb.Image(str(figure))
    artifact = wandb.Artifact(name, type="report")
    for pattern in ("fit.json", "runs.csv", PREDICTION_FILES):
        for file in sorted(directory.glob(pattern)):
            artifact.add_file(str(file))
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
        for row in _law_curves(numbers, directory / "runs.csv"):
            run.log(row)
        run.log(logged)
        run.log_artifact(artifact)
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


def _law_curves(numbers: Any, runs: Path) -> Iterator[dict[str, float]]:
    """Yield rows with FLOPs and the NE of the law of each architecture, up to ten times the runs.

    Args:
        numbers: content of fit.json.
        runs: runs.csv, whose runs give the range; without it there are no rows.
    """
    laws = {
        law_metric(arm): kinds["free"]["params"]
        for arm, kinds in numbers.get("laws", {}).get(AXES[0], {}).items()
        if kinds.get("free", {}).get("form") == "power"
    }
    if not laws or not runs.is_file():
        return
    table = pl.read_csv(runs, columns=[AXES[0]], infer_schema_length=None)
    flops = column(table.drop_nulls(), AXES[0])
    for x in np.geomspace(flops.min(), 10 * flops.max(), _LAW_POINTS):
        values = {name: p["E"] + p["A"] * x ** -p["alpha"] for name, p in laws.items()}
        yield {metric_name(AXES[0]): float(x), **values}


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
