"""Cross layers: products of the input's features with functions of a layer's input.

    cross (DCNv2)             out = x0 * (W x + b) + x
    low-rank cross (DCNv2)    out = x0 * (U V^T x + b) + x
    with attention            out = x0 * (U (S v) + b) + x,   S = softmax(q k^T / tau)
    residual (LiRank, 3.3)    the last two in parallel, with one skip connection

V and U are D x r; q, k, v are linear maps of x to r numbers. S is r x r for each example: it mixes
rank channels, never examples. With S = I the attention cross is the low-rank cross.
Sources: DCNv2, Wang et al. 2021, arXiv:2008.13535 (eq. 1, low rank in 4.2); LiRank, 3.3, figure 3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear


def channel_scores(q: jax.Array, k: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Return the scores S of rank channels, softmax(q k^T / temperature).

    Args:
        q, k: [..., r].
        temperature: positive scalar.

    Returns:
        float32 [..., r, r]; rows sum to one.
    """
    products = q.astype(jnp.float32)[..., :, None] * k.astype(jnp.float32)[..., None, :]
    return jax.nn.softmax(products / temperature, axis=-1)


class Cross(nn.Module):
    """x0 * (W x + b) + x."""

    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """Return [..., D], from the input x0 of the first layer and the input x of this layer."""
        return x0 * Linear(x0.shape[-1], use_bias=True, dtype=self.dtype, name="w")(x) + x


class LowRankCross(nn.Module):
    """x0 * (U V^T x + b) + x."""

    rank: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """Return [..., D]; arguments as of `Cross`."""
        low = Linear(self.rank, dtype=self.dtype, name="v")(x)
        return x0 * Linear(x0.shape[-1], use_bias=True, dtype=self.dtype, name="u")(low) + x


class AttentionCross(nn.Module):
    """x0 * (U (S v) + b) + x.

    temperature: initial value of tau.
    learned: tau is a parameter, stored as its logarithm so that it stays positive.
    scores: computes S from (q, k, tau).
    """

    rank: int
    temperature: float = 1.0
    learned: bool = True
    dtype: jnp.dtype = jnp.dtype("float32")
    scores: Callable[[jax.Array, jax.Array, jax.Array | float], jax.Array] = channel_scores

    @nn.compact
    def __call__(self, x0: jax.Array, x: jax.Array, skip: jax.Array | None = None) -> jax.Array:
        """Return [..., D]; arguments as of `Cross`.

        Args:
            x0, x: [..., D].
            skip: [..., D], added to the product; by default x.
        """
        q, k, v = (Linear(self.rank, dtype=self.dtype, name=name)(x) for name in "qkv")
        tau: jax.Array | float = self.temperature
        if self.learned:
            init = nn.initializers.constant(jnp.log(self.temperature))
            tau = jnp.exp(self.param("log_temperature", init, (), jnp.float32))
        mixed = jnp.einsum("...ij,...j->...i", self.scores(q, k, tau).astype(v.dtype), v)
        product = x0 * Linear(x0.shape[-1], use_bias=True, dtype=self.dtype, name="u")(mixed)
        return product + (x if skip is None else skip)


class ResidualCross(nn.Module):
    """The low-rank cross and the attention cross in parallel: both products are added to x."""

    rank: int
    temperature: float = 1.0
    learned: bool = True
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """Return [..., D]; arguments as of `Cross`."""
        low_rank = LowRankCross(rank=self.rank, dtype=self.dtype, name="cross")(x0, x)
        attention = AttentionCross(
            rank=self.rank,
            temperature=self.temperature,
            learned=self.learned,
            dtype=self.dtype,
            name="attention",
        )
        return attention(x0, x, skip=low_rank)
