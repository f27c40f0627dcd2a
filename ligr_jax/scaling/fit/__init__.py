"""Laws fitted to tables of runs, with bootstrap intervals. NumPy and SciPy only; no JAX.

fit_power       L(C) = E + A C^-alpha                  what a loss does with compute
fit_saturating  ceiling - A C^-alpha                   what AUC does over many decades
fit_line        level + slope log10 C                  and over the few one can afford
"""

from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, budgets, resample
from ligr_jax.scaling.fit.holdout import LeftOut, leave_out_largest
from ligr_jax.scaling.fit.law import Law
from ligr_jax.scaling.fit.line import fit_line
from ligr_jax.scaling.fit.power import fit_power, fit_saturating
from ligr_jax.scaling.fit.surface import SurfaceLaw, effective_data, fit_surface

__all__ = [
    "CONFIDENCE",
    "Law",
    "LeftOut",
    "SurfaceLaw",
    "budgets",
    "effective_data",
    "fit_line",
    "fit_power",
    "fit_saturating",
    "fit_surface",
    "leave_out_largest",
    "resample",
]
