"""Which rows of a table of runs are fitted: copies counted once, and columns of labels."""

import difflib
import re

import polars as pl

from ligr_jax.data.schema import BadInput

NUMBERED = re.compile(r"#\d+")  # names that the reader gives to rows without a run


def text_column(table: pl.DataFrame, name: str) -> list[str]:
    """Return a column as text, null as "".

    Raises:
        BadInput: the table has no such column; the message has the nearest names.
    """
    if name not in table.columns:
        near = difflib.get_close_matches(name, table.columns, 4, 0.4)
        raise BadInput(f"the runs have no column {name!r}; nearest: {near or table.columns[:8]}")
    return table[name].cast(pl.String).fill_null("").to_list()


def distinct(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Keep the first of rows that are equal in every column.

    Copies of a row are no further evidence: counted as runs, they would narrow every interval.

    Returns:
        The table, and a note with the number of copies; empty if there are none.
    """
    numbered = all(NUMBERED.fullmatch(name) for name in table["run"])
    values = [c for c in table.columns if not (numbered and c == "run")]
    kept = table.unique(values, keep="first", maintain_order=True)
    copies = len(table) - len(kept)
    if not copies:
        return table, ""
    return kept, f"{copies} of {len(table)} rows repeat another row in every column; left out"
