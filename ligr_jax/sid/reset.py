"""Codebook reset: unused codes are moved to residuals of the batch (Zeghidour et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from ligr_jax.sid.quantize import Quantized


def usage(codes: jax.Array, k: int) -> jax.Array:
    """Return each code's share of the batch times K, [N, K]; 1 for uniform use.

    Args:
        codes: int32 [B, N].
        k: codes per level.
    """
    counts = jax.vmap(lambda c: jnp.zeros(k).at[c].add(1.0), in_axes=1)(codes)
    return counts * (k / len(codes))


def reset(codebooks: jax.Array, dead: jax.Array, quantized: Quantized, key: jax.Array) -> jax.Array:
    """Replace every dead code by a random residual of its level.

    Args:
        codebooks: [N, K, d].
        dead: bool [N, K].
        quantized: quantization of the current batch; with K rows or more, residuals are distinct.
        key: random key.

    Returns:
        Codebooks [N, K, d].
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
    """Return the optimizer state with the moments of dead codes set to zero."""

    def cleared(path: Any, x: jax.Array) -> jax.Array:
        of_codes = path and getattr(path[-1], "key", None) == "codebooks"
        return jnp.where(dead[..., None], 0, x) if of_codes else x

    return jax.tree_util.tree_map_with_path(cleared, opt_state)
