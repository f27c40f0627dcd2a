"""Measures of diversity, against loops over lists of different lengths."""

import itertools
import math

import numpy as np
import pytest

from ligr_jax.policy.diversity import alpha_ndcg, distinct_in_top, intra_list_similarity

LISTS, ITEMS = 60, 7
RNG = np.random.default_rng(0)
LENGTH = np.append(RNG.integers(0, ITEMS + 1, LISTS - 2), [0, 1])
VALID = np.arange(ITEMS) < LENGTH[:, None]
DEPTHS = (1, 3, ITEMS, ITEMS + 5)


@pytest.mark.parametrize("k", DEPTHS)
def test_distinct_keys_are_counted_in_the_top_k(k: int) -> None:
    key = RNG.integers(0, 4, (LISTS, ITEMS))
    expected = [len(set(key[i, : min(n, k)].tolist())) for i, n in enumerate(LENGTH)]
    assert distinct_in_top(key, k, VALID).tolist() == expected
    assert distinct_in_top(key, k).tolist() == [len(set(row[:k].tolist())) for row in key]


@pytest.mark.parametrize("k", DEPTHS)
def test_similarity_is_the_mean_cosine_of_pairs(k: int) -> None:
    vectors = RNG.normal(size=(LISTS, ITEMS, 3))
    vectors[::5, 0] = 0
    vectors[~VALID] = np.nan
    found = intra_list_similarity(vectors, k, VALID)
    for i, n in enumerate(LENGTH):
        cosines = []
        for a, b in itertools.combinations(range(min(n, k)), 2):
            x, y = vectors[i, a], vectors[i, b]
            both = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
            cosines.append(float(x @ y) / both if both else 0.0)
        expected = np.mean(cosines) if cosines else np.nan
        np.testing.assert_allclose(found[i], expected, atol=1e-12)
    same = np.ones((1, 4, 2)) * np.array([1.0, 2.0, 3.0, 4.0])[:, None]
    assert intra_list_similarity(same, 4) == pytest.approx(1)


def slow_dcg(order: list[int], judgment: np.ndarray, k: int, alpha: float) -> float:
    """Return DCG, with the gain from the counts of earlier items as Clarke et al. write it."""
    total = 0.0
    for s in range(min(k, len(order))):
        for t in range(judgment.shape[1]):
            earlier = sum(judgment[i, t] for i in order[:s])
            total += judgment[order[s], t] * (1 - alpha) ** earlier / math.log2(2 + s)
    return total


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_ndcg_is_the_published_formula(k: int, alpha: float) -> None:
    judgment = (RNG.random((LISTS, ITEMS, 3)) < 0.3).astype(float)
    found = alpha_ndcg(np.where(VALID[..., None], judgment, np.nan), k, alpha, VALID)
    undefined = 0
    for i, n in enumerate(LENGTH):
        pool, ideal = list(range(n)), list[int]()
        # The order of the pool decides ties, and must not depend on the ranking.
        pool.sort(key=lambda j: judgment[i, j].tolist(), reverse=True)
        while pool:
            best = max(pool, key=lambda j: slow_gain(ideal, j, judgment[i], alpha))
            ideal.append(best)
            pool.remove(best)
        most = slow_dcg(ideal, judgment[i], k, alpha)
        undefined += most == 0
        ratio = slow_dcg(list(range(n)), judgment[i], k, alpha) / most if most else np.nan
        np.testing.assert_allclose(found[i], ratio, atol=1e-12)
    assert 0 < undefined < LISTS


def slow_gain(earlier: list[int], item: int, judgment: np.ndarray, alpha: float) -> float:
    """Return the gain of an item after others."""
    counts = judgment[earlier].sum(0)
    return float(sum(judgment[item, t] * (1 - alpha) ** counts[t] for t in range(len(counts))))


def test_alpha_ndcg_of_items_with_one_topic_is_at_most_one_and_reached() -> None:
    """Then the greedy order is the best one; and a permutation of a list has the same ideal."""
    topic = RNG.integers(0, 3, (LISTS, 5))
    judgment = np.eye(3)[topic] * RNG.random((LISTS, 5, 1))
    best = np.max(
        [alpha_ndcg(judgment[:, list(p)], 4) for p in itertools.permutations(range(5))], axis=0
    )
    np.testing.assert_allclose(best, 1)
    blocks = alpha_ndcg(np.eye(2)[[[0, 0, 1, 1]]], 4)
    assert blocks < alpha_ndcg(np.eye(2)[[[0, 1, 0, 1]]], 4) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distinct_in_top([[1, 2]], 0), "k=0"),
        (lambda: distinct_in_top([1, 2], 1), r"shape \(2,\); give \[lists, items\]"),
        (lambda: distinct_in_top([[1, 2]], 1, [[True]]), r"valid has shape \(1, 1\)"),
        (lambda: distinct_in_top([[1, 2]], 1, [[False, True]]), "list 0 has an item behind"),
        (lambda: intra_list_similarity([[[1.0], [np.inf]]], 1 + 1), "list 0, item 1 is not finite"),
        (lambda: alpha_ndcg([[[0.5], [2.0]]], 1), "list 0, item 1 are not all in 0..1"),
        (lambda: alpha_ndcg([[[0.5], [np.nan]]], 1), "list 0, item 1 are not all in 0..1"),
        (lambda: alpha_ndcg([[[1.0]]], 1, alpha=1.5), r"alpha=1\.5"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
