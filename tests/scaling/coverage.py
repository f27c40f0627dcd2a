"""How often nominal 90 % intervals contain the truth, by simulation of every form.

`python -m tests.scaling.coverage [TRIALS] [FORM ...]` prints the coverage that docstrings quote:
normal noise, heavy tails (Student's t with 2 degrees of freedom), few runs, and for iso-FLOP wide
asymmetric grids. A trial is one simulated study, with its own seed.
"""

import sys
from collections.abc import Callable

import numpy as np

from ligr_jax.scaling.fit import (
    FORMS,
    fit_factors,
    fit_form,
    fit_isoflop,
    fit_loglog,
    fit_power,
)

E, A, B, ALPHA, BETA = 1.8, 480.0, 2085.0, 0.35, 0.37
R_D, R_N = 15.4, 5.3


def noise(rng, size, kind, scale=5e-3):
    """Relative noise of runs: normal, or Student's t of equal scale."""
    return scale * (rng.standard_t(2, size) if kind == "heavy" else rng.normal(size=size))


def points(rng, m):
    n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), m))
    return n, np.exp(rng.uniform(np.log(3e8), np.log(1e12), m))


def worth(n, d, unique):
    """N and D after Muennighoff et al. 2023, equations 5 and 6."""
    seen = np.minimum(d, unique)
    best = np.minimum(n, (ALPHA * A / (BETA * B) * seen**BETA) ** (1 / ALPHA))
    n = best + best * R_N * (1 - np.exp(-(n / best - 1) / R_N))
    return n, seen + seen * R_D * (1 - np.exp(-(d / seen - 1) / R_D))


def surface(n, d, floor=E):
    return floor + A * n**-ALPHA + B * d**-BETA


def intervals(law, truth):
    spans = {k: law.intervals.get(k, (np.nan, np.nan)) for k in truth}
    return {k: spans[k][0] <= v <= spans[k][1] for k, v in truth.items()}


def predicted(law, value, *scales, **options):
    _, low, high = law.predict(*scales, **options)
    return {"prediction": bool(low <= value <= high)}


def tied(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    n, d = points(rng, 14 if kind == "few" else 36)
    y = E + A * n**-0.3 + B * d**-0.3
    y *= np.exp(noise(rng, len(n), kind))
    law = fit_form(FORMS["tied"], {"n": n, "d": d}, y, resamples=resamples, seed=seed)
    far = E + A * 1e11**-0.3 + B * 1e12**-0.3
    return intervals(law, {"alpha": 0.3, "E": E}) | predicted(law, far, 1e11, 1e12)


def families(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    c = np.tile(np.geomspace(1e18, 1e22, 5 if kind == "few" else 12), 3)
    family = np.repeat(["a", "b", "c"], len(c) // 3)
    floor = {"a": 1.8, "b": 2.0, "c": 2.5}
    y = np.array([floor[f] for f in family]) + 1.5 * (c / 1e18) ** -0.25
    y *= np.exp(noise(rng, len(c), kind, 3e-3))
    form = FORMS["families"]
    law = fit_form(form, {"compute": c}, y, family=family, resamples=resamples, seed=seed)
    truth = {"alpha": 0.25, "E[a]": 1.8, "E[c]": 2.5}
    far = 2.0 + 1.5 * 1e5**-0.25
    return intervals(law, truth) | predicted(law, far, 1e23, family="b")


def repeated(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    n, d = points(rng, 30 if kind == "few" else 80)
    unique = d / rng.choice([1, 1, 2, 4, 8, 40], len(d))
    y = surface(*worth(n, d, unique)) * np.exp(noise(rng, len(n), kind, 3e-3))
    scales = {"n": n, "d": d, "unique": unique}
    law = fit_form(FORMS["repeated"], scales, y, resamples=resamples, seed=seed)
    far = surface(*worth(1e10, 4e11, 1e11))
    truth = {"alpha": ALPHA, "beta": BETA, "R_D": R_D, "R_N": R_N}
    return intervals(law, truth) | predicted(law, far, 1e10, 4e11, 1e11)


def overfitted(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    n, d = points(rng, 30 if kind == "few" else 80)
    unique = d / rng.choice([1, 1, 2, 4, 8, 40], len(d))
    y = surface(n, d) + 0.05 * (n * (d / unique - 1) / unique) ** 0.3
    y *= np.exp(noise(rng, len(n), kind, 3e-3))
    scales = {"n": n, "d": d, "unique": unique}
    law = fit_form(FORMS["overfitted"], scales, y, resamples=resamples, seed=seed)
    far = surface(1e10, 4e11) + 0.05 * (1e10 * 3 / 1e11) ** 0.3
    truth = {"alpha": ALPHA, "beta": BETA, "C": 0.05, "gamma": 0.3}
    return intervals(law, truth) | predicted(law, far, 1e10, 4e11, 1e11)


def rising(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    n, d = points(rng, 14 if kind == "few" else 36)
    gap = (0.2 + 60 * n**-ALPHA + 400 * d**-BETA) * np.exp(noise(rng, len(n), kind))
    scales = {"n": n, "d": d}
    law = fit_form(FORMS["rising"], scales, 1 - gap, resamples=resamples, seed=seed)
    far = 1 - (0.2 + 60 * 1e11**-ALPHA + 400 * 1e12**-BETA)
    truth = {"alpha": ALPHA, "beta": BETA, "ceiling": 0.8}
    return intervals(law, truth) | predicted(law, far, 1e11, 1e12)


def frontier(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    budgets = np.geomspace(1e18, 1e22, 6 if kind == "few" else 12)
    c = np.repeat(budgets, 5) * np.exp(rng.uniform(-0.04, 0.04, 5 * len(budgets)))
    behind = np.tile([0.0, 0.02, 0.05, 0.1, 0.2], len(budgets))  # the shapes of a budget
    y = (1.8 + 1.5 * (c / 1e18) ** -0.25) * np.exp(behind + noise(rng, len(c), kind, 3e-3))
    law = fit_power(c, y, frontier=True, resamples=resamples, seed=seed)
    return intervals(law, {"alpha": 0.25, "E": 1.8}) | predicted(law, 1.8 + 1.5 * 1e5**-0.25, 1e23)


def loglog(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    c = np.geomspace(1e16, 1e20, 5 if kind == "few" else 10)
    spread = rng.uniform(0.5, 2.0, len(c))
    best = 0.3 * c**0.5 * np.exp(spread * noise(rng, len(c), kind, 0.05))
    law = fit_loglog(c, best, weights=spread**-2, resamples=resamples, seed=seed)
    return intervals(law, {"exponent": 0.5}) | predicted(law, 0.3 * 1e21**0.5, 1e21)


def factors(seed, kind, resamples):
    rng = np.random.default_rng(seed)
    m = 8 if kind == "few" else 24
    width, depth = 2.0 ** rng.integers(4, 9, m), 2.0 ** rng.integers(0, 4, m)
    y = 0.5 + 0.02 * np.log2(width) - 0.003 * np.log2(depth) + noise(rng, m, kind)
    law = fit_factors({"width": width, "depth": depth}, y, resamples=resamples, seed=seed)
    far = 0.5 + 0.02 * 10 - 0.003 * 4
    return intervals(law, {"width": 0.02, "depth": -0.003}) | predicted(law, far, 1024, 16)


def isoflop(minimum):
    def trial(seed, kind, resamples):
        rng = np.random.default_rng(seed)
        budgets = np.geomspace(6e18, 3e21, 4)
        # From 20 times too small to 8 times too large, with steps and layers in whole numbers.
        sizes = 7 if kind == "few" else 11
        c = np.repeat(budgets, sizes) * np.exp(rng.uniform(-0.03, 0.03, 4 * sizes))
        best = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (c / 6) ** (BETA / (ALPHA + BETA))
        n = best * 10 ** np.tile(np.linspace(-1.3, 0.9, sizes), 4)
        y = surface(n, c / 6 / n) * np.exp(noise(rng, len(n), kind, 1e-3))
        law = fit_isoflop(c, n, y, minimum=minimum, resamples=resamples, seed=seed)
        far = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (1e22 / 6) ** (
            BETA / (ALPHA + BETA)
        )
        return intervals(law, {"exponent": BETA / (ALPHA + BETA)}) | predicted(law, far, 1e22)

    return trial


TRIALS: dict[str, Callable] = {
    "tied": tied,
    "families": families,
    "repeated": repeated,
    "overfitted": overfitted,
    "rising": rising,
    "frontier": frontier,
    "loglog": loglog,
    "factors": factors,
    "parabola": isoflop("parabola"),
    "window": isoflop("window"),
    "akima": isoflop("akima"),
}


def coverage(form, kind, trials, resamples=200):
    """Return the share of trials whose interval holds the truth, by quantity."""
    hits: dict[str, list[bool]] = {}
    for seed in range(trials):
        for name, covered in TRIALS[form](seed, kind, resamples).items():
            hits.setdefault(name, []).append(bool(covered))
    return {name: float(np.mean(found)) for name, found in hits.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for form in sys.argv[2:] or TRIALS:
        for kind in ("normal", "heavy", "few"):
            shares = coverage(form, kind, count)
            print(form, kind, {k: f"{v:.2f}" for k, v in shares.items()}, flush=True)
