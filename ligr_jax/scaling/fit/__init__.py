"""Scaling laws fitted to tables of runs, with bootstrap intervals. NumPy and SciPy only; no JAX.

    fit_power       L(C) = E + A C^-alpha             a loss against compute
    fit_saturating  ceiling - A C^-alpha              AUC against compute, over many decades
    fit_line        level + slope log10 C             AUC against compute, over a few decades
    fit_surface     E + A N^-alpha + B D^-beta        a loss against parameters and data
    fit_isoflop     size_opt = coefficient C^exponent the best size at each compute budget
    fit_loglog      optimum = coefficient C^exponent  through optima that are given
    fit_factors     level + sum slope_k log2 X_k      a metric against width, depth, ...
    fit_form        any of `forms`                    families, tied exponents, repeated data

Each function takes arrays with one value per run and returns a law: parameters, intervals, and a
`predict` method with prediction intervals. `leave_out_largest` and `preregister` test predictions,
`noise_floor` estimates the smallest detectable difference, `compare` and `compare_slopes` compare
architectures.
"""

from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, budgets, resample
from ligr_jax.scaling.fit.compare import Comparison, compare
from ligr_jax.scaling.fit.equality import equality
from ligr_jax.scaling.fit.factors import FactorLaw, fit_factors
from ligr_jax.scaling.fit.form_fit import fit_form
from ligr_jax.scaling.fit.form_law import FormLaw
from ligr_jax.scaling.fit.forms import FORMS, Form
from ligr_jax.scaling.fit.holdout import LeftOut, leave_out_budgets, leave_out_largest
from ligr_jax.scaling.fit.isoflop import fit_isoflop
from ligr_jax.scaling.fit.isoflop_law import Budget, IsoFlop
from ligr_jax.scaling.fit.law import Law
from ligr_jax.scaling.fit.line import fit_line
from ligr_jax.scaling.fit.loglog import fit_loglog
from ligr_jax.scaling.fit.noise import Noise, noise_floor
from ligr_jax.scaling.fit.power import fit_power, fit_saturating
from ligr_jax.scaling.fit.registered import predict_run, preregister, score
from ligr_jax.scaling.fit.slopes import PairedDifference, SlopeComparison, compare_slopes
from ligr_jax.scaling.fit.surface import SurfaceLaw, effective_data, fit_surface

__all__ = [
    "CONFIDENCE",
    "FORMS",
    "Budget",
    "Comparison",
    "FactorLaw",
    "Form",
    "FormLaw",
    "IsoFlop",
    "Law",
    "LeftOut",
    "Noise",
    "PairedDifference",
    "SlopeComparison",
    "SurfaceLaw",
    "budgets",
    "compare",
    "compare_slopes",
    "effective_data",
    "equality",
    "fit_factors",
    "fit_form",
    "fit_isoflop",
    "fit_line",
    "fit_loglog",
    "fit_power",
    "fit_saturating",
    "fit_surface",
    "leave_out_budgets",
    "leave_out_largest",
    "noise_floor",
    "predict_run",
    "preregister",
    "resample",
    "score",
]
