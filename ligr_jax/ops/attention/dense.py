"""The reference implementation: compute every score, then mask. For tests and short rows."""

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.scores import LOWEST, Activation, RelativeBias, bias_scores
from ligr_jax.ops.masks import Mask, allowed_keys, dense_mask


def attend_dense(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    activation: Activation,
    bias: RelativeBias | None,
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend_with_normalizer` with B x H x T x T scores; all derivatives are defined.

    Arguments and results are those of `attend_with_normalizer`. The second T of an array of scores
    is called S here, the axis of keys.
    """
    heads = q_BTHK.shape[2]
    k_BSHK, v_BSHK = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (k_BTGK, v_BTGK))
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32)
    scores_BHTS = scores_BHTS * (q_BTHK.shape[-1] ** -0.5)
    if bias is not None:
        bias_BRTS = bias_scores(bias.table, bias.position, bias.position)
        scores_BHTS += jnp.repeat(bias_BRTS, heads // len(bias.table), axis=1)

    allowed_B1TS = dense_mask(mask)[:, None]
    lse_BHT = jnp.full(scores_BHTS.shape[:-1], LOWEST)
    if activation == "softmax":
        # The weights and the normalizer share one exponential. A token without keys has equal
        # weights here, which are then set to zero.
        scores_BHTS = jnp.where(allowed_B1TS, scores_BHTS, LOWEST)
        highest_BHT1 = jax.lax.stop_gradient(scores_BHTS.max(axis=-1, keepdims=True))
        weights_BHTS = jnp.exp(scores_BHTS - highest_BHT1)
        total_BHT1 = weights_BHTS.sum(axis=-1, keepdims=True)
        weights_BHTS = jnp.where(allowed_B1TS, weights_BHTS / total_BHT1, 0.0)
        lse_BHT = (highest_BHT1 + jnp.log(total_BHT1))[..., 0]
    else:
        activated_BHTS = (
            jax.nn.silu(scores_BHTS) if activation == "silu" else jax.nn.sigmoid(scores_BHTS)
        )
        keys = jnp.maximum(allowed_keys(mask), 1)[:, None, :, None]
        weights_BHTS = jnp.where(allowed_B1TS, activated_BHTS, 0.0) / keys

    weights_BHTS = jnp.where(mask.valid[:, None, :, None], weights_BHTS, 0.0)
    out_BTHK = jnp.einsum(
        "BHTS,BSHK->BTHK",
        weights_BHTS.astype(v_BSHK.dtype),
        v_BSHK,
        preferred_element_type=jnp.float32,
    )
    return out_BTHK.astype(q_BTHK.dtype), jnp.moveaxis(lse_BHT, 1, 2)
