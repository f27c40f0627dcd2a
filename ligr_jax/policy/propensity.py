"""Weights that make a log answer as random traffic does, by position and response.

What a model chose to show is no fair sample: its favourites stand on top and are answered to, which
a model trained on the log learns again. With some sessions in random order (LinkedIn, 2023,
"Enhancing homepage feed relevance by harnessing the power of large corpus sparse ID embeddings"),

    w(position, response) = CTR_random(position, response) / CTR_not random(position, response)

where CTR(position, response) is the share of the impressions at a position that got that response.
So weighted, the log's rate at each position is that of random traffic, and the weights of a
position average to one.

This is the mean of the exact ratio of both logs' densities among the impressions of one position
and response (Horvitz and Thompson 1952), not the ratio itself. It takes away what the order of a
model that knows its items adds to the top. It leaves alone how far down people look: a model that
orders at random keeps its position bias, and weights of one.

The weights enter the cross-entropy by the column `weight` of the log, before `ligr prepare`:

    weights = response_weights(log["position"], log["click"], log["is_random"])
    log = log.with_columns(weight=weights(log["position"], log["click"], log["is_random"]))
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ResponseWeights:
    """table: float64 [positions, 2], the weight of no response and of a response; positions after
    the last share its row."""

    table: NDArray[np.float64]

    def __call__(
        self, position: ArrayLike, response: ArrayLike, is_random: ArrayLike
    ) -> NDArray[np.float32]:
        """The weight of each impression, [N]; 1 where it was random or the response is unknown.

        Args:
            position: from 0; is_random: 1 for random.
            response: 1, 0, or negative or NaN where unknown.
        """
        place = np.minimum(_positions(position), len(self.table) - 1)
        answer = np.asarray(response)
        fixed = (np.asarray(is_random) == 1) | ~(answer >= 0)
        return np.where(fixed, 1, self.table[place, (answer > 0).astype(int)]).astype(np.float32)


def response_weights(
    position: ArrayLike,
    response: ArrayLike,
    is_random: ArrayLike,
    positions: int = 20,
    smoothing: float = 20.0,
) -> ResponseWeights:
    """Measures w on a log that has both kinds of traffic.

    Args, the first three [N]:
        position: from 0.
        response: 1, 0, or negative or NaN where unknown (left out).
        is_random: 1 where the order was random.
        positions: so many have weights of their own; those after the last are one.
        smoothing: impressions at the traffic's mean rate that are added to each position of both.

    Raises:
        ValueError: a kind of traffic has no impressions, or none that was answered, or only such.
    """
    place = np.minimum(_positions(position), positions - 1)
    answer, random = np.asarray(response), np.asarray(is_random) == 1
    if smoothing <= 0:
        raise ValueError(f"smoothing={smoothing} must be above 0")
    rates = []
    for name, kind in (("random", random), ("other", ~random)):
        known = kind & (answer >= 0)
        shown, answered = int(known.sum()), int((answer[known] > 0).sum())
        if not 0 < answered < shown:
            raise ValueError(
                f"{answered} of {shown} impressions of {name} traffic were answered; weights need "
                "both kinds of traffic, and both answers in each"
            )
        clicks = np.bincount(place[known], answer[known] > 0, minlength=positions)
        count = np.bincount(place[known], minlength=positions)
        rate = (clicks + smoothing * answered / shown) / (count + smoothing)
        rates.append(np.stack([1 - rate, rate], 1))
    return ResponseWeights(rates[0] / rates[1])


def _positions(position: ArrayLike) -> NDArray[np.int64]:
    place = np.asarray(position, np.int64)
    if len(place) and place.min() < 0:
        row = int(place.argmin())
        raise ValueError(f"position[{row}]={place[row]}: positions count from 0")
    return place
