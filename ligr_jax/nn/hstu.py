"""HSTU: LiGR with sequential transduction units for layers (Zhai et al. 2024, arXiv:2402.17152).

    U, V, Q, K = split(silu(LN(x) W_1 + b_1))
    A V        = silu(Q K^T + rab) V / n       over the pairs of the mask
    y          = x + (LN(A V) * U) W_2 + b_2

What differs from the published model:

- The mask is LiGR's (`model.mask`), not the causal one, which shows an item the actions of its own
  session. The paper's model has no set-wise layers: that is `model.set_depth=0`. With them both
  stacks have these layers, as where LiGR 5.1 compares the two.
- n is the number of keys that the token sees; in their code, the length of the padded row. So
  what else is packed in a row makes no difference. Since LN follows, no n does but by its epsilon.
- rab is a table [H, buckets] of each layer, by distance in sessions or in hours (`model.position`);
  theirs is shared by the heads, one by distance in tokens plus one by the logarithm of seconds. A
  distance in tokens would show the display rank.
- The scores have no K^-1/2, as printed.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import ligr
from ligr_jax.nn.blocks import relative_bias
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import attend
from ligr_jax.ops.masks import Mask


class TransductionUnit(nn.Module):
    """One layer; `scale` of what it adds."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask, place: jax.Array | None, deterministic: bool
    ) -> tuple[jax.Array, None]:
        """x: [B, T, D]; place: [B, T], the axis of the relative bias, or None without one."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        normed = nn.LayerNorm(dtype=dtype, name="norm")(x)
        uvqk = nn.silu(Linear(4 * c.width, use_bias=True, dtype=dtype, name="uvqk")(normed))
        u, *vqk = jnp.split(uvqk, 4, axis=-1)
        v, q, k = (part.reshape(*x.shape[:-1], c.heads, -1) for part in vqk)
        q *= q.shape[-1] ** 0.5 / mup_scale(c).head_width  # `attend` divides by K^1/2
        mixed = attend(
            q,
            k,
            v,
            mask,
            activation="silu",
            bias=relative_bias(self, c, place),
            implementation=c.implementation,
        )
        normed = nn.LayerNorm(dtype=dtype, name="mixed_norm")(mixed.reshape(x.shape))
        out = Linear(c.width, use_bias=True, dtype=dtype, name="out")(normed * u)
        out = nn.Dropout(c.dropout)(out, deterministic=deterministic)
        return x + self.scale * out, None  # a scan's carry and (empty) output


class HSTU(ligr.LiGR):
    """LiGR's tokens, masks and heads around stacks of transduction units."""

    block: type[nn.Module] = TransductionUnit


def hstu_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """`ligr_jax.nn.flops.forward_flops` of HSTU: LiGR's but for the matrices of a layer, D x 4D and
    D x D."""
    tokens = work.impressions * (2 * config.depth + config.set_depth)
    own = {"attention_projections": tokens * 2 * 5 * config.width**2, "gates": 0.0, "ffn": 0.0}
    return ligr.ligr_flops(config, work) | own
