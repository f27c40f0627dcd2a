"""Which adapter reads a directory."""

from collections.abc import Callable
from pathlib import Path

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.files import SUFFIXES, table_files
from ligr_jax.data.sources.kuairand import kuairand_source, looks_like_kuairand
from ligr_jax.data.sources.movielens import looks_like_movielens, movielens_source
from ligr_jax.data.sources.source import Source
from ligr_jax.data.sources.tabular import TableColumns, table_source

FORMATS: dict[str, Callable[[Path, TableColumns], Source]] = {
    "canonical": lambda path, _: canonical_source(path),
    "kuairand": lambda path, _: kuairand_source(path),
    "movielens": lambda path, _: movielens_source(path),
    "table": table_source,
}


def open_source(
    path: str | Path, format: str = "auto", columns: TableColumns | None = None
) -> Source:
    """The source at `path`, recognised by its files where `format` is "auto".

    columns: what the columns of a table mean; other formats know it.
    Raises `BadInput` where nothing is there or nothing fits.
    """
    path, columns = Path(path), columns or TableColumns()
    if not path.exists():
        raise BadInput(f"{path} does not exist; give the directory or file that holds the log")
    name = recognise(path, columns) if format == "auto" else format
    if name != "table" and columns.names:
        raise BadInput(f"--map is for tables; {path} is read as {name} (or add --format table)")
    return FORMATS[name](path, columns)


def recognise(path: Path, columns: TableColumns) -> str:
    """Name of the format of `path`, by the files in it."""
    if path.is_file():
        return "table"
    if (path / "log.json").is_file():
        return "canonical"
    if looks_like_kuairand(path):
        return "kuairand"
    if looks_like_movielens(path):
        return "movielens"
    if columns.actions and table_files(path):
        return "table"
    names = sorted(p.name for p in path.iterdir())
    raise BadInput(
        f"{path}: no known log. Looked for log.json (canonical), log_standard* or log_random* "
        "(KuaiRand), ratings.csv or ratings.dat (MovieLens), and, if --actions is given, any "
        f"{' or '.join(SUFFIXES)} file. There: {names[:12] or 'nothing'}"
    )
