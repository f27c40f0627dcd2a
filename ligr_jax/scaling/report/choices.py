"""Forms of a law, compared by their predictions of runs that the fit has not seen.

The runs of a ladder with the largest budget, then those with the largest two, are left out and
predicted by every form. An error is the mean over the seeds of a budget minus the prediction, in
standard deviations of that mean. The default form is kept unless another one is better by more than
one standard deviation, because the error of a perfect form is about 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import Noise, budgets
from ligr_jax.scaling.report.arms import sampling
from ligr_jax.scaling.report.candidates import Candidate, candidates

FOLDS = 2  # budgets left out at most
FEWEST = 5  # budgets that remain
APART = 1.0  # standard deviations by which another form must predict better than the default
UNEXPLAINED = 0.05  # p of the lack-of-fit test below which residuals are called a pattern
Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """A form and its predictions of the budgets left out.

    Attributes:
        candidate: the form.
        largest: prediction minus observed mean at the largest budget, in metric units.
        error: root mean square of all errors, in standard deviations of the seeds; in metric units
            if those are unknown. NaN if the form was not fitted.
        reason: why the form was not fitted.
    """

    candidate: Candidate
    largest: float = np.nan
    error: float = np.nan
    reason: str = ""


@dataclass(frozen=True)
class Curves:
    """The runs of a ladder in order of compute, with the laws of two forms at each run.

    Attributes:
        runs: names of the runs.
        compute: FLOPs, (n,).
        observed: the metric, (n,).
        default: the metric by the default form, (n,).
        preferred: the metric by the preferred form, with interval: value, low, high, (n,) each.
    """

    runs: tuple[str, ...]
    compute: Array
    observed: Array
    default: Array
    preferred: tuple[Array, Array, Array]


@dataclass(frozen=True)
class Choice:
    """The form that the runs of one architecture prefer for one metric.

    Attributes:
        arm: the architecture.
        metric: column of the metric.
        scores: all forms, the default one first; empty if they were not compared.
        law: law of the preferred form, fitted to all runs of the ladder.
        curves: both laws at the runs.
        noise: standard deviation of a run between seeds; None if it is unknown.
        unexplained: p of the hypothesis that the residuals of the default form are noise of seeds
            (test for lack of fit); None if it cannot be tested.
        signs: signs of the mean residuals of the default form, from the smallest budget on.
        reason: why there are no scores.
    """

    arm: str
    metric: str
    scores: tuple[Score, ...] = ()
    law: Any = None
    curves: Curves | None = None
    noise: float | None = None
    unexplained: float | None = None
    signs: str = ""
    reason: str = ""

    @property
    def default(self) -> Score:
        return self.scores[0]

    @property
    def preferred(self) -> Score:
        """The default form, or a form that is clearly better; of several, the simplest."""
        known = [s for s in self.scores if np.isfinite(s.error)]
        least = min(s.error for s in known)
        if self.noise is None or self.default.error <= least + APART:
            return self.default
        near = [s for s in known if s.error <= least + APART]
        return min(near, key=lambda s: (s.candidate.free, s.error))

    def to_json(self) -> dict[str, Any]:
        """Return the scores and the preferred law as plain JSON values."""
        return {
            "metric": self.metric,
            "architecture": self.arm,
            "preferred": self.preferred.candidate.name if self.scores else None,
            "law": self.law.to_json() if self.law else None,
            "noise": self.noise,
            "unexplained": self.unexplained,
            "signs": self.signs,
            "reason": self.reason,
            "scores": [
                {
                    "form": score.candidate.name,
                    "formula": score.candidate.formula,
                    "largest": score.largest,
                    "error": score.error,
                    "reason": score.reason,
                }
                for score in self.scores
            ],
        }


def compare_forms(
    table: RunTable,
    arms: Sequence[str],
    metric: str,
    axis: str,
    noise: Noise | None,
    *,
    lower: bool,
    oracle: float | None,
    resamples: int,
) -> list[Choice]:
    """Compare the forms of a metric for every architecture.

    In 200 simulated ladders each (8 budgets over 2.2 decades, three seeds of the smaller five),
    another form was preferred to a true power law in 5 to 9 %. A surface was preferred in 64 %
    where the loss was one, and a line in 80 % where the slope tripled in the last half.

    Args:
        table: runs of the ladder.
        arms: architecture of each run.
        metric: column of the metric.
        axis: column of compute.
        noise: noise of the metric between seeds.
        lower: lower is better.
        oracle: the oracle's metric; None if it is unknown.
        resamples: number of bootstrap resamples of the preferred law.
    """
    ladder = _Ladder.of(table, arms, metric, axis)
    forms = candidates(lower, oracle, several=len(set(arms)) > 1)
    return [ladder.choice(arm, metric, forms, noise, resamples) for arm in dict.fromkeys(arms)]


@dataclass(frozen=True)
class _Ladder:
    """The runs of all architectures.

    Attributes:
        table: the runs with compute and the metric.
        arms: architecture of each run.
        compute: FLOPs.
        metric: values of the metric.
        rank: number of larger budgets of the same architecture.
    """

    table: RunTable
    arms: NDArray[np.object_]
    compute: Array
    metric: Array
    rank: Rows

    @classmethod
    def of(cls, table: RunTable, arms: Sequence[str], metric: str, axis: str) -> "_Ladder":
        compute, y = table.numbers(axis), table.numbers(metric)
        known = (np.nan_to_num(compute) > 0) & np.isfinite(y)
        arm = np.array(list(arms), dtype=object)[known]
        rank = np.zeros(len(arm), np.int64)
        for name in dict.fromkeys(arm):
            index = budgets(compute[known][arm == name])
            rank[arm == name] = index.max() - index
        return cls(table.where(known), arm, compute[known], y[known], rank)

    def choice(
        self,
        arm: str,
        metric: str,
        forms: Sequence[Candidate],
        noise: Noise | None,
        resamples: int,
    ) -> Choice:
        """Return the choice of one architecture."""
        mine = np.flatnonzero(self.arms == arm)
        count = len(set(self.rank[mine]))
        folds = min(FOLDS, count - FEWEST)
        if folds < 1:
            reason = f"{count} budgets; {FEWEST + 1} are needed, one of them to be predicted"
            return Choice(arm, metric, reason=reason)
        sd = noise.pooled[0] if noise else None
        scores = tuple(self._score(form, arm, folds, sd) for form in forms)
        if not np.isfinite(scores[0].error):
            return Choice(arm, metric, reason=f"no {forms[0].name}: {scores[0].reason}")
        found = Choice(arm, metric, scores, noise=sd)
        try:
            curves, law = self._curves(found, mine, resamples)
        except BadInput as e:  # the largest budgets, which the scores leave out, spoil the law
            return Choice(arm, metric, reason=f"no law of all budgets: {e}")
        p, signs = _lack_of_fit(curves, forms[0].free, noise)
        return replace(found, law=law, curves=curves, unexplained=p, signs=signs)

    def _curves(self, found: Choice, mine: Rows, resamples: int) -> tuple[Curves, Any]:
        """Return the default and the preferred law at the runs, and the preferred law."""
        default, best = found.default.candidate, found.preferred.candidate
        rows = mine[np.argsort(self.compute[mine], kind="stable")]
        law = self._fit(best, np.arange(len(self.arms)) if best.families else mine, resamples)
        curves = Curves(
            runs=self.table.take(rows).names,
            compute=self.compute[rows],
            observed=self.metric[rows],
            default=self._predict(default, self._fit(default, mine, 0), found.arm, rows)[0],
            preferred=self._predict(best, law, found.arm, rows),
        )
        return curves, law

    def _score(self, form: Candidate, arm: str, folds: int, sd: float | None) -> Score:
        """Return the errors of a form at the budgets that its fits leave out."""
        squares = []
        largest = np.nan
        try:
            for k in range(1, folds + 1):
                kept = self.rank >= k
                mine = kept & (self.arms == arm)
                if len(set(self.rank[mine])) <= form.free:
                    raise BadInput(f"too few budgets for its {form.free} parameters")
                law = self._fit(form, np.flatnonzero(kept if form.families else mine), 0)
                errors = []
                for rank in range(k):
                    rows = np.flatnonzero((self.arms == arm) & (self.rank == rank))
                    value = self._predict(form, law, arm, rows)[0]
                    error = float((value - self.metric[rows]).mean())
                    largest = error if k == 1 else largest
                    errors.append(error / (sd / np.sqrt(len(rows)) if sd else 1.0))
                squares.append(np.square(errors).mean())
        except BadInput as e:
            return Score(form, reason=str(e))
        return Score(form, largest=largest, error=float(np.sqrt(np.mean(squares))))

    def _fit(self, form: Candidate, rows: Rows, resamples: int) -> Any:
        """Fit a form to rows; one of families to the rows of all architectures."""
        options = sampling(self.table.take(rows), resamples)
        if form.families:
            options["family"] = list(self.arms[rows])
        return form.fit(*self._scales(form, rows), self.metric[rows], **options)

    def _predict(
        self, form: Candidate, law: Any, arm: str, rows: Rows
    ) -> tuple[Array, Array, Array]:
        family = {"family": arm} if form.families else {}
        estimate: tuple[Array, Array, Array] = law.predict(*self._scales(form, rows), **family)
        return estimate

    def _scales(self, form: Candidate, rows: Rows) -> list[Array]:
        if missing := [name for name in form.scales if not self.table.has(name)]:
            raise BadInput(f"the runs have no column {missing[0]}")
        return [self.table.numbers(name)[rows] for name in form.scales] or [self.compute[rows]]


def _lack_of_fit(curves: Curves, free: int, noise: Noise | None) -> tuple[float | None, str]:
    """Return p of the F test of mean residuals against the noise of seeds, and their signs."""
    off = curves.observed - curves.default
    index = budgets(curves.compute)
    counts = np.bincount(index)
    means = np.bincount(index, off) / counts
    signs = " ".join("+" if mean > 0 else "−" for mean in means)
    freedom = len(means) - free
    if noise is None or freedom < 1:
        return None, signs
    f = float(counts @ means**2) / freedom / noise.pooled[0] ** 2
    return float(stats.f.sf(f, freedom, noise.freedom)), signs
