"""Memory of a training step of LiGR, counted from its configuration alone (nothing is traced).

    state         dense weights and Adam's two moments, tables and what their optimizer keeps
    gradients     of the dense weights, float32
    activations   what the backward pass reads, and the largest temporaries

The state is exact. Activations are an estimate: compilers fuse, share and recompute. Temporaries of
steps compiled for a CPU (fourteen shapes) were 0.54 to 1.44 times gradients and activations.
"""

from ligr_jax.config import Config, ModelConfig

_FLOAT = 4  # bytes
RELATIVE_BUCKETS = 32  # of the relative bias, as in `ligr_jax.nn.blocks`


def dense_parameters(model: ModelConfig) -> int:
    """Parameters outside the tables."""
    d, a = model.width, len(model.actions)
    item, outcome = input_widths(model)
    heads = 2 * d + d * a + a
    return (
        (item + 1) * d
        + (2 * a + 1 + outcome) * d
        + (model.max_sessions * d if model.position == "learned" else 0)
        + model.depth * (_block(model) + _bias(model))
        + model.set_depth * _block(model)
        + heads * (1 + (model.set_depth > 0))
    )


def table_bytes(config: Config) -> int:
    """Tables, float32, and the state of their optimizer."""
    kept = {"rowwise_adagrad": (1, 0), "adagrad": (0, 1), "lazy_adam": (0, 2), "adamw": (0, 2)}
    per_row, copies = kept.get(config.optim.table_optimizer, (0, 0))
    tables = config.model.tables.values()
    return sum(_FLOAT * rows * (width * (1 + copies) + per_row) for rows, width in tables)


def state_bytes(config: Config) -> int:
    """The whole training state on one device: weights, moments, tables, counters."""
    # step, bad_in_row, bad_total; Adam's count and the schedule's, of each optimizer.
    counters = 3 + 2 * (1 + (config.optim.table_optimizer == "adamw"))
    return _FLOAT * (3 * dense_parameters(config.model) + counters) + table_bytes(config)


def activation_bytes(config: Config, rows: int, on_cpu: bool = False) -> int:
    """What a forward and backward pass over `rows` rows keeps, in bytes.

    Per token and layer JAX saves, in activations' type, 9 D for attention, 4 D and 6 F for the
    feed-forward layer and 4 D for each gate; the three of each normalization are float32. With
    `model.remat` it is D, and one layer whole, but not where layers are unrolled: there XLA keeps
    them all the same. Attention adds a number a head and token; as one dense product, which `auto`
    takes for short rows on a CPU, 2 H T^2 floats a row.
    """
    model, seq_len = config.model, config.data.seq_len
    wide = 2 if model.dtype == "bfloat16" else _FLOAT
    unrolled = model.unroll == "yes" or (model.unroll == "auto" and on_cpu)

    def stack(depth: int, length: int) -> int:
        kept = wide * model.width * rows * length
        layer = (_kept_per_token(model, wide) + _FLOAT * model.heads) * rows * length
        if _is_dense(model, length, on_cpu):
            layer += 2 * _FLOAT * model.heads * rows * length**2
        return depth * kept + layer if model.remat and not unrolled and depth else depth * layer

    item, outcome = input_widths(model)
    inputs = rows * seq_len * (_FLOAT * (item + outcome) + 2 * wide * model.width)
    return inputs + stack(model.depth, seq_len) + stack(model.set_depth, seq_len // 2)


def input_widths(model: ModelConfig) -> tuple[int, int]:
    """Numbers of an impression that are projected into its item token and its action token."""
    widths = {True: 0, False: 0}
    for feature in model.features.values():
        if feature.has_table:
            width = feature.width or model.table_width
        else:
            width = feature.width if feature.kind == "vector" else 2
        widths[feature.outcome] += width
    return widths[False], widths[True]


def _block(model: ModelConfig) -> int:
    """Parameters of a gated layer without its relative bias."""
    d, f = model.width, model.ffn_width
    gated = 2 * d + (d * d if model.gate == "sigmoid" else 0)
    ffn = {"none": 0, "gelu": 2 * d * f + f + d + gated, "swiglu": 3 * d * f + gated}[model.ffn]
    return 4 * d * d + gated + ffn


def _bias(model: ModelConfig) -> int:
    return model.heads * RELATIVE_BUCKETS if model.position.startswith("relative") else 0


def _kept_per_token(model: ModelConfig, wide: int) -> int:
    """Bytes of one layer that the backward pass reads; `wide` is the size of an activation."""
    d, f = model.width, model.ffn_width
    ffn = model.ffn != "none"
    sublayers = 1 + ffn
    numbers = 9 * d + (4 * d + 6 * f) * ffn + 4 * d * sublayers * (model.gate == "sigmoid")
    normalized = 3 * d * sublayers
    return wide * (numbers - normalized) + _FLOAT * normalized


def _is_dense(model: ModelConfig, length: int, on_cpu: bool) -> bool:
    """Whether attention materializes its scores (`ligr_jax.ops.attention.attend`)."""
    if model.implementation == "auto":
        return on_cpu and length <= 256
    return model.implementation == "dense"
