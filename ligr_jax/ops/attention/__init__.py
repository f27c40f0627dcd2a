"""Attention over ranges of keys: `attend`, and the implementations it dispatches to.

Why none of them comes from a library: `jax.nn.dot_product_attention` takes these masks only as a
dense T x T bias, both in XLA (on a CPU slower than the plain dense form) and in cuDNN; JAX's Pallas
kernel for GPUs supports segments and causality only; its splash attention for TPUs needs a mask
that is known at compile time (`tpu` says what was tried). FlexAttention supports such masks, but
only in PyTorch.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.ops.attention.cached import KeyValues as KeyValues
    from ligr_jax.ops.attention.cached import Past as Past
    from ligr_jax.ops.attention.cached import append_to_past as append_to_past
    from ligr_jax.ops.attention.cached import attend_cached as attend_cached
    from ligr_jax.ops.attention.candidates import OwnKeys as OwnKeys
    from ligr_jax.ops.attention.candidates import attend_candidates as attend_candidates
    from ligr_jax.ops.attention.candidates import (
        attend_candidates_cached as attend_candidates_cached,
    )
    from ligr_jax.ops.attention.dispatch import Implementation as Implementation
    from ligr_jax.ops.attention.dispatch import attend as attend
    from ligr_jax.ops.attention.dispatch import attend_with_normalizer as attend_with_normalizer
    from ligr_jax.ops.attention.scores import Activation as Activation
    from ligr_jax.ops.attention.scores import RelativeBias as RelativeBias
    from ligr_jax.ops.attention.scores import bucket_distance as bucket_distance
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Activation": "scores",
            "Implementation": "dispatch",
            "KeyValues": "cached",
            "OwnKeys": "candidates",
            "Past": "cached",
            "RelativeBias": "scores",
            "append_to_past": "cached",
            "attend": "dispatch",
            "attend_cached": "cached",
            "attend_candidates": "candidates",
            "attend_candidates_cached": "candidates",
            "attend_with_normalizer": "dispatch",
            "bucket_distance": "scores",
        },
    )
