"""Laws of re-ranking by rules, against a loop over positions and candidates."""

import numpy as np
import pytest

from ligr_jax.policy.rerank import GapRule, rerank_by_rules

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def requests(seed: int, candidates: int = 12, count: int = 200) -> Case:
    """Return scores with ties, actors, keys of out-of-network items, and the mask of candidates.

    An actor is in the network or outside, and some requests have few actors, so that not all rules
    can be kept.
    """
    rng = np.random.default_rng(seed)
    shape = (count, candidates)
    score = rng.integers(0, 8, shape) / 4
    actor = rng.integers(0, rng.integers(1, candidates, count)[:, None], shape)
    outside = rng.random((count, candidates)) < 0.4
    out_of_network = np.where(np.take_along_axis(outside, actor, 1), 0, -1)
    valid = np.arange(candidates) < rng.integers(0, candidates + 1, count)[:, None]
    return score, actor, out_of_network, rng.permuted(valid, axis=1)


def broken(keys: list[np.ndarray], between: int, shown: list[int], candidate: int) -> tuple:
    """Return whether a candidate at the next position breaks each rule."""
    recent = shown[max(0, len(shown) - between) :]
    return tuple(any(k[candidate] >= 0 and k[candidate] == k[i] for i in recent) for k in keys)


def slow(score: np.ndarray, keys: list[np.ndarray], between: int, top: int) -> list[int]:
    left, shown = list(range(len(score))), list[int]()
    while left:
        rules = between if len(shown) < top else 0
        best = min(left, key=lambda i: (broken(keys, rules, shown, i), -score[i], i))
        shown.append(best)
        left.remove(best)
    return shown


@pytest.mark.parametrize(("between", "top"), [(2, None), (1, None), (3, 5), (0, None), (2, 0)])
def test_order_equals_a_loop_and_padding_is_last(between: int, top: int | None) -> None:
    score, actor, outside, valid = requests(seed=between)
    rules = [GapRule(actor, between), GapRule(outside, between)]
    order = rerank_by_rules(np.where(valid, score, np.nan), rules, valid, top)
    for b, n in enumerate(valid.sum(1)):
        items = np.flatnonzero(valid[b])
        keys = [actor[b, items], outside[b, items]]
        expected = slow(score[b, items], keys, between, len(items) if top is None else top)
        assert order[b, :n].tolist() == items[expected].tolist()
        assert sorted(order[b]) == list(range(len(score[b])))


def test_a_rule_is_broken_only_where_every_remaining_candidate_breaks_one() -> None:
    score, actor, outside, _ = requests(seed=10)
    order = rerank_by_rules(score, [GapRule(actor), GapRule(outside)])
    violations = 0
    for b, shown in enumerate(order.tolist()):
        for position, item in enumerate(shown):
            choices = [
                broken([actor[b], outside[b]], 2, shown[:position], i) for i in shown[position:]
            ]
            taken = broken([actor[b], outside[b]], 2, shown[:position], item)
            assert taken == min(choices)
            violations += any(taken)
    assert 0 < violations < order.size


def test_no_gap_is_a_sort_and_one_actor_keeps_the_order_of_scores() -> None:
    score, actor, outside, _ = requests(seed=11)
    by_score = np.argsort(-score, axis=1, kind="stable")
    for rules in ([], [GapRule(actor, between=0)], [GapRule(np.full_like(actor, -1))]):
        np.testing.assert_array_equal(rerank_by_rules(score, rules), by_score)
    order = rerank_by_rules(score, [GapRule(actor), GapRule(outside)])
    for b, shown in enumerate(order):
        for key in np.unique(actor[b]):
            kept = [i for i in shown if actor[b, i] == key]
            assert kept == [i for i in by_score[b] if actor[b, i] == key]


def test_two_other_items_are_between_items_of_an_actor() -> None:
    actor = np.array([[7, 7, 7, 1, 2, 3, 4]])
    order = rerank_by_rules([[9, 8, 7, 6, 5, 4, 3]], [GapRule(actor)])
    assert actor[0, order[0]].tolist() == [7, 1, 2, 7, 3, 4, 7]
    assert rerank_by_rules(np.zeros((0, 3)), [GapRule(np.zeros((0, 3), int))]).shape == (0, 3)
    assert rerank_by_rules(np.zeros((2, 0)), []).shape == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], []), r"score has shape \(2,\)"),
        (([[1.0, np.nan]], []), r"score\[0, 1\]=nan"),
        (([[1.0, 2.0]], [GapRule([[1]])]), r"a rule's key has shape \(1, 1\)"),
        (([[1.0, 2.0]], [GapRule([[0.5, 1.5]])]), "a rule's key has type float64"),
        (([[1.0, 2.0]], [], [[True]]), r"valid has shape \(1, 1\)"),
        (([[1.0, 2.0]], [], None, -1), "top=-1"),
    ],
)
def test_bad_input_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rerank_by_rules(*arguments)
    with pytest.raises(ValueError, match="between=-1"):
        GapRule([[1]], between=-1)
