"""How often nominal 90 % intervals contain the truth, by simulation of every form.

`python -m tests.scaling.coverage [TRIALS] [FORM ...]` prints the coverage that docstrings quote,
for every form and kind of study of `KINDS`. A trial is one simulated study, with its own seed.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ligr_jax.scaling.fit import (
    FORMS,
    fit_factors,
    fit_form,
    fit_isoflop,
    fit_line,
    fit_loglog,
    fit_power,
    fit_saturating,
    fit_surface,
)

KINDS = {
    "normal": "normal noise",
    "heavy": "Student's t with 2 degrees of freedom",
    "few": "about as many runs as people have who cannot afford more",
    "seeds": "three seeds per shape, whose errors have half of their variance in common",
    "wide": "a wide asymmetric grid: most runs are small, some are 100 times larger",
}
SEEDS = 3
E, A, B, ALPHA, BETA = 1.8, 480.0, 2085.0, 0.35, 0.37
R_D, R_N = 15.4, 5.3


class Study:
    """Scales of the runs of one simulated study, its noise, and the groups of its bootstrap."""

    def __init__(self, seed, kind, runs, few, resamples):
        self.rng = np.random.default_rng(seed)
        self.kind = kind
        self.shapes = few if kind == "few" else runs
        self.seeds = SEEDS if kind == "seeds" else 1
        self.options: dict[str, Any] = {"resamples": resamples, "seed": seed}

    def rows(self, *values):
        """Repeat every shape for its seeds, and label the rows of one shape."""
        if self.seeds > 1:
            self.options["groups"] = np.arange(len(values[0])).repeat(self.seeds).tolist()
        repeated = [np.repeat(v, self.seeds) for v in values]
        return repeated if len(values) > 1 else repeated[0]

    def spread(self, low, high, size=None):
        """Log-uniform values; on a wide grid most are small and the largest are 100 x larger."""
        u = self.rng.uniform(size=size or self.shapes)
        if self.kind == "wide":
            return np.exp(np.log(low) + u**2 * (np.log(100 * high) - np.log(low)))
        return np.exp(np.log(low) + u * (np.log(high) - np.log(low)))

    def ladder(self, low, high):
        u = np.linspace(0, 1, self.shapes)
        if self.kind == "wide":
            return np.exp(np.log(low) + u**2 * (np.log(100 * high) - np.log(low)))
        return np.geomspace(low, high, self.shapes)

    def noise(self, size, scale=5e-3):
        if self.kind == "heavy":
            return scale * self.rng.standard_t(2, size)
        if self.seeds == 1:
            return scale * self.rng.normal(size=size)
        shared = self.rng.normal(size=size // self.seeds).repeat(self.seeds)
        return scale * np.sqrt(0.5) * (shared + self.rng.normal(size=size))


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


def curve(c):
    return 1.8 + 1.5 * (c / 1e18) ** -0.25


def power(seed, kind, resamples):
    s = Study(seed, kind, 12, 6, resamples)
    c = s.rows(s.ladder(1e18, 1e22))
    law = fit_power(c, curve(c) * np.exp(s.noise(len(c), 3e-3)), **s.options)
    return intervals(law, {"alpha": 0.25, "E": 1.8}) | predicted(law, curve(1e24), 1e24)


def saturating(seed, kind, resamples):
    s = Study(seed, kind, 12, 6, resamples)
    c = s.rows(s.ladder(1e18, 1e22))
    gap = (0.15 + 0.2 * (c / 1e18) ** -0.25) * np.exp(s.noise(len(c), 3e-3))
    law = fit_saturating(c, 1 - gap, **s.options)
    far = 0.85 - 0.2 * 1e6**-0.25
    return intervals(law, {"alpha": 0.25, "ceiling": 0.85}) | predicted(law, far, 1e24)


def line(seed, kind, resamples):
    s = Study(seed, kind, 12, 5, resamples)
    c = s.rows(s.ladder(1e18, 1e22))
    y = 0.7 + 0.01 * np.log10(c / 1e18) + s.noise(len(c), 2e-3)
    law = fit_line(c, y, **s.options)
    return intervals(law, {"slope": 0.01}) | predicted(law, 0.76, 1e24)


def two_scales(seed, kind, resamples):
    s = Study(seed, kind, 36, 16, resamples)
    n, d = s.rows(s.spread(4e7, 1.6e10), s.spread(3e8, 1e12))
    return s, n, d


def chinchilla(seed, kind, resamples):
    s, n, d = two_scales(seed, kind, resamples)
    law = fit_surface(n, d, surface(n, d) * np.exp(s.noise(len(n))), **s.options)
    truth = {"alpha": ALPHA, "beta": BETA, "E": E, "a": BETA / (ALPHA + BETA)}
    return intervals(law, truth) | predicted(law, surface(1e11, 1e12), 1e11, 1e12)


def tied(seed, kind, resamples):
    s, n, d = two_scales(seed, kind, resamples)
    y = (E + A * n**-0.3 + B * d**-0.3) * np.exp(s.noise(len(n)))
    law = fit_form(FORMS["tied"], {"n": n, "d": d}, y, **s.options)
    far = E + A * 1e11**-0.3 + B * 1e12**-0.3
    return intervals(law, {"alpha": 0.3, "E": E}) | predicted(law, far, 1e11, 1e12)


def rising(seed, kind, resamples):
    s, n, d = two_scales(seed, kind, resamples)
    gap = (0.2 + 60 * n**-ALPHA + 400 * d**-BETA) * np.exp(s.noise(len(n)))
    law = fit_form(FORMS["rising"], {"n": n, "d": d}, 1 - gap, **s.options)
    far = 1 - (0.2 + 60 * 1e11**-ALPHA + 400 * 1e12**-BETA)
    truth = {"alpha": ALPHA, "beta": BETA, "ceiling": 0.8}
    return intervals(law, truth) | predicted(law, far, 1e11, 1e12)


def families(seed, kind, resamples):
    s = Study(seed, kind, 12, 5, resamples)
    c, member = s.rows(np.tile(s.ladder(1e18, 1e22), 3), np.arange(3).repeat(s.shapes))
    floor = np.array([1.8, 2.0, 2.5])[member]
    y = (floor + 1.5 * (c / 1e18) ** -0.25) * np.exp(s.noise(len(c), 3e-3))
    family = np.array(["a", "b", "c"])[member]
    law = fit_form(FORMS["families"], {"compute": c}, y, family=family, **s.options)
    truth = {"alpha": 0.25, "E[a]": 1.8, "E[c]": 2.5}
    return intervals(law, truth) | predicted(law, 2.0 + 1.5 * 1e6**-0.25, 1e24, family="b")


def with_repeats(seed, kind, resamples):
    s = Study(seed, kind, 80, 30, resamples)
    n, d, times = s.rows(
        s.spread(4e7, 1.6e10), s.spread(3e8, 1e12), s.rng.choice([1, 1, 2, 4, 8, 40], s.shapes)
    )
    return s, {"n": n, "d": d, "unique": d / times}


def repeated(seed, kind, resamples):
    s, scales = with_repeats(seed, kind, resamples)
    y = surface(*worth(*scales.values())) * np.exp(s.noise(len(scales["n"]), 3e-3))
    law = fit_form(FORMS["repeated"], scales, y, **s.options)
    far = surface(*worth(1e10, 4e11, 1e11))
    truth = {"alpha": ALPHA, "beta": BETA, "R_D": R_D, "R_N": R_N}
    return intervals(law, truth) | predicted(law, far, 1e10, 4e11, 1e11)


def overfitted(seed, kind, resamples):
    s, scales = with_repeats(seed, kind, resamples)
    n, d, unique = scales.values()
    y = surface(n, d) + 0.05 * (n * (d / unique - 1) / unique) ** 0.3
    law = fit_form(FORMS["overfitted"], scales, y * np.exp(s.noise(len(n), 3e-3)), **s.options)
    far = surface(1e10, 4e11) + 0.05 * (1e10 * 3 / 1e11) ** 0.3
    truth = {"alpha": ALPHA, "beta": BETA, "C": 0.05, "gamma": 0.3}
    return intervals(law, truth) | predicted(law, far, 1e10, 4e11, 1e11)


def frontier(seed, kind, resamples):
    s = Study(seed, kind, 12, 6, resamples)
    c = np.repeat(s.ladder(1e18, 1e22), 5) * np.exp(s.rng.uniform(-0.04, 0.04, 5 * s.shapes))
    behind = np.tile([0.0, 0.02, 0.05, 0.1, 0.2], s.shapes)  # the shapes of a budget
    c, behind = s.rows(c, behind)
    y = curve(c) * np.exp(behind + s.noise(len(c), 3e-3))
    law = fit_power(c, y, frontier=True, tolerance=0.08, **s.options)
    return intervals(law, {"alpha": 0.25, "E": 1.8}) | predicted(law, curve(1e24), 1e24)


def loglog(seed, kind, resamples):
    s = Study(seed, kind, 10, 5, resamples)
    c, spread = s.rows(s.ladder(1e16, 1e20), s.rng.uniform(0.5, 2.0, s.shapes))
    best = 0.3 * c**0.5 * np.exp(spread * s.noise(len(c), 0.05))
    law = fit_loglog(c, best, weights=spread**-2, **s.options)
    return intervals(law, {"exponent": 0.5}) | predicted(law, 0.3 * 1e21**0.5, 1e21)


def factors(seed, kind, resamples):
    s = Study(seed, kind, 24, 8, resamples)
    width, depth = s.rows(
        2.0 ** s.rng.integers(4, 9 + 6 * (kind == "wide"), s.shapes),
        2.0 ** s.rng.integers(0, 4, s.shapes),
    )
    y = 0.5 + 0.02 * np.log2(width) - 0.003 * np.log2(depth) + s.noise(len(width))
    law = fit_factors({"width": width, "depth": depth}, y, **s.options)
    far = 0.5 + 0.02 * 10 - 0.003 * 4
    return intervals(law, {"width": 0.02, "depth": -0.003}) | predicted(law, far, 1024, 16)


def isoflop(minimum):
    def trial(seed, kind, resamples):
        s = Study(seed, kind, 11, 7, resamples)
        budgets = np.geomspace(6e18, 3e21, 4)
        # Steps and layers are whole numbers, so compute jitters. The wide grid reaches from 20
        # times too small to 8 times too large, the others from 8 times to 8 times.
        c = np.repeat(budgets, s.shapes) * np.exp(s.rng.uniform(-0.03, 0.03, 4 * s.shapes))
        scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
        best = scale * (c / 6) ** (BETA / (ALPHA + BETA))
        grid = np.linspace(-1.3 if kind == "wide" else -0.9, 0.9, s.shapes)
        c, n = s.rows(c, best * 10 ** np.tile(grid, 4))
        y = surface(n, c / 6 / n) * np.exp(s.noise(len(n), 1e-3))
        law = fit_isoflop(c, n, y, minimum=minimum, tolerance=0.07, **s.options)
        far = scale * (1e22 / 6) ** (BETA / (ALPHA + BETA))
        return intervals(law, {"exponent": BETA / (ALPHA + BETA)}) | predicted(law, far, 1e22)

    return trial


TRIALS: dict[str, Callable] = {
    "power": power,
    "saturating": saturating,
    "line": line,
    "loglog": loglog,
    "factors": factors,
    "frontier": frontier,
    "families": families,
    "parabola": isoflop("parabola"),
    "window": isoflop("window"),
    "chinchilla": chinchilla,
    "tied": tied,
    "rising": rising,
    "akima": isoflop("akima"),
    "repeated": repeated,
    "overfitted": overfitted,
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
        for kind in KINDS:
            shares = coverage(form, kind, count)
            print(form, kind, {k: f"{v:.2f}" for k, v in shares.items()}, flush=True)
