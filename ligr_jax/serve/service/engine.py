"""Scores of batches of requests: encode what is missing, extend what grew, rank the candidates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ligr_jax.data.post_row import at_post_row
from ligr_jax.serve.activity import ActivityStore
from ligr_jax.serve.cache import Cache, cache_rows, stack_caches
from ligr_jax.serve.request_scorer import RequestScorer
from ligr_jax.serve.service.histories import EncodedHistory, HistoryCache
from ligr_jax.serve.service.requests import Arrays, Request, Window, assemble_requests, window_of


@dataclass(frozen=True)
class Result:
    """Scores of the candidates of a request.

    Attributes:
        version: version of the artifact.
        impressions: number of impressions of the history that the model saw.
        order: int [c], candidates from the best to the worst.
        score: float32 [c], by candidate: the sum of weight x probability.
        probabilities: float32 [c, A], by candidate.
    """

    version: str
    impressions: int
    order: np.ndarray
    score: np.ndarray
    probabilities: np.ndarray


class Engine:
    """Answers batches of requests. Only one thread may call `answer`.

    Attributes:
        lookups: how often the history of a member was found: `hits`, all impressions were encoded;
            `extended`, new ones were appended; `misses`, the history was encoded.
        histories: encoded histories.
    """

    def __init__(self, store: ActivityStore, cache_bytes: int) -> None:
        """
        Args:
            store: histories of members, and the schema of rows.
            cache_bytes: largest size of all encoded histories.
        """
        self.lookups = Counter[str]()
        self.histories = HistoryCache(cache_bytes)
        self._store = store

    def answer(
        self, scorer: RequestScorer, version: str, requests: Sequence[Request]
    ) -> list[Result]:
        """Return the scores of requests.

        Args:
            scorer: scores requests.
            version: name of its version.
            requests: requests, each with candidates.
        """
        self.histories.keep_version(version)
        # Requests of one member share its history: `first` is the number of the first of them.
        first = _first_requests(requests)
        read = {
            b: window_of(self._store, requests[b], scorer.capacity, scorer.restart)
            for b in sorted(set(first))
        }
        windows = [read[b] for b in first]
        arrays = assemble_requests(
            self._store, scorer.model, windows, [request.candidates for request in requests]
        )
        encoded = self._encoded(scorer, version, {b: requests[b] for b in read}, windows, arrays)

        # The number of rows is a power of two, so that few programs are compiled.
        rows = _padded(np.arange(len(requests)))
        caches = [encoded[first[row]] for row in rows]
        cache = caches[0] if len(caches) == 1 else stack_caches(caches)  # stacking copies
        positions = np.array([requests[row].position for row in rows])[:, None]
        candidates = at_post_row(arrays.candidates(rows), scorer.model, positions)
        ranking = scorer.rank(cache, candidates)
        return [
            Result(
                version=version,
                impressions=len(windows[b].impressions),
                order=np.asarray(ranking.order_BC)[b, :c],
                score=np.asarray(ranking.score_BC)[b, :c],
                probabilities=expit(ranking.logits_BCA[b, :c]),
            )
            for b, c in enumerate(arrays.counts)
        ]

    def _encoded(
        self,
        scorer: RequestScorer,
        version: str,
        requests: Mapping[int, Request],
        windows: Sequence[Window],
        arrays: Arrays,
    ) -> dict[int, Cache]:
        """Return the encoded window of each request, by number of the request; one row each.

        New impressions of an encoded history are appended; other windows are encoded together.
        """
        encoded: dict[int, Cache] = {}
        missing = []
        for b, request in requests.items():
            entry = self._lookup(version, request, windows[b])
            if entry is None:
                missing.append(b)
                continue
            known = len(entry.window.impressions)
            encoded[b] = entry.cache
            if known < len(windows[b].impressions):
                encoded[b] = scorer.append(entry.cache, arrays.window(np.array([b]), known))
        if missing:
            cache = scorer.encode(arrays.window(_padded(np.array(missing))))
            for k, b in enumerate(missing):
                encoded[b] = cache_rows(cache, slice(k, k + 1))
        for b, request in requests.items():
            if request.member is not None:
                key = version, request.member
                self.histories.put(key, EncodedHistory(windows[b], encoded[b]))
        return encoded

    def _lookup(self, version: str, request: Request, window: Window) -> EncodedHistory | None:
        """Return an encoding of the first impressions of a window, if there is one.

        An encoding that will be extended leaves the cache, because `append` consumes its arrays.
        """
        if request.member is None:
            return None
        key = version, request.member
        entry = self.histories.get(key)
        if entry is None or not entry.begins(window):
            self.lookups["misses"] += 1
            return None
        if len(entry.window.impressions) == len(window.impressions):
            self.lookups["hits"] += 1
        else:
            self.lookups["extended"] += 1
            self.histories.pop(key)
        return entry


def _first_requests(requests: Sequence[Request]) -> list[int]:
    """Return for each request the number of the first one with the same member."""
    first: dict[int | str, int] = {}
    return [
        b if request.member is None else first.setdefault(request.member, b)
        for b, request in enumerate(requests)
    ]


def _padded(rows: np.ndarray) -> np.ndarray:
    """Return row numbers with the last one repeated, up to a power of two."""
    size = 1 << (len(rows) - 1).bit_length()
    return rows[np.minimum(np.arange(size), len(rows) - 1)]
