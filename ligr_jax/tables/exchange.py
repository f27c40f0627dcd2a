"""A step's traffic with the tables: rows to the model, gradients back, rows moved in place.

`look_up` before the model and `merge` and `update` after it see all tables at once, wherever they
lie (`placements` has what each placement sends). They run under the mesh of `jax.set_mesh`; a
layout of one device needs none.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ligr_jax.data.distinct import Distinct
from ligr_jax.tables.layout import PARTS, Layout
from ligr_jax.tables.placements import EXCHANGES, Arrays, Lists, Replicated, Whole
from ligr_jax.tables.sparse import RowRule, State, update_rows

EVERYWHERE = P()


def look_up(layout: Layout, arrays: Arrays, own: Arrays) -> dict[str, jax.Array]:
    """Rows float32 [n, u, E] by table, each device those of its part of the batch.

    Args:
        arrays: the stored arrays.
        own: int32 [n, u] by table, as in `Distinct`.
    """

    def on_device(arrays: Arrays, own: Arrays) -> dict[str, jax.Array]:
        mine = {t: ids[0] for t, ids in own.items()}
        rows: dict[str, jax.Array] = {}
        for name, exchange in _exchanges(layout):
            rows |= exchange.look_up(arrays[name], mine)
        return {t: rows[t][None] for t in own}

    specs = (_specs(layout, arrays), dict.fromkeys(own, PARTS))
    return _on_mesh(layout, on_device, specs, dict.fromkeys(own, PARTS))(arrays, own)


def agree(lists: Lists, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Distinct]:
    """Lists in which every device knows the distinct rows of the whole batch.

    Several processes each know those of their own part only; their lists are gathered here.
    """

    def agreed(own: jax.Array, v: int) -> Distinct:
        every = jax.lax.with_sharding_constraint(own, EVERYWHERE).reshape(-1)
        count = min(v, every.size)
        found, place = jnp.unique(
            jnp.minimum(every, v), size=count + 1, fill_value=v, return_inverse=True
        )
        rows = jnp.where(found < v, found, v + jnp.arange(count + 1, dtype=jnp.int32))[:count]
        at = jnp.where(every < v, place, count).astype(jnp.int32).reshape(own.shape)
        return Distinct(own, rows.astype(jnp.int32), at)

    return {
        t: given if given.rows is not None else agreed(given.own, shapes[t][0])
        for t, given in lists.items()
    }


def merge(layout: Layout, gradients: Arrays, lists: Lists) -> dict[str, jax.Array]:
    """Gradients of rows by stored array, summed over the batch; an element is there once.

    Args:
        gradients: [n, u, E] by table, of what `look_up` gave.
    """

    def on_device(gradients: Arrays, lists: Lists) -> dict[str, jax.Array]:
        mine, own = _mine(lists), {t: g[0] for t, g in gradients.items()}
        return {name: exchange.merge(own, mine) for name, exchange in _exchanges(layout)}

    merged = {name: exchange.merged for name, exchange in _exchanges(layout)}
    specs = (dict.fromkeys(gradients, PARTS), _list_specs(lists))
    return _on_mesh(layout, on_device, specs, merged)(gradients, lists)


def update(
    layout: Layout,
    rule: RowRule,
    arrays: Arrays,
    states: Mapping[str, State],
    lists: Lists,
    gradients: Arrays,
    rate: jax.Array,
    decay: float,
    step: jax.Array,
    good: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, State]]:
    """Stored arrays and their optimizer's state after a step; nothing is written unless `good`.

    Args:
        gradients: what `merge` gave.
        decay: decoupled weight decay of the rows looked up.
    """

    def on_device(
        arrays: Arrays, states: Any, lists: Lists, gradients: Arrays, *scalars: jax.Array
    ) -> Any:
        rate, step, good = scalars
        mine, moved, kept = _mine(lists), {}, {}
        for name, exchange in _exchanges(layout):
            ids, v = exchange.local_rows(mine), len(arrays[name])
            # No condition around tables, or XLA would copy them: a bad step's rows are nobody's.
            here = good & (ids >= 0) & (ids < v)
            moved[name], kept[name] = update_rows(
                rule,
                arrays[name],
                states[name],
                jnp.where(here, ids, v + jnp.arange(len(ids), dtype=ids.dtype)),
                gradients[name],
                rate,
                decay,
                step,
                exchange.mean,
                rising=exchange.rising,
            )
        return moved, kept

    stored = (_specs(layout, arrays), _specs(layout, states))
    merged = {name: exchange.merged for name, exchange in _exchanges(layout)}
    specs = (*stored, _list_specs(lists), merged, EVERYWHERE, EVERYWHERE, EVERYWHERE)
    on_mesh = _on_mesh(layout, on_device, specs, stored)
    result: Any = on_mesh(arrays, states, lists, gradients, rate, step, good)
    return result


def _exchanges(layout: Layout) -> list[tuple[str, Replicated | Whole]]:
    return [(n, EXCHANGES[s.placement](n, layout)) for n, s in layout.arrays.items()]


def _mine(lists: Lists) -> dict[str, Distinct]:
    return {t: Distinct(d.own[0], d.rows, d.place[0]) for t, d in lists.items()}


def _specs(layout: Layout, arrays: Mapping[str, Any]) -> Any:
    return {
        name: jax.tree.map(lambda x, s=layout.arrays[name]: s.spec(x.ndim), tree)
        for name, tree in arrays.items()
    }


def _list_specs(lists: Lists) -> dict[str, Distinct]:
    return {t: Distinct(PARTS, EVERYWHERE, PARTS) for t in lists}


def _on_mesh(
    layout: Layout, function: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    if layout.devices == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
