"""Preparation of a log: sorted member histories in memory-mapped shards."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.data.prepare.attach import attach_semantic_ids as attach_semantic_ids
    from ligr_jax.data.prepare.build import prepare as prepare
    from ligr_jax.data.prepare.options import PrepareOptions as PrepareOptions
    from ligr_jax.data.prepare.options import parse_duration as parse_duration
    from ligr_jax.data.prepare.options import parse_time as parse_time
    from ligr_jax.data.prepare.splits import SplitTimes as SplitTimes
    from ligr_jax.data.prepare.summary import format_summary as format_summary
    from ligr_jax.data.prepare.summary import load_log_summary as load_log_summary
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "PrepareOptions": "options",
            "SplitTimes": "splits",
            "attach_semantic_ids": "attach",
            "format_summary": "summary",
            "load_log_summary": "summary",
            "parse_duration": "options",
            "parse_time": "options",
            "prepare": "build",
        },
    )
