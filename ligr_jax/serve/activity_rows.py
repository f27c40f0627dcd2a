"""Rows of the canonical log as impressions of a store, validated by the rules of `ligr prepare`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.frames import frame_from_arrow, frame_from_dicts, parse_frame
from ligr_jax.data.item_features import ITEM_ROW, ItemFeatures, item_columns
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import MEMBER, SESSION, TIME, WEIGHT, BadInput, Column, LogSchema
from ligr_jax.data.sources.cells import clean_cells
from ligr_jax.serve.activity_about import ActivityAbout
from ligr_jax.serve.activity_layout import Impressions, record_type


class RowParser:
    """Parser of rows.

    Attributes:
        record: dtype of a record.
        schema: actions and features.
    """

    def __init__(self, about: ActivityAbout, items: ItemFeatures | None) -> None:
        """
        Args:
            about: description of the store.
            items: the features that are stored once per item, or None.
        """
        manifest = about.manifest
        self._manifest, self._items = manifest, items
        self._by_id = about.sessions == SESSION
        self._item_features = tuple(item_columns(items, manifest))
        self.record = record_type(manifest, self._item_features)
        columns = {
            name: Column(stats.kind, stats.outcome, width=stats.width or 1)
            for name, stats in manifest.columns.items()
        }
        self.schema = LogSchema(manifest.actions, columns)

    def impressions(self, rows: Any) -> tuple[np.ndarray, Impressions]:
        """Parse impressions.

        Args:
            rows: a polars or pandas DataFrame, another object with the Arrow interface, or
                dictionaries.

        Returns:
            Members, int64 [n], and impressions without session numbers, in the order of the rows.

        Raises:
            BadInput: a column is missing, or a value is not valid.
        """
        return self._parsed(_table(rows))

    def history(self, rows: Any) -> Impressions:
        """Parse impressions of one member, without session numbers and in the order of the rows.

        Args:
            rows: as in `impressions`, but `member_id` is not needed.

        Raises:
            BadInput: as in `impressions`.
        """
        table = _table(rows)
        return self._parsed(table.with_columns(pl.lit(0).alias(MEMBER)))[1]

    def candidates(self, requests: Sequence[Any]) -> list[Impressions]:
        """Parse the candidates of requests.

        Actions and outcomes are unknown, whatever the rows say. Columns of members and sessions are
        not needed.

        Args:
            requests: rows of each request, in any form of `impressions`.

        Raises:
            BadInput: a column is missing, or a value is not valid.
        """
        tables = [_table(rows) for rows in requests]
        try:
            table = pl.concat(tables, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as e:
            raise BadInput(
                f"the candidates do not form a table ({str(e).splitlines()[0]}); give each column "
                "values of one type in all requests"
            ) from e
        _, impressions = self._parsed(table.with_columns(**self._unknown(table)))
        stop = np.cumsum([t.height for t in tables])
        return [
            impressions[np.arange(end - t.height, end)] for end, t in zip(stop.tolist(), tables)
        ]

    def _unknown(self, table: pl.DataFrame) -> dict[str, pl.Series]:
        """Return the columns that candidates do not have, for every row of a table."""
        values: dict[str, pl.Series] = {
            a: pl.Series([None], dtype=pl.Int8) for a in self.schema.actions
        }
        for name, column in self.schema.columns.items():
            if column.outcome:
                zeros = [0.0] * column.width if column.kind == "vector" else None
                values[name] = pl.Series([zeros])
        for name in (MEMBER, SESSION):
            if name not in table.columns and name not in self.schema.columns:
                values[name] = pl.Series([0])
        return {name: value.new_from_index(0, table.height) for name, value in values.items()}

    def _parsed(self, table: pl.DataFrame) -> tuple[np.ndarray, Impressions]:
        if not table.height:
            nothing = Impressions(np.zeros(0, self.record), Bags.empty(0))
            return np.zeros(0, np.int64), nothing
        parsed = parse_frame(table, self.schema, self._by_id, self._item_features)
        names = [TIME, WEIGHT, *map(action_column, self._manifest.actions)]
        bags = {}
        for name, stats in self._manifest.columns.items():
            if name in self._item_features:
                continue
            column = feature_column(name)
            if stats.kind == "bag":
                bags[column] = Bags.from_arrow(parsed[column].to_arrow())
            else:
                names.append(column)
        columns = {name: parsed[name].to_numpy() for name in names}
        columns[SESSION] = parsed[SESSION].to_numpy() if self._by_id else np.array(MISSING)
        if self._items is not None:
            columns[ITEM_ROW] = self._items.find(parsed[feature_column("item_id")].to_numpy())
        members = parsed[MEMBER].to_numpy()
        return members, Impressions.from_columns(self.record, columns, bags)


def _table(rows: Any) -> pl.DataFrame:
    if hasattr(rows, "__arrow_c_stream__"):
        return frame_from_arrow(rows)
    return clean_cells(frame_from_dicts(rows).to_arrow())
