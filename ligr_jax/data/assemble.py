"""From row numbers of a plan to a `Batch`: the last mile of the data, vectorized over a batch.

Ids become table rows, numbers are normalized by the train split's quantiles, and packed windows get
their member and session numbers. All of it happens on the host, never in the step.
"""

from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.lookup import bag_rows, table_rows
from ligr_jax.data.manifest import MISSING, ColumnStats, Manifest
from ligr_jax.data.packing import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import UNKNOWN

_HOUR_MS = 3_600_000
BAG_SIZE = 16  # most ids of a bag looked up where nobody says otherwise


class Assembler:
    """Turns row numbers of `plan` into batches for a model; a pure function of the row numbers."""

    def __init__(self, records: Records, plan: PackingPlan, model: ModelConfig) -> None:
        check_columns(model, records.manifest)
        self.records, self.plan = records, plan
        self.actions = model.actions
        self.features = {
            name: (feature, _Quantiles(records.manifest.columns[name]))
            for name, feature in model.features.items()
        }

    def __call__(self, rows: np.ndarray) -> Batch:
        """rows: int [B], row numbers of the plan; -1 gives a row of padding."""
        index, window, is_target = self.plan.gather(rows)
        here, at = index >= 0, np.maximum(index, 0)
        ids, numeric, vectors = {}, {}, {}
        for name, (feature, quantiles) in self.features.items():
            if feature.bag:
                raw = self.records.bag(name, at, feature.bag_size)
                present = np.where(here[..., None], raw, MISSING)
                ids[name] = bag_rows(present, name, feature)
                continue
            raw = self.records.feature(name, at)
            if feature.kind == "vector":
                vectors[name] = np.where(here[..., None], raw, np.float32(0))
            elif feature.kind == "numeric":
                numeric[name] = np.where(here, quantiles.normalize(raw), np.float32(np.nan))
            elif feature.kind == "bucket":
                ids[name] = np.where(here, quantiles.bucket(raw, feature.rows), 0)
            else:
                ids[name] = table_rows(np.where(here, raw, MISSING), name, feature)
        labels = np.stack([self.records.label(a, at) for a in self.actions], -1)
        return Batch(
            member=window,
            session=self._session(at, window),
            time=self._hours(at, window),
            ids=ids,
            numeric=numeric,
            vectors=vectors,
            labels=np.where(here[..., None], labels, np.int8(UNKNOWN)),
            weight=np.where(is_target, self.records.take("weight", at), np.float32(0)),
        )

    def _session(self, at: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Sessions counted from the oldest one of each window."""
        session = self.records.take("session", at)
        return np.where(window > 0, session - _first_of_window(session, window), 0).astype(np.int32)

    def _hours(self, at: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Hours since the first timed impression of each window; untimed context is at 0."""
        time = self.records.take("timestamp_ms", at)
        timed = np.where((window > 0) & (time >= 0), time, np.iinfo(np.int64).max)
        # Untimed context lies in front, so the window's oldest time is its first timed one.
        oldest = np.minimum.reduceat(timed.ravel(), _window_starts(window))
        hours = (timed - np.repeat(oldest, _window_lengths(window)).reshape(time.shape)) / _HOUR_MS
        return np.where((window > 0) & (time >= 0), hours, 0).astype(np.float32)


def _window_starts(window: np.ndarray) -> np.ndarray:
    """Flat positions where a window, or a stretch of padding, begins; rows never share one."""
    change = np.ones(window.shape, bool)
    change[:, 1:] = window[:, 1:] != window[:, :-1]
    return np.flatnonzero(change)


def _window_lengths(window: np.ndarray) -> np.ndarray:
    return np.diff(_window_starts(window), append=window.size)


def _first_of_window(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    first = values.ravel()[_window_starts(window)]
    return np.repeat(first, _window_lengths(window)).reshape(values.shape)


class _Quantiles:
    """A numeric column's distribution on the train split, as normalization and as buckets."""

    def __init__(self, stats: ColumnStats) -> None:
        self.values = np.asarray(stats.quantiles, np.float64)
        if len(self.values):
            # Tied quantiles (a point mass) share the mean of their ranks.
            self.distinct, group = np.unique(self.values, return_inverse=True)
            ranks = np.linspace(-1, 1, len(self.values))
            self.ranks = np.bincount(group, ranks) / np.bincount(group)

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """The value's quantile, in [-1, 1]; NaN stays NaN."""
        if not len(self.values):
            return np.full_like(x, np.nan)
        return np.interp(x, self.distinct, self.ranks).astype(np.float32)

    def bucket(self, x: np.ndarray, rows: int) -> np.ndarray:
        """Buckets 1..rows-1 of about equal mass; 0 where missing."""
        if not len(self.values):
            return np.zeros(x.shape, np.int32)
        inner = np.linspace(0, len(self.values) - 1, rows)[1:-1]
        edges = np.interp(inner, np.arange(len(self.values)), self.values)
        return np.where(np.isnan(x), 0, 1 + np.searchsorted(edges, x, side="right")).astype(
            np.int32
        )


def check_columns(model: ModelConfig, manifest: Manifest) -> None:
    """Refuses a model whose features or actions the data does not have, before anything is read."""
    for name, feature in model.features.items():
        stats = manifest.columns.get(name)
        if stats is None:
            raise ConfigError(
                f"model.features.{name}: no such column in the data, which has "
                f"{list(manifest.columns)}"
            )
        needed = {"bucket": "numeric"}.get(feature.kind, "bag" if feature.bag else feature.kind)
        if stats.kind != needed:
            _refuse_kind(name, feature, stats)
        if stats.outcome and not feature.outcome:
            raise ConfigError(
                f"model.features.{name}.outcome=false: {name} is known only after the impression, "
                "the model would read its own answer"
            )
        if feature.kind == "vector" and feature.width != stats.width:
            raise ConfigError(
                f"model.features.{name}.width={feature.width}: the column's vectors are "
                f"{stats.width} long"
            )
    missing = [a for a in model.actions if a not in manifest.actions]
    if missing:
        raise ConfigError(f"model.actions: no {missing} in the data, which has {manifest.actions}")


def _refuse_kind(name: str, feature: Feature, stats: ColumnStats) -> NoReturn:
    if feature.kind == "categorical" and stats.kind == "bag":
        raise ConfigError(
            f"model.features.{name}.bag='': the column is bag, up to {stats.longest} ids of an "
            f"impression; set model.features.{name}.bag=mean and model.features.{name}.bag_size"
        )
    if feature.bag and stats.kind == "categorical":
        raise ConfigError(
            f"model.features.{name}.bag={feature.bag}: the column is categorical, one id of an "
            f"impression; set model.features.{name}.bag="
        )
    raise ConfigError(f"model.features.{name}.kind={feature.kind}: the column is {stats.kind}")


def crowded_tables(model: ModelConfig, manifest: Manifest) -> list[str]:
    """A line for every feature whose ids have to share rows, and for every bag that is cut."""
    lines: list[str] = []
    for name, feature in model.features.items():
        if feature.kind == "categorical":
            lines += _crowded(name, feature, manifest.columns[name])
            lines += _cut(name, feature, manifest.columns[name])
    return lines


def _crowded(name: str, feature: Feature, stats: ColumnStats) -> Iterator[str]:
    half = (feature.rows - 1) // 2
    qr = feature.lookup == "qr"
    places = half * half if qr else feature.rows - 1
    if stats.distinct > places:
        shown = f"{places:,} pairs of rows" if qr else f"{feature.rows:,} rows"
        yield (
            f"{name}: {stats.distinct:,} ids hashed into {shown}, "
            f"{stats.distinct / places:.1f} to a {'pair' if qr else 'row'}"
        )


def _cut(name: str, feature: Feature, stats: ColumnStats) -> Iterator[str]:
    if feature.bag and stats.longest > feature.bag_size:
        # Places are told up to a limit: of a bag larger than that, this is an upper bound.
        share = max(0.0, 1 - sum(stats.places[: feature.bag_size]))
        yield (
            f"{name}: bags of up to {stats.longest:,} ids cut to model.features.{name}.bag_size="
            f"{feature.bag_size}, {share:.1%} of the ids left out"
        )


def default_features(columns: Mapping[str, ColumnStats]) -> dict[str, Feature]:
    """Every column of the data; tables a quarter larger than the vocabulary, at most 2^20 rows.

    Ids of a known range have a row each where it is at most 2^20, and are hashed into 10^6 rows
    where it is larger: one and two codes of semantic ids, and three (LiGR 5.1). Of a bag, the mean
    of its first `BAG_SIZE` ids or fewer.
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
