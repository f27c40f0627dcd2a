"""Metrics by the post feature of a model, e.g. by bucket of the display position.

Impressions are scored at the row of the feature where they were shown, which serving does not know.
These metrics show whether every row is calibrated. They are no measure of the ranking that is
served: that is `eval.position`.
"""

import numpy as np

from ligr_jax.config import ModelConfig, metric_key
from ligr_jax.data.assemble import NumericScale
from ligr_jax.data.lookup import table_rows
from ligr_jax.data.records import Records
from ligr_jax.ops import metrics
from ligr_jax.train.measure import Predictions

_METRICS = {
    "ne": metrics.normalized_entropy,
    "auc": metrics.auc,
    "calibration": metrics.calibration,
    "ece": metrics.expected_calibration_error,
}


def measure_shown(
    predictions: Predictions, records: Records, model: ModelConfig, split: str
) -> dict[str, float]:
    """Return the metrics of all impressions, and of those of each row of the post feature.

    Args:
        predictions: predictions at the rows where the impressions were shown.
        records: prepared data.
        model: configuration of the model.
        split: train, validation or test.

    Returns:
        `<split>/<action>/shown/NAME` and `<split>/<action>/shown_ROW/NAME`, with NAME `ne`, `auc`,
        `calibration`, `ece` and `impressions`; row 0 has no value. Rows without both labels have
        only `impressions`.
    """
    shown = _rows_of(predictions.impression, records, model)
    groups = {"shown": np.ones(len(shown), bool)}
    groups |= {f"shown_{row}": shown == row for row in range(model.post_rows)}
    out: dict[str, float] = {}
    for a, action in enumerate(model.actions):
        known = predictions.labels[:, a] >= 0
        for name, chosen in groups.items():
            rows = known & chosen
            score, label = predictions.logits[rows, a], predictions.labels[rows, a]
            key = f"{split}/{metric_key(action)}/{name}"
            out[f"{key}/impressions"] = len(label)
            if 0 < label.sum() < len(label):
                out |= {f"{key}/{m}": measured(score, label) for m, measured in _METRICS.items()}
    return out


def _rows_of(impression: np.ndarray, records: Records, model: ModelConfig) -> np.ndarray:
    """Return the row of the post feature of impressions, int [n]."""
    name = model.post_feature
    feature = model.features[name]
    values = records.feature(name, records.locate(impression))
    if feature.kind == "categorical":
        return table_rows(values, name, feature)
    scale = NumericScale(records.manifest.columns[name])
    return scale.bucket(values, feature.rows, feature.edges)
