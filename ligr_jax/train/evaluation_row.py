"""One evaluation as a row of a leaderboard: what was measured, on which data, at which cost."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ligr_jax.config import digest, training_leak
from ligr_jax.cost.flops import forward_flops, parameter_counts, train_flops
from ligr_jax.data.manifest import Manifest, load_manifest
from ligr_jax.data.protocols.protocol import protocol_of
from ligr_jax.data.protocols.registry import has_published_digest
from ligr_jax.nn.work import Work
from ligr_jax.progress import log_progress
from ligr_jax.runs.directory import load_config
from ligr_jax.runs.provenance import provenance
from ligr_jax.train.evaluate import Evaluator, open_evaluator, restore_checkpoint
from ligr_jax.train.length import work_of_a_row
from ligr_jax.train.meter import Totals

_log = logging.getLogger(__name__)

# Fields of a row before its metrics. A field that is removed or changes its meaning gets another
# `row_version`; fields may be added.
ROW_FIELDS = {
    "row_version": "version of this list, 1",
    "run": "name of the run directory",
    "config": "digest of the run's configuration",
    "step": "step of the checkpoint",
    "kind": "`model.kind`",
    "seed": "`train.seed`",
    "leaks": "whether the training showed an impression actions that serving does not know",
    "protocol": "protocol of the data, or null",
    "protocol_version": "its version, or null",
    "published": "whether the data have a published digest of the protocol; null if none is known",
    "data": "digest of the prepared data",
    "trained_on": "digest of the data of the training; equals `data` unless `--data` is other data",
    "split": "train, validation or test",
    "impressions": "impressions that are measured",
    "members": "members with such impressions",
    "trained_impressions": "impressions in the batches of the training up to the step, history and "
    "repeats included",
    "params_dense": "parameters without tables",
    "params_tables": "parameters of tables",
    "flops_model": "FLOPs of the training up to the step",
    "flops_per_impression": "FLOPs of the forward pass per measured impression, its history "
    "included; from a sample of rows",
    "version": "version of ligr_jax that evaluates",
    "commit": "its commit, or null outside of a checkout",
}


def evaluation_row(
    run: Path,
    split: str,
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint; arguments as those of `evaluate_run`.

    Returns:
        The values of `ROW_FIELDS`, followed by the metrics of `ligr_jax.train.measure.measure`.
    """
    evaluator = open_evaluator(run, data, batch, assignments)
    state, meta = restore_checkpoint(run, evaluator.program, step)
    metrics = evaluator(state, split, log_progress(_log, "batch"))
    config, records = evaluator.config, evaluator.records
    parameters = parameter_counts(config.model, state.params)
    totals = Totals(**meta["totals"])
    impressions = metrics[f"{split}/impressions"]
    versions = provenance()
    values = {
        "row_version": 1,
        "run": run.resolve().name,
        "config": digest(load_config(run)),
        "step": int(state.step),
        "kind": config.model.kind,
        "seed": config.train.seed,
        "leaks": bool(training_leak(load_config(run))),
        **_protocol(load_manifest(records.directory)),
        "data": records.digest,
        "trained_on": config.data.digest,
        "split": split,
        "impressions": impressions,
        "members": records.manifest.splits[split].members,
        "trained_impressions": totals.impressions,
        "params_dense": parameters["dense"],
        "params_tables": parameters["tables"],
        "flops_model": train_flops(config.model, totals.work),
        "flops_per_impression": _forward_flops(evaluator, split) / impressions,
        "version": versions["ligr_jax"],
        "commit": versions.get("commit"),
    }
    return {name: values[name] for name in ROW_FIELDS} | metrics


def _protocol(manifest: Manifest) -> dict[str, Any]:
    name, version = protocol_of(manifest) or (None, None)
    return {
        "protocol": name,
        "protocol_version": version,
        "published": has_published_digest(manifest),
    }


def _forward_flops(evaluator: Evaluator, split: str) -> float:
    """Return the FLOPs of the forward pass over all rows of a split."""
    plan = evaluator.plan(split)
    row: Work = work_of_a_row(evaluator.config.model, evaluator.records, plan)
    return len(plan) * sum(forward_flops(evaluator.config.model, row).values())
