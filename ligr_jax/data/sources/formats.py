"""Selection of the adapter that reads a log."""

from pathlib import Path

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.adapter import Adapter
from ligr_jax.data.sources.amazon2023 import AMAZON2023
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.criteo import CRITEO
from ligr_jax.data.sources.ebnerd import EBNERD
from ligr_jax.data.sources.file_formats import SUFFIXES
from ligr_jax.data.sources.kuairand import KUAIRAND
from ligr_jax.data.sources.listing import table_files
from ligr_jax.data.sources.merrec import MERREC
from ligr_jax.data.sources.mind import MIND
from ligr_jax.data.sources.movielens import MOVIELENS
from ligr_jax.data.sources.netflix import NETFLIX
from ligr_jax.data.sources.open_bandit import OPEN_BANDIT
from ligr_jax.data.sources.recflow import RECFLOW
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.taac2026 import TAAC2026
from ligr_jax.data.sources.table_columns import EXAMPLE, TableColumns
from ligr_jax.data.sources.table_source import table_source
from ligr_jax.data.sources.taobao_ads import TAOBAO_ADS
from ligr_jax.data.sources.tencentgr import TENCENTGR
from ligr_jax.data.sources.tenrec import TENREC
from ligr_jax.data.sources.vk_lsvd import VK_LSVD
from ligr_jax.data.sources.yambda import YAMBDA

# Public data sets, in the order in which a directory is compared with their layouts.
ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        KUAIRAND,
        RECFLOW,
        MOVIELENS,
        VK_LSVD,
        TENREC,
        MERREC,
        YAMBDA,
        TENCENTGR,
        TAAC2026,
        EBNERD,
        MIND,
        AMAZON2023,
        NETFLIX,
        TAOBAO_ADS,
        CRITEO,
        OPEN_BANDIT,
    )
}

FORMATS: tuple[str, ...] = ("canonical", "table", *ADAPTERS)


def open_source(
    path: str | Path, format: str = "auto", columns: TableColumns | None = None
) -> LogSource:
    """Open a log.

    Args:
        path: directory or file of the log.
        format: one of `FORMATS`, or "auto" to detect the format by the files.
        columns: the meaning of the columns of a table; the other formats define it.

    Raises:
        BadInput: the path does not exist, or no format fits.
    """
    path, columns = Path(path), columns or TableColumns()
    if not path.exists():
        raise BadInput(f"{path} does not exist; give the directory or file of the log")
    name = detect_format(path, columns) if format == "auto" else format
    if name != "table":
        if path.is_file():
            raise BadInput(f"--format {name} reads a directory, and {path} is a file")
        _refuse_table_options(path, name, columns)
    if name == "canonical":
        return canonical_source(path)
    return table_source(path, columns) if name == "table" else ADAPTERS[name].open(path)


def detect_format(path: Path, columns: TableColumns) -> str:
    """Return the name of the format of a log.

    Raises:
        BadInput: no format fits. The message lists what each similar format lacks.
    """
    if path.is_file():
        return "table"
    if (path / "log.json").is_file():
        return "canonical"
    marks = {name: adapter.lacking(path) for name, adapter in ADAPTERS.items()}
    for name, lacking in marks.items():
        if lacking == []:
            return name
    if columns.all_actions and table_files(path):
        return "table"
    almost = [
        f"As {name} (--format {name}): {'; '.join(lacking)}. "
        for name, lacking in marks.items()
        if lacking
    ]
    if table_files(path):
        almost.append(f"As a table, declare what its columns mean, e.g. {EXAMPLE}. ")
    names = sorted(p.name for p in path.iterdir())
    raise BadInput(
        f"{path}: the format of the log is not known. Looked for log.json (canonical), the "
        f"files of {', '.join(ADAPTERS)} (`ligr sources` shows their layouts), and, "
        f"if --actions is given, any {', '.join(SUFFIXES)} file (--format table). "
        f"{''.join(almost)}The directory contains {names[:12] or 'nothing'}"
    )


def _refuse_table_options(path: Path, name: str, columns: TableColumns) -> None:
    """Raise `BadInput` for options of tables, which other formats ignore."""
    requested = {
        "--map": columns.names,
        "--ignore": columns.ignore,
        "--label": columns.labels,
        "--late": columns.late,
        "--time-unit, --time-format or --time-zone": columns.time != TableColumns().time,
        "--delimiter, --encoding, --null-values, --no-quotes, --no-header or --column-names": (
            columns.reading != TableColumns().reading
        ),
        "--explode": columns.explode,
        "--items": columns.items,
        "--labels": columns.label_table,
    }
    for option, value in requested.items():
        if value:
            raise BadInput(
                f"{option} is for tables; {path} is read as {name} (or add --format table)"
            )
