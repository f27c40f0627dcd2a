"""Run directories of other tools, by a mapping file that says where each quantity is.

    files: ["*/config.json", "*/log.txt"]    # the files of one directory are one run
    format: jsonl                            # of files with another suffix
    loss: eval/loss                          # or `metric`; / joins the keys of nested objects
    compute: total_flos                      # also n, d, epoch
    n: model/params
    run: run_name                            # default: the directory of the files
    rows: last                               # the last row with the metric (default), or all

A directory may have one file of many rows, e.g. metrics; the single row of each other file, e.g. a
configuration, holds for all of them.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import yaml

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.table import Runs
from ligr_jax.runs.tabular import SUFFIXES, ReadTable, read_table

QUANTITIES = ("loss", "metric", "compute", "n", "d", "epoch")
KEYS = ("files", "format", "run", "rows", *QUANTITIES)
ROWS = ("last", "all")


@dataclass(frozen=True)
class RunMapping:
    """Where the files of another tool have the quantities of a run.

    Attributes:
        source: the mapping file, for messages.
        files: patterns of files, relative to the directory of all runs.
        columns: key in the files of each of `QUANTITIES` that the mapping names.
        suffix: suffix of the format; "" for the file's own.
        run: key of the run's name; "" for its directory.
        rows: one of `ROWS`.
    """

    source: str
    files: tuple[str, ...]
    columns: dict[str, str]
    suffix: str = ""
    run: str = ""
    rows: str = "last"

    @property
    def metric(self) -> str:
        """The key of the metric, or of the loss."""
        return self.columns.get("loss") or self.columns["metric"]


def read_mapping(path: Path) -> RunMapping:
    """Read a mapping file.

    Raises:
        BadInput: the file is missing or not YAML, or a key is unknown, missing or not text.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as e:
        raise BadInput(f"{path}: not a readable YAML file ({' '.join(str(e).split())})") from e
    if not isinstance(raw, dict) or not raw.keys() <= set(KEYS):
        unknown = sorted(map(str, raw.keys() - set(KEYS))) if isinstance(raw, dict) else raw
        raise BadInput(f"{path}: {unknown} is not a mapping of the keys {', '.join(KEYS)}")
    files = raw.pop("files", None)
    patterns = [files] if isinstance(files, str) else files
    texts = [*patterns, *raw.values()] if isinstance(patterns, list) else [None]
    if not patterns or not all(isinstance(text, str) for text in texts):
        raise BadInput(f'{path}: give `files`, e.g. "*/metrics.jsonl", and text for every key')
    if ("loss" in raw) == ("metric" in raw):
        raise BadInput(f"{path}: give the key of the metric: `loss` (less is better) or `metric`")
    rows = raw.get("rows", "last")
    suffix = f".{raw['format'].lower().lstrip('.')}" if "format" in raw else ""
    if rows not in ROWS or (suffix and suffix not in SUFFIXES):
        raise BadInput(
            f"{path}: `rows` is one of {', '.join(ROWS)}, and `format` one of "
            f"{', '.join(s.lstrip('.') for s in SUFFIXES)}"
        )
    columns = {key: raw[key] for key in QUANTITIES if key in raw}
    return RunMapping(str(path), tuple(patterns), columns, suffix, raw.get("run", ""), rows)


def read_mapped(directory: Path, mapping: RunMapping) -> Runs:
    """Read the runs of another tool; a run that cannot be read is `failed`, with the reason.

    Raises:
        BadInput: no file matches, or no run can be read.
    """
    files = sorted({p for pattern in mapping.files for p in directory.glob(pattern)})
    by_run: dict[Path, list[Path]] = {}
    for file in filter(Path.is_file, files):
        by_run.setdefault(file.parent, []).append(file)
    if not by_run:
        raise BadInput(f"{directory}: no file matches {list(mapping.files)} of {mapping.source}")
    tables, directories = [], {}
    failed: list[tuple[str, str]] = []
    unfinished: list[tuple[str, str]] = []
    for place, paths in by_run.items():
        name = place.relative_to(directory).as_posix()
        try:
            parts = [read_table(path, mapping.suffix) for path in paths]
            failed += [(name, why) for part in parts for _, why in part.failed]
            unfinished += [(name, why) for part in parts for _, why in part.unfinished]
            if all(len(part.table) for part in parts):
                tables.append(_run_table(name, parts, mapping))
                directories[tables[-1]["run"][0]] = place
        except BadInput as e:
            failed.append((name, str(e)))
    if not tables:
        reasons = "; ".join(f"{name}: {why}" for name, why in (failed + unfinished)[:3])
        raise BadInput(f"{directory}: no run can be read by {mapping.source}: {reasons}")
    table = pl.concat(tables, how="diagonal_relaxed")
    name = directory.resolve().name
    table = table.with_columns(sweep=pl.lit(name), sweeps=pl.lit(name))
    return Runs(table, tuple(unfinished), tuple(failed), name=name, directories=directories)


def _run_table(name: str, parts: list[ReadTable], mapping: RunMapping) -> pl.DataFrame:
    """Return the rows of one run, with its name and with the mapped columns as numbers."""
    long = [part.table for part in parts if len(part.table) > 1]
    if len(long) > 1:
        raise BadInput(f"{len(long)} files have several rows; let `files` match one of them")
    table = long[0].drop("run") if long else pl.DataFrame()
    for part in parts:
        if len(part.table) == 1:
            row = part.table.select(
                c for c in part.table.columns if c not in ("run", *table.columns)
            )
            table = table.join(row, how="cross") if table.width else row
    if mapping.run and mapping.run not in table.columns:
        raise BadInput(f"no key {mapping.run!r}; its keys: {table.columns[:12]}")
    run = pl.col(mapping.run).cast(pl.String) if mapping.run else pl.lit(name)
    for part in parts:
        for column in mapping.columns.values():
            if column in part.not_numbers:
                raise BadInput(part.not_numbers[column])
    for column in mapping.columns.values():
        if column not in table.columns:
            raise BadInput(f"no key {column!r}; its keys: {table.columns[:12]}")
    table = table.with_columns(
        run.alias("run"), pl.col(*dict.fromkeys(mapping.columns.values())).cast(pl.Float64)
    )
    if mapping.rows == "last":
        measured = table.filter(pl.col(mapping.metric).is_finite())
        if epoch := mapping.columns.get("epoch"):
            measured = measured.sort(epoch, nulls_last=False, maintain_order=True)
        table = measured.tail(1) if len(measured) else table.tail(1)
    return table
