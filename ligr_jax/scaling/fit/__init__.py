"""Laws fitted to tables of runs, with bootstrap intervals. NumPy and SciPy only; no JAX.

    fit_power       L(C) = E + A C^-alpha             what a loss does with compute
    fit_saturating  ceiling - A C^-alpha              what AUC does over many decades
    fit_line        level + slope log10 C             and over the few one can afford
    fit_surface     E + A N^-alpha + B D^-beta        with parameters and data, repeated or not
    fit_isoflop     size_opt = coefficient C^exponent through the minima of each compute budget

Each takes arrays with one value per run and returns estimates with intervals that predict.
`leave_out_largest` and `register` test the predictions, `noise_floor` says what differences are
worth reading, `compare` sets architectures side by side.
"""

from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, budgets, resample
from ligr_jax.scaling.fit.compare import Comparison, compare
from ligr_jax.scaling.fit.holdout import LeftOut, leave_out_budgets, leave_out_largest
from ligr_jax.scaling.fit.isoflop import Budget, IsoFlop, fit_isoflop
from ligr_jax.scaling.fit.law import Law
from ligr_jax.scaling.fit.line import fit_line
from ligr_jax.scaling.fit.noise import Noise, noise_floor
from ligr_jax.scaling.fit.power import fit_power, fit_saturating
from ligr_jax.scaling.fit.registered import register, score
from ligr_jax.scaling.fit.surface import SurfaceLaw, effective_data, fit_surface

__all__ = [
    "CONFIDENCE",
    "Budget",
    "Comparison",
    "IsoFlop",
    "Law",
    "LeftOut",
    "Noise",
    "SurfaceLaw",
    "budgets",
    "compare",
    "effective_data",
    "fit_isoflop",
    "fit_line",
    "fit_power",
    "fit_saturating",
    "fit_surface",
    "leave_out_budgets",
    "leave_out_largest",
    "noise_floor",
    "register",
    "resample",
    "score",
]
