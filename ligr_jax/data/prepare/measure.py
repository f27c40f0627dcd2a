"""What the manifest says about splits and columns, measured shard by shard."""

from dataclasses import dataclass, field

import numpy as np

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import MISSING, PLACES, SPLITS, ColumnStats, SplitStats
from ligr_jax.data.prepare.shards import Histories
from ligr_jax.data.prepare.sketches import DistinctIds, Quantiles
from ligr_jax.data.schema import Column

TRAIN = 0


@dataclass
class ColumnMeasure:
    """One feature column: ids over the whole log, gaps and quantiles over the train split."""

    column: Column
    rows: int = 0
    missing: int = 0
    ids: DistinctIds = field(default_factory=DistinctIds)
    quantiles: Quantiles = field(default_factory=Quantiles)
    longest: int = 0
    places: np.ndarray = field(default_factory=lambda: np.zeros(PLACES, np.int64))
    bagged: int = 0

    def add(self, values: np.ndarray, train: np.ndarray, rows: np.ndarray) -> None:
        """values: [N] or [N, W]; train: bool [N]; rows: int64 [N], row numbers in the log."""
        self.rows += int(train.sum())
        if self.column.kind == "categorical":
            self.ids.add(values)
            self.missing += int((values[train] == MISSING).sum())
        elif self.column.kind == "numeric":
            self.quantiles.add(values[train], rows[train])
            self.missing += int(np.isnan(values[train]).sum())

    def add_bags(self, bags: Bags, at: np.ndarray, train: np.ndarray) -> None:
        """at: int [N], which of `bags` a row has, -1 for none."""
        self.rows += int(train.sum())
        used = np.bincount(at + 1, minlength=len(bags) + 1)[1:] > 0
        self.ids.add(bags[used].values)
        lengths = np.append(bags.lengths, 0)[at]
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        lengths = lengths[train]
        self.missing += int((lengths == 0).sum())
        self.bagged += int(lengths.sum())
        # A bag of n ids has one in each of the places up to n.
        exactly = np.bincount(np.minimum(lengths, PLACES), minlength=PLACES + 1)
        self.places += exactly[::-1].cumsum()[::-1][1:]

    def add_vectors(self, present: np.ndarray, train: np.ndarray) -> None:
        """A vector of the item table. present: bool [N], whether a row's item has it."""
        self.rows += int(train.sum())
        self.missing += int((~present[train]).sum())

    def stats(self) -> ColumnStats:
        return ColumnStats(
            kind=self.column.kind,
            outcome=self.column.outcome,
            width=self.column.width,
            distinct=self.ids.count(),
            exact=self.ids.exact,
            missing=self.missing / max(self.rows, 1),
            quantiles=self.quantiles.at(),
            longest=self.longest,
            places=tuple((self.places[: self.longest] / max(self.bagged, 1)).tolist()),
        )


@dataclass
class SplitMeasure:
    """Impressions and members of each split, known and positive labels of each action."""

    actions: tuple[str, ...]
    impressions: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    members: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))

    def __post_init__(self) -> None:
        shape = (len(SPLITS), len(self.actions))
        self.known, self.positive = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(self, kept: Histories) -> None:
        for k in range(len(SPLITS)):
            counts = kept.per_member(kept.split == k)
            self.impressions[k] += int(counts.sum())
            self.members[k] += int((counts > 0).sum())

    def add_labels(self, action: str, labels: np.ndarray, split: np.ndarray) -> None:
        a = self.actions.index(action)
        for k in range(len(SPLITS)):
            here = labels[split == k]
            self.known[k, a] += int((here >= 0).sum())
            self.positive[k, a] += int((here == 1).sum())

    def stats(self, edges: tuple[int, ...]) -> dict[str, SplitStats]:
        """Positive rates are over known labels; an action without any in a split is left out."""
        return {
            name: SplitStats(
                start_ms=edges[k],
                end_ms=edges[k + 1],
                impressions=int(self.impressions[k]),
                members=int(self.members[k]),
                positive_rate={
                    a: int(p) / int(n)
                    for a, p, n in zip(self.actions, self.positive[k], self.known[k])
                    if n
                },
            )
            for k, name in enumerate(SPLITS)
        }
