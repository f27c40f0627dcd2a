"""Memory of a training step of any kind of model, from its traced backward pass."""

import jax

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.models import make_model


def traced_activation_bytes(model: ModelConfig, batch: Batch, rows: int) -> int:
    """Return the bytes that the backward pass of any kind of model saves.

    This is more than a compiled step allocates: compilers fuse and recompute, and the arrays inside
    attention kernels are counted as if they were saved.

    Args:
        model: configuration of the model.
        batch: an example of a batch, with at least one row.
        rows: rows of the (micro-)batch.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)
    module = make_model(model)
    params = jax.eval_shape(lambda b: module.init(jax.random.key(0), b), shapes)
    backward = jax.eval_shape(
        lambda p, b: jax.vjp(lambda q: module.apply(q, b), p)[1], params, shapes
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))
