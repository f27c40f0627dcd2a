"""Memory of a training step of LiGR, computed from its configuration without tracing.

Tracing takes 0.3 s a shape, and the search for a plan tries hundreds; a test holds these counts to
the traced shapes. `ligr_jax.cost.traced` counts any kind of model.

    state         dense weights and Adam's two moments, tables and their optimizer's state
    gradients     gradients of the dense weights, float32
    activations   arrays that the backward pass reads, and the largest temporaries

The state is exact. Activations are an estimate, because compilers fuse, share and recompute. The
temporaries of steps compiled for a CPU (fourteen shapes) were 0.54 to 1.44 times the estimate of
gradients and activations.
"""

from ligr_jax.config import Config, ModelConfig
from ligr_jax.cost.head_parameters import calibration_parameters, head_parameters, input_columns

_FLOAT = 4  # bytes of a float32
RELATIVE_BUCKETS = 32  # buckets of the relative bias, as in `ligr_jax.nn.blocks`


def dense_parameters(model: ModelConfig) -> int:
    """Return the number of parameters outside the tables."""
    d, a = model.width, len(model.actions)
    item, outcome = input_widths(model)
    return (
        (item + 1) * d
        + (2 * a + 1 + outcome) * d
        + (model.max_sessions * d if model.position == "learned" else 0)
        + model.depth * (_block(model) + _bias(model))
        + model.set_depth * _block(model)
        + head_parameters(model) * (1 + (model.set_depth > 0))
        + calibration_parameters(model)
        + _next_item(model)
        + _action_values(model)
    )


def _action_values(model: ModelConfig) -> int:
    """Return the number of parameters that read actions without action tokens."""
    d = model.width
    of_layers = {
        "tokens": 0,
        "values": model.depth * d * d,
        "late_values": 4 * d * d + _bias(model),
    }
    norms = {"tokens": 0, "values": 2 * d, "late_values": 4 * d}
    return of_layers[model.actions_as] + norms[model.actions_as]


def _next_item(model: ModelConfig) -> int:
    if not model.next_item:
        return 0
    return 2 * model.width + (model.width + 1) * model.tables[model.table_of(model.next_item)].width


def table_bytes(config: Config) -> int:
    """Return the bytes of all tables (float32) and of their optimizer's state."""
    # State of each optimizer: numbers per row, and arrays of the size of the table.
    kept = {"rowwise_adagrad": (1, 0), "adagrad": (0, 1), "lazy_adam": (0, 2), "adamw": (0, 2)}
    per_row, copies = kept.get(config.optim.table_optimizer, (0, 0))
    tables = config.model.tables.values()
    return sum(_FLOAT * rows * (width * (1 + copies) + per_row) for rows, width in tables)


def state_bytes(config: Config) -> int:
    """Return the bytes of the training state: weights, moments, tables, counters."""
    # step, bad_in_row, bad_total; Adam's count and the schedule's, of each optimizer.
    counters = 3 + 2 * (1 + (config.optim.table_optimizer == "adamw"))
    return _FLOAT * (3 * dense_parameters(config.model) + counters) + table_bytes(config)


def activation_bytes(config: Config, rows: int, on_cpu: bool = False) -> int:
    """Return the bytes that a forward and backward pass saves.

    Per token and layer JAX saves 9 D numbers for attention, 4 D + 6 F for the feed-forward layer
    and 4 D for each gate, in the type of the activations; 3 D of each normalization are float32.
    With `model.remat` it saves D per layer, and one full layer at a time, unless the layers are
    unrolled: XLA then keeps all of them anyway. Attention adds a float per head and token; dense
    attention, which `auto` uses for short rows on a CPU, adds 2 H T^2 floats per row.

    Args:
        config: configuration.
        rows: rows of the (micro-)batch.
        on_cpu: whether the step is compiled for a CPU.
    """
    model = config.model
    impressions = config.data.seq_len // 2
    wide = 2 if model.dtype == "bfloat16" else _FLOAT
    unrolled = model.unroll == "yes" or (model.unroll == "auto" and on_cpu)

    def stack(depth: int, length: int) -> int:
        kept = wide * model.width * rows * length
        layer = (_kept_per_token(model, wide) + _FLOAT * model.heads) * rows * length
        if _is_dense(model, length, on_cpu):
            layer += 2 * _FLOAT * model.heads * rows * length**2
        return depth * kept + layer if model.remat and not unrolled and depth else depth * layer

    item, outcome = input_widths(model)
    inputs = rows * impressions * 2 * (_FLOAT * (item + outcome) + 2 * wide * model.width)
    history = stack(model.depth, model.history_tokens * impressions)
    if model.actions_as == "late_values":
        history += _FLOAT * 9 * model.width * rows * impressions
    return inputs + history + stack(model.set_depth, impressions)


def input_widths(model: ModelConfig) -> tuple[int, int]:
    """Return the widths of the inputs of an impression's item token and of its action token."""
    widths = {True: 0, False: 0}
    for feature in model.features.values():
        if feature.outcome or feature.is_item:
            widths[feature.outcome] += input_columns(model, feature)
    return widths[False], widths[True]


def _block(model: ModelConfig) -> int:
    """Return the number of parameters of a layer without its relative bias."""
    d, f = model.width, model.ffn_width
    gated = 2 * d + d * d * model.gates_branches + model.residual_scale
    ffn = {"none": 0, "gelu": 2 * d * f + f + d + gated, "swiglu": 3 * d * f + gated}[model.ffn]
    return 4 * d * d + 3 * d * d * model.gates_attention + gated + ffn


def _bias(model: ModelConfig) -> int:
    return model.heads * RELATIVE_BUCKETS if model.position.startswith("relative") else 0


def _kept_per_token(model: ModelConfig, wide: int) -> int:
    """Return the bytes per token of one layer that the backward pass reads.

    `wide` is the bytes of one activation.
    """
    d, f = model.width, model.ffn_width
    ffn = model.ffn != "none"
    sublayers = 1 + ffn
    gates = sublayers * model.gates_branches + 3 * model.gates_attention
    numbers = 9 * d + (4 * d + 6 * f) * ffn + 4 * d * gates
    normalized = 3 * d * sublayers
    return wide * (numbers - normalized) + _FLOAT * normalized


def _is_dense(model: ModelConfig, length: int, on_cpu: bool) -> bool:
    """Return whether attention materializes its scores (`ligr_jax.ops.attention.attend`)."""
    if model.implementation == "auto":
        return on_cpu and length <= 256
    return model.implementation == "dense"
