"""Runs whose training shows an impression the actions of its own session, and how they are served.

`model.mask=causal` is the plain decoder mask. An impression then reads the actions of the earlier
impressions of its session, which do not exist when the session is served, so training with a loss
on the actions is marked as a leak (`leaks` in the summary): reports show such runs, and leave them
out of laws and comparisons. A model that only predicts the next item has no such loss.

With `data.shuffle_sessions=true` as well (Feed-SR), the order inside a session carries no
information, but the actions still do. Such a run is evaluated and served under the session mask,
always; other runs with a causal mask are evaluated under the mask of their training, which measures
the size of the leak.
"""

from dataclasses import replace

from ligr_jax.config.run import Config


def training_leak(config: Config) -> str:
    """Return how labels leak into the training of a run; "" if they do not."""
    optim = config.optim
    trains_on_actions = optim.bce_weight or optim.rank_weight or optim.pair_weight
    if config.model.mask != "causal" or not trains_on_actions:
        return ""
    return "model.mask=causal shows an impression the actions of its own session in training"


def served_config(config: Config) -> Config:
    """Return the configuration of a run with the mask under which it is evaluated and served."""
    if config.model.mask != "causal" or not config.data.shuffle_sessions:
        return config
    return replace(config, model=replace(config.model, mask="session"))
