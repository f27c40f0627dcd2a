"""An embedding table: V rows of E columns, row 0 for "missing"."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

ROWS = "rows"  # collection of variables: rows of a batch, which stand in for whole tables


class Table(nn.Module):
    """Rows of a learned matrix, float32 [V, E]; every table of a model goes through this module.

    Attributes:
        rows: V. Ids are already rows: hashing happens in the input pipeline.
        width: E.
        stddev: of fresh rows; 0 for E^-1/2. Rows that few impressions train stay near what they
            start as: small ones say little where there is little data.
    """

    rows: int
    width: int
    stddev: float = 0.0

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """ids: int32 [...] in 0..V-1 -> float32 [..., E].

        Applied with a collection `rows` [U, E], ids are places in those: sparse training.
        """
        if self.has_variable(ROWS, "table"):
            return cast(jax.Array, self.get_variable(ROWS, "table"))[ids]
        init = nn.initializers.normal(stddev=self.stddev or self.width**-0.5)
        table = self.param("table", init, (self.rows, self.width), jnp.float32)
        return table[ids]


def is_table(path: tuple[object, ...]) -> bool:
    """Whether a parameter's path names a table: such parameters have their own optimizer."""
    return str(getattr(path[-1], "key", path[-1])) == "table"
