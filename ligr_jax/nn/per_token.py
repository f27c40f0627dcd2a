"""Linear maps and networks with weights of their own for each of the M tokens of an impression.

The fan-in of such a matrix is its number of rows, never that of all M matrices together: an
initializer that takes the axis of tokens as part of the fan-in makes branches M^1/2 times too small
or worse. Modules that hold these matrices are named `per_token`, by which muP finds them
(`ligr_jax.nn.mup`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import linear_product

Nonlinearity = Callable[[jax.Array], jax.Array]


def fan_in_normal(factor: float = 1.0) -> nn.initializers.Initializer:
    """Return an initializer of matrices [M, in, out] with standard deviation factor in^-1/2."""
    return nn.initializers.variance_scaling(
        factor**2, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
    )


class PerTokenLinear(nn.Module):
    """y_m = x_m W_m (+ b_m) over the last axis, with W float32 [M, in, features], computed in
    `dtype`."""

    features: int
    use_bias: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_init: nn.initializers.Initializer = fan_in_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, features] in `dtype`, for x [..., M, in]."""
        m, width = x.shape[-2:]
        kernel = self.param("kernel", self.kernel_init, (m, width, self.features), jnp.float32)
        # Tokens first: XLA on a CPU has no bfloat16 product whose batch axis is in the middle, and
        # takes twice as long for float32, forward and backward.
        x_MnI = jnp.swapaxes(x.astype(self.dtype).reshape(-1, m, width), 0, 1)
        y_MnF = jax.vmap(linear_product(self.dtype))(x_MnI, kernel.astype(self.dtype))
        y = jnp.swapaxes(y_MnF, 0, 1).reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            zeros = nn.initializers.zeros_init()
            bias = self.param("bias", zeros, (m, self.features), jnp.float32)
            # Cast after the broadcast: the gradient of the bias is a sum over rows, in float32.
            y += jnp.broadcast_to(bias, y.shape).astype(y.dtype)
        return y


class PerTokenMLP(nn.Module):
    """y_m = f(x_m U_m + b_m) V_m + d_m, with U [M, D, hidden] and V [M, hidden, D]."""

    hidden: int
    activation: Nonlinearity = nn.gelu
    use_bias: bool = True
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, D] in `dtype`, for x [..., M, D]."""
        up = PerTokenLinear(self.hidden, self.use_bias, dtype=self.dtype, name="up")
        down = PerTokenLinear(x.shape[-1], self.use_bias, dtype=self.dtype, name="down")
        y: jax.Array = down(self.activation(up(x)))
        return y


class PerTokenGLU(nn.Module):
    """y_m = (f(x_m U_m + b_m) * (x_m V_m + c_m)) W_m + d_m; SwiGLU if f is SiLU.

    U and V are [M, D, hidden], W is [M, hidden, D].

    down_init: initial standard deviation of W relative to hidden^-1/2.
    """

    hidden: int
    activation: Nonlinearity = nn.silu
    down_init: float = 1.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, D] in `dtype`, for x [..., M, D]."""
        up = PerTokenLinear(self.hidden, use_bias=True, dtype=self.dtype, name="up")
        value = PerTokenLinear(self.hidden, use_bias=True, dtype=self.dtype, name="value")
        down = PerTokenLinear(
            x.shape[-1],
            use_bias=True,
            dtype=self.dtype,
            kernel_init=fan_in_normal(self.down_init),
            name="down",
        )
        y: jax.Array = down(self.activation(up(x)) * value(x))
        return y


def mix_tokens(x: jax.Array) -> jax.Array:
    """Return token mixing with M heads: piece t of token m becomes piece m of token t.

    It is its own inverse, and x + mix_tokens(x) is symmetric in (t, m): of its M D entries,
    D (M + 1) / 2 are independent.

    Args:
        x: [..., M, D], where M divides D.
    """
    m, width = x.shape[-2:]
    blocks = x.reshape(*x.shape[:-1], m, width // m)
    return jnp.swapaxes(blocks, -3, -2).reshape(x.shape)
