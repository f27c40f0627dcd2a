"""Assembly of batches from rows of a packing plan, vectorized over the batch.

Ids are mapped to table rows, numbers are normalized by the quantiles of the train split, and packed
windows get member and session numbers. All of this runs on the host and not in the training step.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Protocol

import numpy as np

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.config.lists import join_list
from ligr_jax.data.batch import Batch
from ligr_jax.data.lookup import bag_rows, missing_row, table_rows
from ligr_jax.data.manifest import MISSING, ColumnStats, Manifest
from ligr_jax.data.packing_plan import PackingPlan, PlacedRows
from ligr_jax.data.schema import UNKNOWN
from ligr_jax.data.weight_decay import WeightDecay

_HOUR_MS = 3_600_000
_COMPARED = 64  # edges between buckets that are compared one by one; below 127, for int8 counts
BAG_SIZE = 16  # default of the largest number of ids of a bag that are looked up


class ImpressionColumns(Protocol):
    """Random access to columns of impressions, which `Records` has for prepared data.

    `index` is the result of `locate`. The arrays that are returned belong to the caller.
    """

    @property
    def manifest(self) -> Manifest:
        """Actions and statistics of the columns."""

    def locate(self, index: np.ndarray) -> Any:
        """Return what the other methods need to find impressions.

        Args:
            index: int array of any shape, impression numbers.
        """

    def feature(self, name: str, index: Any) -> np.ndarray:
        """Return the values of a feature that is not a bag."""

    def bag(self, name: str, index: Any, size: int) -> np.ndarray:
        """Return the first `size` ids of bags, padded with `MISSING`."""

    def label(self, action: str, index: Any) -> np.ndarray:
        """Return the labels of an action."""

    def take(self, column: str, index: Any) -> np.ndarray:
        """Return the values of `session`, `timestamp_ms` or `weight`."""


class Assembler:
    """Maps row numbers of a plan to batches. A batch is a pure function of its row numbers."""

    def __init__(
        self,
        records: ImpressionColumns,
        plan: PackingPlan,
        model: ModelConfig,
        decay: WeightDecay | None = None,
    ) -> None:
        """
        Args:
            records: prepared data (`Records`), or other columns of impressions.
            plan: plan of the rows.
            model: model configuration, for its features and actions.
            decay: factors of the weights of targets; None for none.

        Raises:
            ConfigError: the data lack a feature or an action of the model.
        """
        check_columns(model, records.manifest)
        self.records, self.plan, self.decay = records, plan, decay
        self.actions = model.actions
        self.features = {
            name: (feature, NumericScale(records.manifest.columns[name]))
            for name, feature in model.features.items()
        }

    def over(self, records: ImpressionColumns, plan: PackingPlan) -> "Assembler":
        """Return an assembler of other impressions with the same manifest.

        The scales of numbers are shared, so that a small batch does not pay for them.

        Args:
            records: the impressions.
            plan: plan of the rows.
        """
        other = copy.copy(self)
        other.records, other.plan = records, plan
        return other

    def __call__(self, rows: np.ndarray) -> Batch:
        """Return the batch of some rows.

        Args:
            rows: int [B], row numbers of the plan; -1 stands for a row of padding.
        """
        return self.of_placed(self.plan.place(rows))

    def of_placed(self, placed: PlacedRows) -> Batch:
        """Return the batch of rows whose positions have been filled.

        Args:
            placed: the source of every position; its array of impressions is changed.
        """
        index = placed.impression
        # Padding reads impression 0, and the values are replaced.
        index.ravel()[placed.padding] = 0
        located = self.records.locate(index)

        def padded(values: np.ndarray, value: Any) -> np.ndarray:
            """Set the values of padding, in place."""
            values.reshape(index.size, *values.shape[2:])[placed.padding] = value
            return values

        ids, numeric, vectors = {}, {}, {}
        for name, (feature, scale) in self.features.items():
            if feature.bag:
                bags = padded(self.records.bag(name, located, feature.bag_size), MISSING)
                ids[name] = bag_rows(bags, name, feature)
                continue
            raw = self.records.feature(name, located)
            if feature.kind == "vector":
                vectors[name] = padded(raw, 0)
            elif feature.kind == "numeric":
                numeric[name] = padded(scale.normalize(raw), np.nan)
            elif feature.kind == "bucket":
                ids[name] = padded(scale.bucket(raw, feature.rows, feature.edges), 0)
            else:
                # Id 0 has a row in every table, so that padding is never an invalid id.
                table_row = table_rows(padded(raw, 0), name, feature)
                ids[name] = padded(table_row, missing_row(feature))
        labels = np.empty((*index.shape, len(self.actions)), np.int8)
        for a, action in enumerate(self.actions):
            labels[..., a] = self.records.label(action, located)
        if self.records.manifest.time_is_order:
            hours = np.zeros(index.shape, np.float32)
        else:
            hours = hours_since_first(self.records.take("timestamp_ms", located), placed)
        weight = self.records.take("weight", located)
        weight[~placed.is_target] = 0
        if self.decay is not None:
            weight *= self.decay(self.records.take("timestamp_ms", located), placed)
        return Batch(
            member=placed.window,
            session=count_sessions(self.records.take("session", located), placed),
            time=hours,
            ids=ids,
            numeric=numeric,
            vectors=vectors,
            labels=padded(labels, UNKNOWN),
            weight=weight,
        )


def count_sessions(session: np.ndarray, placed: PlacedRows) -> np.ndarray:
    """Return sessions counted from the oldest session of each window.

    Args:
        session: int [B, N], session numbers that do not fall within a window, and are equal in
            padding.
        placed: segments of the positions.

    Returns:
        int32 [B, N], 0 in padding.
    """
    first = np.repeat(session.ravel()[placed.begin], placed.size).reshape(session.shape)
    counted: np.ndarray = np.subtract(session, first, out=first).astype(np.int32, copy=False)
    return counted


def hours_since_first(time_ms: np.ndarray, placed: PlacedRows) -> np.ndarray:
    """Return the hours since the first timed impression of each window.

    Args:
        time_ms: int64 [B, N], milliseconds, equal in padding; negative in untimed context, which
            precedes the timed impressions of a window.
        placed: segments of the positions.

    Returns:
        float32 [B, N], 0 in untimed context and in padding.
    """
    untimed = time_ms < 0 if time_ms.min() < 0 else None
    timed = time_ms if untimed is None else np.where(untimed, np.iinfo(np.int64).max, time_ms)
    oldest = np.minimum.reduceat(timed.ravel(), placed.begin)
    since = np.repeat(oldest, placed.size).reshape(timed.shape)
    hours: np.ndarray = (np.subtract(timed, since, out=since) / _HOUR_MS).astype(np.float32)
    if untimed is not None:
        hours[untimed] = 0
    return hours


class NumericScale:
    """Normalization and buckets of a numeric column by its distribution on the train split."""

    def __init__(self, stats: ColumnStats) -> None:
        self.values = np.asarray(stats.quantiles, np.float64)
        self._edges_of: dict[tuple[int, tuple[float, ...], np.dtype], np.ndarray] = {}
        if len(self.values):
            # Equal quantiles (a point mass) get the mean of their ranks.
            self.distinct, group = np.unique(self.values, return_inverse=True)
            ranks = np.linspace(-1, 1, len(self.values))
            self.ranks = np.bincount(group, ranks) / np.bincount(group)

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """Return the quantiles of values, scaled to [-1, 1]; NaN stays NaN."""
        if not len(self.values):
            return np.full_like(x, np.nan)
        result: np.ndarray = np.interp(x, self.distinct, self.ranks).astype(np.float32)
        return result

    def bucket(self, x: np.ndarray, rows: int, edges: tuple[float, ...] = ()) -> np.ndarray:
        """Return buckets 1..rows-1; 0 if the value is missing.

        Args:
            x: values.
            rows: number of buckets, plus 1.
            edges: the rows - 2 values at which the buckets 2, 3, ... begin; () for buckets of about
                equal mass.
        """
        if not edges and not len(self.values):
            return np.zeros(x.shape, np.int32)
        return self._counted(x, self._edges(rows, edges, x.dtype))

    def _counted(self, x: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return 1 + the number of edges that are not above each value; 0 for NaN."""
        if len(edges) > _COMPARED:
            bucket = np.searchsorted(edges, x, side="right").astype(np.int32)
            bucket += 1
        else:  # comparisons are vectorized, and a binary search is not
            count = np.ones(x.shape, np.int8)
            reached = np.empty(x.shape, bool)
            for edge in edges:
                np.greater_equal(x, edge, out=reached)
                count += reached.view(np.int8)
            bucket = count.astype(np.int32)
        bucket[np.isnan(x)] = 0
        return bucket

    def _edges(self, rows: int, given: tuple[float, ...], dtype: np.dtype) -> np.ndarray:
        """Return the edges between `rows` - 1 buckets: the given ones, or quantiles.

        For float32 values these are the smallest float32 numbers that are not below the edges, so
        comparisons have the same results as in float64.
        """
        if (rows, given, dtype) not in self._edges_of:
            if given:
                edges = np.asarray(given)
            else:
                inner = np.linspace(0, len(self.values) - 1, rows)[1:-1]
                edges = np.interp(inner, np.arange(len(self.values)), self.values)
            if dtype == np.float32:
                rounded = edges.astype(np.float32)
                above = np.nextafter(rounded, np.float32(np.inf))
                edges = np.where(rounded < edges, above, rounded)
            self._edges_of[rows, given, dtype] = edges
        return self._edges_of[rows, given, dtype]


def check_columns(model: ModelConfig, manifest: Manifest) -> None:
    """Check that the data have the features and actions of a model.

    Raises:
        ConfigError: a feature or an action is absent, a feature has another kind or width, an
            action that is known late is part of the history, or the model needs times that the data
            does not have.
    """
    for name, feature in model.features.items():
        stats = manifest.columns.get(name)
        if stats is None:
            raise ConfigError(
                f"model.features.{name}: the data has no column of this name; its columns are "
                f"{list(manifest.columns)}"
            )
        needed = {"bucket": "numeric"}.get(feature.kind, "bag" if feature.bag else feature.kind)
        if stats.kind != needed:
            _refuse_kind(name, feature, stats)
        if stats.outcome and not (feature.outcome or feature.post):
            raise ConfigError(
                f"model.features.{name}.outcome=false: {name} is known only after the impression, "
                f"so it leaks the label; set model.features.{name}.outcome=true"
            )
        if feature.post and stats.missing == 1:
            raise ConfigError(
                f"model.features.{name}.post=true: the train split has no value of {name}, so its "
                f"output layers would not train; prepare the data with its values, or remove {name}"
            )
        if feature.kind == "vector" and feature.width != stats.width:
            raise ConfigError(
                f"model.features.{name}.width={feature.width}: the vectors of the column have "
                f"length {stats.width}"
            )
    missing = [a for a in model.actions if a not in manifest.actions]
    if missing:
        raise ConfigError(
            f"model.actions: the data has no labels of {missing}; its actions are "
            f"{list(manifest.actions)}"
        )
    _check_late_actions(model, manifest)
    if manifest.time_is_order and model.position == "relative_time":
        raise ConfigError(
            "model.position=relative_time needs times, and the data has only the order of each "
            "member's rows; set model.position=relative_session or learned"
        )


def _check_late_actions(model: ModelConfig, manifest: Manifest) -> None:
    """Raise `ConfigError` for an unknown late action, or for a late action used as history."""
    late = model.late_actions
    unknown = [a for a in late if a not in manifest.actions]
    if unknown:
        raise ConfigError(
            f"model.late_actions={join_list(late)}: the data has no labels of {unknown}; its "
            f"actions are {list(manifest.actions)}"
        )
    shown = [a for a in manifest.late_actions if a in model.actions and a not in late]
    if shown:
        raise ConfigError(
            f"model.late_actions={join_list(late)}: the labels of {shown} become known at an "
            "unknown later time, so a history with them leaks the future; set "
            f"model.late_actions={join_list([*late, *shown])}"
        )


def _refuse_kind(name: str, feature: Feature, stats: ColumnStats) -> NoReturn:
    if feature.kind == "categorical" and stats.kind == "bag":
        raise ConfigError(
            f"model.features.{name}.bag='': the column has bags of up to {stats.longest} ids per "
            f"impression; set model.features.{name}.bag=mean and model.features.{name}.bag_size"
        )
    if feature.bag and stats.kind == "categorical":
        raise ConfigError(
            f"model.features.{name}.bag={feature.bag}: the column is categorical, one id per "
            f"impression; set model.features.{name}.bag="
        )
    raise ConfigError(f"model.features.{name}.kind={feature.kind}: the column is {stats.kind}")


def crowded_tables(model: ModelConfig, manifest: Manifest) -> list[str]:
    """Return a warning for every feature whose ids share rows, and for every truncated bag."""
    lines: list[str] = []
    for name, feature in model.features.items():
        if feature.kind == "categorical":
            lines += _crowded(name, feature, manifest.columns[name])
            lines += _truncated(name, feature, manifest.columns[name])
    return lines


def _crowded(name: str, feature: Feature, stats: ColumnStats) -> Iterator[str]:
    """Yield a warning if a categorical feature has more ids than rows."""
    half = (feature.rows - 1) // 2
    qr = feature.lookup == "qr"
    slots = half * half if qr else feature.rows - 1
    if stats.distinct > slots:
        size = f"{slots:,} pairs of rows" if qr else f"{feature.rows:,} rows"
        yield (
            f"{name}: {stats.distinct:,} ids are hashed into {size}, "
            f"{stats.distinct / slots:.1f} per {'pair' if qr else 'row'}"
        )


def _truncated(name: str, feature: Feature, stats: ColumnStats) -> Iterator[str]:
    """Yield a warning if bags are longer than the feature's `bag_size`."""
    if feature.bag and stats.longest > feature.bag_size:
        # `places` has a limited length, so this is an upper bound for a larger `bag_size`.
        share = max(0.0, 1 - sum(stats.places[: feature.bag_size]))
        yield (
            f"{name}: bags of up to {stats.longest:,} ids are truncated to "
            f"model.features.{name}.bag_size={feature.bag_size}, which drops {share:.1%} of the ids"
        )


def default_features(columns: Mapping[str, ColumnStats]) -> dict[str, Feature]:
    """Return the default configuration of a feature for every column.

    Tables are 1.25 times as large as the vocabulary, with at most 2^20 rows. Ids in a known range
    of at most 2^20 get a row each; ids in a larger range are hashed into 10^6 rows. For semantic
    ids these are prefixes of one and two codes, and of three codes (LiGR 5.1). Bags are averaged
    over their first `BAG_SIZE` ids.

    Args:
        columns: statistics of the columns, by name.
    """
    features = {}
    for name, stats in columns.items():
        rows = min(2**20, max(16, int(1.25 * stats.distinct) + 2))
        if stats.id_range > 2**20:
            features[name] = Feature(rows=10**6)
        elif stats.id_range:
            features[name] = Feature(rows=stats.id_range + 1, lookup="direct")
        elif stats.kind == "categorical":
            features[name] = Feature(rows=rows, outcome=stats.outcome)
        elif stats.kind == "bag":
            size = min(BAG_SIZE, max(1, stats.longest))
            features[name] = Feature(rows=rows, outcome=stats.outcome, bag="mean", bag_size=size)
        elif stats.kind == "numeric":
            features[name] = Feature("bucket", rows=17, outcome=stats.outcome)
        else:
            features[name] = Feature("vector", width=stats.width, outcome=stats.outcome)
    return features
