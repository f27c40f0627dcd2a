"""Run directories: the only writer and reader of their files, the W&B mirror, and the run table."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.runs.directory import load_config as load_config
    from ligr_jax.runs.directory import load_summary as load_summary
    from ligr_jax.runs.files import RunFiles as RunFiles
    from ligr_jax.runs.rows import read_rows as read_rows
    from ligr_jax.runs.table import Runs as Runs
    from ligr_jax.runs.table import read_runs as read_runs
    from ligr_jax.runs.tracker import Tracker as Tracker
    from ligr_jax.runs.tracker import tracking as tracking
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "RunFiles": "files",
            "Runs": "table",
            "Tracker": "tracker",
            "load_config": "directory",
            "load_summary": "directory",
            "read_rows": "rows",
            "read_runs": "table",
            "tracking": "tracker",
        },
    )
