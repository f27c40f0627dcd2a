"""Impression logs, prepared data, and batches. NumPy, polars, pyarrow and grain; no JAX."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.data.assemble import Assembler as Assembler
    from ligr_jax.data.assemble import check_columns as check_columns
    from ligr_jax.data.assemble import default_features as default_features
    from ligr_jax.data.bags import Bags as Bags
    from ligr_jax.data.batch import Batch as Batch
    from ligr_jax.data.dwell import DwellCounts as DwellCounts
    from ligr_jax.data.dwell import LongDwell as LongDwell
    from ligr_jax.data.dwell import clusters as clusters
    from ligr_jax.data.dwell import long_dwell as long_dwell
    from ligr_jax.data.dwell import position_bucket as position_bucket
    from ligr_jax.data.from_frame import FrameBatch as FrameBatch
    from ligr_jax.data.from_frame import batch_from_dicts as batch_from_dicts
    from ligr_jax.data.from_frame import batch_from_frame as batch_from_frame
    from ligr_jax.data.loader import LoaderError as LoaderError
    from ligr_jax.data.manifest import MISSING as MISSING
    from ligr_jax.data.manifest import ColumnStats as ColumnStats
    from ligr_jax.data.manifest import Manifest as Manifest
    from ligr_jax.data.manifest import Shard as Shard
    from ligr_jax.data.manifest import SplitStats as SplitStats
    from ligr_jax.data.manifest import load_manifest as load_manifest
    from ligr_jax.data.packing import make_packing_plan as make_packing_plan
    from ligr_jax.data.packing_plan import PackingPlan as PackingPlan
    from ligr_jax.data.pipeline import Process as Process
    from ligr_jax.data.pipeline import TrainBatches as TrainBatches
    from ligr_jax.data.pipeline import eval_batches as eval_batches
    from ligr_jax.data.pipeline import plan_for as plan_for
    from ligr_jax.data.pipeline import train_batches as train_batches
    from ligr_jax.data.records import Records as Records
    from ligr_jax.data.schema import BadInput as BadInput
    from ligr_jax.data.schema import Column as Column
    from ligr_jax.data.schema import LogSchema as LogSchema
    from ligr_jax.data.schema import load_schema as load_schema
    from ligr_jax.data.schema import save_schema as save_schema
    from ligr_jax.data.semantic_ids import SemanticIds as SemanticIds
    from ligr_jax.data.semantic_ids import prefix_ids as prefix_ids
    from ligr_jax.data.unique_ids import UniqueIdMapper as UniqueIdMapper
    from ligr_jax.data.unique_ids import UniqueIds as UniqueIds
    from ligr_jax.data.verify import DamagedData as DamagedData
    from ligr_jax.data.verify import require_undamaged as require_undamaged
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Assembler": "assemble",
            "BadInput": "schema",
            "Bags": "bags",
            "Batch": "batch",
            "Column": "schema",
            "ColumnStats": "manifest",
            "DamagedData": "verify",
            "DwellCounts": "dwell",
            "FrameBatch": "from_frame",
            "batch_from_dicts": "from_frame",
            "batch_from_frame": "from_frame",
            "LoaderError": "loader",
            "LogSchema": "schema",
            "LongDwell": "dwell",
            "MISSING": "manifest",
            "Manifest": "manifest",
            "PackingPlan": "packing_plan",
            "Process": "pipeline",
            "Records": "records",
            "SemanticIds": "semantic_ids",
            "Shard": "manifest",
            "SplitStats": "manifest",
            "TrainBatches": "pipeline",
            "UniqueIdMapper": "unique_ids",
            "UniqueIds": "unique_ids",
            "check_columns": "assemble",
            "clusters": "dwell",
            "default_features": "assemble",
            "eval_batches": "pipeline",
            "load_manifest": "manifest",
            "load_schema": "schema",
            "long_dwell": "dwell",
            "make_packing_plan": "packing",
            "plan_for": "pipeline",
            "position_bucket": "dwell",
            "prefix_ids": "semantic_ids",
            "require_undamaged": "verify",
            "save_schema": "schema",
            "train_batches": "pipeline",
        },
    )
