"""Losses on impressions, returned as sums and their weights, so that parts of a batch add up."""

import jax
import jax.numpy as jnp


def binary_cross_entropy(
    logits_BNA: jax.Array, labels_BNA: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return weighted sums of -y log p - (1 - y) log(1 - p) per action, with p = sigmoid(logit).

    Args:
        logits_BNA: float [B, N, A].
        labels_BNA: int8 [B, N, A]; 1, 0, or negative for unknown labels, which have weight zero.
        weight: float [B, N], zero in padding.

    Returns:
        The summed loss [A] and the summed weight [A], float32; their ratio is the mean loss.
    """
    known_BNA = jnp.where(labels_BNA >= 0, weight[..., None], 0.0)
    z_BNA = logits_BNA.astype(jnp.float32)
    loss_BNA = jax.nn.softplus(z_BNA) - z_BNA * (labels_BNA > 0)
    return jnp.sum(loss_BNA * known_BNA, axis=(0, 1)), jnp.sum(known_BNA, axis=(0, 1))


def attention_rank_loss(
    scores_BNA: jax.Array, labels_BNA: jax.Array, session: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the Attention Rank loss (Ai et al. 2018; LiGR 3.2) summed over sessions, per action.

        a_i = psi(y_i) / sum_j psi(y_j),  psi(y) = e^y if y > 0 else 0
        p   = softmax of the session's scores;   loss = -sum_i a_i log p_i

    A session without a positive label has zero loss and zero gradient, and is not counted.

    Args:
        scores_BNA: float [B, N, A].
        labels_BNA: int [B, N, A], graded or binary; negative for unknown labels.
        session: int32 [B, N], non-decreasing within a row, in 0..N-1; see `session_numbers`.
        mask: bool [B, N], the impressions that take part.

    Returns:
        The summed loss [A] and the number of counted sessions [A], float32.
    """
    b, n, a = scores_BNA.shape

    # One segment per session of the batch. Rows are consecutive and sessions are numbered in order,
    # so segment ids are sorted.
    segment = (session + n * jnp.arange(b, dtype=session.dtype)[:, None]).ravel()
    known = (mask[..., None] & (labels_BNA >= 0)).reshape(b * n, a)
    z = scores_BNA.astype(jnp.float32).reshape(b * n, a)
    y = labels_BNA.astype(jnp.float32).reshape(b * n, a)

    def segment_total(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(x, segment, b * n, indices_are_sorted=True)

    # A numerically stable partition function: subtract each session's maximum, as a constant.
    largest = jax.ops.segment_max(
        jnp.where(known, jax.lax.stop_gradient(z), -jnp.inf), segment, b * n, True
    )
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)[segment]
    shifted = jnp.where(known, z - largest, 0.0)
    partition = segment_total(jnp.where(known, jnp.exp(shifted), 0.0))

    # Denominators of sessions without a positive are replaced by 1 before the division and the
    # logarithm: a `where` behind them would still give NaN gradients.
    gain = jnp.where(known & (y > 0), jnp.exp(y), 0.0)
    total_gain = segment_total(gain)
    has_positive = total_gain > 0
    # -sum a_i (z_i - log Z) = log Z - sum a_i z_i, since the a_i sum to one.
    log_partition = jnp.log(jnp.where(has_positive, partition, 1.0))
    attention = gain / jnp.where(has_positive, total_gain, 1.0)[segment]
    loss = log_partition - segment_total(attention * shifted)
    loss = jnp.where(has_positive, loss, 0.0)
    return loss.sum(0), has_positive.sum(0).astype(jnp.float32)


def session_numbers(member: jax.Array, session: jax.Array) -> jax.Array:
    """Number the sessions of a row from 0, across its members.

    Args:
        member: int32 [B, N]; 0 in padding.
        session: int32 [B, N], numbered within the member.

    Returns:
        int32 [B, N], non-decreasing; padding forms a session of its own.
    """
    starts = (member[:, 1:] != member[:, :-1]) | (session[:, 1:] != session[:, :-1])
    return jnp.pad(jnp.cumsum(starts.astype(jnp.int32), axis=1), ((0, 0), (1, 0)))
