"""Embedding tables: layout on a mesh, lookup, sparse optimizers, planner, and export."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.tables.exchange import StoredTables as StoredTables
    from ligr_jax.tables.exchange import TableGrads as TableGrads
    from ligr_jax.tables.exchange import gather_rows as gather_rows
    from ligr_jax.tables.exchange import reduce_row_grads as reduce_row_grads
    from ligr_jax.tables.exchange import sync_unique_ids as sync_unique_ids
    from ligr_jax.tables.exchange import update_tables as update_tables
    from ligr_jax.tables.exported import ExportedTable as ExportedTable
    from ligr_jax.tables.layout import Layout as Layout
    from ligr_jax.tables.placements import ColumnWise as ColumnWise
    from ligr_jax.tables.placements import Replicated as Replicated
    from ligr_jax.tables.placements import RowWise as RowWise
    from ligr_jax.tables.placements import TableWise as TableWise
    from ligr_jax.tables.planner import TablePlan as TablePlan
    from ligr_jax.tables.planner import plan_tables as plan_tables
    from ligr_jax.tables.sparse import SPARSE_OPTIMIZERS as SPARSE_OPTIMIZERS
    from ligr_jax.tables.sparse import RowGrads as RowGrads
    from ligr_jax.tables.sparse import SparseOptimizer as SparseOptimizer
    from ligr_jax.tables.sparse import UpdateScalars as UpdateScalars
    from ligr_jax.tables.sparse import adagrad as adagrad
    from ligr_jax.tables.sparse import lazy_adam as lazy_adam
    from ligr_jax.tables.sparse import rowwise_adagrad as rowwise_adagrad
    from ligr_jax.tables.sparse import sgd as sgd
    from ligr_jax.tables.table import Tables as Tables
    from ligr_jax.tables.table import embed as embed
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "ColumnWise": "placements",
            "ExportedTable": "exported",
            "Layout": "layout",
            "Replicated": "placements",
            "RowGrads": "sparse",
            "RowWise": "placements",
            "SPARSE_OPTIMIZERS": "sparse",
            "SparseOptimizer": "sparse",
            "StoredTables": "exchange",
            "TableGrads": "exchange",
            "TablePlan": "planner",
            "TableWise": "placements",
            "Tables": "table",
            "UpdateScalars": "sparse",
            "adagrad": "sparse",
            "embed": "table",
            "gather_rows": "exchange",
            "lazy_adam": "sparse",
            "plan_tables": "planner",
            "reduce_row_grads": "exchange",
            "rowwise_adagrad": "sparse",
            "sgd": "sparse",
            "sync_unique_ids": "exchange",
            "update_tables": "exchange",
        },
    )
