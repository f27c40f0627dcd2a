"""Compute per impression at any sequence length, measured in finished runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ligr_jax.config import ModelConfig
from ligr_jax.scaling.plan.recorded import RecordedRun

_OWN = 3.0  # pairs every impression has: item to itself, action to itself and to its item


@dataclass(frozen=True)
class AttentionPairs:
    """Allowed attention pairs per impression of one layer.

    Attributes:
        lengths: values of T, increasing.
        history: pairs per impression of a history layer at each T.
        setwise: pairs per impression of a set-wise layer, at every T.
    """

    lengths: tuple[int, ...]
    history: tuple[float, ...]
    setwise: float

    def at(self, seq_len: int) -> float:
        """Return the history pairs per impression at T.

        Between the lengths of the runs they are interpolated by a power law; outside they are
        proportional to T. Beyond the longest rows this is an upper bound, because pairs grow at
        most in proportion to T once histories fill their rows.
        """
        nearest = float(np.clip(seq_len, self.lengths[0], self.lengths[-1]))
        log = np.interp(np.log(nearest), np.log(self.lengths), np.log(self.history))
        return float(np.exp(log)) * seq_len / nearest


def measured_pairs(runs: Sequence[RecordedRun]) -> AttentionPairs:
    """Derive the attention pairs per impression from the counted FLOPs of finished runs.

    `flops_model` per impression, minus the matrix products with weights, is
    12 D (depth h(T) + set_depth s). All runs together give s, by least squares with
    h = 3 + c T^q. Given s, each run has one h, and the result is the mean of h per T.

    Args:
        runs: finished runs.
    """
    from ligr_jax.cost.flops import forward_flops
    from ligr_jax.nn.work import Work

    configs = [run.config for run in runs]
    linear = [sum(forward_flops(c.model, Work(1.0)).values()) for c in configs]
    total = np.array([run.flops_model / (3 * run.impressions) for run in runs])
    pairs = (total - linear) / np.array([4 * c.model.width for c in configs])
    length = np.array([c.data.seq_len for c in configs], float)
    depth = np.array([c.model.depth for c in configs], float)
    setwise = np.array([c.model.set_depth for c in configs], float)
    scale = 1 / np.maximum(pairs, _OWN)  # relative errors
    target = np.maximum(pairs - _OWN * depth, 0.0) * scale
    fits = []
    for power in np.linspace(0.0, 2.0, 41):
        design = np.stack([depth * length**power, setwise], 1) * scale[:, None]
        solution, residual = nnls(design, target)
        fits.append((residual, tuple(solution)))
    setwise_pairs = min(fits)[1][1]
    with np.errstate(invalid="ignore", divide="ignore"):
        history = np.maximum((pairs - setwise * setwise_pairs) / depth, _OWN)
    lengths = np.unique(length[depth > 0])
    if not len(lengths):  # no run has a history layer
        return AttentionPairs(lengths=(int(length[0]),), history=(_OWN,), setwise=setwise_pairs)
    means = [float(history[(length == t) & (depth > 0)].mean()) for t in lengths]
    return AttentionPairs(
        lengths=tuple(int(t) for t in lengths), history=tuple(means), setwise=float(setwise_pairs)
    )


def per_impression(model: ModelConfig, seq_len: int, pairs: AttentionPairs) -> dict[str, float]:
    """Return the analytic compute axes of training on one impression."""
    from ligr_jax.cost.flops import compute_axes
    from ligr_jax.cost.memory import dense_parameters
    from ligr_jax.nn.work import Work

    work = Work(1.0, pairs.at(seq_len), pairs.setwise)
    return compute_axes(model, dense_parameters(model), work)
