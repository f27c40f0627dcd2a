"""Impressions from data frames or dictionaries, validated by the rules of `ligr prepare`."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ligr_jax.data.schema import BadInput, LogSchema
from ligr_jax.data.sources.cells import clean_cells
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.validate import canonical_frame


def frame_from_arrow(frame: Any) -> pl.DataFrame:
    """Return a data frame with normalized cells.

    Args:
        frame: a polars or pandas DataFrame, or another object with the Arrow interface.

    Raises:
        BadInput: the object has no Arrow interface.
    """
    if not hasattr(frame, "__arrow_c_stream__"):
        raise BadInput(
            f"{type(frame).__name__} is not a data frame; give a polars or pandas DataFrame, or "
            "use batch_from_dicts"
        )
    return clean_cells(pl.DataFrame(frame).to_arrow())


def frame_from_dicts(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the table of dictionaries, one per impression; a missing key is a missing value.

    Raises:
        BadInput: a column has values of several types.
    """
    try:
        return pl.DataFrame(list(rows), infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError) as e:
        reason = str(e).splitlines()[0]
        raise BadInput(
            f"the dictionaries do not form a table ({reason}); give each key values of one type"
        ) from e


def parse_frame(
    table: pl.DataFrame,
    schema: LogSchema,
    sessions: bool,
    item_features: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Parse a data frame as a log; rows are counted from 0 in messages.

    Args:
        table: one row per impression, with normalized cells.
        schema: actions and features.
        sessions: whether the sessions are those of the column `session_id`.
        item_features: features of the schema that are not columns of the frame, because they are
            stored per item.

    Returns:
        The columns of `canonical_frame`.

    Raises:
        BadInput: a column is missing or has a wrong type, or a value is not valid.
    """
    batch = LogBatch(file="frame", first_row=0, frame=table)
    source = LogSource(
        name="frame",
        schema=schema,
        batches=lambda batch_rows, on_bad_row: iter([batch]),
        rows=table.height,
        description={},
        items=ItemSource(item_features, lambda: iter([])) if item_features else None,
        sessions=sessions,
    )
    try:
        return canonical_frame(batch, source, "error")[0]
    except BadInput as e:
        raise BadInput(str(e).replace(OR_SKIP, "")) from e  # an option of `ligr prepare`
