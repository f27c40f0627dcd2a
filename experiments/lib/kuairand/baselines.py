"""Baselines on the slice: smoothed rates, logistic regression and boosted trees.

All of them count on strictly earlier days, and those of members also in earlier sessions of the
same day. Their dials are chosen on 5 May, per action. Each returns its scores (`Scores`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.kuairand.data import CONTEXT, NUMERIC, USER, VIDEO, Rows
from lib.kuairand.judge import CHOICE, REPORT, SHOWN, Scores, best

NEWEST = 10  # impressions of a member that are counted apart


def earlier_counts(
    rows: Rows, keys: Sequence[np.ndarray], when: np.ndarray | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Count, per action, positives and known labels with equal keys on strictly earlier days.

    Args:
        rows: all impressions.
        keys: the columns that must be equal.
        when: order of time instead of the day, such as the session if the member is a key.
    """
    day = rows.day if when is None else when
    key = np.zeros(len(rows.day), np.int64)
    for column in keys:
        ids, code = np.unique(column, return_inverse=True)
        key = key * len(ids) + code
    order = np.lexsort((day, key))
    new_key = np.diff(key[order], prepend=-1) != 0
    new_day = new_key | (np.diff(day[order], prepend=-2) != 0)
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


def newest_counts(rows: Rows) -> Iterator[tuple[str, Any, Any]]:
    """Count, per action, the member's newest impressions before the session of each row."""
    row = np.arange(len(rows.member))
    new_member = np.diff(rows.member, prepend=-1) != 0
    new_session = new_member | (np.diff(rows.session, prepend=-1) != 0)
    member, session = (
        np.maximum.accumulate(np.where(new, row, 0)) for new in (new_member, new_session)
    )
    begin = np.maximum(member, session - NEWEST)
    for action, label in rows.labels.items():
        positives, known = (
            np.concatenate([[0.0], np.cumsum(event)]) for event in (label > 0, label >= 0)
        )
        yield action, positives[session] - positives[begin], known[session] - known[begin]


def rates_baseline(rows: Rows) -> Scores:
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


def regression_baseline(rows: Rows) -> Scores:
    """Fit scikit-learn's logistic regression on hashed ids, static columns and past rates.

    Rates of earlier days are those of members, videos, authors and tags. The penalty is chosen on
    5 May, per action.
    """
    from sklearn.linear_model import LogisticRegression

    x, train = regression_features(rows), rows.splits["train"]

    def scores(action: str, c: float) -> np.ndarray:
        model = LogisticRegression(C=c, max_iter=60, tol=1e-3)
        result: np.ndarray = model.fit(x[train], rows.labels[action][train]).decision_function(x)
        return result

    return chosen(rows, lambda action: (scores(action, c) for c in (0.01, 0.03, 0.1)))


def trees_baseline(rows: Rows) -> Scores:
    """Fit scikit-learn's histogram gradient boosting on past rates and static columns.

    Rates of members, videos, authors, tags and their combinations are counted on earlier days, and
    optionally in earlier sessions of the same day and over the member's newest impressions. These
    two forms and ten numbers of trees are the 20 tries on 5 May, per action.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    train = rows.splits["train"]
    held_out = rows.splits[CHOICE] | rows.splits[REPORT]
    by_day, by_session = tree_features(rows), session_features(rows)
    forms = (by_day, np.concatenate([by_day, by_session], axis=1))

    def scores(action: str) -> Iterator[np.ndarray]:
        for x in forms:
            model = HistGradientBoostingClassifier(
                max_iter=100,
                learning_rate=0.12,
                max_leaf_nodes=15,
                min_samples_leaf=100,
                l2_regularization=10.0,
                early_stopping=False,
            ).fit(x[train], rows.labels[action][train])
            for trees, p in enumerate(model.staged_predict_proba(x[held_out]), 1):
                if trees % 10 == 0:
                    score = np.full(len(x), np.nan)
                    score[held_out] = log_odds(p[:, 1])
                    yield score

    return chosen(rows, scores)


def chosen(rows: Rows, scores: Callable[[str], Iterable[np.ndarray]]) -> Scores:
    """Return each action's candidate that is best on 5 May."""
    return {action: best(rows, action, scores(action)) for action in SHOWN}


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
    of_member = ([rows.member, *key] for key in ([], [c["surface"]], [c["tag"]], [c["actor_id"]]))
    for key in (*of_member, [c["item_id"]], [c["actor_id"]], [c["tag"]]):
        for action, positives, known in earlier_counts(rows, key):
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
    parts: list[np.ndarray] = []
    for key in keys:
        for action, positives, known in earlier_counts(rows, key):
            mean = rows.labels[action][rows.splits["train"]].mean()
            parts.append(smoothed(positives, known, mean, 10).astype(np.float32))
            if action in ("click", "long_dwell"):  # known for different rows
                parts.append(known.astype(np.float32))
    static = (*VIDEO[3:], *USER, *CONTEXT)
    parts += [np.unique(c[name], return_inverse=True)[1].astype(np.float32) for name in static]
    parts += [c[name] for name in NUMERIC]
    return np.stack(parts, axis=1)


def session_features(rows: Rows) -> np.ndarray:
    """Return float32 [n, F]: rates of members in earlier sessions, and over newest impressions."""
    c, member = rows.columns, rows.member
    keys: tuple[list[np.ndarray], ...] = ([], [c["surface"]], [c["tag"]], [c["actor_id"]])
    counts = [earlier_counts(rows, [member, *key], when=rows.session) for key in keys]
    parts: list[np.ndarray] = []
    for counted in (*counts, newest_counts(rows)):
        for action, positives, known in counted:
            mean = rows.labels[action][rows.splits["train"]].mean()
            parts.append(smoothed(positives, known, mean, 10).astype(np.float32))
            if action == "long_dwell":
                parts.append(known.astype(np.float32))
    return np.stack(parts, axis=1)


def smoothed(positives: Any, known: Any, prior: Any, strength: float) -> Any:
    return (positives + strength * prior) / (known + strength)


def log_odds(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


BASELINES: Mapping[str, Callable[[Rows], Scores]] = {
    "item and actor rates, smoothed": rates_baseline,
    "logistic regression, hashed ids and the member's past rates": regression_baseline,
    "boosted trees, past rates of members, videos, authors, tags": trees_baseline,
}
