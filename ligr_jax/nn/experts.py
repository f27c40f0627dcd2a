"""Experts: networks of one shape side by side, and what chooses among them.

`SparseExperts` is the sparsely gated mixture of Shazeer et al. 2017 (arXiv:1701.06538), which
LiRank tries (3.5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP, mlp_flops

LOSSES = "losses"  # collection of variables: terms a module adds to the training loss
# The paper's code adds it too: as noise goes to 0, gradients of the load become 0 / 0.
_LEAST_NOISE = 1e-2


class Experts(nn.Module):
    """`count` networks of one shape on one input: [..., D] -> [..., count, F]."""

    count: int
    widths: Sequence[int]
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        each = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=-2,
            axis_size=self.count,
        )
        return each(self.widths, self.gated, dtype=self.dtype, name="networks")(x)


def mix(weights: jax.Array, outputs: jax.Array) -> jax.Array:
    """Sum of experts [..., E, F] by weights [..., E]: [..., F]."""
    return jnp.einsum("...E,...EF->...F", weights.astype(outputs.dtype), outputs)


class SparseExperts(nn.Module):
    """y = sum_i G(x)_i expert_i(x), where G is not zero for `chosen` of the `count` experts alone.

        H(x)_i = (x W)_i + normal * (softplus((x R)_i) + 0.01)      the noise in training only
        G(x)   = softmax over the `chosen` largest H(x)

    Both losses of the paper keep the load even: `balance` times the squared coefficients of
    variation of importance, sum_x G(x)_i, and of load, sum_x P(i is chosen for x) over the noise.
    They are sown into `losses`; padding does not count. W and R start at zero, as in the paper:
    each expert is then as likely as any other.

    Every expert is computed and the others' outputs are left out: no capacity is exceeded, so what
    an example gets never depends on who stands beside it, but no work is saved either.
    """

    count: int
    chosen: int
    widths: Sequence[int]
    gated: bool = False
    balance: float = 0.1
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array, deterministic: bool = True) -> jax.Array:
        """Returns [..., F]; `deterministic=False` wants a `dropout` key, of the noise.

        Args:
            x: [..., D].
            real: bool [...], false in padding.

        Raises:
            ValueError: there are not so many experts to choose.
        """
        if not 1 <= self.chosen <= self.count:
            raise ValueError(f"chosen={self.chosen} of count={self.count} experts: choose 1..count")
        zeros = nn.initializers.zeros_init()
        x32 = x.astype(jnp.float32)
        clean = Linear(self.count, kernel_init=zeros, name="gate")(x32)
        raw = Linear(self.count, kernel_init=zeros, name="noise")(x32)
        noise = nn.softplus(raw) + _LEAST_NOISE
        drawn = clean
        if not deterministic:
            drawn += noise * jax.random.normal(self.make_rng("dropout"), clean.shape)
        gates = top_softmax(drawn, self.chosen)
        if not deterministic and self.chosen < self.count:
            chances = chance_of_choice(clean, noise, drawn, self.chosen)
            for name, share in (("importance", gates), ("load", chances)):
                total = jnp.where(real[..., None], share, 0.0).reshape(-1, self.count).sum(0)
                self.sow(LOSSES, name, self.balance * squared_variation(total))
        outputs = Experts(self.count, self.widths, self.gated, self.dtype, name="experts")(x)
        return mix(gates, outputs)


def top_softmax(scores: jax.Array, chosen: int) -> jax.Array:
    """Softmax over the `chosen` largest of the last axis, zero elsewhere; ties go to the first."""
    values, places = jax.lax.top_k(scores, chosen)
    of_each = jax.nn.one_hot(places, scores.shape[-1], dtype=scores.dtype)
    return mix(jax.nn.softmax(values, axis=-1), of_each)


def chance_of_choice(
    clean: jax.Array, noise: jax.Array, drawn: jax.Array, chosen: int
) -> jax.Array:
    """P(x, i): that expert i is among the chosen when its own noise alone is drawn again.

    Phi((clean_i - the chosen-th largest of the other drawn scores) / noise_i); Shazeer et al. 2017,
    appendix A, eq. 8. All arguments [..., E], with chosen < E.
    """
    largest = jax.lax.top_k(drawn, chosen + 1)[0]
    last, next_one = largest[..., chosen - 1, None], largest[..., chosen, None]
    # Of the others: without i, one of the chosen, the next one moves up.
    threshold = jnp.where(drawn >= last, next_one, last)
    return jax.scipy.stats.norm.cdf((clean - threshold) / noise)


def squared_variation(x: jax.Array) -> jax.Array:
    """(standard deviation / mean)^2 of non-negative x: 0 where all are equal."""
    return x.var() / (x.mean() ** 2 + 1e-10)


def sparse_flops(width: int, count: int, chosen: int, widths: Sequence[int], gated: bool) -> int:
    """Of the matrix products of `SparseExperts` on one example of `width` numbers."""
    experts = count * mlp_flops(width, widths, gated)
    return experts + 2 * 2 * width * count + 2 * chosen * count + 2 * count * widths[-1]
