"""HSTU: LiGR with sequential transduction units as layers (Zhai et al. 2024, arXiv:2402.17152).

    U, V, Q, K = split(silu(LN(x) W_1 + b_1))
    A V        = silu(Q K^T + rab) V / n       over the pairs of the mask
    y          = x + (LN(A V) * U) W_2 + b_2

Differences from the published model:

- The mask is LiGR's (`model.mask`), not the causal one, which shows an item the actions of its own
  session. The paper's model has no set-wise layers, i.e. `model.set_depth=0`. With set-wise layers,
  both stacks consist of these units, as in the comparison of LiGR 5.1.
- n is the number of keys that the token sees, so that the result depends neither on padding nor on
  what else is packed in a row. In the authors' code n is the length of the padded row;
  `model.attention_length` is such a constant, by which serving divides as well. Since LN follows, n
  matters only through the epsilon of LN, 1e-6, which is not small against the variance of A V / n
  where a row has few keys for its length: at initial weights, 24 tokens in a row of 2,048 get 18 to
  55 % other outputs of a layer (widths 128 to 16; in a row of 24, less than 1 %).
- rab is a table [H, buckets] per layer, by distance in sessions or hours (`model.position`). The
  authors share it between heads, and add a table by distance in tokens and a table by the logarithm
  of seconds. A distance in tokens would reveal the display rank.
- Scores are not scaled by K^-1/2, as printed in the paper.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import ligr
from ligr_jax.nn.blocks import attend_new, relative_bias
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues, Past
from ligr_jax.ops.masks import Mask, allowed_keys


class TransductionUnit(nn.Module):
    """One layer; `scale` multiplies what is added to the residual stream."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        mask: Mask | None,
        position: jax.Array | None,
        deterministic: bool,
        past: Past | None = None,
        keep: bool = False,
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return the carry and the output of a scan over layers.

        Args:
            x_BTD: [B, T, D], the residual stream.
            mask, position, deterministic, past, keep: as in `Block`.

        Returns:
            The new residual stream [B, T, D]; and the keys and values of the tokens, or None.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        normed_BTD = nn.LayerNorm(dtype=dtype, name="norm")(x_BTD)
        uvqk = nn.silu(Linear(4 * c.width, use_bias=True, dtype=dtype, name="uvqk")(normed_BTD))
        u_BTD, *vqk = jnp.split(uvqk, 4, axis=-1)
        v_BTHK, q_BTHK, k_BTHK = (part.reshape(*x_BTD.shape[:-1], c.heads, -1) for part in vqk)
        # `attend` divides scores by K^1/2; undo this.
        q_BTHK *= q_BTHK.shape[-1] ** 0.5 / mup_scale(c).head_width
        new = KeyValues(k_BTHK, v_BTHK)
        bias = relative_bias(self, c, position)
        mixed_BTHK = attend_new(c, q_BTHK, new, mask, past, activation="silu", bias=bias)
        if c.attention_length:
            keys_BT = visible_keys(mask, past)
            mixed_BTHK *= (keys_BT / c.attention_length).astype(dtype)[:, :, None, None]
        mixed_norm = nn.LayerNorm(dtype=dtype, name="mixed_norm")
        normed_BTD = mixed_norm(mixed_BTHK.reshape(x_BTD.shape))
        out_BTD = Linear(c.width, use_bias=True, dtype=dtype, name="out")(normed_BTD * u_BTD)
        out_BTD = nn.Dropout(c.dropout)(out_BTD, deterministic=deterministic)
        return x_BTD + self.scale * out_BTD, new if keep else None


def visible_keys(mask: Mask | None, past: Past | None) -> jax.Array:
    """Return the number of keys by which `attend_new` divides, int32 [B, T or 1].

    Args:
        mask, past: as in `Attention`.
    """
    new: jax.Array | int = 1 if mask is None else allowed_keys(mask)
    return jnp.asarray(new if past is None else past.keys + new)


class HSTU(ligr.LiGR):
    """LiGR's tokens, masks and heads around stacks of transduction units."""

    block: type[nn.Module] = TransductionUnit


def hstu_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs of HSTU by part: LiGR's, but with layers of D x 4D and D x D."""
    tokens = work.impressions * (2 * config.depth + config.set_depth)
    layers = {"attention_projections": tokens * 2 * 5 * config.width**2, "gates": 0.0, "ffn": 0.0}
    return ligr.ligr_flops(config, work) | layers
