"""Experts: parallel networks of one shape, and the gates that choose among them.

`SparseExperts` is the sparsely gated mixture of Shazeer et al. 2017 (arXiv:1701.06538), which
LiRank evaluates (3.5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP, mlp_flops
from ligr_jax.ops.grouped import grouped_matmul
from ligr_jax.ops.rows import top_k_rows

LOSSES = "losses"  # variable collection of terms that a module adds to the training loss
# The paper's code adds it as well: as the noise goes to 0, gradients of the load become 0 / 0.
_MIN_NOISE = 1e-2


class Experts(nn.Module):
    """`count` MLPs of one shape, applied to one input: [..., D] -> [..., count, F]."""

    count: int
    widths: Sequence[int]
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        networks = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=-2,
            axis_size=self.count,
        )(self.widths, gated=self.gated, dtype=self.dtype, name="networks")
        return networks(x)


def mix(weights: jax.Array, outputs: jax.Array) -> jax.Array:
    """Return the weighted sum [..., F] of expert outputs [..., E, F], for weights [..., E]."""
    return jnp.einsum("...E,...EF->...F", weights.astype(outputs.dtype), outputs)


class GroupedLinear(nn.Module):
    """y_n = x_n W[e_n] + b[e_n], where e_n is the expert of row n: a `Linear` of each expert.

    W is float32 [E, D, features]; the FLOPs are those of one `Linear`.
    """

    count: int
    features: int
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal(batch_axis=0)

    @nn.compact
    def __call__(self, x_ND: jax.Array, expert_N: jax.Array) -> jax.Array:
        """Return [N, features] in `dtype`, for x [N, D] and experts int32 [N] in 0..count-1."""
        shape = (self.count, x_ND.shape[-1], self.features)
        kernel_EDF = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias_EF = self.param("bias", nn.initializers.zeros_init(), shape[::2], jnp.float32)
        y_NF = grouped_matmul(x_ND.astype(self.dtype), kernel_EDF.astype(self.dtype), expert_N)
        # Cast after the gather: the gradient of the bias is a sum over rows, in float32.
        return y_NF + bias_EF[expert_N].astype(self.dtype)


class GroupedExperts(nn.Module):
    """The MLPs of `Experts`, each applied only to the rows of its expert."""

    count: int
    widths: Sequence[int]
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x_ND: jax.Array, expert_N: jax.Array) -> jax.Array:
        """Return [N, F], for x [N, D] and experts int32 [N] in 0..count-1."""

        def linear(name: str, x: jax.Array, width: int) -> jax.Array:
            module = GroupedLinear(count=self.count, features=width, dtype=self.dtype, name=name)
            return module(x, expert_N)

        x = x_ND
        for i, width in enumerate(self.widths):
            x = nn.relu(linear(f"layer_{i}", x, width))
            if self.gated:
                x = x * nn.sigmoid(linear(f"gate_{i}", x, width))
        return x


class SparseExperts(nn.Module):
    """y = sum_i G(x)_i expert_i(x), where G is non-zero for `chosen` of the `count` experts only.

        H(x)_i = (x W)_i + normal * (softplus((x R)_i) + 0.01)      noise in training only
        G(x)   = softmax over the `chosen` largest H(x)

    Two losses of the paper balance the experts: `balance` times the squared coefficients of
    variation of importance, sum_x G(x)_i, and of load, sum_x P(i is chosen for x) over the noise.
    They are sown into the collection `losses`; padding does not count. W and R start at zero, as in
    the paper, so all experts are equally likely at first.

    Only the chosen experts are computed (`ligr_jax.ops.grouped`). There is no capacity limit, so
    the result of an example does not depend on the other examples.
    """

    count: int
    chosen: int
    widths: Sequence[int]
    gated: bool = False
    balance: float = 0.1
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array, deterministic: bool = True) -> jax.Array:
        """Return [..., F].

        Args:
            x: [..., D].
            valid: bool [...], False in padding.
            deterministic: if False, noise is drawn, which needs a `dropout` key.

        Raises:
            ValueError: `chosen` is not in 1..count.
        """
        if not 1 <= self.chosen <= self.count:
            raise ValueError(f"chosen={self.chosen} of count={self.count} experts: choose 1..count")
        zeros = nn.initializers.zeros_init()

        # The gate is computed in float32.
        x32 = x.astype(jnp.float32)
        clean = Linear(self.count, kernel_init=zeros, name="gate")(x32)
        noise_logits = Linear(self.count, kernel_init=zeros, name="noise")(x32)
        noise = nn.softplus(noise_logits) + _MIN_NOISE
        noisy = clean
        if not deterministic:
            noisy += noise * jax.random.normal(self.make_rng("dropout"), clean.shape)
        weights, indices = top_softmax(noisy, self.chosen)

        # Balancing losses; if all experts are chosen, the load is even by construction.
        if not deterministic and self.chosen < self.count:
            gates = jnp.where(valid[..., None], weights, 0.0)
            importance = jnp.zeros(self.count).at[indices].add(gates)
            chances = chance_of_choice(clean, noise, noisy, self.chosen)
            chances = jnp.where(valid[..., None], chances, 0.0)
            load = chances.reshape(-1, self.count).sum(0)
            for name, total in (("importance", importance), ("load", load)):
                self.sow(LOSSES, name, self.balance * squared_variation(total))

        # One row for each chosen expert of an example.
        experts = GroupedExperts(
            count=self.count,
            widths=self.widths,
            gated=self.gated,
            dtype=self.dtype,
            name="experts",
        )
        rows = jnp.repeat(x.reshape(-1, x.shape[-1]), self.chosen, axis=0)
        outputs = experts(rows, indices.reshape(-1))
        return mix(weights, outputs.reshape(*indices.shape, -1))


def top_softmax(scores: jax.Array, chosen: int) -> tuple[jax.Array, jax.Array]:
    """Return the softmax over the `chosen` largest scores of the last axis [..., E].

    Of tied scores, the first is chosen.

    Returns:
        The softmax [..., chosen] in descending order, and the indices of its scores.
    """
    values, indices = top_k_rows(scores, chosen)
    return jax.nn.softmax(values, axis=-1), indices


def chance_of_choice(
    clean: jax.Array, noise: jax.Array, noisy: jax.Array, chosen: int
) -> jax.Array:
    """Return P(x, i): the probability that expert i is chosen if only its own noise is redrawn.

    Phi((clean_i - the chosen-th largest of the other noisy scores) / noise_i); Shazeer et al. 2017,
    appendix A, eq. 8.

    Args:
        clean: [..., E], scores without noise.
        noise: [..., E], standard deviations of the noise.
        noisy: [..., E], scores with the drawn noise.
        chosen: number of chosen experts, less than E.

    Returns:
        [..., E].
    """
    largest = top_k_rows(noisy, chosen + 1)[0]
    last_chosen = largest[..., chosen - 1, None]
    first_rejected = largest[..., chosen, None]
    # Among the other experts: without i, if i is chosen, the first rejected one moves up.
    threshold = jnp.where(noisy >= last_chosen, first_rejected, last_chosen)
    return jax.scipy.stats.norm.cdf((clean - threshold) / noise)


def squared_variation(x: jax.Array) -> jax.Array:
    """Return (standard deviation / mean)^2 of non-negative x: 0 if all are equal."""
    return x.var() / (x.mean() ** 2 + 1e-10)


def sparse_flops(width: int, count: int, chosen: int, widths: Sequence[int], gated: bool) -> int:
    """Return the FLOPs of the matrix products of `SparseExperts` on one example.

    Only the chosen experts count, without the padding of `ligr_jax.ops.grouped`.

    Args:
        width: D, of the input.
        count, chosen, widths, gated: as in `SparseExperts`.
    """
    experts = chosen * (mlp_flops(width, widths, gated) + 2 * widths[-1])
    return experts + 2 * 2 * width * count
