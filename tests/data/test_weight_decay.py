"""Laws of decaying loss weights: they halve with age and along a row, in training alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.config import ConfigError, DataConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import eval_batches, plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.data.weight_decay import weight_decay
from tests.data.test_pipeline import CONFIG, take

DECAYED = replace(CONFIG, data=replace(CONFIG.data, half_life_days=1.5, half_life_impressions=7.0))
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    return Records(prepared)


def test_weights_halve_with_age_and_with_later_impressions(records: Records) -> None:
    plan = plan_for(records, CONFIG, "train")
    plain, decayed = (take(train_batches(records, plan, c), 4) for c in (CONFIG, DECAYED))
    time_ms = records.take("timestamp_ms", np.arange(records.offsets[-1]))
    end_ms = records.manifest.splits["train"].end_ms
    checked = 0
    for before, after in zip(plain, decayed):
        for r, n in np.argwhere(before.weight > 0):
            later = int((before.member[r, n + 1 :] == before.member[r, n]).sum())
            factor = after.weight[r, n] / before.weight[r, n] * 2 ** (later / 7)
            age_days = -1.5 * np.log2(factor)
            # The impressions are not known, but their ages are those of some train impression.
            nearest = np.abs((end_ms - time_ms) / DAY_MS - age_days).min()
            assert nearest < 1e-4
            checked += 1
        np.testing.assert_array_equal(after.weight == 0, before.weight == 0)
    assert checked > 100
    assert not np.array_equal(plain[0].weight, decayed[0].weight)


def test_weights_of_evaluation_stay(records: Records) -> None:
    plan = plan_for(records, CONFIG, "test")

    def weights(config: object) -> list[np.ndarray]:
        found = eval_batches(records, plan, config)  # type: ignore[arg-type]
        batches: list[Batch] = [inputs.batch for _, inputs in found]
        return [batch.weight for batch in batches]

    for x, y in zip(weights(CONFIG), weights(DECAYED), strict=True):
        np.testing.assert_array_equal(x, y)


def test_ages_need_times(records: Records) -> None:
    manifest = replace(records.manifest, time_is_order=True)
    with pytest.raises(ConfigError, match="half_life_days=2 needs times"):
        weight_decay(DataConfig(half_life_days=2), manifest)
    assert weight_decay(DataConfig(half_life_impressions=2), manifest) is not None
    assert weight_decay(DataConfig(), manifest) is None
    with pytest.raises(ConfigError, match="half_life_days=-1 must be >= 0"):
        DataConfig(half_life_days=-1)
