"""The runs that a report fits, and messages for the runs and columns that it leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import Runs
from ligr_jax.scaling.missing import DIVERGED, runs_without_metric
from ligr_jax.scaling.report.candidates import D, N
from ligr_jax.scaling.report.dimensions import DIMENSIONS
from ligr_jax.scaling.rows import distinct

LEAKS = "trained on actions of their own session (model.mask=causal)"
# Columns of numbers that a report shows or fits, but does not need.
OPTIONAL = {*DIMENSIONS, N, D, "params_tables", "estimate/seconds"}


@dataclass(frozen=True)
class Usable:
    """Runs of a report.

    Attributes:
        runs: all runs, without columns that should be numbers and are not.
        table: runs that are used in fits.
        metric: column of the metric (NE).
        axes: columns of compute that some run has.
        suspect: names of runs that beat the oracle.
        leaking: names of other runs whose training shows actions that serving does not know.
        diverged: names of runs without a finite metric, though the split has labels.
        notes: why runs and columns are left out.
    """

    runs: Runs
    table: RunTable
    metric: str
    axes: tuple[str, ...]
    suspect: tuple[str, ...]
    leaking: tuple[str, ...]
    diverged: tuple[str, ...]
    notes: tuple[str, ...]


def usable_runs(runs: Runs, axes: Sequence[str]) -> Usable:
    """Return the runs that can be fitted.

    Args:
        runs: runs of one or more sweeps.
        axes: columns of compute, the main one first.

    Raises:
        BadInput: there are no finished runs, they have no column of NE or of compute, or a cell of
            such a column is not a number.
    """
    if runs.table.is_empty():
        raise BadInput(
            f"{runs.name}: no finished runs ({len(runs.unfinished)} unfinished, "
            f"{len(runs.failed)} failed)"
        )
    split = "validation" if "validation/ne" in runs.table.columns else "test"
    metric = f"{split}/ne" if f"{split}/ne" in runs.table.columns else "validation/ne"
    runs.require_numbers([metric, f"oracle/{metric}", "seconds", "devices", *axes])
    texts = [c for c in runs.not_numbers if c in OPTIONAL or c.endswith("/auc")]
    rows, copies = distinct(runs.table.drop(texts))
    table = RunTable(rows).with_device_seconds()
    known = [a for a in axes if table.has(a) and (np.nan_to_num(table.numbers(a)) > 0).any()]
    if not known:
        raise BadInput(f"{runs.name}: the runs have none of the compute columns {', '.join(axes)}")

    # Runs that would spoil a fit: a run better than the oracle has seen the label, and a diverged
    # run has no metric. The page still lists them.
    leaks = table.leaks
    lost = ~np.isfinite(table.numbers(metric)) & ~leaks
    without = runs_without_metric(table.where(lost), metric)
    diverged = without.pop(DIVERGED, ())
    kept = table.where(~(leaks | lost))
    free = kept.where(~(np.nan_to_num(kept.numbers(known[0])) > 0)).names
    notes = [f"the column {c} is left out: {runs.not_numbers[c]}" for c in texts]
    notes += [copies] if copies else []
    notes += [f"No {metric}: {why}: {', '.join(names)}" for why, names in without.items()]
    notes += [f"left out of the laws, without {known[0]}: {', '.join(free)}"] if free else []
    trained = table.where(leaks & ~table.beats_oracle).names
    notes += [f"{LEAKS}, so left out of laws and comparisons: {', '.join(trained)}"] * bool(trained)
    return Usable(
        runs=replace(runs, table=table.frame),
        table=kept,
        metric=metric,
        axes=tuple(known),
        suspect=table.where(table.beats_oracle).names,
        leaking=trained,
        diverged=tuple(diverged),
        notes=tuple(notes),
    )
