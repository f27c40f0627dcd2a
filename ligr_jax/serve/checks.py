"""Checks of the batches that a scorer receives, which would give wrong scores silently."""

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.schema import BadInput
from ligr_jax.serve.cache import Cache


class CacheFull(BadInput):
    """Impressions were appended to a cache without room for them."""


def check_histories(histories: Batch, model: ModelConfig, capacity: int) -> None:
    """Check histories that are encoded.

    Raises:
        BadInput: the batch does not fit the model, a row has several members or is too long.
    """
    histories.validate(model)
    _require_one_member(histories)
    width = histories.member.shape[1]
    if width > capacity:
        raise BadInput(
            f"histories have {width:,} impressions, the largest number is {capacity:,}; give the "
            "newest ones, with sessions and times counted from the oldest of them"
        )


def check_impressions(impressions: Batch, cache: Cache, model: ModelConfig, capacity: int) -> None:
    """Check impressions that are appended to a cache.

    Raises:
        CacheFull: a row has too little room.
        BadInput: the batch does not fit the model or the cache.
    """
    first = np.asarray(impressions.session)[:, :1]
    impressions._replace(
        session=np.where(impressions.member > 0, impressions.session - first, 0)
    ).validate(model)
    _require_one_member(impressions)
    length, session, time = _newest(cache)
    _require_rows(impressions, length)
    added = (impressions.member > 0).sum(1)
    for row in np.flatnonzero(added):
        if length[row] + added[row] > capacity:
            raise CacheFull(
                f"row {row} has {length[row]:,} impressions and got {added[row]:,} more, the "
                f"largest number is {capacity:,}; encode the member's newest impressions again"
            )
        start = int(impressions.session[row, 0])
        if start not in (session[row], session[row] + 1) or start < 0:
            raise BadInput(
                f"impressions.session[{row}, 0] is {start}: the newest session of the cache is "
                f"{session[row]}; continue it or give the number after it"
            )
        if length[row] and impressions.time[row, 0] < time[row]:
            raise BadInput(
                f"impressions.time[{row}, 0] is {impressions.time[row, 0]}: the newest impression "
                f"of the cache is at {time[row]} hours; append impressions in the order of time"
            )


def check_candidates(candidates: Batch, cache: Cache, model: ModelConfig) -> None:
    """Check the candidates of requests.

    Raises:
        BadInput: the batch does not fit the model or the cache.
    """
    zeros = np.zeros(candidates.member.shape, np.int32)
    candidates._replace(session=zeros, time=zeros.astype(np.float32)).validate(model)
    if np.isinf(candidates.time).any():
        raise BadInput("candidates.time has infinite values; give hours, or NaN")
    _require_one_member(candidates)
    length, newest_session, _ = _newest(cache)
    _require_rows(candidates, length)
    for row in np.flatnonzero((candidates.member > 0).any(1)):
        valid = candidates.member[row] > 0
        sessions = candidates.session[row, valid]
        if (sessions != sessions[0]).any():
            raise BadInput(
                f"candidates.session[{row}] has several sessions; the candidates of a request are "
                "one session: give one number, or -1"
            )
        if -1 < sessions[0] < newest_session[row] or sessions[0] < -1:
            raise BadInput(
                f"candidates.session[{row}, 0] is {sessions[0]}: the newest session of the cache "
                f"is {newest_session[row]}; give a number that is not below it, or -1"
            )


def _newest(cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the length of each row [B], and the session and time of its newest impression.

    The session of an empty row is -1.
    """
    length = np.asarray(cache.length)
    last = np.maximum(length - 1, 0)[:, None]
    session = np.take_along_axis(np.asarray(cache.session), last, axis=1)[:, 0]
    time = np.take_along_axis(np.asarray(cache.time), last, axis=1)[:, 0]
    return length, np.where(length > 0, session, -1), time


def _require_one_member(batch: Batch) -> None:
    several = (batch.member > 1).any(1)
    if several.any():
        raise BadInput(
            f"batch.member[{several.argmax()}] has several members; give each member a row of its "
            "own, with member=1"
        )


def _require_rows(batch: Batch, length: np.ndarray) -> None:
    if len(batch.member) != len(length):
        raise BadInput(
            f"the batch has {len(batch.member)} rows and the cache {len(length)}; give one row per "
            "member of the cache"
        )
