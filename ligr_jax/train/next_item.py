"""Evaluation of the next item: the rank of each target among all items of the data.

Candidates are all items that occur in the data, so the ranking is full and not sampled. With
`eval.exclude_seen`, items of earlier impressions of the member are no candidates, except for the
target itself. A target without an earlier impression in its row has no query, and a target without
an item has no rank; both are counted and left out. Ties are resolved as in
`ligr_jax.ops.metrics.hit_rate`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ligr_jax.config import Config
from ligr_jax.data.batch import Batch
from ligr_jax.data.lookup import table_rows
from ligr_jax.data.records import Records
from ligr_jax.ops import metrics

CUTOFFS = (10, 50, 200)
_SCORES = 1 << 24  # scores in memory at a time


class NextItemQueries(NamedTuple):
    """Queries of targets, in any order.

    Attributes:
        impression: int64 [n], numbers of the targets.
        query_nE: float32 [n, E], query after the impression before the target.
        rows_VE: float32 [V, E], the table of the item.
    """

    impression: np.ndarray
    query_nE: np.ndarray
    rows_VE: np.ndarray


def previous_queries(
    index: np.ndarray, batch: Batch, query_BNE: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of a batch that have an earlier impression, and their queries.

    Args:
        index: int64 [B, N], impression numbers.
        batch: the batch.
        query_BNE: query after each impression.
    """
    member = np.asarray(batch.member)
    is_target = np.asarray(batch.weight)[:, 1:] > 0
    has_query = is_target & (member[:, 1:] == member[:, :-1])
    return index[:, 1:][has_query], np.asarray(query_BNE)[:, :-1][has_query]


def measure_next_item(
    queries: NextItemQueries, targets: int, records: Records, config: Config, split: str
) -> dict[str, Any]:
    """Return HR and NDCG at each of `CUTOFFS`, and what they are measured on.

    Args:
        queries: queries of all targets of the split that have one.
        targets: number of all targets of the split.
        records: prepared data.
        config: configuration of the run.
        split: train, validation or test.

    Returns:
        Metrics by name: `<split>/next_item/hr@K` and `ndcg@K`, the number of ranked `targets`, of
        `candidates`, of targets `without_history`, and the share of `tied` targets; also the number
        of targets `without_item` if there are any.
    """
    name = config.model.next_item
    feature = config.model.features[name]
    all_rows = [np.unique(table_rows(ids, name, feature)) for ids in records.ids(name)]
    candidates = np.unique(np.concatenate(all_rows))
    candidates = candidates[candidates > 0]
    better, tied = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for part in _chunks(queries, max(_SCORES // len(candidates), 1)):
        target = table_rows(records.feature(name, part.impression), name, feature)
        known = target > 0
        part = NextItemQueries(part.impression[known], part.query_nE[known], part.rows_VE)
        counts = _ranks(part, target[known], candidates, records, config)
        better.append(counts[0])
        tied.append(counts[1])
    above, equal = np.concatenate(better), np.concatenate(tied)
    key = f"{split}/next_item"
    out: dict[str, Any] = {
        f"{key}/targets": len(above),
        f"{key}/without_history": targets - len(queries.impression),
        f"{key}/candidates": len(candidates),
        f"{key}/tied": float(np.mean(equal > 0)) if len(equal) else float("nan"),
    }
    if len(above) < len(queries.impression):
        out[f"{key}/without_item"] = len(queries.impression) - len(above)
    for k in CUTOFFS if len(above) else ():
        out[f"{key}/hr@{k}"] = metrics.hit_rate(above, equal, k)
        out[f"{key}/ndcg@{k}"] = metrics.ndcg_of_target(above, equal, k)
    return out


def _chunks(queries: NextItemQueries, size: int) -> Iterator[NextItemQueries]:
    for first in range(0, len(queries.impression), size):
        chosen = slice(first, first + size)
        impression, query_nE = queries.impression[chosen], queries.query_nE[chosen]
        yield NextItemQueries(impression, query_nE, queries.rows_VE)


def _ranks(
    queries: NextItemQueries,
    target: np.ndarray,
    candidates: np.ndarray,
    records: Records,
    config: Config,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many candidates score higher than each target, and how many others are equal."""
    score = queries.query_nE @ queries.rows_VE[candidates].T
    row = np.arange(len(target))
    column = np.searchsorted(candidates, target)
    of_target = score[row, column]
    if config.eval.exclude_seen:
        seen_row, seen_column = _seen(queries.impression, candidates, records, config)
        score[seen_row, seen_column] = -np.inf
        score[row, column] = of_target
    better = (score > of_target[:, None]).sum(axis=1)
    tied = (score == of_target[:, None]).sum(axis=1) - 1
    return better, tied


def _seen(
    impression: np.ndarray, candidates: np.ndarray, records: Records, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a target and a candidate that is an earlier item of its member."""
    name = config.model.next_item
    member = np.searchsorted(records.offsets, impression, side="right") - 1
    count = impression - records.offsets[member]
    row = np.repeat(np.arange(len(impression)), count)
    earlier = np.arange(len(row)) - np.repeat(np.cumsum(count) - impression, count)
    rows = table_rows(records.feature(name, earlier), name, config.model.features[name])
    known = rows > 0
    return row[known], np.searchsorted(candidates, rows[known])
