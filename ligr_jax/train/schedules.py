"""Learning-rate schedules."""

import jax
import optax

from ligr_jax.config import OptimConfig

_WSD_TAIL = 0.2  # share of a run's steps over which warm-up-stable-decay falls to 0


def rate_schedule(config: OptimConfig, peak_rate: float | jax.Array, steps: int) -> optax.Schedule:
    """Return a linear warm-up from 0 to the peak, then cosine to 0, warm-up-stable-decay, or flat.

    Args:
        config: its `warmup` is the share of the steps that warm up, its `decay` the rest's shape.
        peak_rate: learning rate after the warm-up.
        steps: number of steps of the run.
    """
    warmup_steps = max(1, round(config.warmup * steps))
    steps_left = max(1, steps - warmup_steps)
    tail_steps = max(1, round(_WSD_TAIL * steps))
    after_warmup = {
        "cosine": optax.cosine_decay_schedule(peak_rate, steps_left),
        "wsd": optax.join_schedules(
            [
                optax.constant_schedule(peak_rate),
                optax.linear_schedule(peak_rate, 0.0, tail_steps),
            ],
            [max(0, steps_left - tail_steps)],
        ),
        "none": optax.constant_schedule(peak_rate),
    }[config.decay]
    warmup = optax.linear_schedule(peak_rate / warmup_steps, peak_rate, warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [warmup_steps])
