"""Every kind of two-stream model, small, for the laws that all of them keep."""

from typing import Any

from ligr_jax.config import ModelConfig, TokenMixerConfig, TwoStreamConfig, UltraConfig
from tests.batches import model_config

SMALL: dict[str, Any] = {"width": 8, "depth": 2, "set_depth": 0, "table_width": 4, "unroll": "no"}
# Changes of the configuration by name. Each entry compiles about ten seconds of programs, so there
# is one per kind, with as many options as one model can have.
KINDS: dict[str, dict[str, Any]] = {
    "hyformer": {
        "kind": "hyformer",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=2, queries=2),
    },
    "ligr": {
        "kind": "ligr_streams",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=2),
    },
    "onetrans": {
        "kind": "onetrans",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=2, windows=(3,), window_schedule="linear"),
    },
    "rankmixer": {
        "kind": "rankmixer",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=2),
    },
    "tokenmixer": {
        "kind": "tokenmixer",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=4, tokenizer="chunk"),
        # Without an auxiliary loss, every parameter affects the logits. With sums after every
        # second layer, the candidate stream (not the logits) would grow 1.7 times from 4 to 32
        # layers, where (1 + 1 / l)^l has not converged yet.
        "tokenmixer": TokenMixerConfig(
            residual_interval=3, experts=4, chosen=2, auxiliary_weight=0
        ),
    },
    "onetrans, recomputed": {
        "kind": "onetrans",
        "position": "relative_session",
        "streams": TwoStreamConfig(tokens=2, windows=(4, 2), history="recompute"),
    },
    "ultra": {
        "kind": "ultra",
        "position": "relative_session",
        "ultra": UltraConfig(local_window=2, oldest=1, truncated_layers=1, truncated_window=3),
    },
}


def two_stream_config(name: str, **changes: Any) -> ModelConfig:
    """Return the configuration of a kind, with further changes."""
    return model_config(**(SMALL | KINDS[name] | changes))


def history_reach(config: ModelConfig) -> int:
    """Return how many impressions before its session can affect a logit.

    Candidate tokens see the newest w_L history tokens in the last layer, and each of these has seen
    w_l - 1 tokens before it in the layers below. A recomputed history has no older tokens than the
    first layer.
    """
    windows = config.streams.layer_windows(config.depth)
    if config.streams.history == "recompute":
        return windows[0]
    return sum(windows) - (len(windows) - 1) if windows else config.max_sessions
