"""Sweeps of runs, scaling laws fitted to them, the report page, and the plan of the next run.

`fit`, `report` and `plan` import no JAX and work on any table of runs
(`ligr_jax.runs.table.read_runs`).
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.scaling.estimate import Estimate as Estimate
    from ligr_jax.scaling.estimate import Estimator as Estimator
    from ligr_jax.scaling.fit import Law as Law
    from ligr_jax.scaling.fit import fit_isoflop as fit_isoflop
    from ligr_jax.scaling.fit import fit_line as fit_line
    from ligr_jax.scaling.fit import fit_power as fit_power
    from ligr_jax.scaling.fit import fit_saturating as fit_saturating
    from ligr_jax.scaling.fit import fit_surface as fit_surface
    from ligr_jax.scaling.fit import leave_out_largest as leave_out_largest
    from ligr_jax.scaling.fit import preregister as preregister
    from ligr_jax.scaling.ladder import PRESETS as PRESETS
    from ligr_jax.scaling.ladder import Ladder as Ladder
    from ligr_jax.scaling.ladder import configure as configure
    from ligr_jax.scaling.plan import PlanRequest as PlanRequest
    from ligr_jax.scaling.plan import make_plan as make_plan
    from ligr_jax.scaling.report import write_report as write_report
    from ligr_jax.scaling.runner import run_sweep as run_sweep
    from ligr_jax.scaling.shipped import shipped_sweeps as shipped_sweeps
    from ligr_jax.scaling.sweep import Point as Point
    from ligr_jax.scaling.sweep import PointSpec as PointSpec
    from ligr_jax.scaling.sweep import plan_points as plan_points
    from ligr_jax.scaling.sweep import read_sweep as read_sweep
    from ligr_jax.scaling.sweep import select_points as select_points
    from ligr_jax.scaling.verify import CheckResult as CheckResult
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "CheckResult": "verify",
            "Estimate": "estimate",
            "Estimator": "estimate",
            "Ladder": "ladder",
            "Law": "fit",
            "PRESETS": "ladder",
            "PlanRequest": "plan",
            "Point": "sweep",
            "PointSpec": "sweep",
            "configure": "ladder",
            "fit_isoflop": "fit",
            "fit_line": "fit",
            "fit_power": "fit",
            "fit_saturating": "fit",
            "fit_surface": "fit",
            "leave_out_largest": "fit",
            "make_plan": "plan",
            "plan_points": "sweep",
            "preregister": "fit",
            "read_sweep": "sweep",
            "run_sweep": "runner",
            "select_points": "sweep",
            "shipped_sweeps": "shipped",
            "write_report": "report",
        },
    )
