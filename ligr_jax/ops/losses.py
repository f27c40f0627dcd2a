"""Losses on impressions: sums and their weights apart, so that parts of a batch add up exactly."""

import jax
import jax.numpy as jnp


def binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weighted sums of -y log p - (1 - y) log(1 - p) per action, p = sigmoid(logit).

    Args:
        logits: [B, N, A].
        labels: int8 [B, N, A]; 1, 0, or negative where unknown (which counts for nothing).
        weight: [B, N].

    Returns:
        loss [A] and weight [A], float32; their ratio is the mean.
    """
    known = jnp.where(labels >= 0, weight[..., None], 0.0)
    z = logits.astype(jnp.float32)
    loss = jax.nn.softplus(z) - z * (labels > 0)
    return jnp.sum(loss * known, axis=(0, 1)), jnp.sum(known, axis=(0, 1))


def attention_rank_loss(
    scores: jax.Array, labels: jax.Array, session: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention Rank loss (Ai et al. 2018; LiGR 3.2), summed over sessions, per action.

        a_i = psi(y_i) / sum_j psi(y_j),  psi(y) = e^y if y > 0 else 0
        p   = softmax of the session's scores;   loss = -sum_i a_i log p_i

    A session without a positive has zero loss and zero gradient, and is not counted.

    Args:
        scores: [B, N, A].
        labels: [B, N, A], graded or binary; negative where unknown.
        session: int32 [B, N], numbered within the row, in 0..N-1, e.g. by `session_numbers`.
        mask: bool [B, N], impressions that take part.

    Returns:
        loss [A] and number of counted sessions [A], float32.
    """
    b, n, a = scores.shape
    segment = (session + n * jnp.arange(b, dtype=session.dtype)[:, None]).ravel()
    known = (mask[..., None] & (labels >= 0)).reshape(b * n, a)
    z = scores.astype(jnp.float32).reshape(b * n, a)
    y = labels.astype(jnp.float32).reshape(b * n, a)

    def total(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(x, segment, b * n, indices_are_sorted=True)

    top = jax.ops.segment_max(
        jnp.where(known, jax.lax.stop_gradient(z), -jnp.inf), segment, b * n, True
    )
    top = jnp.where(jnp.isfinite(top), top, 0.0)[segment]
    shifted = jnp.where(known, z - top, 0.0)
    partition = total(jnp.where(known, jnp.exp(shifted), 0.0))
    gain = jnp.where(known & (y > 0), jnp.exp(y), 0.0)
    gains = total(gain)
    has_positive = gains > 0
    # -sum a_i (z_i - log Z) = log Z - sum a_i z_i, since the a_i sum to one.
    log_z = jnp.log(jnp.where(has_positive, partition, 1.0))
    attention = gain / jnp.where(has_positive, gains, 1.0)[segment]
    per_session = log_z - total(attention * shifted)
    loss = jnp.where(has_positive, per_session, 0.0)
    return loss.sum(0), has_positive.sum(0).astype(jnp.float32)


def session_numbers(member: jax.Array, session: jax.Array) -> jax.Array:
    """Sessions of a row numbered from 0 across its members, int32 [B, N]; padding is its own."""
    new = (member[:, 1:] != member[:, :-1]) | (session[:, 1:] != session[:, :-1])
    return jnp.pad(jnp.cumsum(new.astype(jnp.int32), axis=1), ((0, 0), (1, 0)))
