"""Assignment of runs to architectures (arms), and of runs that differ only in the architecture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.runs.columns import config_column, is_config_column
from ligr_jax.runs.table import column, labels, shapes, varied

# Non-numeric settings that change the input or the number format, not the architecture.
OTHERWISE = tuple(config_column(f"model.{s}") for s in ("features", "actions", "prior", "dtype"))
WORDS = (pl.String, pl.Boolean)


def architectures(table: pl.DataFrame) -> list[str]:
    """Return the architecture of each run; "" for every run if there is only one.

    The architecture is the column `architecture` if there is one; else the non-numeric settings of
    the model that differ between runs (kind, gate, mask, ...; numeric settings are sizes); else,
    for a table without configuration columns, the sweep of the run.
    """
    if "architecture" in table.columns:
        named = [str(v) for v in table["architecture"]]
    elif any(is_config_column(c) for c in table.columns):
        named = _settings(table, architecture_columns(table))
    else:
        named = table["sweep"].to_list()
    return named if len(set(named)) > 1 else [""] * len(table)


def architecture_columns(table: pl.DataFrame) -> list[str]:
    """Return the columns of non-numeric model settings that differ between runs."""
    return [
        c
        for c in varied(table)
        if c.startswith(config_column("model."))
        and table[c].dtype in WORDS
        and not c.startswith(OTHERWISE)
    ]


def rungs(table: pl.DataFrame, arms: Sequence[str]) -> list[str]:
    """Return a label per run, equal for runs of two arms with the same size, data and seed.

    A setting that is constant within each arm belongs to the arm and is not part of the label.
    """
    seeds = [c for c in table.columns if is_config_column(c) and c.endswith("seed")]
    parts = table.with_columns(arm=pl.Series(list(arms))).partition_by("arm")
    sizes = [c for c in varied(table) if any(part[c].n_unique() > 1 for part in parts)]
    return labels(table, [*sizes, *seeds])


def subset(table: pl.DataFrame, arms: Sequence[str], arm: str, axis: str) -> pl.DataFrame:
    """Return the runs of one architecture whose compute on `axis` is known."""
    selected = (np.array(list(arms)) == arm) & (np.nan_to_num(column(table, axis)) > 0)
    return table.filter(selected)


def sampling(table: pl.DataFrame, resamples: int) -> dict[str, Any]:
    """Return options of a fit: run names, groups of runs that differ only in seed, resamples."""
    shape_of_run = shapes(table)
    groups = shape_of_run if len(set(shape_of_run)) < len(shape_of_run) else None
    return {"runs": table["run"].to_list(), "groups": groups, "resamples": resamples}


def _settings(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return a name per run from the settings that differ.

    Only columns that separate further runs are used. The name is the kind if that is the only such
    column, else the settings whose value is not the most frequent one, or "base" if there are none.
    """
    used: list[str] = []
    for c in sorted(columns, key=lambda c: -table[c].n_unique()):
        if len(set(labels(table, [*used, c]))) > len(set(labels(table, used))):
            used.append(c)
    if used == [config_column("model.kind")]:
        return [_word(v) for v in table[used[0]]]
    short = [c.removeprefix(config_column("model.")) for c in used]
    usual = [table[c].value_counts(sort=True)[c][0] for c in used]
    return [
        ", ".join(f"{s} {_word(v)}" for s, v, most in zip(short, row, usual) if v != most) or "base"
        for row in table.select(used).iter_rows()
    ]


def _word(value: object) -> str:
    result: str = {None: "–", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]
    return result
