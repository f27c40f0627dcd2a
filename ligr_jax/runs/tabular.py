"""Tables of runs as people have them: exports of trackers, spreadsheets and lines of JSON.

Read are CSV, TSV and files with semicolons or bars, JSON lines and lists of objects, each with or
without compression, and Parquet. Two shapes of exports are known:

    one row per run      W&B's table of runs, MLflow's runs; a column says the state of each run
    one column per run   W&B's charts: `Step`, `run - metric`, `run - metric__MIN`, ...
"""

import codecs
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import SUFFIXES as COMPRESSED
from ligr_jax.data.sources.compression import TextStream, plain_name
from ligr_jax.data.sources.file_formats import PARQUET
from ligr_jax.data.sources.files import DataFile, read_whole
from ligr_jax.data.sources.text_header import UTF_16, read_header
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.runs.numbers import read_numbers

TEXT = (".csv", ".tsv", ".tab")
JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*TEXT, *JSON, *PARQUET)
# Columns that name a run, of trackers and of hand-made tables; the first that exists is used.
NAMES = ("run", "tags.mlflow.runName", "run_name", "Name", "name", "Run ID", "run_id", "ID", "id")
STATES = ("State", "state", "Status", "status")
FINISHED = ("finished", "completed", "complete", "success", "succeeded", "done")
STOPPED = ("crashed", "failed", "killed", "preempted", "aborted", "error")
GOING = ("running", "pending", "scheduled", "queued", "preempting")
_CHART = re.compile(r"(.+) - (.+)")  # W&B writes `run - metric`
_PROGRESS = re.compile(r"(^|[_ ])(step|epoch|time)\b", re.IGNORECASE)  # first column of a chart
_NOT_FINITE = re.compile(rb'("\s*:\s*)(?:NaN|-?Infinity)(?=\s*[,}])')
_RANGE = ("__MIN", "__MAX")  # of the steps that a chart draws as one point


@dataclass(frozen=True)
class ReadTable:
    """A table of runs.

    Attributes:
        table: rows with the column `run`; without those of runs that did not finish.
        failed: (run, state) of runs that stopped early.
        unfinished: (run, state) of runs that have not ended.
        not_numbers: by text column, the message for a use of it as numbers.
    """

    table: pl.DataFrame
    failed: tuple[tuple[str, str], ...] = ()
    unfinished: tuple[tuple[str, str], ...] = ()
    not_numbers: dict[str, str] = field(default_factory=dict)


def read_table(path: Path, suffix: str = "") -> ReadTable:
    """Read a table of runs.

    Args:
        path: the file.
        suffix: suffix of its format; default: its own.

    Raises:
        BadInput: the file is damaged, of another format, or has no rows; the message has the
            remedy.
    """
    suffix = suffix or Path(plain_name(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(
            f"{path}: read runs from a directory or from {', '.join(SUFFIXES)} (text also as "
            f"{', '.join(COMPRESSED)}); export a spreadsheet as CSV"
        )
    frame, delimiter = (_read_json(path), "") if suffix in JSON else _read_rows(path)
    if frame.is_empty():
        raise BadInput(f"{path}: the table has no rows")
    return interpret(frame, str(path), delimiter)


def interpret(frame: pl.DataFrame, source: str, delimiter: str = "") -> ReadTable:
    """Interpret the cells, names and states of a table of runs.

    Args:
        frame: rows as they were read, at least one.
        source: file or address of the table, for messages.
        delimiter: delimiter of a text file.
    """
    name = next((n for n in NAMES if n in frame.columns), None)
    texts = [n for n in (name, *STATES) if n in frame.columns]
    frame, bad = read_numbers(frame, delimiter, texts)
    refusals = {c: f"{source}, row {cell.row + 1}, column {c!r}: {cell}" for c, cell in bad.items()}
    if chart := _is_chart(frame.columns):
        frame = _long(frame, chart)
        return ReadTable(frame, not_numbers=refusals)
    numbered = pl.Series([f"#{i}" for i in range(len(frame))])
    names = numbered if name is None else frame[name].cast(pl.String).fill_null(numbered)
    return _finished(frame.with_columns(names.alias("run")), refusals)


def _read_rows(path: Path) -> tuple[pl.DataFrame, str]:
    """Return the rows of a Parquet or delimited file, and its delimiter; "" for Parquet."""
    try:
        with TextStream(path) as stream:
            encoding = "utf-16" if stream.read(2) in UTF_16 else "utf-8"
    except OSError as e:
        raise BadInput(f"{path}: not readable ({e})") from e
    file = DataFile(path, str(path), reading=TextOptions(encoding=encoding, has_flags=False))
    if file.parquet:
        return read_whole(file).frame, ""
    names, delimiter = read_header(path, file.reading)
    if names[0].startswith("sep="):  # of Excel
        raise BadInput(f"{path}: line 1 is {names[0]!r}, not column names; remove the line")
    return read_whole(file).frame, delimiter


def _read_json(path: Path) -> pl.DataFrame:
    """Return JSON lines, or a list of objects; the keys of nested objects are joined by `/`."""
    try:
        with TextStream(path) as stream:
            raw = stream.read()
    except OSError as e:
        raise BadInput(f"{path}: not readable ({e})") from e
    # Python writes NaN and Infinity, which JSON does not have.
    raw = _NOT_FINITE.sub(rb"\1null", raw.removeprefix(codecs.BOM_UTF8))
    try:
        if raw.lstrip().startswith(b"[") or _is_object(raw):
            frame = pl.read_json(io.BytesIO(raw), infer_schema_length=None)
        else:
            frame = pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
    except pl.exceptions.PolarsError as e:
        raise BadInput(f"{path}{_bad_line(raw)}; write one JSON object per line") from e
    while structs := [c for c in frame.columns if isinstance(frame[c].dtype, pl.Struct)]:
        frame = frame.unnest(structs, separator="/")
    return frame


def _is_object(raw: bytes) -> bool:
    """Return whether the text is one object, perhaps of several lines."""
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _bad_line(raw: bytes) -> str:
    """Return the first line that is not a JSON object, for a message."""
    for number, line in enumerate(raw.splitlines(), 1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return f", line {number}: {line[:60]!r} is not an object"
        except ValueError as e:
            return f", line {number}: {line[:60]!r} is not JSON ({e})"
    return ": values of one key have types that do not fit together"


def _is_chart(columns: list[str]) -> str:
    """Return the column of steps of a W&B chart; "" if the columns are no such export."""
    first, *rest = columns
    lines = [c for c in rest if not c.endswith(_RANGE)]
    ranges = {c for c in rest if c.endswith(_RANGE)}
    complete = ranges == {f"{c}{end}" for c in lines for end in _RANGE}
    plain = not ranges and _PROGRESS.search(first)
    is_chart = bool(lines) and (complete or plain) and all(_CHART.fullmatch(c) for c in lines)
    return first if is_chart else ""


def _long(frame: pl.DataFrame, step: str) -> pl.DataFrame:
    """Return one row per run and step of a chart, with one column per metric."""
    lines = [c for c in frame.columns if c != step and not c.endswith(_RANGE)]
    parts = pl.col("line").str.extract_groups(f"^{_CHART.pattern}$").struct
    rows = frame.select(step, *lines).unpivot(lines, index=step, variable_name="line")
    rows = rows.with_columns(run=parts[0], metric=parts[1]).drop_nulls("value")
    return rows.pivot("metric", index=["run", step], values="value")


def _finished(table: pl.DataFrame, refusals: dict[str, str]) -> ReadTable:
    """Separate the runs that did not finish, if a column says the state of every run."""
    for name in STATES:
        if name not in table.columns or table[name].dtype != pl.String:
            continue
        state = table[name].str.to_lowercase()
        if not state.is_in([*FINISHED, *STOPPED, *GOING]).all():
            continue
        rows = table.select("run", state=pl.format(f"{name} is {{}}", name))
        return ReadTable(
            table.filter(state.is_in(FINISHED)),
            failed=tuple(rows.filter(state.is_in(STOPPED)).iter_rows()),
            unfinished=tuple(rows.filter(state.is_in(GOING)).iter_rows()),
            not_numbers=refusals,
        )
    return ReadTable(table, not_numbers=refusals)
