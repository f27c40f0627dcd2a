"""Attention over ranges of keys: one door, `attend`, and the implementations behind it.

Why none of them is a library's: `jax.nn.dot_product_attention` takes these masks as a dense bias of
T x T, by XLA (on a CPU slower than the plain dense form) and by cuDNN alike; JAX's Pallas kernel
for GPUs knows segments and causality; its splash kernel for TPUs wants a mask known when it is
compiled (`tpu` says what was tried). FlexAttention, which has such masks, is PyTorch's.
"""

from ligr_jax.ops.attention.attend import Implementation, attend
from ligr_jax.ops.attention.cached import attend_cached
from ligr_jax.ops.attention.scores import Activation, RelativeBias, bucket_distance

__all__ = [
    "Activation",
    "Implementation",
    "RelativeBias",
    "attend",
    "attend_cached",
    "bucket_distance",
]
