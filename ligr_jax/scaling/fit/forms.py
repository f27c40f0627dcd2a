"""Forms of laws: sums of powers with a floor, tied exponents, families, and repeated data.

    families    E_f + A C^-alpha, or E_f + A N^-alpha + B D^-beta   a floor (or a factor) per family
    rising      ceiling - A N^-alpha - B D^-beta a metric below 1 that rises (AUC, NDCG)
    tied        E + A N^-alpha + B D^-alpha      over-trained models (Gadre et al. 2024, equation 4:
                E + (a M^eta + b M^-eta) C^-eta with M = D / N and eta = alpha / 2)
    repeated    E + A N'^-alpha + B D'^-beta     worth of repeated data and of excess parameters
                (Muennighoff et al. 2023, section 3.1, with R_D and R_N)
    overfitted  E + A N^-alpha + B D^-beta + C (N r / U)^gamma      a loss that turns up after r
                repeats of U distinct data; the last term is ours

A form has a list of terms (see `terms`); `fit_form` fits all of them by one procedure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligr_jax.scaling.fit.powers import ALPHA, LOG_ZERO, Array
from ligr_jax.scaling.fit.terms import Term, constant, fading, log_of_sum, power

DECAY = (1e-2, 1e4)  # bounds of R_D and R_N in the search, in repeats


class Power(NamedTuple):
    """A term A X^(sign alpha), by the names of A, alpha and X."""

    coefficient: str
    exponent: str
    scale: str
    sign: float = -1.0


@dataclass(frozen=True)
class Form:
    """A sum of powers and a floor E.

    Attributes:
        name: name of the form.
        powers: the terms; two with one exponent are tied.
        decays: R_D, or R_D and R_N: repeated data and excess parameters count for less.
        differ: what each family of runs has of its own: "floor" E_f, or "factor" on the whole law.
        rises: the law is that of 1 - metric.
    """

    name: str
    powers: tuple[Power, ...]
    decays: tuple[str, ...] = ()
    differ: str = ""
    rises: bool = False

    @property
    def coefficients(self) -> list[str]:
        return [p.coefficient for p in self.powers]

    @property
    def exponents(self) -> list[str]:
        return list(dict.fromkeys(p.exponent for p in self.powers))

    def names(self, families: Sequence[str]) -> list[str]:
        """Return the names of the coordinates of theta, in order."""
        floors = [f"E[{f}]" for f in families] if self.differ == "floor" else ["E"]
        factors = [f"factor[{f}]" for f in families[1:]] if self.differ == "factor" else []
        return [*self.coefficients, *self.exponents, *floors, *self.decays, *factors]

    def box(self, y: Array, names: Sequence[str]) -> tuple[Array, Array]:
        """Return lower and upper bounds of theta; y: log metrics."""
        zero = y.min() - LOG_ZERO
        bounds = dict.fromkeys(names, (zero, y.max()))
        bounds |= dict.fromkeys(self.coefficients, (zero, y.max() + 1.0))
        bounds |= dict.fromkeys(self.exponents, (np.log(ALPHA[0]), np.log(ALPHA[1])))
        bounds |= dict.fromkeys(self.decays, (np.log(DECAY[0]), np.log(DECAY[1])))
        bounds |= {n: (-5.0, 5.0) for n in names if n.startswith("factor")}
        low, high = np.array([bounds[n] for n in names]).T
        return low, high


@dataclass(frozen=True)
class Points:
    """What a form needs of the runs, in centred logs.

    Attributes:
        logs: log of each scale minus its centre, (n,) each; -inf where the scale is 0.
        repeats: d / unique - 1, (n,).
        family: index of each run's family, (n,).
        names: names of the coordinates of theta.
    """

    logs: dict[str, Array]
    repeats: Array
    family: NDArray[np.int64]
    names: tuple[str, ...]

    def centred(self, centre: Mapping[str, float]) -> "Points":
        return replace(self, logs={k: x - centre[k] for k, x in self.logs.items()})

    def log_metric(self, form: Form, theta: Array) -> tuple[Array, Array]:
        """Return log L, (B, n), and its derivatives, (B, p, n)."""
        at = {name: k for k, name in enumerate(self.names)}
        terms = [
            power(
                theta, at[p.coefficient], at[p.exponent], self.scale(form, theta, p.scale), p.sign
            )
            for p in form.powers
        ]
        first = len(form.coefficients) + len(form.exponents)
        floors = first + self.family * (form.differ == "floor")
        log_l, jac = log_of_sum([*terms, constant(theta, floors)], len(self.names))
        factors = [k for k, name in enumerate(self.names) if name.startswith("factor")]
        for family, k in enumerate(factors, start=1):  # the first family's factor is 1
            inside = (self.family == family).astype(float)
            log_l = log_l + theta[:, k, None] * inside
            jac[:, k] += inside
        return log_l, jac

    def scale(self, form: Form, theta: Array, name: str) -> Term:
        """Return the log of a scale, or of what it is worth, (B, n)."""
        at = {n: k for k, n in enumerate(self.names)}
        scale = Term(np.broadcast_to(self.logs[name], (len(theta), len(self.repeats))))
        if name == "d" and "R_D" in form.decays:
            return fading(theta, at["R_D"], scale, self.repeats)
        if name == "n" and "R_N" in form.decays:
            return self._worth_of_parameters(theta, at)
        return scale

    def _worth_of_parameters(self, theta: Array, at: dict[str, int]) -> Term:
        """Return log N', where N beyond the best size for U distinct data counts as repeats of it.

        The best size U_N for U data solves alpha A U_N^-alpha = beta B U^-beta.
        """
        a, b, u, v = (theta[:, at[k], None] for k in ("A", "B", "alpha", "beta"))
        alpha = np.exp(u)
        beta = np.exp(v)
        n = self.logs["n"]
        rise = beta * self.logs["d"]
        best = (u - v + a - b + rise) / alpha
        excess = np.expm1(np.clip(n - best, 0.0, 50.0))
        worth = fading(theta, at["R_N"], Term(best), excess)
        # Chain rule: `excess` falls with `best` where N is beyond it, and N' = N elsewhere.
        decay = np.exp(theta[:, at["R_N"], None])
        faded = np.exp(-excess / decay)
        inner = 1.0 - (1.0 + excess) * faded / (1.0 + decay * (1.0 - faded))
        beyond = n > best
        slopes = {
            "A": inner / alpha,
            "B": -inner / alpha,
            "alpha": inner * (1.0 / alpha - best),
            "beta": inner * (rise - 1.0) / alpha,
        }
        return Term(
            np.where(beyond, worth.log, n),
            [(k, np.where(beyond, d, 0.0)) for k, d in worth.slopes]
            + [(at[k], np.where(beyond, d, 0.0)) for k, d in slopes.items()],
        )


def form_points(
    form: Form, values: Mapping[str, Array], member: NDArray[np.int64], families: Sequence[str]
) -> Points:
    """Return the logs of the scales of a form, not centred."""
    logs = {k: np.log(v) for k, v in values.items() if k != "unique"}
    repeats = np.zeros(len(member))
    if "unique" in values:
        seen = np.minimum(values["d"], values["unique"])
        repeats = values["d"] / seen - 1.0
        if form.decays:
            logs["d"] = np.log(seen)
        if "overfit" in [p.scale for p in form.powers]:
            with np.errstate(divide="ignore"):  # no repeats: the log of 0
                logs["overfit"] = np.log(values["n"] * repeats / seen)
    return Points(logs, repeats, member, tuple(form.names(families)))


IN_COMPUTE = (Power("A", "alpha", "compute"),)
IN_N_AND_D = (Power("A", "alpha", "n"), Power("B", "beta", "d"))
FORMS = {
    "families": Form(name="families", powers=IN_COMPUTE, differ="floor"),
    "surface": Form(name="surface", powers=IN_N_AND_D),
    "rising": Form(name="rising", powers=IN_N_AND_D, rises=True),
    "tied": Form(name="tied", powers=(Power("A", "alpha", "n"), Power("B", "alpha", "d"))),
    "repeated": Form(name="repeated", powers=IN_N_AND_D, decays=("R_D", "R_N")),
    "overfitted": Form(
        name="overfitted", powers=(*IN_N_AND_D, Power("C", "gamma", "overfit", sign=1.0))
    ),
}
