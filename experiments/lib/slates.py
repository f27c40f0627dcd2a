"""Requests made of sessions of a synthetic world: policies, exact utility, diversity, replay.

The candidates of a request are the items of a logged session. What a member would do with any slate
of them is known exactly (`ligr_jax.data.world.response`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.data.records import Records
from ligr_jax.data.world.block import block_response
from ligr_jax.data.world.config import WorldConfig
from ligr_jax.data.world.response import BlockResponse
from ligr_jax.ops.segments import segments
from ligr_jax.policy.diversity import alpha_ndcg, distinct_in_top, intra_list_similarity
from ligr_jax.policy.offline_replay import replay_slates
from ligr_jax.policy.rerank import GapRule, rerank_by_rules

TOP = 5  # items that are shown


@dataclass(frozen=True)
class Requests:
    """R requests with up to C candidates each, in the order of the log, and their true responses.

    row_RC: row of each candidate in the block; 0 in padding.
    valid_RC: false for padding.
    member_R: the member of each request.
    content: vectors of all rows, [N, W].
    alone: click probabilities of all rows if they are shown alone, [N].
    """

    response: BlockResponse
    row_RC: np.ndarray
    valid_RC: np.ndarray
    member_R: np.ndarray
    content: np.ndarray
    alone: np.ndarray

    def ranked(self, score_RC: np.ndarray, rules: bool) -> np.ndarray:
        """Return the order of the candidates by their scores, with the rule of actors or not."""
        rule = [GapRule(self.response.actor[self.row_RC])] if rules else []
        return rerank_by_rules(score_RC, rule, self.valid_RC, TOP)

    def clicks(self, row_RK: np.ndarray) -> np.ndarray:
        """Return the true click probabilities of slates of K items, [R, K]."""
        slate = np.repeat(np.arange(len(row_RK)), row_RK.shape[1])
        p = self.response.probabilities(row_RK.ravel(), slate)["click"]
        return p.astype(np.float64).reshape(row_RK.shape)

    def measure(self, order_RC: np.ndarray) -> dict[str, float]:
        """Return the utility and the diversity of the first items, means over requests."""
        row_RC = np.take_along_axis(self.row_RC, order_RC, 1)
        valid_RC = np.take_along_axis(self.valid_RC, order_RC, 1)
        topics = np.eye(self.response.topic.max() + 1)
        judgment_RCT = topics[self.response.topic[row_RC]] * self.alone[row_RC][..., None]
        measures = {
            "clicks": self.clicks(row_RC[:, :TOP]).sum(1),
            "actors": distinct_in_top(self.response.actor[row_RC], TOP, valid_RC),
            "topics": distinct_in_top(self.response.topic[row_RC], TOP, valid_RC),
            "similarity": intra_list_similarity(self.content[row_RC], TOP, valid_RC),
            "alpha_ndcg": alpha_ndcg(judgment_RCT, TOP, valid=valid_RC),
        }
        return {name: float(np.mean(values)) for name, values in measures.items()}


def requests_of(config: WorldConfig, directory: Path, least: int) -> Requests:
    """Return the sessions of the test split with at least `least` items as requests.

    Args:
        config: a world of one block.
        directory: its `log` and `prepared` data.
        least: number of candidates.
    """
    log = pl.read_parquet(directory / "log" / "impressions-00000.parquet")
    records = Records(directory / "prepared")
    if not np.array_equal(records.feature("item_id"), log["item_id"].to_numpy()):
        raise RuntimeError(f"{directory}: the prepared rows are not those of the log, in order")
    items = pl.read_parquet(directory / "log" / "items.parquet", columns=["item_id", "content"])
    content = log.select("item_id").join(items, on="item_id", how="left", maintain_order="left")
    response = block_response(config, 0)
    first, size = segments(response.session)
    start_ms = records.manifest.splits["test"].start_ms
    kept = (size >= least) & (log["timestamp_ms"].to_numpy()[first] >= start_ms)
    place_C = np.arange(size[kept].max())
    valid_RC = place_C < size[kept, None]
    rows = np.arange(len(log))
    return Requests(
        response=response,
        row_RC=np.where(valid_RC, first[kept, None] + place_C, 0),
        valid_RC=valid_RC,
        member_R=log["member_id"].to_numpy()[first[kept]],
        content=content["content"].explode().to_numpy().reshape(len(log), -1),
        alone=response.probabilities(rows, rows)["click"].astype(np.float64),
    )


def set_wise_truth(requests: Requests, orders: int = 16) -> np.ndarray:
    """Return the click probability of every candidate if all are shown, mean over random orders.

    These are the best scores of a model that sees the set of candidates but not their order.
    """
    rng = np.random.default_rng(0)
    request, _ = np.nonzero(requests.valid_RC)
    rows = requests.row_RC[requests.valid_RC]
    total = np.zeros(len(rows))
    for _ in range(orders):
        order = rng.permutation(len(rows))
        total[order] += requests.response.probabilities(rows[order], request[order])["click"]
    score_RC = np.zeros(requests.row_RC.shape)
    score_RC[requests.valid_RC] = total / orders
    return score_RC


def greedy(requests: Requests) -> np.ndarray:
    """Return the order whose every item adds most to the expected clicks of the items so far."""
    requests_count, candidates = requests.row_RC.shape
    row_R = np.arange(requests_count)
    free_RC = requests.valid_RC.copy()
    chosen_RS = np.zeros((requests_count, 0), np.int64)
    for _ in range(TOP):
        gain_RC = np.full(free_RC.shape, -np.inf)
        r, c = np.nonzero(free_RC)
        rows = np.take_along_axis(requests.row_RC, chosen_RS, 1)[r]
        gain_RC[r, c] = requests.clicks(np.column_stack([rows, requests.row_RC[r, c]])).sum(1)
        best_R = gain_RC.argmax(1)
        free_RC[row_R, best_R] = False
        chosen_RS = np.column_stack([chosen_RS, best_R])
    rest_RC = np.ones((requests_count, candidates), bool)
    np.put_along_axis(rest_RC, chosen_RS, False, 1)
    # The remaining candidates follow, padding last.
    rest = np.argsort(np.where(rest_RC, ~requests.valid_RC, 2), axis=1, kind="stable")
    return np.column_stack([chosen_RS, rest[:, : candidates - TOP]])


@dataclass(frozen=True)
class Traffic:
    """Random traffic: S slates of two of the candidates of a request; a reward is any click."""

    request: np.ndarray
    shown: np.ndarray
    reward: np.ndarray


def random_traffic(requests: Requests, times: int) -> Traffic:
    """Show two random candidates of every request, `times` times, and draw the clicks."""
    rng = np.random.default_rng(1)
    request = np.repeat(np.arange(len(requests.row_RC)), times)
    size = requests.valid_RC.sum(1)[request]
    first = (rng.random(len(request)) * size).astype(np.int64)
    second = (first + 1 + (rng.random(len(request)) * (size - 1)).astype(np.int64)) % size
    shown = np.column_stack([first, second])
    p = requests.clicks(requests.row_RC[request[:, None], shown])
    reward = np.any(rng.random(p.shape) < p, axis=1)
    return Traffic(request=request, shown=shown, reward=np.asarray(reward))


def replayed(requests: Requests, order_RC: np.ndarray, traffic: Traffic) -> dict[str, Any]:
    """Return the rate of a click in the first two items: by replay, and the exact one."""
    top_R2 = order_RC[:, :2]
    p_R2 = requests.clicks(np.take_along_axis(requests.row_RC, top_R2, 1))
    estimate = replay_slates(
        traffic.shown,
        top_R2[traffic.request],
        requests.valid_RC.sum(1)[traffic.request],
        traffic.reward,
        requests.member_R[traffic.request],
    )
    return {
        "exact": float(np.mean(1 - np.prod(1 - p_R2, axis=1))),
        "replay": estimate.rate,
        "low": estimate.low,
        "high": estimate.high,
        "matched": estimate.matched,
    }
