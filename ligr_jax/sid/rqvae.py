"""RQ-VAE: an autoencoder whose latent is the sum of one code per level.

LiGR 3.3, following Rajput et al. 2023 and Zeghidour et al. 2021.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.quantize import Quantized, quantize_residuals, squared_distances, straight_through

Params = dict[str, Any]


class Mlp(nn.Module):
    """Dense layers of widths `widths` with ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, precision=jax.lax.Precision.HIGHEST)(nn.relu(x) if i else x)
        return x


class Output(NamedTuple):
    """Reconstructions x_hat [B, W], latents z [B, d], and the quantization of z."""

    x_hat: jax.Array
    z: jax.Array
    quantized: Quantized


class RQVAE(nn.Module):
    """Encoder, codebooks [N, K, d] and decoder, for vectors of width `width`."""

    config: SidConfig
    width: int

    def setup(self) -> None:
        c = self.config
        self.encoder = Mlp((*c.hidden, c.latent))
        self.decoder = Mlp((*reversed(c.hidden), self.width))
        shape = (c.levels, c.codes, c.latent)
        self.codebooks = self.param("codebooks", nn.initializers.normal(1.0), shape)

    def __call__(self, x: jax.Array) -> Output:
        z = self.encoder(x)
        quantized = quantize_residuals(z, self.codebooks)
        return Output(self.decoder(straight_through(z, quantized.chosen)), z, quantized)

    def encode(self, x: jax.Array) -> jax.Array:
        return self.encoder(x)


def loss_parts(
    config: SidConfig, codebooks: jax.Array, x: jax.Array, out: Output
) -> dict[str, jax.Array]:
    """Return the terms of the loss, which is their sum; each is a mean over the batch.

    reconstruction: |x - x_hat|^2
    quantization: sum_i |stop(r_(i-1)) - e_i|^2 + beta |r_(i-1) - stop(e_i)|^2, or, with
        quantization = "sum", beta |z - z_q|^2 as in LiGR
    flops: gamma times `flops_regularizer`, summed over levels
    """
    _, residuals, chosen = out.quantized
    stop = jax.lax.stop_gradient
    if config.quantization == "levels":
        codes_follow = (stop(residuals) - chosen) ** 2
        quantization = (codes_follow + config.beta * (residuals - stop(chosen)) ** 2).sum((0, 2))
    else:
        quantization = config.beta * ((out.z - chosen.sum(0)) ** 2).sum(1)
    flops = [
        flops_regularizer(r, codebook, config.temperature)
        for r, codebook in zip(residuals, codebooks)
    ]
    return {
        "reconstruction": ((x - out.x_hat) ** 2).sum(1).mean(),
        "quantization": quantization.mean(),
        "flops": config.gamma * jnp.stack(flops).sum(),
    }


def flops_regularizer(residual: jax.Array, codebook: jax.Array, temperature: float) -> jax.Array:
    """Return sum_k (batch mean of p_k)^2, p = softmax(-|r - e_k|^2 / t) (Paria et al. 2020).

    The value is 1/K for uniform use of the codes and 1 if a single code is used. It uses soft
    assignments, because counts have no gradient. t is `temperature` times the batch's mean squared
    distance to the nearest code, so that one temperature suits all levels, whose residuals shrink.

    Args:
        residual: [B, d].
        codebook: [K, d].
        temperature: softness of the assignments.
    """
    distances = squared_distances(residual, codebook)
    nearest = jax.lax.stop_gradient(distances.min(1).mean())
    p = jax.nn.softmax(-distances / (temperature * nearest + 1e-12), axis=1)
    return (p.mean(0) ** 2).sum()
