"""Laws of masked batch normalization: it equals Flax's wherever Flax's is defined."""

import jax
import numpy as np
from flax import linen as nn

from ligr_jax.nn.batch_norm import STATISTICS, MaskedBatchNorm

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (4, 5, 3)).astype(np.float32)
VALID = RNG.random(X.shape) < 0.6
X[~VALID] = np.nan


def test_values_and_running_statistics_equal_flaxs() -> None:
    ours = MaskedBatchNorm(momentum=0.9)
    flax_module = nn.BatchNorm(momentum=0.9, use_running_average=False, use_fast_variance=False)
    filled = np.where(VALID, X, 0)
    variables = ours.init(jax.random.key(0), X, VALID)
    values, after = ours.apply(variables, X, VALID, False, mutable=[STATISTICS])
    flax_variables = flax_module.init(jax.random.key(0), filled)
    expected, moved = flax_module.apply(flax_variables, filled, mask=VALID, mutable=[STATISTICS])
    np.testing.assert_allclose(values[VALID], expected[VALID], atol=1e-4)
    assert not np.asarray(values)[~VALID].any()
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            after[STATISTICS][name], moved[STATISTICS][name], rtol=1e-4, err_msg=name
        )
    frozen = ours.apply({**variables, **after}, X, VALID)
    mean, var = (np.asarray(after[STATISTICS][name]) for name in ("mean", "var"))
    np.testing.assert_allclose(frozen[VALID], ((X - mean) / np.sqrt(var + 1e-5))[VALID], atol=1e-4)


def test_a_feature_without_valid_values_keeps_its_statistics() -> None:
    module, nothing = MaskedBatchNorm(), VALID & (np.arange(3) != 1)
    variables = module.init(jax.random.key(0), X, nothing)
    out, after = module.apply(variables, X, nothing, False, mutable=[STATISTICS])
    assert np.isfinite(out).all()
    assert float(after[STATISTICS]["mean"][1]) == 0
    assert float(after[STATISTICS]["var"][1]) == 1
    assert float(after[STATISTICS]["mean"][0]) != 0
