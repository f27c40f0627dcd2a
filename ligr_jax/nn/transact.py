"""The member's recent history as features of a candidate (LiRank, 3.7; TransAct, Xia et al. 2023).

step = item ++ action ++ candidate      early fusion: every step includes the candidate
h <- LN(h + MHA(h));  h <- LN(h + FFN(h)),  F = D / 2      the encoder of Vaswani et al. 2017
features = max over steps ++ the last steps, flattened

Letters: L steps of a window; M = B N windows of a batch; I and W widths of a candidate and a step.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.ops.attention import attend
from ligr_jax.ops.masks import Mask
from ligr_jax.ops.windows import Windows, gather_windows


class EncoderLayer(nn.Module):
    """A post-norm layer of a transformer encoder, with bidirectional attention."""

    heads: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, h_MLD: jax.Array, mask: Mask, deterministic: bool) -> jax.Array:
        """Return [M, L, D], for h_MLD [M, L, D] with D a multiple of `heads`."""
        width = h_MLD.shape[-1]
        qkv = Linear(3 * width, dtype=self.dtype, name="qkv")(h_MLD)
        qkv = qkv.reshape(*h_MLD.shape[:2], 3, self.heads, -1)
        q_MLHK, k_MLHK, v_MLHK = jnp.moveaxis(qkv, 2, 0)
        mixed_MLD = attend(q_MLHK, k_MLHK, v_MLHK, mask).reshape(h_MLD.shape)
        out_MLD = Linear(width, dtype=self.dtype, name="out")(mixed_MLD)
        out_MLD = nn.Dropout(self.dropout)(out_MLD, deterministic=deterministic)
        h_MLD = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(h_MLD + out_MLD)
        up_MLF = nn.relu(Linear(width // 2, use_bias=True, dtype=self.dtype, name="up")(h_MLD))
        out_MLD = Linear(width, use_bias=True, dtype=self.dtype, name="down")(up_MLF)
        out_MLD = nn.Dropout(self.dropout)(out_MLD, deterministic=deterministic)
        result: jax.Array = nn.LayerNorm(dtype=self.dtype, name="ffn_norm")(h_MLD + out_MLD)
        return result


class HistoryEncoder(nn.Module):
    """Features of every impression, from its window of the member's earlier impressions.

    An impression depends on the steps of its window, and on itself as the candidate. Windows of
    earlier sessions (`history_windows`) hide the actions of a session from its impressions. The
    paper mentions no positional encoding; the order of steps enters through the flattened last
    steps.

    Each candidate has a window of its own, which is encoded together with it. Memory is linear in
    N x L x D, and attention in short windows adds N x heads x L^2.

    last: number of newest steps that are flattened; five in the paper.
    """

    heads: int
    layers: int = 2
    last: int = 5
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self,
        items_BNI: jax.Array,
        steps_BSW: jax.Array,
        windows: Windows,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return [B, N, (1 + last) D] with D = I + W; zeros in the place of empty steps.

        Args:
            items_BNI: [B, N, I], item tokens of the candidates.
            steps_BSW: [B, S, W], item ++ action token of the impressions that windows refer to; in
                training these are the candidates themselves.
            windows: windows of L >= `last` steps.
            deterministic: if False, dropout is applied, which needs a `dropout` key.

        Raises:
            ValueError: L is less than `last`, or D is not divisible by `heads`.
        """
        b, n, length = windows.valid_BNL.shape
        width = items_BNI.shape[-1] + steps_BSW.shape[-1]
        if width % self.heads:
            raise ValueError(
                f"width of candidates + width of steps = {width} is not divisible by "
                f"heads={self.heads}; change one of them"
            )
        if length < self.last:
            raise ValueError(
                f"windows of {length} steps have no last={self.last} steps; lengthen the windows "
                "or lower last"
            )

        # Early fusion: each step holds the item, the action and the candidate.
        steps_BNLW = gather_windows(steps_BSW, windows)
        candidate_BNLI = jnp.broadcast_to(
            items_BNI[:, :, None], (b, n, length, items_BNI.shape[-1])
        )
        h_BNLD = jnp.concatenate([steps_BNLW, candidate_BNLI], axis=-1)
        h_MLD = h_BNLD.reshape(b * n, length, width)

        # Valid steps come first in a window, so all of them have the range 0 .. number of steps.
        valid = windows.valid_BNL.reshape(b * n, length)
        end = jnp.where(valid, valid.sum(-1, keepdims=True), 0).astype(jnp.int32)
        mask = Mask(lo=jnp.zeros_like(end), hi=end, valid=valid)
        for i in range(self.layers):
            layer = EncoderLayer(
                heads=self.heads, dropout=self.dropout, dtype=self.dtype, name=f"layer_{i}"
            )
            h_MLD = layer(h_MLD, mask, deterministic)
        h_MLD = jnp.where(valid[..., None], h_MLD, 0)

        # Max-pooling through argmax. The gradient of `max` compares all steps with the maximum; if
        # XLA recomputes the steps with other rounding, none is equal and the gradient is 0 / 0.
        index_M1D = jnp.where(valid[..., None], h_MLD, -jnp.inf).argmax(axis=1, keepdims=True)
        pooled = jnp.where(jnp.arange(length)[:, None] == index_M1D, h_MLD, 0).sum(axis=1)
        newest = h_MLD[:, : self.last].reshape(b * n, -1)
        return jnp.concatenate([pooled, newest], axis=-1).reshape(b, n, -1)
