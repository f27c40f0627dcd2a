"""Wide popularity features: a number for each item and action, often fitted, on what is left over.

The global model stays as it is, and each item i has a random effect b_i on top (LiRank 3.9):

    final = sigmoid(logit(global) + b_i)
    b_i = argmin  sum_n w_n [softplus(z_n + b) - y_n (z_n + b)] + lambda_i / 2 (b - m_i)^2

over the item's impressions n, z_n being the global model's logits. Items share nothing, so that all
of them are fitted at once in time proportional to the impressions: minutes of traffic after the
model was trained, for items that it had never seen. An item without traffic has no effect.

The fit is also a posterior, N(b_i, 1 / precision_i): given as the next prior, old traffic need not
be read again. With predictions of a split, rows being impression numbers:

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

_ROUNDS = 200  # bisection alone would end within these
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class RandomEffects:
    """Effects of items, each with its precision: a normal posterior.

    items: ids, sorted, [V].
    effect, precision: [V, A].
    """

    items: NDArray[Any]
    effect: Floats
    precision: Floats

    def of(self, item: ArrayLike) -> Floats:
        """Effects [N, A] of the items of impressions [N]."""
        return self._take(self.effect, np.asarray(item), 0.0)

    def prior(self, items: NDArray[Any], otherwise: float) -> tuple[Floats, Floats]:
        """Means and precisions [V, A] for `items`: 0 and `otherwise` for those not among them."""
        return self._take(self.effect, items, 0.0), self._take(self.precision, items, otherwise)

    def _take(self, values: Floats, item: NDArray[Any], otherwise: float) -> Floats:
        out = np.full((len(item), values.shape[1]), otherwise)
        if len(self.items):
            at = np.minimum(np.searchsorted(self.items, item), len(self.items) - 1)
            known = self.items[at] == item
            out[known] = values[at[known]]
        return out


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    item: ArrayLike,
    precision: float = 4.0,
    weight: ArrayLike | None = None,
    prior: RandomEffects | None = None,
) -> RandomEffects:
    """Fits the effects of all items at once: Newton steps, inside brackets that bisection closes.

    Args:
        logits: of the global model, [N, A].
        labels: 1, 0, or negative where unknown (left out), [N, A].
        item: ids, [N].
        precision: lambda = 1 / variance of the effects, for items that `prior` does not have.
        weight: of impressions, [N], at least 0.
        prior: what was fitted on earlier impressions, other ones than these.

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
    given = np.ones(len(z)) if weight is None else np.asarray(weight, np.float64)
    wrong = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
    if len(wrong):
        raise ValueError(
            f"weight[{wrong[0]}]={given[wrong[0]]}: weights must be finite and at least 0"
        )
    before = prior or RandomEffects(ids[:0], z[:0], z[:0])
    items, place = np.unique(np.concatenate([before.items, ids]), return_inverse=True)
    mean, strength = before.prior(items, precision)
    w = np.where(y >= 0, given[:, None], 0.0)
    fitted = [
        _fit(z[:, a], y[:, a] > 0, w[:, a], place[len(before.items) :], mean[:, a], strength[:, a])
        for a in range(z.shape[1])
    ]
    effect, curvature = (np.stack(columns, 1) for columns in zip(*fitted))
    return RandomEffects(items, effect, curvature)


def _fit(
    z: Floats, y: NDArray[np.bool_], w: Floats, place: NDArray[Any], mean: Floats, strength: Floats
) -> tuple[Floats, Floats]:
    """Effects and precisions of one action, [V]."""
    v = len(mean)
    # |sum of w (p - y)| is at most the sum of w, and the slope at least `strength`.
    reach = np.bincount(place, w, v) / strength
    low, high, b = mean - reach, mean + reach, mean.copy()
    for _ in range(_ROUNDS):
        p = expit(z + b[place])
        gradient = np.bincount(place, w * (p - y), v) + strength * (b - mean)
        curvature = np.bincount(place, w * p * (1 - p), v) + strength
        low, high = np.where(gradient < 0, b, low), np.where(gradient > 0, b, high)
        new = b - gradient / curvature
        new = np.where((new < low) | (new > high), (low + high) / 2, new)
        if np.abs(new - b).max(initial=0) < _TOLERANCE:
            break
        b = new
    return b, curvature
