"""Batches from a data frame or from dictionaries of impressions, without prepared data.

    made = batch_from_frame(frame, config.model, load_manifest("data/prepared").columns)
    made.in_frame_order(model.predict(made.batch).probabilities["click"])  # one value per row

A frame has the columns of the canonical log (`ligr_jax.data.schema`): `member_id`, `timestamp_ms`,
the features of the model by name, and optionally `session_id`, `weight` and actions. Ids, numbers,
sessions and histories are computed by the code that prepares a log, so a batch equals the batch of
the data pipeline for the same impressions.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.bags import Bags
from ligr_jax.data.batch import Batch
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.frames import frame_from_arrow, frame_from_dicts, parse_frame
from ligr_jax.data.manifest import ColumnStats, Manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.prepare.sessions import number_sessions, starts_by_gap, starts_by_id
from ligr_jax.data.schema import MEMBER, SESSION, TIME, WEIGHT, BadInput, Column, Kind, LogSchema

_GAP_MS = 30 * 60_000  # default gap between sessions, as in `PrepareOptions`


class FrameBatch(NamedTuple):
    """A batch, and the rows of the frame that it was made from.

    Attributes:
        batch: the batch; each row has the history of one member, in order of first appearance.
        rows: int64 [B, N], row of the frame of each impression, -1 in padding.
        frame_rows: number of rows of the frame.
    """

    batch: Batch
    rows: np.ndarray
    frame_rows: int

    def in_frame_order(self, values: np.ndarray) -> np.ndarray:
        """Return values of impressions in the order of the frame.

        Args:
            values: float [B, N], e.g. predicted probabilities.

        Returns:
            float [rows of the frame], NaN for impressions that are not in the batch because the
            history was truncated.
        """
        out = np.full(self.frame_rows, np.nan, values.dtype)
        valid = self.rows >= 0
        out[self.rows[valid]] = values[valid]
        return out


def batch_from_frame(
    frame: Any,
    model: ModelConfig,
    columns: Mapping[str, ColumnStats] | None = None,
    impressions: int | None = None,
    session_gap_ms: int = _GAP_MS,
) -> FrameBatch:
    """Make a batch from a data frame of impressions.

    Args:
        frame: one row per impression, in any order: a polars or pandas DataFrame, or another object
            with the Arrow interface.
        model: configuration of the model, `config.model` of a run.
        columns: `columns` of the manifest that the model was trained on. Their quantiles normalize
            numeric features; a model without numeric features does not need them.
        impressions: N. Only the last N impressions of a member are used. By default N is the length
            of the longest history.
        session_gap_ms: a longer gap between impressions, in milliseconds, starts a session, if the
            frame has no `session_id`.

    Returns:
        The batch, with one member per row. Actions that are not columns of the frame are unknown.

    Raises:
        BadInput: a column is missing or has a wrong type, or a value is not valid. The message has
            the row of the frame (from 0), the column, the value and the remedy.
    """
    # Parse the frame as a log. Absent actions become columns of unknown labels.
    table = frame_from_arrow(frame)
    for name in [a for a in model.actions if a not in table.columns]:
        table = table.with_columns(pl.Series(name, [None] * table.height, dtype=pl.Int8))
    schema = LogSchema(model.actions, {n: _column(f) for n, f in model.features.items()})
    manifest = Manifest(
        actions=model.actions,
        columns=_statistics(model, columns or {}),
        splits={},
        shards=(),
        counts={},
    )
    parsed = parse_frame(table, schema, sessions=SESSION in table.columns)
    if not parsed.height:
        raise BadInput("the frame has no rows; give at least one impression")

    # Histories: rows by member in order of first appearance, then by time.
    _, first, member = np.unique(parsed[MEMBER].to_numpy(), return_index=True, return_inverse=True)
    member = np.argsort(np.argsort(first))[member]
    order = np.lexsort((parsed[TIME].to_numpy(), member))
    records = _FrameColumns(parsed[order], member[order], manifest, session_gap_ms)

    # One row of the batch per member, with its last N impressions.
    stop = np.cumsum(np.bincount(member))
    start = np.concatenate([[0], stop[:-1]])
    capacity = impressions or int((stop - start).max())
    start = np.maximum(start, stop - capacity)
    plan = PackingPlan(
        capacity=capacity,
        start=start,
        target=start,
        stop=stop,
        bounds=np.arange(len(stop) + 1),
    )
    batch_rows = np.arange(len(plan))
    index, _, _ = plan.gather(batch_rows)
    return FrameBatch(
        batch=Assembler(records, plan, model)(batch_rows),
        rows=np.where(index >= 0, order[index], -1),
        frame_rows=table.height,
    )


def batch_from_dicts(
    rows: Iterable[Mapping[str, Any]],
    model: ModelConfig,
    columns: Mapping[str, ColumnStats] | None = None,
    impressions: int | None = None,
    session_gap_ms: int = _GAP_MS,
) -> FrameBatch:
    """Make a batch from dictionaries, one per impression; a missing key is a missing value.

    Args:
        rows: the impressions, in any order.
        model, columns, impressions, session_gap_ms: as in `batch_from_frame`.

    Raises:
        BadInput: as `batch_from_frame`, or a column has values of several types.
    """
    frame = frame_from_dicts(rows)
    return batch_from_frame(frame, model, columns, impressions, session_gap_ms)


class _FrameColumns:
    """Parsed impressions, sorted by member and time, with the interface of `Records`."""

    def __init__(
        self, parsed: pl.DataFrame, member: np.ndarray, manifest: Manifest, session_gap_ms: int
    ) -> None:
        time_ms = parsed[TIME].to_numpy()
        if SESSION in parsed.columns:
            starts, _ = starts_by_id(member, time_ms, parsed[SESSION].to_numpy())
        else:
            starts = starts_by_gap(member, time_ms, session_gap_ms)
        self.manifest = manifest
        self._parsed = parsed
        self._stored = {
            "session": number_sessions(member, starts),
            TIME: time_ms,
            WEIGHT: parsed[WEIGHT].to_numpy(),
        }

    def locate(self, index: np.ndarray) -> np.ndarray:
        """Return the impression numbers themselves, because there are no shards."""
        return index

    def take(self, column: str, index: np.ndarray) -> np.ndarray:
        """Return the values of `session`, `timestamp_ms` or `weight`."""
        result: np.ndarray = self._stored[column][index]
        return result

    def feature(self, name: str, index: np.ndarray) -> np.ndarray:
        """Return the values of a feature that is not a bag."""
        result: np.ndarray = self._parsed[feature_column(name)].to_numpy()[index]
        return result

    def bag(self, name: str, index: np.ndarray, size: int) -> np.ndarray:
        """Return the first `size` ids of bags, padded with `MISSING`."""
        lists = self._parsed[feature_column(name)]
        lengths = lists.list.len().to_numpy()
        ids = lists.filter(lists.list.len() > 0).explode(empty_as_null=False).to_numpy()
        return Bags.from_lengths(lengths, ids).padded(index, size)

    def label(self, action: str, index: np.ndarray) -> np.ndarray:
        """Return the labels of an action."""
        result: np.ndarray = self._parsed[action_column(action)].to_numpy()[index]
        return result


def _column(feature: Feature) -> Column:
    """Return the log column of a feature."""
    return Column(_kind(feature), feature.outcome, width=feature.width if feature.width else 1)


def _kind(feature: Feature) -> Kind:
    """Return the kind of the log column of a feature."""
    if feature.bag:
        return "bag"
    return "numeric" if feature.kind == "bucket" else feature.kind


def _statistics(model: ModelConfig, columns: Mapping[str, ColumnStats]) -> dict[str, ColumnStats]:
    """Return the statistics of the features; those of numeric features must be given."""
    out = {}
    for name, feature in model.features.items():
        kind = _kind(feature)
        if kind == "numeric" and name not in columns:
            raise BadInput(
                f"columns has no statistics of the numeric feature {name!r}; pass "
                "load_manifest(DIR).columns of the data that the model was trained on"
            )
        out[name] = columns.get(name) or ColumnStats(kind, feature.outcome, width=feature.width)
    return out
