"""The log schema of a table, from its declared columns."""

from collections.abc import Iterator

from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.parse import as_lists
from ligr_jax.data.sources.source import ItemSource, LogBatch
from ligr_jax.data.sources.table_columns import ACTOR, ITEM, TableColumns


def table_schema(
    columns: TableColumns, present: list[str], items: ItemSource | None, head: LogBatch | None
) -> LogSchema:
    """Return the schema of a table.

    Args:
        columns: the declared columns.
        present: canonical columns of the log.
        items: the item table.
        head: the first rows of the log, from which the lengths of vectors are read.

    Raises:
        BadInput: a bag is also categorical, or the length of a vector cannot be read.
    """
    item_columns = items.columns if items else []
    always = [n for n in (ITEM, ACTOR) if n in present or n in item_columns]
    out: dict[str, Column] = {}
    for name in dict.fromkeys([*always, *columns.categorical]):
        out[name] = Column("categorical", name in columns.outcome)
    for name in columns.bag:
        if name in out:
            raise BadInput(
                f"column {name!r} is categorical: it has one id per row; remove it from --bag"
            )
        out[name] = Column("bag", name in columns.outcome, separator=columns.separator)
    for name in columns.vector:
        in_items = items is not None and name in item_columns
        batches = items.batches() if items and in_items else iter([head] if head else [])
        out[name] = Column("vector", name in columns.outcome, _vector_width(batches, name))
    for name in dict.fromkeys([*columns.numeric, *columns.outcome]):
        out.setdefault(name, Column("numeric", name in columns.outcome))
    return LogSchema(columns.all_actions, out, late_actions=columns.late)


def describe_column(column: Column) -> list[object]:
    """Return a description of a column for the manifest."""
    separator = [column.separator] if column.kind == "bag" else []
    return [column.kind, column.outcome, *separator]


def _vector_width(batches: Iterator[LogBatch], name: str) -> int:
    """Return the length of the first vector; vectors of another length are invalid rows."""
    for batch in batches:
        values = batch.frame[name].drop_nulls().head(1)
        if len(values):
            try:
                return max(int(as_lists(values).list.len().item()), 1)
            except TypeError as e:
                where = f"{batch.file}, column {name!r}"
                raise BadInput(f"{where}: {e}; remove it from --vector") from e
    raise BadInput(f"column {name!r} starts without a vector; remove it from --vector")
