"""Codebook reset: a code that nothing takes is put where something is (Zeghidour et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from ligr_jax.sid.quantize import Quantized


def usage(codes: jax.Array, k: int) -> jax.Array:
    """[N, K]: each code's share of the batch times K, so 1 where all are used alike.

    codes: int32 [B, N]
    """
    counts = jax.vmap(lambda c: jnp.zeros(k).at[c].add(1.0), in_axes=1)(codes)
    return counts * (k / len(codes))


def reset(codebooks: jax.Array, dead: jax.Array, quantized: Quantized, key: jax.Array) -> jax.Array:
    """Codebooks with every dead code replaced by a random residual of its own level.

    Args:
        codebooks: [N, K, d]
        dead: bool [N, K]
        quantized: of the current batch; a batch of K rows or more gives no residual twice.
    """
    levels, k, _ = codebooks.shape
    rows = quantized.residuals.shape[1]
    picks = [
        jax.random.choice(jax.random.fold_in(key, level), rows, (k,), replace=rows < k)
        for level in range(levels)
    ]
    fresh = jnp.stack([r[pick] for r, pick in zip(quantized.residuals, picks)])
    return jnp.where(dead[..., None], fresh, codebooks)


def clear_moments(opt_state: Any, dead: jax.Array) -> Any:
    """The optimizer's state without what it has summed over gradients of dead codes."""

    def cleared(path: Any, x: jax.Array) -> jax.Array:
        of_codes = path and getattr(path[-1], "key", None) == "codebooks"
        return jnp.where(dead[..., None], 0, x) if of_codes else x

    return jax.tree_util.tree_map_with_path(cleared, opt_state)
