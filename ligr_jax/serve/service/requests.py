"""Requests of the service: parsed rows, and the arrays that a scorer needs of them.

Rows are validated with the rules and messages of `ligr prepare` before a request waits, so a bad
request costs the others nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.positions import take_positions
from ligr_jax.data.schema import BadInput
from ligr_jax.serve.activity import ActivityStore
from ligr_jax.serve.activity_layout import Impressions


@dataclass(frozen=True)
class Request:
    """A request whose rows are valid.

    Attributes:
        member: id of the member in the log; None if the history is given.
        history: the given history, oldest first; None if it is read from the store.
        candidates: the candidates.
        position: row of the model's post feature that is scored; 0 for that of the artifact.
    """

    member: int | str | None
    history: Impressions | None
    candidates: Impressions
    position: int = 0


class Window(NamedTuple):
    """The part of a member's history that a model sees.

    first: number of the first impression, counted from the member's oldest one.
    impressions: the impressions from there on.
    """

    first: int
    impressions: Impressions


def parse_request(
    store: ActivityStore,
    member: int | str | None,
    history: Any,
    candidates: Any,
    position: int | None,
    *,
    most: int,
    model: ModelConfig,
) -> Request:
    """Parse the rows of a request.

    Args:
        store: gives the schema.
        member: id of the member in the log, or None.
        history: rows of the canonical log with their actions, or None.
        candidates: rows of the canonical log without actions.
        position: row of the post feature, or None for that of the artifact.
        most: largest number of candidates.
        model: configuration of the model.

    Raises:
        BadInput: both or none of `member` and `history` are given, there is no candidate or there
            are too many, the model has no such position, or a value is not valid.
    """
    if position is not None and not 1 <= position < model.post_rows:
        rows = f"has 1..{model.post_rows - 1}" if model.post_feature else "has no post feature"
        raise BadInput(f"position is {position}, and the model {rows}; give another, or none")
    if (member is None) == (history is None):
        raise BadInput("give either member_id, whose history is stored, or a history")
    (shown,) = store.parse_candidates([candidates])
    if not 0 < len(shown) <= most:
        raise BadInput(f"a request has {len(shown):,} candidates; give 1 to {most:,}")
    times = shown.records["timestamp_ms"]
    if (times != times[0]).any():
        raise BadInput(
            "the candidates of a request have several values of timestamp_ms; give all of them the "
            "time of the request"
        )
    parsed = None if history is None else store.parse_history(history)
    return Request(member, parsed, shown, position or 0)


def window_start(impressions: int, capacity: int, restart: int) -> int:
    """Return the number of the first impression that a model sees of a history.

    It depends on the length of the history only, not on what a cache holds, so scores do not
    depend on what is cached. It moves by `capacity - restart` impressions at a time: between two
    moves an encoded history grows, and a move encodes the newest `restart` or more again, as the
    windows of training do (`ligr_jax.data.packing.cut_windows`).

    Args:
        impressions: length of the history.
        capacity: most impressions of an encoded history.
        restart: see `RequestScorer.restart`; below `capacity`.
    """
    step = max(1, capacity - restart)
    return max(0, -(-(impressions - capacity) // step)) * step


def window_of(store: ActivityStore, request: Request, capacity: int, restart: int) -> Window:
    """Return the window of a request's history.

    Args:
        store: has the histories of members.
        request: the request.
        capacity, restart: as in `window_start`.
    """
    if request.history is not None:
        first = window_start(len(request.history), capacity, restart)
        return Window(first, request.history.newest(len(request.history) - first))
    assert request.member is not None
    # One read: the count may change between two, and the newest `capacity` hold every window.
    count, newest = store.read_counted(request.member, capacity)
    first = window_start(count, capacity, restart)
    return Window(first, newest.newest(count - first))


@dataclass(frozen=True)
class Arrays:
    """Arrays of requests: the rows have a window, and the candidates as its newest session.

    Attributes:
        batch: [B, N], what the data pipeline makes of the impressions of each row.
        lengths: int64 [B], impressions of each window.
        counts: int64 [B], candidates of each request.
        model: configuration of the model.
    """

    batch: Batch
    lengths: np.ndarray
    counts: np.ndarray
    model: ModelConfig

    def window(self, rows: np.ndarray, known: int = 0) -> Batch:
        """Return the impressions of windows behind the first `known` ones, for some rows."""
        return self._part(rows, np.full(len(rows), known), self.lengths[rows])

    def candidates(self, rows: np.ndarray) -> Batch:
        """Return the candidates of some rows."""
        begin = self.lengths[rows]
        return self._part(rows, begin, begin + self.counts[rows])

    def _part(self, rows: np.ndarray, begin: np.ndarray, stop: np.ndarray) -> Batch:
        width = max(1, int((stop - begin).max(initial=0)))
        index = begin[:, None] + np.arange(width)
        chosen = jax.tree.map(lambda x: x[rows], self.batch)
        return take_positions(chosen, np.where(index < stop[:, None], index, -1), self.model)


def assemble_requests(
    store: ActivityStore,
    model: ModelConfig,
    windows: Sequence[Window],
    candidates: Sequence[Impressions],
) -> Arrays:
    """Assemble the arrays of requests.

    Args:
        store: gives the schema and the features of items.
        model: configuration of the model.
        windows: window of each request.
        candidates: candidates of each request.
    """
    histories = [window.impressions for window in windows]
    return Arrays(
        batch=store.assemble(histories, candidates, model),
        lengths=np.array([len(history) for history in histories], np.int64),
        counts=np.array([len(shown) for shown in candidates], np.int64),
        model=model,
    )
