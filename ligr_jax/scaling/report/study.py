"""All results of a report, computed once. Figures, tables and sentences only present them.

Runs with a leak (`RunTable.leaks`) and diverged runs are shown but never fitted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import DamagedRows, read_rows
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import Runs
from ligr_jax.scaling.fit import Comparison, IsoFlop, Law, Noise
from ligr_jax.scaling.report.arms import architectures, subset
from ligr_jax.scaling.report.budgets import Grid, fit_iso_flop_grids
from ligr_jax.scaling.report.choices import Choice, compare_forms
from ligr_jax.scaling.report.contrasts import comparisons, noise
from ligr_jax.scaling.report.dimensions import Gains, gains
from ligr_jax.scaling.report.forecasts import Forecast, left_out, registered
from ligr_jax.scaling.report.laws import Laws, auc_columns, fit_laws, ladder
from ligr_jax.scaling.report.slopes import Slope, slopes
from ligr_jax.scaling.report.usable import usable_runs

AXES = {  # not flops_6nd: it is six times flops_paper, so its figures would be the same
    "flops_model": "training FLOPs, counted (flops_model)",
    "flops_paper": "dense parameters × tokens (flops_paper)",
    "device_seconds": "seconds × devices (device_seconds)",
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """Results of a report.

    Attributes:
        runs: all runs.
        table: runs that are used in fits.
        arms: architecture of each run of `table`.
        metric: column of the metric (NE).
        axes: columns of compute; the first one is the main axis.
        aucs: columns of AUC.
        oracle: the oracle's metric; None if unknown.
        suspect: names of runs that beat the oracle.
        leaking: names of other runs whose training shows actions that serving does not know.
        diverged: names of runs without a finite metric, though the split has labels.
        notes: warnings.
        ladder: row numbers of the runs that laws in compute are fitted to.
        laws: laws by compute axis.
        choices: form of the law that the runs prefer, by metric and architecture, on the main axis.
        gains: gains of the dimensions, by compute axis and architecture.
        forecasts: predictions of the largest runs, with outcomes.
        iso: iso-FLOP grid and law, by architecture.
        noise: noise floor; None without repeated seeds.
        comparisons: comparisons of architectures.
        slopes: slope of each architecture, by axis and metric; empty for a single architecture.
    """

    runs: Runs
    table: RunTable
    arms: tuple[str, ...]
    metric: str
    axes: tuple[str, ...]
    aucs: tuple[str, ...]
    oracle: float | None
    suspect: tuple[str, ...]
    leaking: tuple[str, ...]
    diverged: tuple[str, ...]
    notes: tuple[str, ...]
    ladder: tuple[int, ...]
    laws: dict[str, Laws]
    choices: tuple[Choice, ...]
    gains: dict[str, dict[str, Gains]]
    forecasts: tuple[Forecast, ...]
    iso: dict[str, tuple[Grid, IsoFlop]]
    noise: Noise | None
    comparisons: tuple[Comparison, ...]
    slopes: tuple[Slope, ...]

    @property
    def axis(self) -> str:
        """The main compute axis."""
        return self.axes[0]

    @property
    def split(self) -> str:
        """The split of the metric, "validation" or "test"."""
        return self.metric.split("/")[0]

    @property
    def leader(self) -> str:
        """The architecture of the best run."""
        return self.arms[int(np.argmin(self.table.numbers(self.metric)))] if self.arms else ""

    @property
    def order(self) -> tuple[str, ...]:
        """Architectures, the leader first."""
        return tuple(dict.fromkeys((self.leader, *self.arms)))

    @property
    def law(self) -> Law | None:
        """The law of the leader on the main axis, with a fitted floor."""
        return self.laws[self.axis].power.get(self.leader, {}).get("free") if self.laws else None


def study(runs: Runs, resamples: int = 1000) -> Study:
    """Compute all results that the runs allow.

    Args:
        runs: runs of one or more sweeps.
        resamples: number of bootstrap resamples of every interval.

    Returns:
        The results; parts without enough runs are empty or None, with a reason in `notes`.

    Raises:
        BadInput: there are no finished runs, they have no column of NE or of compute, or a cell of
            such a column is not a number.
    """
    found = usable_runs(runs, tuple(AXES))
    runs, kept, metric, axes = found.runs, found.table, found.metric, found.axes
    oracle, oracle_notes = _oracle(kept, metric)
    arms = architectures(kept)
    aucs = auc_columns(kept, metric.split("/")[0])

    # Laws in compute and comparisons use the ladder only: other sweeps spend compute on one
    # dimension, or vary the size at fixed compute, and would bend the law.
    rows = ladder(kept, arms, axes[0])
    rungs = kept.take(rows)
    rung_arms = [arms[i] for i in rows]
    compared, comparison_notes = comparisons(rungs, rung_arms, metric, axes[0], resamples)

    # Noise and iso-FLOP laws find their runs in all sweeps: equal shapes, and equal budgets.
    noise_floor, noise_notes = noise(kept, metric)
    choices = [
        choice
        for name in (metric, *aucs)
        for choice in compare_forms(
            rungs,
            rung_arms,
            name,
            axes[0],
            noise_floor if name == metric else noise(kept, name)[0],
            lower=name == metric,
            oracle=oracle,
            resamples=resamples,
        )
    ]
    iso, iso_notes = fit_iso_flop_grids(kept, arms, metric, axes[0], resamples)
    notes = (
        *found.notes,
        *oracle_notes,
        *_mixed_devices(kept),
        *_damaged_rows(runs),
        *iso_notes,
        *comparison_notes,
        *noise_notes,
    )
    return Study(
        runs=runs,
        table=kept,
        arms=tuple(arms),
        metric=metric,
        axes=axes,
        aucs=tuple(aucs),
        oracle=oracle,
        suspect=found.suspect,
        leaking=found.leaking,
        diverged=found.diverged,
        notes=tuple(dict.fromkeys(notes)),  # without duplicates, in order
        ladder=tuple(rows),
        laws={a: fit_laws(rungs, rung_arms, metric, a, aucs, oracle, resamples) for a in axes},
        choices=tuple(choices),
        gains={
            a: {
                arm: gains(subset(kept, arms, arm, a), metric, a, resamples)
                for arm in dict.fromkeys(arms)
            }
            for a in axes
        },
        forecasts=(
            *left_out(rungs, rung_arms, metric, axes[0], resamples),
            *registered(runs, metric),
        ),
        iso=iso,
        noise=noise_floor,
        comparisons=tuple(compared),
        slopes=tuple(slopes(rungs, rung_arms, (metric, *aucs), axes, resamples)),
    )


def _oracle(table: RunTable, metric: str) -> tuple[float | None, list[str]]:
    """Return the oracle's metric, and a note if runs were evaluated on different data."""
    oracle = table.oracle(metric)
    if oracle is None:
        return None, []
    values = oracle[np.isfinite(oracle)]
    if not len(values):
        return None, []
    notes = []
    if np.ptp(values) > 1e-4 * abs(values.mean()):
        notes.append(
            f"the oracle's {metric} differs between runs ({values.min():.4f} to "
            f"{values.max():.4f}): the runs were evaluated on different data, so their metrics are "
            "not comparable"
        )
    return float(np.median(values)), notes


def _damaged_rows(runs: Runs) -> list[str]:
    """Return a note for each finished run whose training curve cannot be read."""
    notes = []
    for directory in runs.directories.values():
        try:
            read_rows(RunFiles(directory).metrics)
        except (DamagedRows, OSError) as e:
            notes.append(f"A training curve is left out: {e}")
    return notes


def _mixed_devices(table: RunTable) -> list[str]:
    """Return a note if the runs were trained on different devices."""
    kinds = table.device_kinds
    if len(kinds) < 2:
        return []
    return [
        f"runs were trained on different devices ({', '.join(kinds)}): device_seconds is "
        "not comparable between them"
    ]
