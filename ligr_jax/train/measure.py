"""Exact metrics of the predictions for a split.

Batches and processes are merged by concatenating their predictions, so metrics do not depend on
how the split was divided. If the log has true probabilities, the oracle that predicts them is
measured on the same impressions. Without a leak, no model has a lower cross-entropy, up to noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ligr_jax.config import Config, join_list, metric_key
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.ops import metrics
from ligr_jax.parallel.processes import all_gather, local_rows

# A model whose cross-entropy is this many standard errors below the oracle's has a leak.
_LEAK_SIGMAS = 4.0


@dataclass(frozen=True)
class Predictions:
    """Predictions for the targets of a split, in the order of their impression numbers.

    Attributes:
        impression: int64 [n], impression numbers.
        logits: float32 [n, A].
        labels: int8 [n, A]; 1, 0, or -1 if unknown.
    """

    impression: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def gather_predictions(
    parts: Iterable[tuple[np.ndarray, np.ndarray, Any, Any]], actions: int
) -> Predictions:
    """Concatenate the predictions of batches and processes.

    Args:
        parts: result of `Evaluator.batches`.
        actions: number of actions, for a process without batches.
    """
    empty = (np.zeros(0, np.int64), np.zeros((0, actions), np.float32), np.zeros((0, actions), int))
    rows = [(i[t], local_rows(z)[t], np.asarray(y)[t]) for i, t, y, z in parts] or [empty]
    impression, logits, labels = all_gather([np.concatenate(c) for c in zip(*rows)])
    order = np.argsort(impression, kind="stable")
    return Predictions(impression[order], logits[order], labels[order])


def measure(
    predictions: Predictions,
    records: Records,
    config: Config,
    split: str,
    trained: Records | None = None,
) -> dict[str, Any]:
    """Compute all metrics of the predictions for a split.

    An action whose labels are all equal or all unknown has no NE and no AUC (NaN). Means are over
    the other actions, and `<split>/left_out` lists the action.

    Args:
        predictions: predictions for all targets of the split.
        records: prepared data.
        config: configuration of the run.
        split: train, validation or test.
        trained: the same data with the train split of the run, which defines cold items and
            members; None if `records` has it.

    Returns:
        Metrics by name. Each action has `<split>/<action>/` followed by `ne`, `auc`, `gauc`,
        `calibration`, `ece`, `ndcg` and `rate`, and the slices `cold_items/...` and
        `cold_members/...`. `<split>/ne` and `<split>/auc` are means over actions. If the data have
        true probabilities, `oracle/<split>/...` and `beats_oracle` are added, and
        `not_split_by_time` if the splits are parts of each member's history.

    Raises:
        BadInput: the split has no target.
    """
    if not len(predictions.impression):
        raise BadInput(f"the {split} split holds no target; choose other split boundaries")
    member, session, cold = _groups(
        predictions.impression, records, trained or records, config.eval.cold_below
    )
    out: dict[str, Any] = {f"{split}/impressions": len(member)}
    beats_oracle: list[bool] = []
    defined: list[str] = []  # actions with both labels
    left_out: list[str] = []

    # Metrics of each action, on all targets, on cold-start slices, and of the oracle.
    for a, action in enumerate(config.model.actions):
        known = predictions.labels[:, a] >= 0
        score, label = predictions.logits[known, a], predictions.labels[known, a]
        key = f"{split}/{metric_key(action)}"
        (defined if 0 < label.sum() < len(label) else left_out).append(action)
        out |= _named(key, _all_metrics(score, label, member[known], session[known]))
        for name, rows in cold.items():
            is_cold = rows[known]
            cold_label = label[is_cold]
            out[f"{key}/{name}/impressions"] = int(is_cold.sum())
            if 0 < cold_label.sum() < is_cold.sum():
                out[f"{key}/{name}/auc"] = metrics.auc(score[is_cold], cold_label)
                out[f"{key}/{name}/ne"] = metrics.normalized_entropy(score[is_cold], cold_label)
        if records.manifest.truth:
            truth = records.truth(action, predictions.impression[known]).astype(np.float64)
            oracle = np.log(truth) - np.log1p(-truth)
            of_oracle = _all_metrics(oracle, label, member[known], session[known])
            out |= _named(f"oracle/{key}", of_oracle)
            beats_oracle.append(_is_below_oracle(score, oracle, label))

    # Means over actions.
    for prefix in (split, f"oracle/{split}") if records.manifest.truth else (split,):
        for metric in ("ne", "auc"):
            values = [out[f"{prefix}/{metric_key(a)}/{metric}"] for a in defined]
            out[f"{prefix}/{metric}"] = float(np.mean(values)) if values else float("nan")
    if left_out:
        out[f"{split}/left_out"] = join_list(left_out)
    if beats_oracle:
        out["beats_oracle"] = any(beats_oracle)
    if records.manifest.split_per_member:
        out["not_split_by_time"] = True
    return out


MEASURES = ("ne", "auc", "gauc", "calibration", "ece", "ndcg", "rate")


def _all_metrics(
    score: np.ndarray, label: np.ndarray, member: np.ndarray, session: np.ndarray
) -> dict[str, float]:
    if not len(label):
        return dict.fromkeys(MEASURES, float("nan"))
    return {
        "ne": metrics.normalized_entropy(score, label),
        "auc": metrics.auc(score, label),
        "gauc": metrics.gauc(score, label, member),
        "calibration": metrics.calibration(score, label),
        "ece": metrics.expected_calibration_error(score, label),
        "ndcg": metrics.ndcg(score, label, session),
        "rate": float(label.mean()),
    }


def _named(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{k}": v for k, v in values.items()}


def _is_below_oracle(score: np.ndarray, oracle: np.ndarray, label: np.ndarray) -> bool:
    """Return whether the cross-entropy is significantly below the oracle's (paired).

    Args:
        score: logits of the model, [n].
        oracle: logits of the true probabilities, [n].
        label: 1 or 0, [n].
    """
    z = score.astype(np.float64)
    y = label.astype(np.float64)
    gap = (np.logaddexp(0, z) - z * y) - (np.logaddexp(0, oracle) - oracle * y)
    if not len(gap):
        return False
    error = gap.std() / np.sqrt(max(1, len(gap)))
    return bool(gap.mean() < -_LEAK_SIGMAS * error - 1e-12)


def _groups(
    impression: np.ndarray, records: Records, trained: Records, cold_below: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return the member and session numbers of impressions, and masks of the cold-start slices."""
    member = np.searchsorted(records.offsets, impression, side="right") - 1
    session = records.take("session", impression).astype(np.int64)
    session += member * (int(session.max(initial=0)) + 1)
    cold = {"cold_members": trained.counts[member, 1] < cold_below}
    if "item_id" in records.manifest.columns:
        seen = trained.train_counts("item_id", records.feature("item_id", impression))
        cold["cold_items"] = seen < cold_below
    return member, session, cold
