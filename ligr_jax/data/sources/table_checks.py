"""Checks of a table's files and columns against the declared columns."""

import re
from collections.abc import Sequence

from ligr_jax.data.schema import MEMBER, TIME, BadInput
from ligr_jax.data.sources.file_formats import STREAMED, SUFFIXES, suffix_of
from ligr_jax.data.sources.files import DataFile, column_names
from ligr_jax.data.sources.table_columns import EXAMPLE, ITEM, TableColumns
from ligr_jax.data.sources.validate import did_you_mean

# Formats that would be read as a meaningless text file.
_UNSUPPORTED = (
    *(".xlsx", ".xls", ".ods", ".orc", ".pkl", ".pickle", ".npy", ".npz", ".mat", ".h5", ".hdf5"),
    *(".sqlite", ".db", ".tar", ".tgz", ".7z", ".rar"),
)


def refuse_unsupported_format(file: DataFile) -> None:
    """Raise `BadInput` for a file whose suffix belongs to a format that is not supported."""
    suffix = next((s for s in file.path.suffixes if s.lower() in _UNSUPPORTED), None)
    if suffix:
        raise BadInput(
            f"{file.path}: {suffix} files are not supported; convert it to Parquet or CSV "
            "(e.g. with polars or DuckDB)"
        )
    inner = suffix_of(file.path)
    if file.text and inner in SUFFIXES and SUFFIXES[inner] not in STREAMED:
        raise BadInput(f"{file.path}: a compressed {inner} file is not read; unpack it")


def canonical_names(
    file: DataFile, columns: TableColumns, elsewhere: Sequence[str] | None
) -> list[str]:
    """Return the columns of a file under their canonical names.

    Args:
        file: a file of the log, or another table.
        columns: the declared columns.
        elsewhere: canonical columns of the other tables, in which a mapped column may be instead;
            None if `file` is such a table, which does not need the columns of the log.

    Raises:
        BadInput: a mapped column is absent, or two columns have one canonical name.
    """
    present = [n for n in column_names(file) if n not in columns.ignore]
    if elsewhere is not None:
        fields = [field for option in columns.explode for field in option.fields]
        for field in (f for f in fields if f in present):
            raise BadInput(
                f"{file.path} has a column {field!r}, as has the template of --explode; name the "
                "part of the template differently"
            )
        present += fields
    renamed = columns.renamed
    for ours, name in columns.names.items():
        if name not in present and elsewhere is not None and ours not in elsewhere:
            raise BadInput(
                f"{file.path}: --map {ours}={name}: no column {name!r}"
                f"{did_you_mean(name, present)}{_layout_hint(file)}; its columns are {present}"
            )
        if name in present and ours in present and ours not in renamed:
            raise BadInput(
                f"{file.path} has both a column {ours!r} and a column {name!r}, which is mapped to "
                f"it; drop or rename one, or --ignore {ours}"
            )
    return [renamed.get(n, n) for n in present]


def require_columns(
    file: DataFile, present: list[str], columns: TableColumns, item_columns: Sequence[str]
) -> None:
    """Check that the log has all columns that it needs.

    Args:
        file: the first file of the log.
        present: canonical columns of the log.
        columns: the declared columns.
        item_columns: canonical columns of the item table.

    Raises:
        BadInput: a column is absent, or no action is declared.
    """
    ruled = {r.action for r in columns.labels}
    actions = [a for a in columns.actions if a not in ruled]
    timed = [] if columns.time.absent else [TIME]
    missing = [n for n in (MEMBER, *timed, ITEM, *actions) if n not in present]
    sources = [columns.weight] * bool(columns.weight)
    sources += [name for rule in columns.labels for name in rule.columns]
    missing += [n for n in sources if columns.canonical(n) not in present]
    missing += [n for n in columns.features if n not in present and n not in item_columns]
    if not columns.all_actions or missing:
        names = ", ".join(dict.fromkeys(missing)) or "the label columns (--actions)"
        hint = did_you_mean(missing[0], present) if missing else ""
        hint += _layout_hint(file)
        no_times = "; or --no-times, if the rows of a member are in order" * (missing == [TIME])
        raise BadInput(
            f"{file.path}: its columns are {column_names(file)}; missing: {names}{hint}. Declare "
            f"what the columns mean, e.g. {EXAMPLE}{no_times}"
        )


def _layout_hint(file: DataFile) -> str:
    """Return what may be wrong with the header of a text file, or ""."""
    names = column_names(file)
    if file.text and len(names) == 1:
        return " (set --delimiter if the file has several columns)"
    if file.text and not file.reading.headless and any(re.fullmatch(r"-?[\d.]+", n) for n in names):
        return " (add --column-names or --no-header if its first line has values)"
    return ""
