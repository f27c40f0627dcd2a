"""Any Parquet or text table of impressions, once it is said what its columns mean."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import (
    MEMBER,
    RANDOM,
    SESSION,
    TIME,
    BadInput,
    Column,
    LogSchema,
)
from ligr_jax.data.sources.cells import without_words
from ligr_jax.data.sources.delimited import header
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    column_type,
    describe_file,
    read_batches,
    read_column,
    read_items,
    rows_in,
)
from ligr_jax.data.sources.label_rules import LabelRule
from ligr_jax.data.sources.listing import SUFFIXES, list_tables, not_read_remark, same_columns
from ligr_jax.data.sources.parse import as_lists
from ligr_jax.data.sources.reading import Reading
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, Items, LogBatch, OnBadRow, Source
from ligr_jax.data.sources.times import TimeOptions, TimeRule, find_rule, given_rule, parse_times
from ligr_jax.data.sources.validate import nearest

ITEM, ACTOR = "item_id", "actor_id"
# Columns that have a role by their name, and that `--ignore` takes it from.
BY_NAME = (SESSION, RANDOM, ACTOR)
EXAMPLE = (
    "ligr prepare FILE --out DIR --map member_id=user item_id=post timestamp_ms=ts "
    "--actions click,like --categorical surface --numeric age --outcome dwell"
)
SCAN_ROWS = 1 << 17
LOSS_WEIGHT = "\x1fweight"  # in a batch; a column named weight is a feature like any other


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean, by canonical name.

    names: canonical name -> name in the table, where they differ.
    weight: the table's column that holds the weights of rows in the loss, "" for none.
    outcome: numeric columns, unless also named elsewhere, known only after the impression.
    items: table of item features, one row per `item_id`.
    separator: what stands between the ids of a bag written as text.
    ignore: columns that are left out, whatever their names say.
    labels: actions computed from columns.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    bag: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    weight: str = ""
    items: Path | None = None
    separator: str = "|"
    ignore: tuple[str, ...] = ()
    labels: tuple[LabelRule, ...] = ()
    time: TimeOptions = field(default_factory=TimeOptions)
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        for name in [n for n in self.ignore if n in self.names.values()]:
            raise BadInput(f"--ignore {name}: --map gives it a meaning; leave out one of the two")
        self._refuse_two_kinds()
        ruled = [r.action for r in self.labels]
        twice = sorted({n for n in ruled if ruled.count(n) > 1})
        if twice:
            raise BadInput(f"--label: {twice} have two rules; give each action one")

    def _refuse_two_kinds(self) -> None:
        """One name is one feature."""
        kinds = ("categorical", "bag", "numeric", "vector")
        for k, first in enumerate(kinds):
            for second in kinds[k + 1 :]:
                both = [n for n in getattr(self, first) if n in getattr(self, second)]
                if both and (first, second) != ("categorical", "bag"):
                    raise BadInput(
                        f"column {both[0]!r} is named by --{first} and --{second}; for two "
                        f"features of a column name the second, e.g. --map {both[0]}_2={both[0]} "
                        f"--{second} {both[0]}_2"
                    )

    @property
    def renamed(self) -> dict[str, str]:
        """Name in the table -> canonical name, where they differ; the first of several."""
        out: dict[str, str] = {}
        for ours, theirs in self.names.items():
            out.setdefault(theirs, ours)
        return out

    @property
    def copies(self) -> dict[str, str]:
        """Second uses of a column: another name -> its canonical name. Either `--map` names a
        column twice, or a feature is named by the table's own name of a column that is mapped."""
        renamed = self.renamed
        out = {o: renamed[t] for o, t in self.names.items() if renamed[t] != o}
        mentioned = [n for n in (*self.features, *self.all_actions) if n in renamed]
        return out | {n: renamed[n] for n in mentioned if n not in self.names}

    @property
    def features(self) -> tuple[str, ...]:
        """Every column that is named as a feature or an outcome."""
        return (*self.categorical, *self.bag, *self.numeric, *self.vector, *self.outcome)

    @property
    def all_actions(self) -> tuple[str, ...]:
        """Actions that are named, then those of rules; `is_random` is none."""
        ruled = [r.action for r in self.labels if r.action != RANDOM]
        return tuple(dict.fromkeys([*self.actions, *ruled]))

    def ours(self, name: str) -> str:
        """Canonical name of a column of the table."""
        return self.renamed.get(name, name)


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """Canonical name -> name in the table, from `OURS=THEIRS` pairs."""
    out: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs) or ours in out:
            raise BadInput(f"--map {pair}: write each name once, as canonical=theirs: {EXAMPLE}")
        out[ours] = theirs
    return out


def table_source(path: Path, columns: TableColumns) -> Source:
    """The table at `path`, one file or a directory of files of the same columns.

    `item_id` is a categorical feature always; `actor_id` is one, `session_id` gives the sessions
    and `is_random` marks random impressions where the table has such columns.
    Raises `BadInput` where columns are missing or it is not said which are the actions.
    """
    listing = list_tables(path, columns.reading)
    given = columns.items.resolve() if columns.items else None
    files = [f for f in listing.files if f.path.resolve() != given]
    if not files:
        raise BadInput(f"{path} holds no file of impressions ({', '.join(SUFFIXES)})")
    for file in files:
        _refuse_other_kinds(file)
    same_columns(files)
    items = _items(columns.items, columns) if columns.items else None
    names = _canonical_names(files[0], columns, items.columns if items else ())
    names = [*names, *(c for c, ours in columns.copies.items() if ours in names)]
    _require(files[0], names, columns, items.columns if items else ())
    time = _time_rule(files, columns)
    used = _used(names, columns)

    def batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for file in files:
            for batch in read_batches(file, batch_rows, on_bad_row):
                yield _canonical(batch, columns, time, used)

    head = next(batches(1024, "skip"), None) if columns.vector else None
    schema = _schema(columns, names, items, head)
    unused = [n for n in names if n not in used and n not in schema.columns]
    read = {columns.ours(n) for n in (columns.weight, *(r.column for r in columns.labels))}
    unused = [n for n in unused if n not in read]
    notes = (f"columns of the table that are not used: {', '.join(unused)}",) if unused else ()
    described: list[Path | DataFile] = [*files, *([columns.items] if columns.items else [])]
    return Source(
        name="table",
        schema=replace(schema, notes=notes),
        batches=batches,
        rows=sum(rows_in(f) for f in files),
        description={
            "format": "table",
            "files": [describe_file(p) for p in described],
            "names": dict(columns.names),
            "actions": list(schema.actions),
            "columns": {k: _description(c) for k, c in schema.columns.items()},
            **_said(columns),
        },
        items=items,
        names={**columns.names, **_own_names(columns)},
        weight=LOSS_WEIGHT if columns.weight else "",
        sessions=SESSION in used,
        unused=tuple(unused),
        by_name=tuple(n for n in BY_NAME if n in used and n not in columns.names),
        remarks=tuple(_remarks(listing.not_read, files, time, columns)),
        present=(
            *(n for n in (SESSION, RANDOM) if n in used and n not in schema.columns),
            *([LOSS_WEIGHT] if columns.weight else []),
        ),
        rules={r.action: r for r in columns.labels},
        time_rule=time,
    )


def _said(columns: TableColumns) -> dict[str, Any]:
    """Options that shape the rows, for the manifest; left out where they say nothing."""
    reading, time = asdict(columns.reading), asdict(columns.time)
    out = {
        "ignore": list(columns.ignore),
        "weight": columns.weight,
        "labels": [r.text for r in columns.labels],
        "reading": {k: v for k, v in reading.items() if v and v != asdict(Reading())[k]},
        "time": {k: v for k, v in time.items() if v},
    }
    return {k: v for k, v in out.items() if v}


def _used(there: list[str], columns: TableColumns) -> list[str]:
    """Columns of the table that have a role."""
    roles = {MEMBER, TIME, *BY_NAME, ITEM, *columns.all_actions, *columns.features}
    return [n for n in there if n in roles]


def _canonical(batch: LogBatch, columns: TableColumns, time: TimeRule, used: list[str]) -> LogBatch:
    """The batch with canonical names, times in milliseconds, labels by rule, and used columns."""
    frame = _renamed_frame(batch.frame, columns)
    faults: list[Fault] = []
    made = {c: frame[ours].alias(c) for c, ours in columns.copies.items() if ours in frame.columns}
    if columns.weight:
        made[LOSS_WEIGHT] = frame[columns.ours(columns.weight)].alias(LOSS_WEIGHT)
    try:
        ms, rules = parse_times(frame[TIME], time)
    except TypeError as e:
        raise BadInput(f"{batch.file}, column {TIME!r}: {e}; its other files have others") from e
    made[TIME] = pl.Series(TIME, ms)
    faults += [Fault(TIME, rows, frame[TIME], rule) for rows, rule in rules]
    for rule in columns.labels:
        name = columns.ours(rule.column)
        try:
            made[rule.action], broken = rule.apply(frame[name])
        except TypeError as e:
            raise BadInput(f"{batch.file}, --label {rule.text}: column {name!r}: {e}") from e
        faults += [Fault(name, rows, frame[name], text) for rows, text in broken]
    for name in columns.bag:
        if name in frame.columns:
            words = columns.reading.null_values
            made[name] = without_words(frame[name], columns.separator, words)
    kept = [frame[n] for n in (*used, ROW_DIGEST) if n not in made and n in frame.columns]
    return replace(
        batch,
        frame=pl.DataFrame([*kept, *made.values()]),
        faults=(*batch.faults, *faults),
    )


def _time_rule(files: list[DataFile], columns: TableColumns) -> TimeRule:
    """How the time column is read: as it is said, as its type says, or as the whole of it fits."""
    name = columns.names.get(TIME, TIME)
    given = given_rule(columns.time)
    types = [column_type(f, name) for f in files]
    typed = [pa.types.is_temporal(t) for t in types]
    if all(typed) and not columns.time.format:
        if columns.time.unit:
            raise BadInput(
                f"--time-unit {columns.time.unit}: column {name!r} of {files[0].path} holds dates "
                f"or timestamps ({types[0]}), not numbers; leave --time-unit out"
            )
        return replace(given, kind="typed")
    if any(typed):
        kinds = sorted({str(t) for t in types})
        raise BadInput(
            f"{files[0].path}: column {name!r} has types {kinds} in the files; write it the same"
        )
    if columns.time.unit or columns.time.format:
        return given
    scan = (values for file in files for values in read_column(file, name, SCAN_ROWS))
    shown = repr(TIME) if name == TIME else f"{TIME!r} ({name!r} in the file)"
    where = f"{files[0].name}{' and others' if len(files) > 1 else ''}, column {shown}"
    return find_rule(scan, columns.time, where)


def _schema(
    columns: TableColumns, there: list[str], items: Items | None, head: LogBatch | None
) -> LogSchema:
    of_items = items.columns if items else []
    always = [n for n in (ITEM, ACTOR) if n in there or n in of_items]
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
    return LogSchema(columns.all_actions, out)


def _items(path: Path, columns: TableColumns) -> Items:
    if not path.is_file():
        raise BadInput(f"--items {path}: no such file")
    file = DataFile(path, path.name, reading=replace(columns.reading, delimiter=""))
    _refuse_other_kinds(file)
    names = _canonical_names(file, columns, None)
    if ITEM not in names:
        raise BadInput(
            f"{path}: an item table needs a column {ITEM!r} (or --map {ITEM}=NAME); its columns "
            f"are {column_names(file)}"
        )
    return Items(names, lambda: (_renamed(batch, columns) for batch in read_items(file)))


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


def _canonical_names(
    file: DataFile, columns: TableColumns, elsewhere: Sequence[str] | None
) -> list[str]:
    """Columns of `file` under their canonical names.

    elsewhere: canonical columns of the item table, where a mapped name may be instead; None for
    the item table itself, which need not have those of the log.
    """
    there = [n for n in column_names(file) if n not in columns.ignore]
    theirs = columns.renamed
    for ours, name in columns.names.items():
        if name not in there and elsewhere is not None and ours not in elsewhere:
            raise BadInput(
                f"{file.path}: --map {ours}={name}: no column {name!r}{nearest(name, there)}; "
                f"its columns are {there}"
            )
        if name in there and ours in there and ours not in theirs:
            raise BadInput(
                f"{file.path} has a column {ours!r} beside {name!r}; drop or rename one, or "
                f"--ignore {ours}"
            )
    return [theirs.get(n, n) for n in there]


def _require(file: DataFile, there: list[str], columns: TableColumns, items: Sequence[str]) -> None:
    ruled = {r.action for r in columns.labels}
    actions = [a for a in columns.actions if a not in ruled]
    lacking = [n for n in (MEMBER, TIME, ITEM, *actions) if n not in there]
    read = [columns.weight] * bool(columns.weight) + [r.column for r in columns.labels]
    lacking += [n for n in read if columns.ours(n) not in there]
    lacking += [n for n in columns.features if n not in there and n not in items]
    if not columns.all_actions or lacking:
        wanted = ", ".join(dict.fromkeys(lacking)) or "which columns are labels (--actions)"
        raise BadInput(
            f"{file.path}: its columns are {column_names(file)}; missing: {wanted}"
            f"{nearest(lacking[0], there) if lacking else ''}. Say what they mean, e.g. {EXAMPLE}"
        )


def _refuse_other_kinds(file: DataFile) -> None:
    """Formats that look like text or archives, and would be read as a strange CSV."""
    other = (".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".orc", ".avro", ".arrow", ".feather")
    kind = next((s for s in file.path.suffixes if s.lower() in (*other, ".zip", ".tar")), None)
    if kind:
        raise BadInput(
            f"{file.path}: {kind} files are not read; convert it to Parquet or CSV "
            "(e.g. with polars or DuckDB)"
        )


def _remarks(
    not_read: list[str], files: list[DataFile], time: TimeRule, columns: TableColumns
) -> Iterable[str]:
    """What was understood of the files, for the summary."""
    yield f"times: {time.describe()}"
    if columns.ignore:
        yield f"ignored: {', '.join(columns.ignore)}"
    for name in [n for n in columns.ignore if n not in column_names(files[0])]:
        yield f"--ignore {name}: there is no such column"
    if not files[0].parquet:
        delimiter = header(files[0].path, files[0].reading)[1]
        if delimiter != ",":
            yield f"delimiter: {delimiter!r}"
    keys = list(files[0].partition)
    if keys:
        yield f"columns from the paths of the files: {', '.join(keys)}"
    yield from not_read_remark(not_read)


def _renamed(batch: LogBatch, columns: TableColumns) -> LogBatch:
    frame = _renamed_frame(batch.frame, columns)
    made = [frame[o].alias(c) for c, o in columns.copies.items() if o in frame.columns]
    return replace(batch, frame=frame.with_columns(made))


def _renamed_frame(frame: pl.DataFrame, columns: TableColumns) -> pl.DataFrame:
    """The frame with canonical names, without ignored columns. Column by column: polars takes
    names such as ^x$ for patterns."""
    kept = (s for s in frame.iter_columns() if s.name not in columns.ignore)
    return pl.DataFrame([s.alias(columns.renamed.get(s.name, s.name)) for s in kept])


def _own_names(columns: TableColumns) -> dict[str, str]:
    """The table's own names of second uses and of the weight."""
    out = {c: columns.names.get(ours, ours) for c, ours in columns.copies.items()}
    return out | ({LOSS_WEIGHT: columns.weight} if columns.weight else {})
