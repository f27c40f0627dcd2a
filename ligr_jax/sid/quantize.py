"""Residual quantization: each level encodes the residual of the levels before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Quantized(NamedTuple):
    """Result of residual quantization.

    Attributes:
        codes: int32 [B, N].
        residuals: [N, B, d], input of each level; the first is z.
        chosen: [N, B, d], chosen code vectors; their sum over levels approximates z.
    """

    codes: jax.Array
    residuals: jax.Array
    chosen: jax.Array


def quantize_residuals(z: jax.Array, codebooks: jax.Array) -> Quantized:
    """Quantize by levels: r_0 = z; c_i = argmin_k |r_(i-1) - e_ik|; r_i = r_(i-1) - stop(e_i,c_i).

    LiGR 3.3. The gradient of each residual with respect to z is the identity; it has no gradient
    with respect to the codes.

    Args:
        z: [B, d].
        codebooks: [N, K, d].
    """
    codes, residuals, chosen = [], [], []
    residual = z
    for codebook in codebooks:
        code = jnp.argmin(squared_distances(residual, codebook), axis=1)
        codes.append(code)
        residuals.append(residual)
        chosen.append(codebook[code])
        residual = residual - jax.lax.stop_gradient(chosen[-1])
    return Quantized(jnp.stack(codes, 1).astype(jnp.int32), jnp.stack(residuals), jnp.stack(chosen))


def squared_distances(x: jax.Array, codebook: jax.Array) -> jax.Array:
    """Return |x - e_k|^2, [B, K], of x [B, d] and codebook [K, d], in float32 on every device."""
    dot = jnp.matmul(x, codebook.T, precision=jax.lax.Precision.HIGHEST)
    # Near zero, rounding can make the difference negative.
    return jnp.maximum((x**2).sum(1)[:, None] - 2 * dot + (codebook**2).sum(1), 0)


def straight_through(z: jax.Array, chosen: jax.Array) -> jax.Array:
    """Return the sum of the chosen codes [N, B, d], with the gradient of z (once, on the sum)."""
    return z + jax.lax.stop_gradient(chosen.sum(0) - z)
