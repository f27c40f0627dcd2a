"""Explosion of a table: rows with lists of shown items become one row per item."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import BAG_SEPARATOR, BadInput
from ligr_jax.data.sources.list_columns import ListColumn
from ligr_jax.data.sources.rules import SKIP_HINT
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch
from ligr_jax.data.sources.text_lists import parse_lists

SEPARATORS = r"[\s,;|]"  # characters in an element that probably separate elements


@dataclass(frozen=True)
class Explosion:
    """How the rows of a table become rows of items.

    Attributes:
        lists: the columns whose elements become rows.
        templates: column -> the option with its template.
        separator: text between the elements of a list that is stored as text.
        kept: other columns to keep; they are repeated for each element.
    """

    lists: tuple[str, ...]
    templates: Mapping[str, ListColumn]
    separator: str
    kept: tuple[str, ...]

    def element_type(self, name: str, dtype: pa.DataType) -> pa.DataType:
        """Return the Arrow type of a column after the explosion, given its type before."""
        if any(name in option.fields for option in self.templates.values()):
            return pa.string()
        return getattr(dtype, "value_type", dtype) if name in self.lists else dtype

    def source_column(self, name: str) -> str:
        """Return the column of the table from which a column is computed."""
        return next((c for c, o in self.templates.items() if name in o.fields), name)

    def of_column(self, name: str) -> "Explosion | None":
        """Return the explosion of one column alone; None if its values are not elements."""
        source = self.source_column(name)
        return replace(self, lists=(source,), kept=()) if source in self.lists else None

    def apply(self, batch: LogBatch) -> LogBatch:
        """Return a batch with a row per element; elements that contradict a template are faults.

        Raises:
            BadInput: a column has no lists, or the lists of a row differ in length.
        """
        kept = [s for s in batch.frame.iter_columns() if s.name in (*self.kept, ROW_DIGEST)]
        lists = [batch.frame[name] for name in self.lists]
        # A field that all objects of a file lack is null; it has no lists to explode.
        if any(s.count() for s in lists):
            kept += [s for s in lists if not s.count()]
            lists = [s for s in lists if s.count()]
        lists = [self._as_list(batch, s) for s in lists]
        batch = exploded(
            replace(batch, frame=pl.DataFrame([*kept, *lists])), [s.name for s in lists]
        )
        faults = list(batch.faults)
        made: list[pl.Series] = []
        for name, option in self.templates.items():
            if name in batch.frame.columns:
                values = batch.frame[name].cast(pl.String)
                parts = values.str.extract_groups(option.pattern).struct.unnest()
                made += [s.alias(f) for s, f in zip(parts.iter_columns(), option.fields)]
                rule = (
                    f"does not match {option.template}; correct the template of --explode or the "
                    f"--separator of elements, or {SKIP_HINT}"
                )
                bad = (parts.to_series(0).is_null() & values.is_not_null()).to_numpy()
                faults.append(Fault(name, bad, values, rule))
        return replace(batch, frame=batch.frame.with_columns(made), faults=tuple(faults))

    def _as_list(self, batch: LogBatch, values: pl.Series) -> pl.Series:
        if isinstance(values.dtype, pl.Array):
            return values.arr.to_list()
        if values.dtype in (pl.String, pl.Null):
            return parse_lists(values.cast(pl.String), self.separator)
        if isinstance(values.dtype, pl.List):
            return values
        raise BadInput(
            f"{batch.file}, column {values.name!r}: --explode needs lists, and its values are "
            f"{values.dtype}"
        )


def mean_elements(explosion: Explosion, batch: LogBatch) -> float:
    """Return the mean number of elements per row of the first rows of a log.

    Raises:
        BadInput: no list has two elements by the default separator, but an element has a character
            that often separates elements.
    """
    rows = explosion.apply(batch).frame
    name = explosion.lists[0]
    text = batch.frame[name].dtype == pl.String
    text = text and explosion.separator == BAG_SEPARATOR and name not in explosion.templates
    if text and rows.height <= batch.frame.height:
        odd = rows[name].drop_nulls().filter(rows[name].drop_nulls().str.contains(SEPARATORS))
        if len(odd):
            raise BadInput(
                f"{batch.file}, column {name!r}: values such as {odd[0][:60]!r} have one element "
                f"with the separator {BAG_SEPARATOR!r}; set --separator, e.g. --separator ' '"
            )
    return rows.height / max(batch.frame.height, 1)


def explosion_of(
    options: Sequence[ListColumn], present: Sequence[str], separator: str, kept: Iterable[str]
) -> Explosion:
    """Return how the rows of a table are exploded.

    Args:
        options: the columns that the user named.
        present: columns of the table.
        separator: text between the elements of a list that is stored as text.
        kept: columns of the table that are used.

    Raises:
        BadInput: there is no such column.
    """
    lists = [name for option in options for name in option.columns(present)]
    return Explosion(
        lists=tuple(dict.fromkeys(lists)),
        templates={option.name: option for option in options if option.template},
        separator=separator,
        kept=tuple(name for name in dict.fromkeys(kept) if name not in lists),
    )
