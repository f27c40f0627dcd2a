"""Parameters of the heads of a model, counted from its configuration without tracing."""

from collections.abc import Callable, Sequence

from ligr_jax.config import Feature, HeadConfig, ModelConfig

CALIBRATED_RANGE = 25.0  # logits, as in `ligr_jax.nn.calibration`


def head_parameters(model: ModelConfig) -> int:
    """Return the number of parameters of one `ligr_jax.nn.heads.Heads` on a token [D]."""
    head, outputs = model.head, len(model.actions) * model.post_rows
    width = model.width + late_columns(model)
    cross = 0
    if head.cross_layers:
        cross = 2 * model.width + (width + 1) * outputs
        cross += head.cross_layers * (2 * width * head.cross_rank + width)
    return 2 * width + _KINDS[head.kind](head, width, len(model.groups), outputs) + cross


def calibration_parameters(model: ModelConfig) -> int:
    """Return the number of parameters of the isotonic layer."""
    head = model.head
    if not head.calibration:
        return 0
    buckets = round(CALIBRATED_RANGE / head.calibration_step)
    width = sum(input_columns(model, model.features[name]) for name in head.calibration_features)
    curves = len(model.actions) * model.post_rows
    return curves * (buckets + 1) + width * len(model.actions) * buckets


def input_columns(model: ModelConfig, feature: Feature) -> int:
    """Return the number of columns of a feature in a concatenation of features."""
    if feature.has_table:
        return feature.width or model.table_width
    return feature.width if feature.kind == "vector" else 2


def late_columns(model: ModelConfig) -> int:
    """Return the number of columns of the late features."""
    return sum(input_columns(model, f) for f in model.features.values() if f.late)


def _linear(head: HeadConfig, width: int, tasks: int, outputs: int) -> int:
    return (width + 1) * outputs


def _towers(head: HeadConfig, width: int, tasks: int, outputs: int) -> int:
    last = head.widths[-1] if head.widths else width
    return tasks * _mlp(width, head.widths, head.gated) + (last + 1) * outputs


def _mmoe(head: HeadConfig, width: int, tasks: int, outputs: int) -> int:
    experts = head.experts * (_mlp(width, head.expert_widths, head.gated) + width * tasks)
    return experts + _towers(head, head.expert_widths[-1], tasks, outputs)


def _ple(head: HeadConfig, width: int, tasks: int, outputs: int) -> int:
    experts = tasks * head.experts + head.shared_experts
    total = 0
    for level in range(head.levels):
        gates = tasks * (head.experts + head.shared_experts)
        gates += experts * (level < head.levels - 1)
        total += experts * _mlp(width, head.expert_widths, head.gated) + width * gates
        width = head.expert_widths[-1]
    return total + _towers(head, width, tasks, outputs)


_KINDS: dict[str, Callable[[HeadConfig, int, int, int], int]] = {
    "linear": _linear,
    "mlp": _towers,
    "mmoe": _mmoe,
    "ple": _ple,
}


def _mlp(width: int, widths: Sequence[int], gated: bool) -> int:
    total = 0
    for out in widths:
        total += (width + 1) * out + (out + 1) * out * gated
        width = out
    return total
