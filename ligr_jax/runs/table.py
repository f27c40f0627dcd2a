"""Run directories, or any table of runs, as one polars table, which fits and reports read.

    RUN/config.json     the resolved configuration     RUN/metrics.jsonl   one JSON object per row
    RUN/summary.json    flat; only of a finished run   RUN/error.txt       only of a failed one

The directory of a sweep also has `sweep.json`: the points, each with the sweeps that contain it and
its estimated cost. Several directories are read as one table. The column `sweep` has the directory
of each run, or the first sweep that contains it; the column `sweeps` has all sweeps.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import plain_name
from ligr_jax.errors import LigrError
from ligr_jax.runs.columns import is_shape
from ligr_jax.runs.directory import load_summary, read_error
from ligr_jax.runs.files import CONFIG, ERROR, METRICS, SUMMARY, SWEEP, RunFiles
from ligr_jax.runs.listed import read_listed
from ligr_jax.runs.rows import DamagedRows, read_rows
from ligr_jax.runs.staged import stage_runs
from ligr_jax.runs.tabular import ReadTable, interpret, read_table
from ligr_jax.store.mirror import local_path

WANDB = "wandb:"  # address of a project of W&B, before ENTITY/PROJECT
SEPARATOR = ", "  # of the names in `sweeps`


@dataclass(frozen=True)
class Runs:
    """The runs of one or several sweeps.

    Attributes:
        table: One row per finished run, with the columns of its summary and `sweep`, sorted by
            name.
        unfinished: Name of each unfinished run and the last step that it reached.
        failed: Name of each failed run and the last line of its error.
        not_started: Number of points in sweep.json that have no directory yet.
        name: Name of the sweep or sweeps.
        directories: Directory of each finished run that has one, by name.
        not_numbers: By text column of a table, the message for its use as numbers: file, row,
            column, value and remedy.
    """

    table: pl.DataFrame
    unfinished: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    not_started: int = 0
    name: str = ""
    directories: dict[str, Path] = field(default_factory=dict)
    not_numbers: dict[str, str] = field(default_factory=dict)

    def require_numbers(self, names: Iterable[str]) -> None:
        """Raise BadInput for a column whose file has a cell that is not a number."""
        for name in names:
            if name in self.not_numbers:
                raise BadInput(self.not_numbers[name])


def read_runs(*paths: str | Path, filters: Mapping[str, Any] | None = None) -> Runs:
    """Read sweeps, single runs, and tables of runs as one table.

    A table needs only the columns that will be fitted; runs without a name are numbered. The same
    run in two directories counts once. Different runs with the same name get the name of their
    sweep as a prefix.

    Args:
        paths: Directories of sweeps or runs, tables that `read_table` reads, and projects of W&B
            as "wandb:ENTITY/PROJECT".
        filters: Which runs of W&B projects are read, as for the client's `Api().runs`.

    Raises:
        BadInput: A path does not exist, a table cannot be read, or a directory has no runs.
    """
    if not paths:
        raise BadInput("no runs to read: name a sweep's directory or a table of runs")
    sweeps = [
        _read_wandb(str(path), filters or {})
        if str(path).startswith(WANDB)
        else _read(local_path(path))
        for path in paths
    ]
    return sweeps[0] if len(sweeps) == 1 else _merge(sweeps)


def _read(path: Path) -> Runs:
    stage_runs(path)
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise BadInput(f"{path}: no such sweep directory or table of runs")
    return _of_table(read_table(path), Path(plain_name(path)).stem)


def _read_wandb(address: str, filters: Mapping[str, Any]) -> Runs:
    from ligr_jax.runs.wandb_runs import wandb_rows  # imports the client, which takes a second

    project = address.removeprefix(WANDB)
    read = interpret(_table(wandb_rows(project, filters)), address)
    return _of_table(read, project)


def _of_table(read: ReadTable, name: str) -> Runs:
    table = read.table
    if "sweep" not in table.columns:
        table = table.with_columns(sweep=pl.lit(name))
    if "sweeps" not in table.columns:
        table = table.with_columns(sweeps=pl.col("sweep"))
    return Runs(table, read.unfinished, read.failed, name=name, not_numbers=read.not_numbers)


def _merge(sweeps: Sequence[Runs]) -> Runs:
    """Merge sweeps; a run that several of them have counts for the first one."""
    rows: dict[str, dict[str, Any]] = {}  # by the values of the run, without those of its sweep
    directory_of: dict[str, Path | None] = {}  # by the same key
    for sweep in sweeps:
        for row in sweep.table.iter_rows(named=True):
            of_sweep = ("sweep", "sweeps", "estimate/")
            values = {k: v for k, v in row.items() if v is not None and not k.startswith(of_sweep)}
            identity = json.dumps(values, sort_keys=True, default=str)
            if identity not in rows:
                rows[identity] = dict(row)
                directory_of[identity] = sweep.directories.get(row["run"])
    counts = Counter(row["run"] for row in rows.values())
    directories: dict[str, Path] = {}
    for identity, row in rows.items():
        if counts[row["run"]] > 1:
            row["run"] = f"{row['sweep']}/{row['run']}"
        if directory := directory_of[identity]:
            directories[row["run"]] = directory
    return Runs(
        table=_table(list(rows.values())),
        unfinished=tuple(pair for sweep in sweeps for pair in sweep.unfinished),
        failed=tuple(pair for sweep in sweeps for pair in sweep.failed),
        not_started=sum(sweep.not_started for sweep in sweeps),
        name=", ".join(sweep.name for sweep in sweeps),
        directories=directories,
        not_numbers={c: why for sweep in reversed(sweeps) for c, why in sweep.not_numbers.items()},
    )


def column(table: pl.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a numeric column as float64, with NaN for null.

    Args:
        table: A table of runs.
        name: Name of the column.

    Raises:
        BadInput: There is no such column, and the message has the nearest names; or the column is
            not numeric.
    """
    if name not in table.columns:
        near = difflib.get_close_matches(name, table.columns, 4, 0.4)
        raise BadInput(f"the runs have no column {name!r}; nearest: {near or table.columns[:8]}")
    try:
        return table[name].cast(pl.Float64).to_numpy().astype(np.float64)
    except pl.exceptions.PolarsError as e:
        raise BadInput(f"column {name!r} is {table[name].dtype}, not numeric") from e


def varied(table: pl.DataFrame) -> list[str]:
    """Return the settings that differ between runs, without seeds, names and paths."""
    return [c for c in table.columns if is_shape(c) and table[c].n_unique() > 1]


def shapes(table: pl.DataFrame) -> list[str]:
    """Return a label per run, which is equal for runs that differ only in their seed."""
    return labels(table, varied(table))


def labels(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return a label per run, which is equal for runs with equal values in all `columns`."""
    if not columns:
        return [""] * len(table)
    return [json.dumps(row, default=str) for row in table.select(columns).iter_rows()]


def _read_directory(path: Path) -> Runs:
    candidates = [path] if RunFiles(path).summary.exists() else sorted(path.iterdir())
    directories = [d for d in candidates if d.is_dir() and RunFiles(d).exists]
    if not directories:
        marks = " or ".join((SUMMARY, ERROR, METRICS, CONFIG))
        raise BadInput(f"{path}: no run directories (none holds {marks})")
    finished: list[dict[str, Any]] = []
    finished_in: dict[str, Path] = {}
    unfinished, failed = [], []
    for run in directories:
        if RunFiles(run).summary.exists():
            try:
                finished.append({"run": run.name, **(load_summary(run) or {})})
                finished_in[str(finished[-1]["run"])] = run
            except (LigrError, OSError) as e:
                failed.append((run.name, str(e)))
        elif RunFiles(run).error.exists():
            lines = read_error(run).splitlines()
            failed.append((run.name, lines[-1] if lines else f"{ERROR} is empty"))
        else:
            unfinished.append((run.name, _reached(run)))
    sweep = read_listed(path / SWEEP)
    listed = sweep["points"]
    name = str(sweep.get("name") or path.resolve().name)
    points = {p["run"]: p for p in listed if "run" in p}
    for row in finished:
        point = points.get(row["run"], {})
        sweeps = point.get("sweeps") or [name]
        row |= {"sweep": sweeps[0], "sweeps": SEPARATOR.join(sweeps)}
        row |= {f"estimate/{k}": v for k, v in point.get("estimate", {}).items()}
    return Runs(
        table=_table(finished),
        unfinished=tuple(unfinished),
        failed=tuple(failed),
        not_started=max(0, len(listed) - len(finished) - len(unfinished) - len(failed)),
        name=name,
        directories=finished_in,
    )


def _reached(run: Path) -> str:
    """Return the last step of an unfinished run, in words."""
    try:
        steps = [row["step"] for row in read_rows(RunFiles(run).metrics)]
    except (DamagedRows, OSError) as e:
        return str(e)
    return f"step {steps[-1]}" if steps else "no step yet"


def _table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return rows with different keys as a table; lists and mixed columns become JSON text."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        values = [None if v is None else float(v) for v in values]
    elif len(kinds) > 1 or kinds & {list, dict}:
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pl.Series(name, values, dtype=pl.Null if not kinds else None)
