"""Assignment of runs to architectures (arms), and of runs that differ only in the architecture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.runs.columns import config_column
from ligr_jax.runs.run_table import RunTable

# Non-numeric settings that change the input or the number format, not the architecture.
OTHERWISE = tuple(
    config_column(f"model.{s}") for s in ("features", "actions", "late_actions", "prior", "dtype")
)
WORDS = (pl.String, pl.Boolean)


def architectures(table: RunTable) -> list[str]:
    """Return the architecture of each run; "" for every run if there is only one.

    The architecture is the column `architecture` if there is one; else the non-numeric settings of
    the model that differ between runs (kind, gate, mask, ...; numeric settings are sizes); else,
    for a table without configuration columns, the sweep of the run.
    """
    if table.named_architectures is not None:
        named = list(table.named_architectures)
    elif table.settings:
        named = _settings(table, architecture_columns(table))
    else:
        named = list(table.first_sweeps)
    return named if len(set(named)) > 1 else [""] * len(table)


def architecture_columns(table: RunTable) -> list[str]:
    """Return the columns of non-numeric model settings that differ between runs."""
    return [
        c
        for c in table.varied()
        if c.startswith(config_column("model."))
        and table.frame[c].dtype in WORDS
        and not c.startswith(OTHERWISE)
    ]


def rungs(table: RunTable, arms: Sequence[str]) -> list[str]:
    """Return a label per run, equal for runs of two arms with the same size, data and seed.

    A setting that is constant within each arm belongs to the arm and is not part of the label.
    """
    seeds = [c for c in table.settings if c.endswith("seed")]
    arm_of_run = np.array(list(arms))
    parts = [table.where(arm_of_run == arm) for arm in dict.fromkeys(arms)]
    sizes = [c for c in table.varied() if any(part.distinct(c) > 1 for part in parts)]
    return table.labels([*sizes, *seeds])


def subset(table: RunTable, arms: Sequence[str], arm: str, axis: str) -> RunTable:
    """Return the runs of one architecture whose compute on `axis` is known."""
    selected = (np.array(list(arms)) == arm) & (np.nan_to_num(table.numbers(axis)) > 0)
    return table.where(selected)


def sampling(table: RunTable, resamples: int) -> dict[str, Any]:
    """Return options of a fit: run names, groups of runs that differ only in seed, resamples."""
    shape_of_run = table.shapes()
    groups = shape_of_run if len(set(shape_of_run)) < len(shape_of_run) else None
    return {"runs": list(table.names), "groups": groups, "resamples": resamples}


def _settings(table: RunTable, columns: Sequence[str]) -> list[str]:
    """Return a name per run from the settings that differ.

    Only columns that separate further runs are used. The name is the kind if that is the only such
    column, else the settings whose value is not the most frequent one, or "base" if there are none.
    """
    used: list[str] = []
    for c in sorted(columns, key=lambda c: -table.distinct(c)):
        if len(set(table.labels([*used, c]))) > len(set(table.labels(used))):
            used.append(c)
    if used == [config_column("model.kind")]:
        return [_word(v) for v in table.frame[used[0]]]
    short = [c.removeprefix(config_column("model.")) for c in used]
    usual = [table.frame[c].value_counts(sort=True)[c][0] for c in used]
    return [
        ", ".join(f"{s} {_word(v)}" for s, v, most in zip(short, row, usual) if v != most) or "base"
        for row in table.frame.select(used).iter_rows()
    ]


def _word(value: object) -> str:
    result: str = {None: "–", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]
    return result
