"""Which runs are one architecture (an arm of the comparison), and which differ in that alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.scaling.runs import column, labels, shapes, varied

# Settings in words that make another input or another number format, not another architecture.
OTHERWISE = tuple(f"config/model.{s}" for s in ("features", "actions", "prior", "dtype"))
WORDS = (pl.String, pl.Boolean)


def architectures(table: pl.DataFrame) -> list[str]:
    """A name per run, equal for runs of one architecture; "" in all where there is but one.

    An architecture is what the column `architecture` says, else the words among the model's
    settings that differ between runs (its kind, gate, mask, ...; numbers are its size), else, where
    the table has no configuration at all, the sweep the run belongs to.
    """
    if "architecture" in table.columns:
        named = [str(v) for v in table["architecture"]]
    elif any(c.startswith("config/") for c in table.columns):
        named = _settings(table, architecture_columns(table))
    else:
        named = table["sweep"].to_list()
    return named if len(set(named)) > 1 else [""] * len(table)


def architecture_columns(table: pl.DataFrame) -> list[str]:
    """The model's settings in words that differ between runs."""
    return [
        c
        for c in varied(table)
        if c.startswith("config/model.") and table[c].dtype in WORDS and not c.startswith(OTHERWISE)
    ]


def rungs(table: pl.DataFrame, arms: Sequence[str]) -> list[str]:
    """A label per run, equal for runs of two arms that have the same size, data and seed.

    A setting that is the same in all runs of an arm comes with the arm, and does not keep apart.
    """
    seeds = [c for c in table.columns if c.startswith("config/") and c.endswith("seed")]
    parts = table.with_columns(arm=pl.Series(list(arms))).partition_by("arm")
    sizes = [c for c in varied(table) if any(part[c].n_unique() > 1 for part in parts)]
    return labels(table, [*sizes, *seeds])


def subset(table: pl.DataFrame, arms: Sequence[str], arm: str, axis: str) -> pl.DataFrame:
    """Runs of one architecture whose compute on `axis` is known."""
    here = (np.array(list(arms)) == arm) & (np.nan_to_num(column(table, axis)) > 0)
    return table.filter(here)


def sampling(table: pl.DataFrame, resamples: int) -> dict[str, Any]:
    """Options of a fit: names of runs, and groups where some differ in the seed alone."""
    alike = shapes(table)
    groups = alike if len(set(alike)) < len(alike) else None
    return {"runs": table["run"].to_list(), "groups": groups, "resamples": resamples}


def _settings(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Runs named by the fewest columns that tell apart all that any column does: by their kind
    where that is one of them, and by what is not as in most runs."""
    used: list[str] = []
    for c in sorted(columns, key=lambda c: -table[c].n_unique()):
        if len(set(labels(table, [*used, c]))) > len(set(labels(table, used))):
            used.append(c)
    if used == ["config/model.kind"]:
        return [_word(v) for v in table[used[0]]]
    short = [c.removeprefix("config/model.") for c in used]
    usual = [table[c].value_counts(sort=True)[c][0] for c in used]
    return [
        ", ".join(f"{s} {_word(v)}" for s, v, most in zip(short, row, usual) if v != most) or "base"
        for row in table.select(used).iter_rows()
    ]


def _word(value: object) -> str:
    return {None: "–", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]
