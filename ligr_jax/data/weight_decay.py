"""Loss weights of train impressions that halve with age and along a row (Feed-SR).

    weight_i <- weight_i 2^-(age_i / half_life_days) 2^-(rank_i / half_life_impressions)

age_i is the time until the end of the train split, and rank_i the number of later impressions of
the member in the row. The published half-lives are 60 days and the length of a row; that both
count from the newest impression is our reading. The weights are those of the cross-entropy, whose
mean is a weighted one; the losses within sessions have no weights.
"""

from dataclasses import dataclass

import numpy as np

from ligr_jax.config import ConfigError, DataConfig
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing_plan import PlacedRows

_DAY_MS = 86_400_000
_SMALLEST = np.float32(1e-30)  # an impression stays a target, whatever its age


@dataclass(frozen=True)
class WeightDecay:
    """Factors of the weights of impressions; a half-life of 0 stands for none.

    Attributes:
        end_ms: end of the train split, milliseconds since 1970.
        days: half-life of age, in days.
        impressions: half-life along a row, in impressions.
    """

    end_ms: int
    days: float
    impressions: float

    def __call__(self, time_ms: np.ndarray, placed: PlacedRows) -> np.ndarray:
        """Return the factors, float32 [B, N], in (0, 1].

        Args:
            time_ms: int64 [B, N], times of the impressions; negative for untimed ones, which have
                no age.
            placed: segments of the positions.
        """
        exponent = np.zeros(time_ms.shape)
        if self.days:
            age_ms = np.where(time_ms < 0, 0, np.maximum(self.end_ms - time_ms, 0))
            exponent += age_ms / (_DAY_MS * self.days)
        if self.impressions:
            last = np.repeat(placed.begin + placed.size - 1, placed.size)
            rank = last - np.arange(last.size)
            exponent += rank.reshape(time_ms.shape) / self.impressions
        return np.maximum(np.exp2(-exponent).astype(np.float32), _SMALLEST)


def weight_decay(config: DataConfig, manifest: Manifest) -> WeightDecay | None:
    """Return the factors of a configuration; None if all weights stay.

    Args:
        config: half-lives.
        manifest: of the data, with the splits of the run.

    Raises:
        ConfigError: ages are asked for, and the data have no times.
    """
    if not (config.half_life_days or config.half_life_impressions):
        return None
    if config.half_life_days and manifest.time_is_order:
        raise ConfigError(
            f"data.half_life_days={config.half_life_days:g} needs times, and the data has only the "
            "order of each member's rows; set data.half_life_impressions"
        )
    end_ms = manifest.splits["train"].end_ms
    return WeightDecay(end_ms, config.half_life_days, config.half_life_impressions)
