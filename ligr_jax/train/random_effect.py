"""Random effects of items: one number per item and action, fitted to the residual of the model.

The global model does not change, and each item i adds a random effect b_i (LiRank 3.9):

    final = sigmoid(logit(global) + b_i)
    b_i = argmin  sum_n w_n [softplus(z_n + b) - y_n (z_n + b)] + lambda_i / 2 (b - m_i)^2

over the item's impressions n, where z_n are the logits of the global model. Items are independent,
so all of them are fitted at the same time, in time proportional to the number of impressions. New
traffic can thus be used within minutes, also for items that the model has never seen. An item
without traffic has no effect.

The fit is also a posterior, N(b_i, 1 / precision_i), which can be the prior of the next fit, so old
traffic is not read again. With the predictions for a split:

    predictions = evaluator.predict(params, "validation")
    item = records.feature("item_id", predictions.impression)
    effects = fit(predictions.logits, predictions.labels, item)
    final = predictions.logits + effects.of(item)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

_ROUNDS = 200  # bisection alone converges within this number
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class RandomEffects:
    """Normal posteriors of the effects of items.

    Attributes:
        items: ids, sorted, [V].
        effect: means, [V, A].
        precision: precisions, [V, A].
    """

    items: NDArray[Any]
    effect: Floats
    precision: Floats

    def of(self, item: ArrayLike) -> Floats:
        """Return the effects [N, A] of the items of impressions [N]."""
        return self._take(self.effect, np.asarray(item), 0.0)

    def prior(self, items: NDArray[Any], otherwise: float) -> tuple[Floats, Floats]:
        """Return means and precisions [V, A] of items; 0 and `otherwise` for unknown items."""
        return self._take(self.effect, items, 0.0), self._take(self.precision, items, otherwise)

    def _take(self, values: Floats, item: NDArray[Any], otherwise: float) -> Floats:
        out = np.full((len(item), values.shape[1]), otherwise)
        if len(self.items):
            index = np.minimum(np.searchsorted(self.items, item), len(self.items) - 1)
            known = self.items[index] == item
            out[known] = values[index[known]]
        return out


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    item: ArrayLike,
    precision: float = 4.0,
    weight: ArrayLike | None = None,
    prior: RandomEffects | None = None,
) -> RandomEffects:
    """Fit the effects of all items by Newton steps within brackets that bisection narrows.

    Args:
        logits: logits of the global model, [N, A].
        labels: 1, 0, or negative if unknown (ignored), [N, A].
        item: ids of the items, [N].
        precision: lambda = 1 / variance of the effects, for items that `prior` does not have.
        weight: weights of the impressions, [N], at least 0.
        prior: fit of earlier impressions; none of them may be passed again.

    Raises:
        ValueError: `precision` is not above 0, or a logit or weight is not finite, or a weight is
            below 0.
    """
    z, y, ids = np.asarray(logits, np.float64), np.asarray(labels), np.asarray(item)
    if precision <= 0:
        raise ValueError(f"precision={precision} must be above 0: items without clicks have no fit")
    if not np.isfinite(z).all():
        row, action = np.argwhere(~np.isfinite(z))[0]
        raise ValueError(f"logits[{row}, {action}]={z[row, action]}: logits must be finite")
    weights = np.ones(len(z)) if weight is None else np.asarray(weight, np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ValueError(
            f"weight[{wrong[0]}]={weights[wrong[0]]}: weights must be finite and at least 0"
        )
    earlier = prior or RandomEffects(ids[:0], z[:0], z[:0])
    items, index = np.unique(np.concatenate([earlier.items, ids]), return_inverse=True)
    mean, precisions = earlier.prior(items, precision)
    w = np.where(y >= 0, weights[:, None], 0.0)
    fitted = [
        _fit(
            z[:, a], y[:, a] > 0, w[:, a], index[len(earlier.items) :], mean[:, a], precisions[:, a]
        )
        for a in range(z.shape[1])
    ]
    effect, curvature = (np.stack(columns, 1) for columns in zip(*fitted))
    return RandomEffects(items, effect, curvature)


def _fit(
    z: Floats,
    y: NDArray[np.bool_],
    w: Floats,
    index: NDArray[Any],
    mean: Floats,
    precisions: Floats,
) -> tuple[Floats, Floats]:
    """Return the effects and precisions of one action, [V]."""
    v = len(mean)
    # |sum of w (p - y)| is at most the sum of w, and the slope is at least `precision`.
    reach = np.bincount(index, w, v) / precisions
    low, high, b = mean - reach, mean + reach, mean.copy()
    for _ in range(_ROUNDS):
        p = expit(z + b[index])
        gradient = np.bincount(index, w * (p - y), v) + precisions * (b - mean)
        curvature = np.bincount(index, w * p * (1 - p), v) + precisions
        low, high = np.where(gradient < 0, b, low), np.where(gradient > 0, b, high)
        new = b - gradient / curvature
        new = np.where((new < low) | (new > high), (low + high) / 2, new)
        if np.abs(new - b).max(initial=0) < _TOLERANCE:
            break
        b = new
    return b, curvature
