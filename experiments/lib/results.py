"""Results of studies: tables that are printed and recorded in `experiments/results/NAME.json`.

A file holds the question, the command, commit, date, device, versions, seeds, how the numbers were
recorded, and the tables. A table has columns, each a name and the format of its numbers, and rows
of cells. A cell is a text, a number, null, or an object with some of `value`, `low`, `high` (an
interval) and `plus_minus`; the caption of the table says what the interval is.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import ligr_jax
from ligr_jax.atomic import write_atomically

RESULTS = Path(__file__).parents[1] / "results"
BY_THE_RUN = "written by the run"
TRANSCRIBED = "transcribed from the run's printed table"
PACKAGES = ("jax", "numpy")
FIELDS = (
    "study",
    "question",
    "command",
    "commit",
    "date",
    "device",
    "versions",
    "seeds",
    "recorded",
    "tables",
)
Cell = Any  # str | float | None | Mapping[str, float]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    name: the head of the column, with its unit.
    format: format specification of its numbers, such as `.4f`; None for a column of text.
    spread: format of the ends of an interval and of what follows the sign ±, if it differs.
    """

    name: str
    format: str | None = None
    spread: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of a study; `caption` says what its numbers and intervals are."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(self.columns)} columns, row {row}")

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = ["| " + " | ".join(column.name for column in self.columns) + " |"]
        lines.append("|" + "---|" * len(self.columns))
        for row in self.rows:
            cells = (text_of(cell, column) for cell, column in zip(row, self.columns, strict=True))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


@dataclass
class Study:
    """The tables of one study. `add` prints a table; `record` writes the file.

    name: name of the file in `experiments/results`, without the suffix.
    question: one line.
    command: what reproduces the numbers.
    seeds: seeds of the runs; empty if the study has none.
    """

    name: str
    question: str
    command: str
    seeds: Sequence[int] = ()
    tables: list[Table] = field(default_factory=list)

    @classmethod
    def of(cls, script: str, doc: str | None, seeds: Sequence[int] = ()) -> "Study":
        """Return the study of a script: its name, and the question in its docstring."""
        name = Path(script).stem
        question = (doc or "").partition("\n")[0]
        return cls(name, question, f"python experiments/{name}.py", seeds)

    def add(
        self,
        name: str,
        caption: str,
        columns: Sequence[Column],
        rows: Iterable[Sequence[Cell]],
    ) -> None:
        """Print a table and keep it for `record`."""
        self.tables.append(Table(name, caption, columns, list(rows)))
        print(f"\n{caption}\n\n{self.tables[-1].markdown()}", flush=True)

    def record(self, path: Path | None) -> None:
        """Write the study with commit, date, device and versions; do nothing without a path."""
        if path is None:
            return
        write_study(path, {**self._plain(), **environment(), "recorded": BY_THE_RUN})
        print(path)

    def _plain(self) -> dict[str, Any]:
        return {
            "study": self.name,
            "question": self.question,
            "command": self.command,
            "seeds": list(self.seeds),
            "tables": [asdict(table) for table in self.tables],
        }


def environment() -> dict[str, Any]:
    """Return commit, date, device and versions of this process."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
            "ligr_jax": ligr_jax.__version__,
        },
    }


def commit() -> str | None:
    """Return the commit of the repository, marked if files differ from it; None outside of Git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    result = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def device() -> str:
    """Return the processor and, where JAX has one, the accelerator."""
    import jax

    accelerators = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    cores = f"{os.cpu_count()} cores, {cpu_name()}"
    return f"{len(accelerators)} x {accelerators[0]}; {cores}" if accelerators else cores


def cpu_name() -> str:
    """Return the name of the processor, or of its architecture where Linux does not show it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_study(path: Path, study: Mapping[str, Any]) -> None:
    """Write a study, with the fields in their order; a table's row is one line of the file.

    Raises:
        ValueError: a field is missing or unknown.
    """
    if set(study) != set(FIELDS):
        raise ValueError(f"fields of {path}: {sorted(set(study) ^ set(FIELDS))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [f" {json.dumps(k)}: {json.dumps(study[k], ensure_ascii=False)}" for k in FIELDS[:-1]]
    tables = ",\n".join(table_json(table) for table in study["tables"])
    body = ",\n".join([*fields, f' "tables": [\n{tables}\n ]'])
    write_atomically(path, f"{{\n{body}\n}}\n")


def table_json(table: Mapping[str, Any]) -> str:
    """Return the JSON of a table, one row per line."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    columns = ",\n".join(
        "    " + dump({k: v for k, v in column.items() if v is not None})
        for column in table["columns"]
    )
    rows = ",\n".join("    " + dump(row) for row in table["rows"])
    return (
        f'  {{"name": {dump(table["name"])},\n   "caption": {dump(table["caption"])},\n'
        f'   "columns": [\n{columns}],\n   "rows": [\n{rows}]}}'
    )


def read_study(path: Path) -> dict[str, Any]:
    """Return a study, its tables as `Table`.

    Raises:
        ValueError: a field is missing or unknown, or a row does not have the table's columns.
    """
    study = json.loads(path.read_text())
    if set(study) != set(FIELDS):
        raise ValueError(f"fields of {path}: {sorted(set(study) ^ set(FIELDS))}")
    tables = [
        Table(t["name"], t["caption"], [Column(**c) for c in t["columns"]], t["rows"])
        for t in study["tables"]
    ]
    result: dict[str, Any] = study | {"tables": {table.name: table for table in tables}}
    return result


def text_of(cell: Cell, column: Column) -> str:
    """Return a cell as text: `value ± x`, `value [low, high]`, or `low to high`."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, Mapping):
        return number(cell, column.format)
    if "value" not in cell:
        return " to ".join(number(cell[end], column.format) for end in ("low", "high"))
    text, spread = number(cell["value"], column.format), column.spread or column.format
    if "plus_minus" in cell:
        text += f" ± {number(cell['plus_minus'], spread)}"
    if "low" in cell:
        low, high = (number(cell[end], spread) for end in ("low", "high"))
        text += f" [{low}, {high}]"
    return text


def number(value: float, specification: str | None) -> str:
    return str(value) if specification is None else format(value, specification)


def interval(value: float, low: float, high: float) -> dict[str, float]:
    """Return a cell with an interval."""
    return {"value": float(value), "low": float(low), "high": float(high)}


def mean_cell(values: Sequence[float]) -> Cell:
    """Return the cell of a mean, with the standard deviation of several values."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean
    return {"value": mean, "plus_minus": float(np.std(values, ddof=1))}
