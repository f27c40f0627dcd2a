"""The direction of a metric follows from the words of its name, or the user gives it."""

import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.direction import direction, lower_is_better

LOSSES = """
logloss log_loss valLogLoss cross_entropy CrossEntropy ce nll bpb ppl perplexity rmse mse mae error
ne NE validation/ne validation/click/cold_items/ne test_logloss_sum best_valid_loss
validation/report_error/ece
"""
GAINS = "auc validation/click/auc validation/error_page/auc NDCG@10 valid_ndcg5 test_auc_mean R2"
UNKNOWN = "score advance neg_log_loss loss_at_best_ndcg5 pretrained balance bounce"


def test_known_names_have_a_direction_and_others_have_none():
    for name in (*LOSSES.split(), "val loss", "run 7 - val loss"):
        assert lower_is_better(name) is True, name
    for name in GAINS.split():
        assert lower_is_better(name) is False, name
    for name in UNKNOWN.split():
        assert lower_is_better(name) is None, name
        with pytest.raises(BadInput, match=f"'{name}' does not say .* --lower or --higher"):
            direction(name)


def test_the_users_word_counts_before_the_name():
    assert direction("auc", lower=True) is True
    assert direction("loss", higher=True) is False
    assert direction("loss") is True
