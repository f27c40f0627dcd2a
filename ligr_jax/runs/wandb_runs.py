"""Runs of a W&B project, read through the client's public API."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import wandb

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.columns import column_of, config_column
from ligr_jax.runs.wandb_client import error_text
from ligr_jax.runs.wandb_env import normalize_environment
from ligr_jax.runs.wandb_server import has_key, is_reachable, server_url

PAGE = 200  # runs per request
TIMEOUT_S = 60


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names, with a dot between their levels, and values of a nested configuration."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def wandb_rows(project: str, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per run: `run`, `id`, `state`, `config/KEY`, and the keys of its summary.

    Args:
        project: "ENTITY/PROJECT".
        filters: which runs, as for the client's `Api().runs`.

    Raises:
        BadInput: there is no key for the server, it does not answer, it refuses, or no run matches;
            the message has the remedy.
    """
    if project.count("/") != 1 or not all(project.split("/")):
        raise BadInput(f"wandb:{project}: give wandb:ENTITY/PROJECT")
    normalize_environment()
    url = server_url()
    if not has_key(url):  # the client would prompt for a key
        raise BadInput(f"wandb:{project}: no key for {url}; run `wandb login` or set WANDB_API_KEY")
    if not is_reachable(url):
        raise BadInput(f"wandb:{project}: {url} does not answer; check WANDB_BASE_URL")
    try:
        api = wandb.Api(timeout=TIMEOUT_S)
        runs = list(api.runs(project, filters=dict(filters), per_page=PAGE, lazy=False))
    except Exception as e:  # the client raises errors of many classes
        reason = error_text(e)
        remedy = (
            "check the spelling of entity and project"
            if "not find" in reason or "not found" in reason
            else "check that the key may read it (`wandb login`)"
        )
        raise BadInput(f"wandb:{project}: {url} refuses: {reason}; {remedy}") from e
    if not runs:
        raise BadInput(f"wandb:{project}: no runs match the filters {dict(filters)}")
    counts = Counter(run.name for run in runs)
    return [
        {
            "run": run.name if counts[run.name] == 1 else f"{run.name} ({run.id})",
            "id": run.id,
            "state": run.state,
            **{config_column(key): value for key, value in _flat(run.config)},
            **dict(run.summary_metrics),
            **{column_of(key): value for key, value in dict(run.summary_metrics).items()},
        }
        for run in runs
    ]
