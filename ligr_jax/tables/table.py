"""Embedding tables: V rows of E columns each, row 0 for "missing", looked up for all features."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig, escape

TABLES = "tables"  # the group of a model's parameters that holds its tables
ROWS = "rows"  # collection of variables: rows of a batch, which stand in for whole tables


class Tables(nn.Module):
    """Every table of a model, float32 [V, E] by name, and what the features find in them.

    Fresh rows are normal with standard deviation `table_init`, 0 for E^-1/2: rows that few
    impressions train stay near what they start as, and small ones say little. Columns that are
    effects start as zero.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, ids: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Embeddings float32 [B, N, E] by feature.

        Applied with a collection `rows` [n, U, E] by table, ids are places in those lists (`embed`)
        and no whole table is needed.

        Args:
            ids: int32 [B, N] in 0..V-1 by feature, or [B, N, L] where the feature combines several;
                -1 is none.
        """
        c = self.config
        lists: dict[str, jax.Array] = {}
        for name, (rows, width) in c.tables.items():
            if self.has_variable(ROWS, name):
                lists[name] = self.get_variable(ROWS, name)
            else:
                init = partial(_fresh, c.table_init or width**-0.5, c.effects.get(name, 0))
                lists[name] = self.param(escape(name), init, (rows, width))[None]
        return {
            name: embed(lists[c.table_of(name)], ids[name], feature.combine)
            for name, feature in c.features.items()
            if feature.has_table
        }


def _fresh(stddev: float, effects: int, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return stddev * jax.random.normal(key, shape).at[:, shape[1] - effects :].set(0)


def embed(lists: jax.Array, ids: jax.Array, combine: str = "") -> jax.Array:
    """Rows of a list, float32 [B, N, E]: a batch in n equal parts looks up n lists.

    Args:
        lists: [n, U, E]; row b of the batch looks up list b n // B. On a mesh each device has the
            list of its own part, and nothing is sent.
        ids: int32 [B, N], places in the list; [B, N, L] for `combine` = "sum" or "mean" over L,
            where -1 is no id. A bag without ids is zero.
    """
    parts = ids.reshape(len(lists), -1, *ids.shape[1:])
    if not combine:
        return jax.vmap(lambda rows, i: rows[i])(lists, parts).reshape(*ids.shape, -1)
    there = ids >= 0
    at = jnp.where(parts >= 0, parts, lists.shape[1])
    rows = jax.vmap(lambda rows, i: rows.at[i].get(mode="fill", fill_value=0))(lists, at)
    total = rows.reshape(*ids.shape, -1).sum(axis=-2)
    if combine == "sum":
        return total
    return total / jnp.maximum(there.sum(axis=-1), 1)[..., None]


def is_table(path: tuple[object, ...]) -> bool:
    """Whether a parameter's path names a table: such parameters have their own optimizer."""
    return str(getattr(path[0], "key", path[0])) == TABLES
