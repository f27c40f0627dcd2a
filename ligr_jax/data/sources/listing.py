"""Which files of a directory hold the rows of a log, and what their paths say."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import plain_name
from ligr_jax.data.sources.files import PARQUET, DataFile, column_names
from ligr_jax.data.sources.reading import Reading

TEXT = (".csv", ".tsv", ".tab")
SUFFIXES = (*PARQUET, *TEXT)
LOOSE = ".txt"  # rows where nothing else holds any, a note to the reader elsewhere
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Listing:
    """files: with rows, by name. not_read: names of the other visible files."""

    files: list[DataFile]
    not_read: list[str]


def is_table(path: Path) -> bool:
    """Whether a file's name says that it holds rows; hidden files (.name, _name) never do."""
    if path.name.startswith((".", "_")):
        return False
    return path.suffix in PARQUET or Path(plain_name(path)).suffix in TEXT


def table_files(directory: Path, reading: Reading | None = None) -> list[DataFile]:
    """Files with rows in `directory` and below it, by name."""
    return list_tables(directory, reading).files


def list_tables(path: Path, reading: Reading | None = None) -> Listing:
    """The files of a log: `path` itself, or those in the directory and below it, by name."""
    reading = reading or Reading()
    if path.is_file():
        return Listing([DataFile(path, path.name, reading=reading)], [])
    visible = [p for p in _walk(path) if p.is_file()]
    tables = [p for p in visible if is_table(p)]
    tables = tables or [p for p in visible if Path(plain_name(p)).suffix == LOOSE]
    files = [
        DataFile(p, p.relative_to(path).as_posix(), _partition(p.relative_to(path)), reading)
        for p in tables
    ]
    return Listing(files, [p.relative_to(path).as_posix() for p in visible if p not in set(tables)])


def same_columns(files: list[DataFile]) -> list[str]:
    """Columns of the files; raises `BadInput` where they differ."""
    first = column_names(files[0])
    for file in files[1:]:
        there = column_names(file)
        if set(there) != set(first):
            more = [n for n in there if n not in first]
            less = [n for n in first if n not in there]
            differences = [f"lacks {less}"] * bool(less) + [f"has {more} more"] * bool(more)
            raise BadInput(
                f"{file.path}: its columns differ from those of {files[0].path}: it "
                f"{' and '.join(differences)}; give files of one table (an item table by --items)"
            )
    return first


def not_read_remark(names: list[str]) -> tuple[str, ...]:
    """A line that names the files that were left out, or none."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (f"files not read: {', '.join(names[:5])}{more}",) if names else ()


def _walk(directory: Path) -> list[Path]:
    """Everything visible below `directory`, by name."""
    out: list[Path] = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        out += _walk(path) if path.is_dir() else [path]
    return out


def _partition(relative: Path) -> dict[str, str | None]:
    """Columns of a path such as dt=2023-11-16/hour=05/part-0.parquet (Hive)."""
    out: dict[str, str | None] = {}
    for part in relative.parts[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            out[unquote(name)] = None if value == NULL_PARTITION else unquote(value)
    return out
