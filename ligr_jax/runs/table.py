"""Run directories, or any table of runs, as one polars table: what every fit and report reads.

    RUN/config.json     the resolved configuration     RUN/metrics.jsonl   one JSON object per row
    RUN/summary.json    flat; only of a finished run   RUN/error.txt       only of a failed one

Beside the runs of a sweep lies `sweep.json`: its points, each with the sweeps that ask for it and
what it was estimated to cost. Several directories are read as one table. Its column `sweep` says
where each run comes from, or the first sweep that asked for it; `sweeps` says all.
"""

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.digests import DamagedFile, read_json
from ligr_jax.errors import LigrError
from ligr_jax.runs.directory import load_summary, read_error
from ligr_jax.runs.files import CONFIG, ERROR, METRICS, SUMMARY, SWEEP, RunFiles
from ligr_jax.runs.rows import DamagedRows, read_rows

READERS = {
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    ".parquet": pl.read_parquet,
}
# Configuration that is no part of a run's shape: chance, places, and how it is computed or watched.
UNSHAPED = {"seed", "out", "directory", "dir", "name", "workers", "remat", "unroll"}
UNSHAPED |= {"implementation", "log_every", "eval_every", "checkpoint_every", "keep"}
UNSHAPED |= {"checkpoint_minutes"}
SEPARATOR = ", "  # of the names in `sweeps`
UNSHAPED_PARTS = ("config/track.", "config/mesh.")


@dataclass(frozen=True)
class Runs:
    """What one sweep, or several, have come to.

    table: one row per finished run, with the columns of its summary and `sweep`, in order of name.
    unfinished: (run, last step reached). failed: (run, last line of its error).
    not_started: planned points that have no directory yet (0 where no plan is known).
    places: directory of each finished run that has one. name: of the sweep or sweeps.
    """

    table: pl.DataFrame
    unfinished: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    not_started: int = 0
    name: str = ""
    places: dict[str, Path] = field(default_factory=dict)


def read_runs(*paths: str | Path) -> Runs:
    """Reads sweeps' directories, single runs' directories, and CSV or Parquet tables, as one.

    A table needs only the columns that are then fitted; runs without a `run` column are numbered.
    The same run in two places counts once; different runs of one name get their sweep's before it.
    Raises BadInput for a missing path, an unreadable table or a directory without runs.
    """
    if not paths:
        raise BadInput("no runs to read: name a sweep's directory or a table of runs")
    found = [_read(Path(path)) for path in paths]
    return found[0] if len(found) == 1 else _together(found)


def _read(path: Path) -> Runs:
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise BadInput(f"{path}: no such sweep directory or table of runs")
    if path.suffix not in READERS:
        raise BadInput(f"{path}: read runs from a directory or from {sorted(READERS)}")
    try:
        table = READERS[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as e:
        raise BadInput(f"{path}: not a readable table of runs ({e})") from e
    if table.is_empty():
        raise BadInput(f"{path}: the table has no rows")
    if "run" not in table.columns:
        table = table.with_columns(run=pl.Series([f"#{i}" for i in range(len(table))]))
    if "sweep" not in table.columns:
        table = table.with_columns(sweep=pl.lit(path.stem))
    if "sweeps" not in table.columns:
        table = table.with_columns(sweeps=pl.col("sweep"))
    return Runs(table.with_columns(pl.col("run").cast(pl.String)), name=path.stem)


def _together(found: Sequence[Runs]) -> Runs:
    """Several sweeps as one; a run that stands in two of them is the first one's."""
    rows: dict[str, dict[str, Any]] = {}  # by what the run is, whichever sweep it stands in
    places: dict[str, Path] = {}
    for sweep in found:
        for row in sweep.table.iter_rows(named=True):
            asked = ("sweep", "sweeps", "estimate/")
            known = {k: v for k, v in row.items() if v is not None and not k.startswith(asked)}
            identity = json.dumps(known, sort_keys=True, default=str)
            if identity not in rows:
                rows[identity] = {**row, "place": sweep.places.get(row["run"])}
    often = Counter(row["run"] for row in rows.values())
    for row in rows.values():
        if often[row["run"]] > 1:
            row["run"] = f"{row['sweep']}/{row['run']}"
        if place := row.pop("place"):
            places[row["run"]] = place
    return Runs(
        _table(list(rows.values())),
        tuple(pair for sweep in found for pair in sweep.unfinished),
        tuple(pair for sweep in found for pair in sweep.failed),
        sum(sweep.not_started for sweep in found),
        ", ".join(sweep.name for sweep in found),
        places,
    )


def column(table: pl.DataFrame, name: str) -> NDArray[np.float64]:
    """A numeric column as float64, null as NaN; raises BadInput with the nearest names."""
    if name not in table.columns:
        near = difflib.get_close_matches(name, table.columns, 4, 0.4)
        raise BadInput(f"the runs have no column {name!r}; nearest: {near or table.columns[:8]}")
    try:
        return table[name].cast(pl.Float64).to_numpy().astype(np.float64)
    except pl.exceptions.PolarsError as e:
        raise BadInput(f"column {name!r} is {table[name].dtype}, not numeric") from e


def varied(table: pl.DataFrame) -> list[str]:
    """Configuration columns that differ between runs, without seeds, names and places."""
    config = [c for c in table.columns if c.startswith("config/")]
    leaf = {c: c.rsplit(".", 1)[-1].rsplit("/", 1)[-1] for c in config}
    shaped = [c for c in config if leaf[c] not in UNSHAPED and not c.startswith(UNSHAPED_PARTS)]
    return [c for c in shaped if table[c].n_unique() > 1]


def shapes(table: pl.DataFrame) -> list[str]:
    """A label per run, equal for runs that differ in their seed alone."""
    return labels(table, varied(table))


def labels(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """A label per run, equal for runs that agree in all `columns`."""
    if not columns:
        return [""] * len(table)
    return [json.dumps(row, default=str) for row in table.select(columns).iter_rows()]


def _read_directory(path: Path) -> Runs:
    found = [path] if RunFiles(path).summary.exists() else sorted(path.iterdir())
    found = [d for d in found if d.is_dir() and RunFiles(d).exists]
    if not found:
        marks = " or ".join((SUMMARY, ERROR, METRICS, CONFIG))
        raise BadInput(f"{path}: no run directories (none holds {marks})")
    finished: list[dict[str, Any]] = []
    places: dict[str, Path] = {}
    unfinished, failed = [], []
    for run in found:
        if RunFiles(run).summary.exists():
            try:
                finished.append({"run": run.name, **(load_summary(run) or {})})
                places[str(finished[-1]["run"])] = run
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
    seen = len(finished) + len(unfinished) + len(failed)
    waiting = max(0, len(listed) - seen)
    points = {p["run"]: p for p in listed if "run" in p}
    for row in finished:
        point = points.get(row["run"], {})
        asking = point.get("sweeps") or [name]
        row |= {"sweep": asking[0], "sweeps": SEPARATOR.join(asking)}
        row |= {f"estimate/{k}": v for k, v in point.get("estimate", {}).items()}
    return Runs(_table(finished), tuple(unfinished), tuple(failed), waiting, name, places)


def _reached(run: Path) -> str:
    """How far an unfinished run has come."""
    try:
        steps = [row["step"] for row in read_rows(RunFiles(run).metrics)]
    except (DamagedRows, OSError) as e:
        return str(e)
    return f"step {steps[-1]}" if steps else "no step yet"


def read_listed(path: Path) -> dict[str, Any]:
    """A sweep.json: `points`, a list of objects; nothing where there is no such file.

    Raises:
        DamagedFile: it is not what was written.
    """
    remedy = "move it away: `ligr sweep` with the same files writes it again, and keeps all runs"
    if not path.exists():
        return {"points": []}
    listed = read_json(path, remedy)
    points = listed.get("points")
    if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise DamagedFile(f"{path}: its `points` are not a list of objects; {remedy}")
    return listed


def _table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Rows with differing keys as columns; lists and mixed columns become their JSON text."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        values = [None if v is None else float(v) for v in values]
    elif len(kinds) > 1 or kinds & {list, dict}:
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pl.Series(name, values, dtype=pl.Null if not kinds else None)
