"""Linear maps with a matrix of its own for each of the M tokens of an impression.

The fan-in of such a matrix is its number of rows, never that of all M matrices together: an
initializer that takes the axis of tokens as part of the fan-in makes branches M^1/2 times too small
or worse. Modules that hold these matrices are named `per_token`, by which muP finds them
(`ligr_jax.nn.mup`).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import linear_product


class PerTokenLinear(nn.Module):
    """y_m = x_m W_m over the last axis, with W float32 [M, in, features], computed in `dtype`."""

    features: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, features] in `dtype`, for x [..., M, in]."""
        m, width = x.shape[-2:]
        init = nn.initializers.lecun_normal(batch_axis=0)
        kernel = self.param("kernel", init, (m, width, self.features), jnp.float32)
        # Tokens first: XLA on a CPU has no bfloat16 product whose batch axis is in the middle.
        x_MnI = jnp.swapaxes(x.astype(self.dtype).reshape(-1, m, width), 0, 1)
        y_MnF = jax.vmap(linear_product(self.dtype))(x_MnI, kernel.astype(self.dtype))
        return jnp.swapaxes(y_MnF, 0, 1).reshape(*x.shape[:-1], self.features)
