"""Attention over ranges of keys: one door, `attend`, and the implementations behind it."""

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
