"""Logs without times: only the order of each member's rows is known (`LogSchema.time_is_order`).

Row k of a member with n rows gets the time `SPAN * k // n`, its share of the history. One pair of
times then cuts every history by the same fractions. Sessions are blocks of `BLOCK` rows, because
with one session per row a row would see the actions of seconds ago, which serving does not know.
"""

import numpy as np

from ligr_jax.data.prepare.splits import SplitSpans, SplitTimes
from ligr_jax.data.schema import BadInput
from ligr_jax.ops.segments import segments

SPAN = 10**9  # the whole history of a member
BLOCK = 10  # rows of a session

# Notes of the manifest.
NO_TIMES = "the log has no times, only the order of each member's rows"
BLOCKS = f"sessions are blocks of {BLOCK} rows of a member"
BY_ORDER = (
    "the first rows of a member are train, later rows validation, the last rows test; the splits "
    "are not by time, so a model is trained on later impressions of other members"
)


def times_by_order(member: np.ndarray) -> np.ndarray:
    """Return the times of rows in order of their member, int64 [N], in 0..SPAN-1.

    Args:
        member: int64 [N], sorted.
    """
    first, lengths = segments(member)
    position = np.arange(len(member)) - np.repeat(first, lengths)
    result: np.ndarray = SPAN * position // np.repeat(lengths, lengths)
    return result


def edges_by_order(
    times: SplitTimes | SplitSpans | None, fractions: tuple[float, float, float]
) -> tuple[int, int, int, int]:
    """Return the times between which the splits lie.

    Args:
        times: ends or lengths of the splits, which such a log cannot have.
        fractions: shares of each history in train, validation and test.

    Raises:
        BadInput: there are ends or lengths of splits.
    """
    if times is not None:
        raise BadInput(
            "--train-until, --validation-until and --last need times, and the log has only the "
            "order of each member's rows; give --fractions"
        )
    train, validation = (round(SPAN * end) for end in np.cumsum(fractions)[:2])
    return 0, train, validation, SPAN
