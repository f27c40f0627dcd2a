"""Embedding tables: V rows of E columns each, row 0 for "missing"."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig, escape

TABLES = "tables"  # name of the group of a model's parameters with its tables
ROWS = "rows"  # collection of variables with the rows of a batch, used in place of full tables


class Tables(nn.Module):
    """All tables of a model, float32 [V, E] by name, and the lookup of all features.

    Rows are initialized with a normal distribution of standard deviation `table_init`, 0 for
    E^-1/2. Rows with few training impressions stay near their initial values, so a small value
    makes them nearly neutral. Columns of effects start as zero.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, ids: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Return embeddings float32 [B, N, E] by feature.

        With a collection `rows` of [n, U, E] by table, ids are indices into those rows (see
        `embed`), and the full tables are not needed.

        Args:
            ids: int32 [B, N] in 0..V-1 by feature, or [B, N, L] if the feature combines
                several ids; -1 is no id.
        """
        c = self.config
        rows_nUE: dict[str, jax.Array] = {}
        for name, (rows, width) in c.tables.items():
            if self.has_variable(ROWS, name):
                rows_nUE[name] = self.get_variable(ROWS, name)
            else:
                init = partial(_init_rows, c.table_init or width**-0.5, c.effects.get(name, 0))
                rows_nUE[name] = self.param(escape(name), init, (rows, width))[None]
        return {
            name: embed(rows_nUE[c.table_of(name)], ids[name], feature.combine)
            for name, feature in c.features.items()
            if feature.has_table
        }


def _init_rows(stddev: float, effects: int, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Draw normal rows; the last `effects` columns are zero."""
    return stddev * jax.random.normal(key, shape).at[:, shape[1] - effects :].set(0)


def embed(rows_nUE: jax.Array, ids: jax.Array, combine: str = "") -> jax.Array:
    """Look up rows, float32 [B, N, E]; each of n equal parts of the batch has its own rows.

    Args:
        rows_nUE: rows of each part; row b of the batch uses part b n // B. On a mesh each device
            has the rows of its own part, so the lookup needs no communication.
        ids: int32 [B, N], indices into the rows; or [B, N, L] with -1 for no id.
        combine: "sum" or "mean" over L; "" without L. A bag without ids gives zeros.
    """
    parts = ids.reshape(len(rows_nUE), -1, *ids.shape[1:])
    if not combine:
        rows_BNE: jax.Array = jax.vmap(lambda rows, i: rows[i])(rows_nUE, parts)
        return rows_BNE.reshape(*ids.shape, -1)
    # -1 would index the last row, so missing ids are moved out of range and filled with zeros.
    index = jnp.where(parts >= 0, parts, rows_nUE.shape[1])
    rows = jax.vmap(lambda rows, i: rows.at[i].get(mode="fill", fill_value=0))(rows_nUE, index)
    total_BNE: jax.Array = rows.reshape(*ids.shape, -1).sum(axis=-2)
    if combine == "sum":
        return total_BNE
    count_BN = (ids >= 0).sum(axis=-1)
    return total_BNE / jnp.maximum(count_BN, 1)[..., None]


def is_table(path: tuple[object, ...]) -> bool:
    """Return whether a parameter path is a table, which has its own optimizer."""
    return str(getattr(path[0], "key", path[0])) == TABLES
