"""Importance weights, by position and response, that give a log the rates of random traffic.

A log of a model's choices is a biased sample: the model's favorites are shown at the top and get
more responses, and a model trained on the log learns this again. If some sessions are in random
order (LinkedIn, 2023, "Enhancing homepage feed relevance by harnessing the power of large corpus
sparse ID embeddings"), the weights are

    w(position, response) = CTR_random(position, response) / CTR_not random(position, response)

where CTR(position, response) is the share of the impressions at a position that got that response.
With these weights, the log's rate at each position is that of random traffic, and the weights of a
position average to one.

For each position and response, this is the mean of the exact ratio of the two logs' densities
(Horvitz and Thompson 1952), not the ratio of each impression. The weights remove the part of the
top positions' rates that comes from a model placing good items there. They do not remove position
bias, i.e. that fewer members look at lower positions: for a model that orders at random, all
weights are one.

The weights enter the cross-entropy by the column `weight` of the log, before `ligr prepare`:

    weights = response_weights(log["position"], log["click"], log["is_random"])
    log = log.with_columns(weight=weights(log["position"], log["click"], log["is_random"]))
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ResponseWeights:
    """Weights by position and response.

    table: float64 [positions, 2], the weight of an impression without and with a response;
        positions beyond the last row use the last row.
    """

    table: NDArray[np.float64]

    def __call__(
        self, position: ArrayLike, response: ArrayLike, is_random: ArrayLike
    ) -> NDArray[np.float32]:
        """Return the weight of each impression, float32 [N].

        Impressions of random traffic, and those with an unknown response, have weight 1.

        Args:
            position: int [N], from 0.
            response: [N]; 1, 0, or negative or NaN if unknown.
            is_random: [N]; 1 if the order was random.

        Raises:
            ValueError: a position is negative.
        """
        row = np.minimum(_positions(position), len(self.table) - 1)
        answer = np.asarray(response)
        unweighted = (np.asarray(is_random) == 1) | ~(answer >= 0)
        weight = self.table[row, (answer > 0).astype(int)]
        return np.where(unweighted, 1, weight).astype(np.float32)


def response_weights(
    position: ArrayLike,
    response: ArrayLike,
    is_random: ArrayLike,
    positions: int = 20,
    smoothing: float = 20.0,
) -> ResponseWeights:
    """Estimate the weights w from a log that has both kinds of traffic.

    Args:
        position: int [N], from 0.
        response: [N]; 1, 0, or negative or NaN if unknown (left out).
        is_random: [N]; 1 if the order was random.
        positions: number of positions with separate weights; the last one includes all later ones.
        smoothing: number of impressions with the mean rate of their traffic that are added to each
            position of both kinds of traffic.

    Raises:
        ValueError: `smoothing` is not positive, a position is negative, or the known responses of
            one kind of traffic are all 0, all 1 or missing.
    """
    row = np.minimum(_positions(position), positions - 1)
    answer = np.asarray(response)
    random = np.asarray(is_random) == 1
    if smoothing <= 0:
        raise ValueError(f"smoothing={smoothing} must be > 0")
    rates = []
    for name, kind in (("random", random), ("other", ~random)):
        known = kind & (answer >= 0)
        shown, answered = int(known.sum()), int((answer[known] > 0).sum())
        if not 0 < answered < shown:
            raise ValueError(
                f"{answered} of {shown} impressions of {name} traffic have a response; weights "
                "need both kinds of traffic, each with and without responses"
            )
        clicks = np.bincount(row[known], answer[known] > 0, minlength=positions)
        count = np.bincount(row[known], minlength=positions)
        rate = (clicks + smoothing * answered / shown) / (count + smoothing)
        rates.append(np.stack([1 - rate, rate], 1))
    return ResponseWeights(rates[0] / rates[1])


def _positions(position: ArrayLike) -> NDArray[np.int64]:
    """Return positions as int64, after checking that none is negative."""
    positions = np.asarray(position, np.int64)
    if len(positions) and positions.min() < 0:
        row = int(positions.argmin())
        raise ValueError(f"position[{row}]={positions[row]} is negative; positions count from 0")
    return positions
