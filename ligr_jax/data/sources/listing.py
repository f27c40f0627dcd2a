"""Selection of the files of a log, and columns from their paths."""

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from ligr_jax.data.manifest import SHARDS
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.compression import ZIP
from ligr_jax.data.sources.file_formats import JSON, LOOSE, STREAMED, SUFFIXES, suffix_of
from ligr_jax.data.sources.files import DataFile, column_names
from ligr_jax.data.sources.text_options import TextOptions

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Listing:
    """Files of a log.

    Attributes:
        files: files with rows, in order of their names.
        not_read: names of all other visible files.
    """

    files: list[DataFile]
    not_read: list[str]


def is_table_file(path: Path) -> bool:
    """Return whether a file has rows, by its suffix; hidden files (.name, _name) do not."""
    if path.name.startswith((".", "_")) or path.suffix.lower() == ZIP:
        return False
    plain = SUFFIXES.get(suffix_of(path))
    return path.suffix.lower() in SUFFIXES or plain in STREAMED


def table_files(directory: Path, reading: TextOptions | None = None) -> list[DataFile]:
    """Return the files with rows in a directory and below it, in order of their names."""
    return list_tables(directory, reading).files


def list_tables(path: Path, reading: TextOptions | None = None) -> Listing:
    """List the files of a log.

    Args:
        path: a file, or a directory that is searched recursively.
        reading: how text files are read.
    """
    reading = reading or TextOptions()
    if path.is_file():
        return Listing([DataFile(path, path.name, reading=reading, flat=True)], [])
    visible = [p for p in _walk(path) if p.is_file()]
    tables = [p for p in visible if is_table_file(p)]
    for suffixes in ((JSON,), LOOSE, (ZIP,)):
        tables = tables or [p for p in visible if _loose_suffix(p) in suffixes]
    files = [
        DataFile(
            p, p.relative_to(path).as_posix(), _partition(p.relative_to(path)), reading, flat=True
        )
        for p in tables
    ]
    return Listing(files, [p.relative_to(path).as_posix() for p in visible if p not in set(tables)])


def with_common_columns(files: list[DataFile]) -> list[DataFile]:
    """Return the files of one table, with all columns in the order of the first file.

    JSON files may lack columns that others have, because objects often omit missing values.

    Raises:
        BadInput: another file has other columns.
    """
    names = [column_names(file) for file in files]
    common = list(dict.fromkeys(name for of_file in names for name in of_file))
    is_json = [file.format_name == "json" for file in files]
    if all(is_json):
        # An empty list has no fields, so it may be a list of objects in another file.
        nested = {name.rpartition(".")[0] for name in common}
        common = [name for name in common if name not in nested]
    for file, present in zip(files, names):
        if not all(is_json) and set(present) != set(common):
            _refuse_columns(files[0], names[0], file, present)
    return [
        file if present == common else replace(file, order=tuple(common))
        for file, present in zip(files, names)
    ]


def _refuse_columns(
    first: DataFile, expected: list[str], file: DataFile, present: list[str]
) -> None:
    """Raise `BadInput` if a file has other columns than the first file."""
    extra = [n for n in present if n not in expected]
    missing = [n for n in expected if n not in present]
    if not (extra or missing):
        return
    differences = [f"lacks {missing}"] * bool(missing)
    differences += [f"has the additional columns {extra}"] * bool(extra)
    raise BadInput(
        f"{file.path}: its columns differ from those of {first.path}: it "
        f"{' and '.join(differences)}; give files of one table (an item table by --items)"
    )


def not_read_remark(names: list[str]) -> tuple[str, ...]:
    """Return a remark on the files that are not read, or nothing."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (f"files not read: {', '.join(names[:5])}{more}",) if names else ()


def _walk(directory: Path) -> list[Path]:
    """Return all visible files below a directory without prepared data, in order of their names."""
    out: list[Path] = []
    entries = sorted(directory.iterdir())
    if any(path.match(SHARDS) for path in entries):
        return out
    for path in entries:
        if path.name.startswith((".", "_")):
            continue
        out += _walk(path) if path.is_dir() else [path]
    return out


def _loose_suffix(path: Path) -> str:
    """Return the suffix of a file without that of its compression; `.zip` of an archive."""
    return ZIP if path.suffix.lower() == ZIP else suffix_of(path)


def _partition(relative: Path) -> dict[str, str | None]:
    """Return the columns of a Hive path such as dt=2023-11-16/hour=05/part-0.parquet."""
    out: dict[str, str | None] = {}
    for part in relative.parts[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            out[unquote(name)] = None if value == NULL_PARTITION else unquote(value)
    return out
