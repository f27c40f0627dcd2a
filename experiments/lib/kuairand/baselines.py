"""Baselines on the slice: smoothed rates, logistic regression and boosted trees.

All of them count on strictly earlier days. Their dials are chosen on 5 May, per action.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.kuairand.data import ACTIONS, CONTEXT, NUMERIC, USER, VIDEO, Rows


def earlier_counts(rows: Rows, keys: Sequence[np.ndarray]) -> Iterator[tuple[str, Any, Any]]:
    """Count, per action, positives and known labels with equal keys on strictly earlier days."""
    key = np.zeros(len(rows.day), np.int64)
    for column in keys:
        ids, code = np.unique(column, return_inverse=True)
        key = key * len(ids) + code
    order = np.lexsort((rows.day, key))
    new_key = np.diff(key[order], prepend=-1) != 0
    new_day = new_key | (np.diff(rows.day[order], prepend=-2) != 0)
    position = np.arange(len(order))
    first_of_key, first_of_day = (
        np.maximum.accumulate(np.where(new, position, 0)) for new in (new_key, new_day)
    )

    def earlier(event: np.ndarray) -> np.ndarray:
        before = np.cumsum(event[order]) - event[order]
        count = np.empty(len(order))
        count[order] = before[first_of_day] - before[first_of_key]
        return count

    for action, label in rows.labels.items():
        yield action, earlier(label > 0), earlier(label >= 0)


def rates_baseline(rows: Rows) -> dict[str, float]:
    """Predict the video's rate, smoothed towards its author's, which is smoothed towards the mean.

    The strength of the smoothing is chosen on 5 May, per action.
    """
    video, author = (
        {a: (positives, known) for a, positives, known in earlier_counts(rows, [rows.columns[key]])}
        for key in ("item_id", "actor_id")
    )

    def scores(action: str, strength: float) -> np.ndarray:
        mean = rows.labels[action][rows.splits["train"]].mean()
        prior = smoothed(*author[action], mean, strength)
        result: np.ndarray = log_odds(smoothed(*video[action], prior, strength))
        return result

    return chosen(rows, lambda action: (scores(action, s) for s in (10, 30, 100, 300)))


def regression_baseline(rows: Rows) -> dict[str, float]:
    """Fit scikit-learn's logistic regression on hashed ids, static columns and past rates.

    As for LiGR, videos are learned from the training days only; members are represented by rates
    of earlier days. The penalty is chosen on 5 May, per action.
    """
    from sklearn.linear_model import LogisticRegression

    x, train = regression_features(rows), rows.splits["train"]

    def scores(action: str, c: float) -> np.ndarray:
        model = LogisticRegression(C=c, max_iter=60, tol=1e-3)
        result: np.ndarray = model.fit(x[train], rows.labels[action][train]).decision_function(x)
        return result

    return chosen(rows, lambda action: (scores(action, c) for c in (0.03, 0.1)))


def trees_baseline(rows: Rows) -> dict[str, float]:
    """Fit scikit-learn's histogram gradient boosting on rates of earlier days and static columns.

    It gets more than LiGR: rates of members, videos, authors, tags and their combinations, counted
    over the training days and over 785 k earlier views, which LiGR reads only as the history of the
    member who watched. The number of trees is chosen on 5 May, per action.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, train = tree_features(rows), rows.splits["train"]
    held_out = rows.splits["validation"] | rows.splits["test"]

    def scores(action: str) -> Iterator[np.ndarray]:
        model = HistGradientBoostingClassifier(
            max_iter=200,
            learning_rate=0.06,
            max_leaf_nodes=15,
            min_samples_leaf=100,
            l2_regularization=10.0,
            early_stopping=False,
        ).fit(x[train], rows.labels[action][train])
        for trees, p in enumerate(model.staged_predict_proba(x[held_out]), 1):
            if trees % 20 == 0:
                score = np.zeros(len(x))
                score[held_out] = log_odds(p[:, 1])
                yield score

    return chosen(rows, scores)


def chosen(rows: Rows, scores: Callable[[str], Iterable[np.ndarray]]) -> dict[str, float]:
    """Return both days' metrics of each action's candidate with the lowest entropy on 5 May."""
    out: dict[str, float] = {}
    for action in ACTIONS:
        best = min(scores(action), key=lambda z: measure(rows, action, z, "validation")["ne"])
        for split in ("validation", "test"):
            values = measure(rows, action, best, split)
            out |= {f"{split}/{action}/{name}": v for name, v in values.items()}
    return out


def regression_features(rows: Rows) -> Any:
    """Return sparse float64 [n, F]: one-hot hashed ids and binned numbers, and members' rates."""
    from scipy import sparse

    from ligr_jax.ops.hashing import hash_rows

    c = rows.columns
    sizes, codes = [], []
    for name in (*VIDEO, *USER, *CONTEXT):
        sizes.append(min(1 << 13, 2 * len(np.unique(c[name])) + 2))
        codes.append(hash_rows(c[name], sizes[-1]))
    for name in NUMERIC:
        edges = np.nanquantile(c[name][rows.splits["train"]], np.linspace(0, 1, 17)[1:-1])
        sizes.append(18)
        codes.append(np.where(np.isnan(c[name]), 17, np.searchsorted(edges, c[name])))
    n, k = len(rows.day), len(codes)
    columns = np.stack(codes, 1) + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shape = (n, sum(sizes))
    one_hot = sparse.csr_matrix((np.ones(n * k), columns.ravel(), np.arange(n + 1) * k), shape)
    rates = []
    for key in ([], [c["surface"]], [c["tag"]], [c["actor_id"]]):
        for action, positives, known in earlier_counts(rows, [rows.member, *key]):
            mean = rows.labels[action][rows.splits["train"]].mean()
            rates.append(log_odds(smoothed(positives, known, mean, 10)) - log_odds(mean))
    return sparse.hstack([one_hot, sparse.csr_matrix(np.stack(rates, 1))], format="csr")


def tree_features(rows: Rows) -> np.ndarray:
    """Return float32 [n, F]: smoothed rates and counts of earlier days, static columns, numbers."""
    c, member = rows.columns, rows.member
    keys = [
        *([x] for x in (member, c["item_id"], c["actor_id"], c["tag"])),
        *([x, c["surface"]] for x in (member, c["item_id"])),
        *([member, x] for x in (c["tag"], c["actor_id"])),
        [c["surface"], c["hour"]],
    ]
    parts = []
    for key in keys:
        for action, positives, known in earlier_counts(rows, key):
            mean = rows.labels[action][rows.splits["train"]].mean()
            parts.append(smoothed(positives, known, mean, 10))
            if action in ("click", "long_dwell"):  # known for different rows
                parts.append(known)
    static = (*VIDEO[3:], *USER, *CONTEXT)
    parts += [np.unique(c[name], return_inverse=True)[1] for name in static]
    parts += [c[name] for name in NUMERIC]
    return np.stack(parts, axis=1).astype(np.float32)


def smoothed(positives: Any, known: Any, prior: Any, strength: float) -> Any:
    return (positives + strength * prior) / (known + strength)


def log_odds(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


def measure(rows: Rows, action: str, score: np.ndarray, split: str) -> dict[str, float]:
    from ligr_jax.ops import metrics

    here = rows.splits[split]
    z, y = score[here], rows.labels[action][here]
    return {
        "ne": metrics.normalized_entropy(z, y),
        "auc": metrics.auc(z, y),
        "gauc": metrics.gauc(z, y, rows.member[here]),
    }


BASELINES: Mapping[str, Callable[[Rows], dict[str, float]]] = {
    "item and actor rates, smoothed": rates_baseline,
    "logistic regression, hashed ids and the member's past rates": regression_baseline,
    "boosted trees, past rates of members, videos, authors, tags": trees_baseline,
}
