"""Laws of the metrics: they equal scikit-learn, or a direct computation of their definition."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from ligr_jax.ops import metrics

N = 3000


@pytest.fixture(params=["float", "tied", "one value"])
def scores(request: pytest.FixtureRequest) -> np.ndarray:
    z = np.random.default_rng(0).normal(size=N).astype(np.float32)
    return {"float": z, "tied": np.round(z), "one value": np.full(N, np.float32(0.7))}[
        request.param
    ]


@pytest.fixture
def labels() -> np.ndarray:
    return (np.random.default_rng(1).random(N) < 0.2).astype(np.int8)


@pytest.fixture
def groups() -> np.ndarray:
    """Return unsorted groups of one to a few dozen impressions, with gaps in their numbers."""
    rng = np.random.default_rng(2)
    return rng.integers(0, 300, N) ** 2 // 50 * 7 - 11


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def test_normalized_entropy_is_cross_entropy_over_that_of_the_base_rate(
    scores: np.ndarray, labels: np.ndarray
) -> None:
    entropy = log_loss(labels, np.full(N, labels.mean()))
    wanted = log_loss(labels, sigmoid(scores)) / entropy
    np.testing.assert_allclose(metrics.normalized_entropy(scores, labels), wanted, rtol=1e-9)
    fixed = metrics.normalized_entropy(scores, labels, base_rate=0.5)
    np.testing.assert_allclose(fixed, log_loss(labels, sigmoid(scores)) / np.log(2), rtol=1e-9)


def test_predicting_the_base_rate_has_a_normalized_entropy_of_one(labels: np.ndarray) -> None:
    p = labels.mean()
    constant = np.full(N, np.log(p / (1 - p)))
    np.testing.assert_allclose(metrics.normalized_entropy(constant, labels), 1.0, rtol=1e-12)


def test_auc_equals_scikit_learn(scores: np.ndarray, labels: np.ndarray) -> None:
    np.testing.assert_allclose(metrics.auc(scores, labels), roc_auc_score(labels, scores), 1e-9)


def test_gauc_is_the_auc_within_members_that_have_both_classes(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> None:
    total = weight = 0.0
    for g in np.unique(groups):
        group = groups == g
        if 0 < labels[group].sum() < group.sum():
            total += group.sum() * roc_auc_score(labels[group], scores[group])
            weight += group.sum()
    np.testing.assert_allclose(metrics.gauc(scores, labels, groups), total / weight, rtol=1e-9)


def test_ndcg_equals_scikit_learn_averaged_over_sessions_with_a_positive(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> None:
    values = []
    for g in np.unique(groups):
        group = groups == g
        if labels[group].any():
            # scikit-learn rejects sessions of one item; their NDCG is 1.
            single = group.sum() == 1
            values.append(1.0 if single else ndcg_score([labels[group]], [scores[group]]))
    np.testing.assert_allclose(metrics.ndcg(scores, labels, groups), np.mean(values), rtol=1e-9)


def test_calibration_and_its_error_equal_their_definitions(
    scores: np.ndarray, labels: np.ndarray
) -> None:
    p = sigmoid(scores)
    np.testing.assert_allclose(metrics.calibration(scores, labels), p.sum() / labels.sum())
    order = np.argsort(scores, kind="stable")
    # Tied impressions share the mean of their labels, since their order between bins is arbitrary.
    shared = np.array([labels[scores == s].mean() for s in scores[order]])
    bins = zip(np.array_split(p[order], 20), np.array_split(shared, 20))
    wanted = sum(abs(q.mean() - y.mean()) * len(q) for q, y in bins) / N
    np.testing.assert_allclose(metrics.expected_calibration_error(scores, labels), wanted, 1e-9)


def test_no_metric_depends_on_the_order_of_impressions(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> None:
    mixed = np.random.default_rng(3).permutation(N)
    for metric, arguments in (
        (metrics.auc, (scores, labels)),
        (metrics.normalized_entropy, (scores, labels)),
        (metrics.expected_calibration_error, (scores, labels)),
        (metrics.gauc, (scores, labels, groups)),
        (metrics.ndcg, (scores, labels, groups)),
    ):
        np.testing.assert_allclose(
            metric(*arguments), metric(*(x[mixed] for x in arguments)), rtol=1e-9
        )


def test_infinite_scores_rank_and_tie_like_finite_ones() -> None:
    """They are predictions of probability exactly 0 and 1."""
    score = np.array([-np.inf, -np.inf, 0.0, np.inf, np.inf])
    label, group = np.array([0, 1, 0, 1, 0], np.int8), np.zeros(5, np.int64)
    finite = np.clip(score, -9, 9)
    assert metrics.auc(score, label) == metrics.auc(finite, label)
    assert metrics.ndcg(score, label, group) == metrics.ndcg(finite, label, group)


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_that_need_both_classes_are_nan_with_one_class(label: int) -> None:
    score, labels = np.array([0.1, 2.0, -1.0]), np.full(3, label, np.int8)
    group = np.array([0, 0, 1])
    assert np.isnan(metrics.auc(score, labels))
    assert np.isnan(metrics.gauc(score, labels, group))
    assert np.isnan(metrics.normalized_entropy(score, labels))
    assert np.isnan(metrics.ndcg(score, labels, group)) == (label == 0)
    assert np.isnan(metrics.calibration(score, labels)) == (label == 0)
    assert np.isfinite(metrics.expected_calibration_error(score, labels))
