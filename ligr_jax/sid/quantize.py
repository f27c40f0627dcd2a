"""Residual quantization: each level codes what the levels before it left over."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Quantized(NamedTuple):
    """
    codes: int32 [B, N].
    residuals: [N, B, d], what each level was given; the first is z itself.
    chosen: [N, B, d], the code vectors taken; their sum over levels approximates z.
    """

    codes: jax.Array
    residuals: jax.Array
    chosen: jax.Array


def quantize(z: jax.Array, codebooks: jax.Array) -> Quantized:
    """r_0 = z; c_i = argmin_k |r_(i-1) - e_ik|; r_i = r_(i-1) - stop(e_i,c_i)  (LiGR 3.3).

    Args:
        z: [B, d]
        codebooks: [N, K, d]

    Residuals keep the gradient of z with weight one at every level, and none of the codes'.
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
    """|x - e_k|^2, [B, K], of x [B, d] and codebook [K, d]; full float32 on every device."""
    dot = jnp.matmul(x, codebook.T, precision=jax.lax.Precision.HIGHEST)
    # Near zero the difference is rounding alone, of either sign.
    return jnp.maximum((x**2).sum(1)[:, None] - 2 * dot + (codebook**2).sum(1), 0)


def straight_through(z: jax.Array, chosen: jax.Array) -> jax.Array:
    """The sum of the chosen codes [N, B, d], with the gradient of z: once, on the sum."""
    return z + jax.lax.stop_gradient(chosen.sum(0) - z)
