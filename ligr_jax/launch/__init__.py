"""Launching sweeps on schedulers: templates, a manifest with stable names, and submission."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.launch.launcher import launch as launch
    from ligr_jax.launch.manifest import Job as Job
    from ligr_jax.launch.manifest import Launch as Launch
    from ligr_jax.launch.manifest import read_launch as read_launch
    from ligr_jax.launch.manifest import read_launches as read_launches
    from ligr_jax.launch.options import LaunchOptions as LaunchOptions
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Job": "manifest",
            "Launch": "manifest",
            "LaunchOptions": "options",
            "launch": "launcher",
            "read_launch": "manifest",
            "read_launches": "manifest",
        },
    )
