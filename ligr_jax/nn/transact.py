"""The member's recent history as features of a candidate (LiRank, 3.7; TransAct, Xia et al. 2023).

step = item ++ action ++ candidate      early fusion: the candidate beside every step
h <- LN(h + MHA(h));  h <- LN(h + FFN(h)),  F = D / 2      the encoder of Vaswani et al. 2017
features = max over steps ++ the last steps, flattened
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.ops.attention import attend
from ligr_jax.ops.masks import Mask
from ligr_jax.ops.windows import Windows, gather_windows


class EncoderLayer(nn.Module):
    """A post-norm layer of a transformer encoder: everyone of a sequence sees everyone."""

    heads: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, h: jax.Array, mask: Mask, deterministic: bool) -> jax.Array:
        """h: [B, L, D], with D a multiple of `heads`."""
        width = h.shape[-1]
        qkv = Linear(3 * width, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.moveaxis(qkv.reshape(*h.shape[:2], 3, self.heads, -1), 2, 0)
        out = Linear(width, dtype=self.dtype, name="out")(attend(q, k, v, mask).reshape(h.shape))
        out = nn.Dropout(self.dropout)(out, deterministic=deterministic)
        h = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(h + out)
        up = nn.relu(Linear(width // 2, use_bias=True, dtype=self.dtype, name="up")(h))
        out = Linear(width, use_bias=True, dtype=self.dtype, name="down")(up)
        out = nn.Dropout(self.dropout)(out, deterministic=deterministic)
        return nn.LayerNorm(dtype=self.dtype, name="ffn_norm")(h + out)


class HistoryEncoder(nn.Module):
    """Features of every impression from its window of the member's earlier impressions.

    What an impression reads is what `windows` names, and itself as the candidate: windows by
    sessions (`history_windows`) keep actions of a session from its own impressions. The paper names
    no positions; the order of steps is in the last ones, which stand side by side.

    Every candidate has its window encoded beside it: memory is linear in N x L, times D and, of
    attention in short windows, times heads x L.

    last: how many of the newest steps are flattened; the paper's are five.
    """

    heads: int
    layers: int = 2
    last: int = 5
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, items: jax.Array, actions: jax.Array, windows: Windows, deterministic: bool = True
    ) -> jax.Array:
        """Returns [B, N, (1 + last) D], zeros where there is no step; D = 2 I + J.

        Args:
            items: [B, N, I], of impressions as items: steps and candidates alike.
            actions: [B, N, J], of what was done with them.
            windows: of length L >= `last`.

        Raises:
            ValueError: L is too short, or D no multiple of `heads`.
        """
        b, n, length = windows.valid_BNL.shape
        width = 2 * items.shape[-1] + actions.shape[-1]
        if width % self.heads:
            raise ValueError(f"2 x items + actions = {width} is no multiple of heads={self.heads}")
        if length < self.last:
            raise ValueError(f"windows of {length} steps have no last={self.last}; lengthen them")
        steps = gather_windows(jnp.concatenate([items, actions], axis=-1), windows)
        candidate = jnp.broadcast_to(items[:, :, None], (b, n, length, items.shape[-1]))
        h = jnp.concatenate([steps, candidate], axis=-1).reshape(b * n, length, width)
        there = windows.valid_BNL.reshape(b * n, length)
        end = jnp.where(there, there.sum(-1, keepdims=True), 0).astype(jnp.int32)
        mask = Mask(jnp.zeros_like(end), end, there)
        for i in range(self.layers):
            layer = EncoderLayer(self.heads, self.dropout, self.dtype, name=f"layer_{i}")
            h = layer(h, mask, deterministic)
        h = jnp.where(there[..., None], h, 0)
        # The gradient of `max` asks which steps equal it, and is 0 / 0 where XLA computes them once
        # more with other rounding; a place is chosen once.
        place = jnp.where(there[..., None], h, -jnp.inf).argmax(axis=1, keepdims=True)
        pooled = jnp.where(jnp.arange(length)[:, None] == place, h, 0).sum(axis=1)
        newest = h[:, : self.last].reshape(b * n, -1)
        return jnp.concatenate([pooled, newest], axis=-1).reshape(b, n, -1)
