"""Any Parquet or CSV table of impressions, once it is said what its columns mean."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ligr_jax.data.schema import MEMBER, RESERVED, SESSION, TIME, BadInput, Column, LogSchema
from ligr_jax.data.sources.files import (
    column_names,
    describe_file,
    estimate_rows,
    read_batches,
    read_items,
    table_files,
)
from ligr_jax.data.sources.parse import as_lists
from ligr_jax.data.sources.source import Items, LogBatch, OnBadRow, Source
from ligr_jax.data.sources.validate import nearest

ITEM = "item_id"
EXAMPLE = (
    "ligr prepare FILE --out DIR --map member_id=user item_id=post timestamp_ms=ts "
    "--actions click,like --categorical surface --numeric age --outcome dwell"
)


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean, by canonical name.

    names: canonical name -> name in the table, where they differ.
    outcome: numeric columns, unless also named elsewhere, known only after the impression.
    items: table of item features, one row per `item_id`.
    separator: what stands between the ids of a bag written as text.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    bag: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    items: Path | None = None
    separator: str = "|"


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """Canonical name -> name in the table, from `OURS=THEIRS` pairs."""
    out: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs) or ours in out:
            raise BadInput(f"--map {pair}: write each name once, as canonical=theirs: {EXAMPLE}")
        out[ours] = theirs
    return out


def table_source(path: Path, columns: TableColumns) -> Source:
    """The table at `path`, one file or a directory of files of the same columns.

    `item_id` is a categorical feature always, `actor_id` where there is one.
    Raises `BadInput` where columns are missing or it is not said which are the actions.
    """
    given = columns.items.resolve() if columns.items else None
    files = table_files(path) if path.is_dir() else [path]
    files = [p for p in files if p.resolve() != given]
    if not files:
        raise BadInput(f"{path} holds no .parquet or .csv file of impressions")
    items = None
    if columns.items:
        items = _items(columns.items, columns)
    there = _canonical_names(files[0], columns)
    _require(files[0], there, columns, items.columns if items else ())

    def batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for file in files:
            _canonical_names(file, columns)
            for batch in read_batches(file, batch_rows, on_bad_row):
                yield _renamed(batch, columns)

    head = next(batches(1024, "skip"), None) if columns.vector else None
    schema = _schema(columns, there, items, head)
    used = [*files, *([columns.items] if columns.items else [])]
    return Source(
        name="table",
        schema=schema,
        batches=batches,
        rows=sum(estimate_rows(p) for p in files),
        description={
            "format": "table",
            "files": [describe_file(p) for p in used],
            "names": dict(columns.names),
            "actions": list(schema.actions),
            "columns": {k: _description(c) for k, c in schema.columns.items()},
        },
        items=items,
        names=columns.names,
        sessions=SESSION in there,
    )


def _schema(
    columns: TableColumns, there: list[str], items: Items | None, head: LogBatch | None
) -> LogSchema:
    of_items = items.columns if items else []
    always = [n for n in (ITEM, "actor_id") if n in there or n in of_items]
    categorical = dict.fromkeys([*always, *columns.categorical])
    numeric = dict.fromkeys([*columns.numeric, *columns.outcome])
    out: dict[str, Column] = {}
    for name in categorical:
        out[name] = Column("categorical", name in columns.outcome)
    for name in columns.bag:
        if name in out:
            raise BadInput(
                f"column {name!r} is categorical: it holds one id; leave it out of --bag"
            )
        out[name] = Column("bag", name in columns.outcome, separator=columns.separator)
    for name in columns.vector:
        batches = items.batches() if items and name in of_items else iter([head] if head else [])
        out[name] = Column("vector", name in columns.outcome, _vector_width(batches, name))
    for name in numeric:
        out.setdefault(name, Column("numeric", name in columns.outcome))
    unused = [n for n in there if n not in (*RESERVED, *columns.actions, *out)]
    notes = (f"columns of the table that are not used: {', '.join(unused)}",) if unused else ()
    return LogSchema(columns.actions, out, notes=notes)


def _items(path: Path, columns: TableColumns) -> Items:
    names = _canonical_names(path, columns)
    return Items(names, lambda: (_renamed(batch, columns) for batch in read_items(path)))


def _description(column: Column) -> list[object]:
    separator = [column.separator] if column.kind == "bag" else []
    return [column.kind, column.outcome, *separator]


def _vector_width(batches: Iterator[LogBatch], name: str) -> int:
    """Length of the first vector; a vector of another length is then a bad row."""
    for batch in batches:
        values = batch.frame[name].drop_nulls().head(1)
        if len(values):
            try:
                return max(int(as_lists(values).list.len().item()), 1)
            except TypeError as e:
                where = f"{batch.file}, column {name!r}"
                raise BadInput(f"{where}: {e}; leave it out of --vector") from e
    raise BadInput(f"column {name!r} starts without a vector; leave it out of --vector")


def _canonical_names(file: Path, columns: TableColumns) -> list[str]:
    """Columns of `file` under their canonical names."""
    there = column_names(file)
    theirs = {v: k for k, v in columns.names.items()}
    for ours, name in columns.names.items():
        if name not in there and not columns.items:
            raise BadInput(
                f"{file}: --map {ours}={name}: no column {name!r}{nearest(name, there)}; "
                f"its columns are {there}"
            )
        if ours in there and ours not in theirs:
            raise BadInput(f"{file} has a column {ours!r} beside {name!r}; drop or rename one")
    return [theirs.get(n, n) for n in there]


def _require(file: Path, there: list[str], columns: TableColumns, of_items: Sequence[str]) -> None:
    features = (*columns.categorical, *columns.bag, *columns.numeric)
    features += (*columns.vector, *columns.outcome)
    lacking = [n for n in (MEMBER, TIME, ITEM, *columns.actions) if n not in there]
    lacking += [n for n in features if n not in there and n not in of_items]
    if not columns.actions or lacking:
        wanted = ", ".join(lacking) or "which columns are labels (--actions)"
        raise BadInput(
            f"{file}: its columns are {column_names(file)}; missing: {wanted}. Say what they mean, "
            f"e.g. {EXAMPLE}"
        )


def _renamed(batch: LogBatch, columns: TableColumns) -> LogBatch:
    theirs = {v: k for k, v in columns.names.items()}
    return replace(batch, frame=batch.frame.rename(theirs, strict=False))
