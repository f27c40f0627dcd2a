"""Adapters for logs of several formats, read in batches and checked against the schema."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.data.sources.canonical import canonical_source as canonical_source
    from ligr_jax.data.sources.formats import FORMATS as FORMATS
    from ligr_jax.data.sources.formats import open_source as open_source
    from ligr_jax.data.sources.kuairand import kuairand_source as kuairand_source
    from ligr_jax.data.sources.label_rules import LabelRule as LabelRule
    from ligr_jax.data.sources.label_rules import parse_label as parse_label
    from ligr_jax.data.sources.movielens import movielens_source as movielens_source
    from ligr_jax.data.sources.source import Fault as Fault
    from ligr_jax.data.sources.source import ItemSource as ItemSource
    from ligr_jax.data.sources.source import LogBatch as LogBatch
    from ligr_jax.data.sources.source import LogSource as LogSource
    from ligr_jax.data.sources.table_columns import TableColumns as TableColumns
    from ligr_jax.data.sources.text_options import TextOptions as TextOptions
    from ligr_jax.data.sources.times import TimeOptions as TimeOptions
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "FORMATS": "formats",
            "Fault": "source",
            "ItemSource": "source",
            "LabelRule": "label_rules",
            "LogBatch": "source",
            "LogSource": "source",
            "TableColumns": "table_columns",
            "TextOptions": "text_options",
            "TimeOptions": "times",
            "canonical_source": "canonical",
            "kuairand_source": "kuairand",
            "movielens_source": "movielens",
            "open_source": "formats",
            "parse_label": "label_rules",
        },
    )
