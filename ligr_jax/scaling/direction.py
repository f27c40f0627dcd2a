"""Whether a lower or a higher value of a metric is better, from the words of its column's name.

The names of metrics are in this module only: fits, plans and reports ask it. A name that is not
known, or that has words of both kinds (`loss_at_best_auc`), has no direction: the user gives it.
"""

import re

from ligr_jax.data.schema import BadInput

# fmt: off
LOWER = {
    "loss", "losses", "logloss", "ne", "ce", "bce", "nce", "infonce", "xent", "crossentropy",
    "entropy", "nll", "bpb", "bpc", "bits", "ppl", "perplexity", "rmse", "mse", "mae", "mape",
    "wape", "error", "err", "ece", "brier", "regret", "wer", "cer",
}
HIGHER = {
    "auc", "auroc", "gauc", "uauc", "rocauc", "prauc", "auprc", "ndcg", "mrr", "map", "hit",
    "hits", "hr", "recall", "precision", "accuracy", "acc", "f1", "bleu", "rouge", "r2",
}
# fmt: on
# Words that turn a metric around, as in scikit-learn's `neg_log_loss`.
NEGATIONS = {"neg", "negative", "minus", "inverse"}


def lower_is_better(name: str) -> bool | None:
    """Return the direction of a metric, or None if its name does not say it.

    Args:
        name: column of the metric, e.g. `validation/ne`, `test_logloss_sum`, `val loss`, `NDCG@10`.
    """
    # The last part of `validation/click/auc` or `run 7 - loss` names the metric, if any part does.
    for part in reversed(re.split(r"/| - ", name)):
        words = _words(part)
        lower = not LOWER.isdisjoint(words)
        higher = not HIGHER.isdisjoint(words)
        if lower or higher:
            return None if lower == higher or not NEGATIONS.isdisjoint(words) else lower
    return None


def direction(name: str, *, lower: bool = False, higher: bool = False) -> bool:
    """Return whether lower is better: as the user says, else as the name says.

    Args:
        name: column of the metric.
        lower: the user says that lower is better.
        higher: the user says that higher is better.

    Raises:
        BadInput: neither the user nor the name says it.
    """
    if lower or higher:
        return lower
    known = lower_is_better(name)
    if known is None:
        raise BadInput(
            f"{name!r} does not say whether lower or higher is better: give --lower or --higher "
            "(or --loss COL for a loss)"
        )
    return known


def _words(name: str) -> set[str]:
    """Return the words of a name in lower case, as written and without digits at their end."""
    parts = re.sub(r"([a-z])([A-Z][a-z])", r"\1 \2", name)
    words = re.findall(r"[a-z]+\d*", parts.lower())
    return {*words, *(word.rstrip("0123456789") for word in words)}
