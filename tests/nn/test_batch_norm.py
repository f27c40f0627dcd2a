"""Batch normalization with a mask: Flax's where Flax's is defined."""

import jax
import numpy as np
from flax import linen as nn

from ligr_jax.nn.batch_norm import STATISTICS, MaskedBatchNorm

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (4, 5, 3)).astype(np.float32)
THERE = RNG.random(X.shape) < 0.6
X[~THERE] = np.nan


def test_values_and_running_statistics_are_flaxs() -> None:
    ours = MaskedBatchNorm(momentum=0.9)
    theirs = nn.BatchNorm(momentum=0.9, use_running_average=False, use_fast_variance=False)
    filled = np.where(THERE, X, 0)
    variables = ours.init(jax.random.key(0), X, THERE)
    given, after = ours.apply(variables, X, THERE, False, mutable=[STATISTICS])
    reference = theirs.init(jax.random.key(0), filled)
    expected, moved = theirs.apply(reference, filled, mask=THERE, mutable=[STATISTICS])
    np.testing.assert_allclose(given[THERE], expected[THERE], atol=1e-4)
    assert not np.asarray(given)[~THERE].any()
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            after[STATISTICS][name], moved[STATISTICS][name], rtol=1e-4, err_msg=name
        )
    frozen = ours.apply({**variables, **after}, X, THERE)
    mean, var = (np.asarray(after[STATISTICS][name]) for name in ("mean", "var"))
    np.testing.assert_allclose(frozen[THERE], ((X - mean) / np.sqrt(var + 1e-5))[THERE], atol=1e-4)


def test_a_feature_of_which_a_batch_has_nothing_keeps_its_statistics() -> None:
    module, nothing = MaskedBatchNorm(), THERE & (np.arange(3) != 1)
    variables = module.init(jax.random.key(0), X, nothing)
    out, after = module.apply(variables, X, nothing, False, mutable=[STATISTICS])
    assert np.isfinite(out).all()
    assert float(after[STATISTICS]["mean"][1]) == 0
    assert float(after[STATISTICS]["var"][1]) == 1
    assert float(after[STATISTICS]["mean"][0]) != 0
