"""What an export takes from the state of a run: tables, dense parameters and single rows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.parallel.mesh import replicated
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.pieces import Source
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.state import TrainState


class SparseRows(NamedTuple):
    """Some rows of a table.

    Attributes:
        ids: int64 [n], increasing.
        rows: float32 [n, E].
    """

    ids: np.ndarray
    rows: np.ndarray

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Return rows of any shape of ids; any row for an id that is absent, as for padding."""
        index = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        result: np.ndarray = self.rows[index]
        return result


def table_sources(layout: Layout, state: TrainState) -> Iterator[Source]:
    """Yield every table of a run without its padding rows."""
    arrays = split_tables(state.params)[1]
    for name, span in layout.spans.items():
        array = arrays[span.stored]
        if layout.arrays[span.stored].placement == "table_wise":
            array = array[span.first : span.first + span.rows]
        yield Source(name, array, span.rows, span.width)


def dense_variables(evaluator: Evaluator, state: TrainState) -> dict[str, Any]:
    """Return dense parameters and batch statistics on the host; every process calls this."""
    tree = {"params": split_tables(state.params)[0], STATISTICS: state.stats}
    whole = jax.jit(lambda x: x, out_shardings=replicated(evaluator.mesh))(tree)
    variables: dict[str, Any] = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole)
    return variables


def rows_of_batch(evaluator: Evaluator, state: TrainState, batch: Batch) -> dict[str, SparseRows]:
    """Return the rows, as trained, that a batch looks up; every process calls this.

    Args:
        evaluator: evaluator of the run.
        state: state of the run.
        batch: equal in all processes; its ids are rows of tables.
    """
    model = evaluator.config.model
    take = jax.jit(lambda table, ids: table[ids], out_shardings=replicated(evaluator.mesh))
    rows = {}
    for source in table_sources(evaluator.layout, state):
        users = [
            name
            for name, feature in model.features.items()
            if feature.has_table and model.table_of(name) == source.name
        ]
        ids = np.unique(np.concatenate([batch.ids[name].ravel() for name in users]))
        ids = ids[ids >= 0] if (ids >= 0).any() else np.zeros(1, ids.dtype)
        taken = take(source.array, ids)
        values = np.asarray(taken.addressable_data(0))[:, : source.width]
        rows[source.name] = SparseRows(ids=ids, rows=values)
    return rows
