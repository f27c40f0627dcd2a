"""`attend`: models stand in front of it, implementations behind it."""

from typing import Literal

import jax

from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation, RelativeBias
from ligr_jax.ops.masks import Mask

Implementation = Literal["auto", "dense"]


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Attention over exactly the pairs `mask` allows.

        scores = q k^T / sqrt(K) + bias
        softmax: softmax over the allowed keys;  silu, sigmoid: activation(scores) / allowed keys

    The un-normalized activations are divided by the number of allowed keys, so that their scale
    does not grow with history (HSTU divides by the sequence length; LiGR A.1 compares them). Scores
    and their normalization are float32 whatever the inputs' type. Padding gives zeros, and no
    gradient.

    Args:
        q: [B, T, H, K].
        k, v: [B, T, G, K], with H a multiple of G: heads in order share keys, H / G at a time.
        implementation: `dense` materializes B x H x T x T scores; `auto` picks for the device.

    Returns:
        [B, T, H, K], in q's type.
    """
    del implementation  # one so far
    return attend_dense(q, k, v, mask, activation, bias)
