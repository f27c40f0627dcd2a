"""Sweeps of runs, scaling laws fitted to them, the report page, and the plan of the next run.

`runs`, `fit`, `report` and `plan` import no JAX and work on any table of runs.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.scaling.estimate import Estimate as Estimate
    from ligr_jax.scaling.estimate import Estimator as Estimator
    from ligr_jax.scaling.ladder import DEMO as DEMO
    from ligr_jax.scaling.ladder import PAPER as PAPER
    from ligr_jax.scaling.ladder import Ladder as Ladder
    from ligr_jax.scaling.ladder import configure as configure
    from ligr_jax.scaling.predict import predict_largest as predict_largest
    from ligr_jax.scaling.runner import run_sweep as run_sweep
    from ligr_jax.scaling.sweep import Point as Point
    from ligr_jax.scaling.sweep import plan_points as plan_points
    from ligr_jax.scaling.sweep import read_sweep as read_sweep
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "DEMO": "ladder",
            "Estimate": "estimate",
            "Estimator": "estimate",
            "Ladder": "ladder",
            "PAPER": "ladder",
            "Point": "sweep",
            "configure": "ladder",
            "plan_points": "sweep",
            "predict_largest": "predict",
            "read_sweep": "sweep",
            "run_sweep": "runner",
        },
    )
