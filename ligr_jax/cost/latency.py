"""Latency of one request: a member's history is encoded once, and C candidates are scored.

    latency = FLOPs / (share of the peak) + bytes / bandwidth

of one device. Weights are read once; keys and values of the history are written once and read once.
Kernel launches, feature fetches and the network are not included.
"""

import dataclasses

from ligr_jax.config import ModelConfig, ScoringConfig
from ligr_jax.cost.devices import Device
from ligr_jax.cost.head_parameters import late_columns
from ligr_jax.cost.memory import dense_parameters, input_widths

# Share of the peak that a request reaches if its history is encoded for it: 27 to 35 % of the
# float32 peak of two cores (experiments/serving.py). It has not been measured on an accelerator.
SERVING_SHARE = 0.3


def request_flops(
    model: ModelConfig, seq_len: int, candidates: int, encoded: bool = False
) -> float:
    """Return the FLOPs of scoring C candidates after T tokens of history.

    A candidate is one token that attends to the tokens of the history and itself. Set-wise layers
    see the best K candidates (`ScoringConfig.set_top`).

    Args:
        model: the model.
        seq_len: T, two per impression, as in `data.seq_len`.
        candidates: C.
        encoded: whether the history has been encoded before; else its encoding counts.
    """
    from ligr_jax.cost.flops import forward_flops
    from ligr_jax.nn.work import Work

    tokens = model.history_tokens
    t = tokens * seq_len // 2
    c = candidates
    total = 0.0
    if model.depth:
        point = dataclasses.replace(model, set_depth=0)
        history = forward_flops(point, Work(seq_len / 2, history_pairs=t * (t + 1) / 2))
        scored = forward_flops(point, Work(c, history_pairs=c * (t + 1)))
        # Layers compute `tokens` tokens of a training impression, and one of a candidate.
        share = dict.fromkeys(("attention_projections", "gates", "ffn"), 1 / tokens)
        share["action_values"] = 0.0
        total += sum(v * share.get(k, 1.0) for k, v in scored.items())
        if not encoded:
            total += sum(v for k, v in history.items() if k != "heads")
    if model.set_depth:
        k = min(ScoringConfig.set_top, c)
        setwise = forward_flops(dataclasses.replace(model, depth=0), Work(k, set_pairs=k * k))
        total += sum(v for name, v in setwise.items() if name not in ("inputs", "heads"))
        total += 2 * model.width * len(model.actions) * k
    return total


def request_bytes(model: ModelConfig, seq_len: int, candidates: int) -> float:
    """Return the bytes moved for the same request: weights, keys and values, table rows."""
    wide = 2 if model.dtype == "bfloat16" else 4
    layers = model.depth + (model.actions_as == "late_values")
    cached = 2 * model.width * model.history_tokens * seq_len * layers
    rows = 4 * sum(input_widths(model)) * (candidates + seq_len // 2)
    rows += 4 * late_columns(model) * candidates
    return wide * (dense_parameters(model) + cached) + rows


def request_latency(
    model: ModelConfig, seq_len: int, candidates: int, device: Device, share: float
) -> float:
    """Return the seconds of one request.

    Args:
        model: the model.
        seq_len: tokens of the member's history, two per impression.
        candidates: impressions that are scored.
        device: device with its peak FLOP/s and its bandwidth.
        share: fraction of the peak FLOP/s that the device reaches.
    """
    flops = request_flops(model, seq_len, candidates)
    moved = request_bytes(model, seq_len, candidates)
    return flops / (share * device.flops) + moved / device.bandwidth
