"""What an impression costs at any sequence length, measured from finished runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ligr_jax.config import Config, ModelConfig

_OWN = 3.0  # pairs an impression always has: item to itself, action to itself and to its item


@dataclass(frozen=True)
class Pairs:
    """Allowed attention pairs per impression of one layer, history and set-wise.

    lengths, history: rising T, and pairs per impression there. setwise: at every T.
    """

    lengths: tuple[int, ...]
    history: tuple[float, ...]
    setwise: float

    def at(self, seq_len: int) -> float:
        """History pairs at T: a power law between lengths seen, in proportion to T outside.

        Pairs grow no faster than T once histories fill their rows, so that beyond the longest row
        seen this is the most they can be.
        """
        nearest = float(np.clip(seq_len, self.lengths[0], self.lengths[-1]))
        log = np.interp(np.log(nearest), np.log(self.lengths), np.log(self.history))
        return float(np.exp(log)) * seq_len / nearest


def measured_pairs(rows: Sequence[Mapping[str, Any]], configs: Sequence[Config]) -> Pairs:
    """Solves finished runs' counted FLOPs for their attention pairs.

    A run's `flops_model` per impression, less its matrix products with weights, is 12 D (depth h(T)
    + set_depth s). s and the shape 3 + c T^q of h come from all runs by least squares; then each
    run has an h of its own, the mean of which is kept per T.

    rows: with `flops_model` and `impressions`; configs: of the same runs.
    """
    from ligr_jax.nn.flops import forward_flops
    from ligr_jax.nn.work import Work

    linear = [sum(forward_flops(c.model, Work(1.0)).values()) for c in configs]
    total = np.array([r["flops_model"] / (3 * r["impressions"]) for r in rows])
    pairs = (total - linear) / np.array([4 * c.model.width for c in configs])
    length = np.array([c.data.seq_len for c in configs], float)
    depth = np.array([c.model.depth for c in configs], float)
    setwise = np.array([c.model.set_depth for c in configs], float)
    scale = 1 / np.maximum(pairs, _OWN)  # relative errors
    target = np.maximum(pairs - _OWN * depth, 0.0) * scale
    fits = []
    for power in np.linspace(0.0, 2.0, 41):
        design = np.stack([depth * length**power, setwise], 1) * scale[:, None]
        solved, rest = nnls(design, target)
        fits.append((rest, tuple(solved)))
    of_set = min(fits)[1][1]
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.maximum((pairs - setwise * of_set) / depth, _OWN)
    lengths = np.unique(length[depth > 0])
    if not len(lengths):
        return Pairs((int(length[0]),), (_OWN,), of_set)
    means = [float(own[(length == t) & (depth > 0)].mean()) for t in lengths]
    return Pairs(tuple(int(t) for t in lengths), tuple(means), float(of_set))


def per_impression(model: ModelConfig, seq_len: int, pairs: Pairs) -> dict[str, float]:
    """The analytic compute axes of training on one impression."""
    from ligr_jax.nn.flops import compute_axes
    from ligr_jax.nn.work import Work
    from ligr_jax.scaling.memory import dense_parameters

    work = Work(1.0, pairs.at(seq_len), pairs.setwise)
    return compute_axes(model, dense_parameters(model), work)
