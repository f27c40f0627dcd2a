"""Statistics of splits and columns for the manifest, accumulated shard by shard."""

from dataclasses import dataclass, field

import numpy as np

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import MISSING, PLACES, SPLITS, ColumnStats, SplitStats
from ligr_jax.data.prepare.shards import Histories
from ligr_jax.data.prepare.sketches import DistinctIds, Quantiles
from ligr_jax.data.schema import Column
from ligr_jax.data.sources.validate import UNTIMED

TRAIN = 0  # number of the train split


@dataclass
class ColumnMeasure:
    """Statistics of one feature column.

    Ids are counted over the whole log; missing values and quantiles over the train split.

    Attributes:
        column: the column.
        rows: rows of the train split.
        missing: rows of the train split without a value.
        ids: distinct ids.
        quantiles: sample of the values.
        longest: largest number of ids in a bag.
        places: number of ids that are first, second, ... in their bag.
        bagged: number of ids in bags.
    """

    column: Column
    rows: int = 0
    missing: int = 0
    ids: DistinctIds = field(default_factory=DistinctIds)
    quantiles: Quantiles = field(default_factory=Quantiles)
    longest: int = 0
    places: np.ndarray = field(default_factory=lambda: np.zeros(PLACES, np.int64))
    bagged: int = 0

    def add(self, values: np.ndarray, train: np.ndarray, rows: np.ndarray) -> None:
        """Add the values of a categorical or numeric column; vectors count only as rows.

        Args:
            values: [N] or [N, W].
            train: bool [N], whether a row is in the train split.
            rows: int64 [N], row numbers in the log.
        """
        self.rows += int(train.sum())
        if self.column.kind == "categorical":
            self.ids.add(values)
            self.missing += int((values[train] == MISSING).sum())
        elif self.column.kind == "numeric":
            self.quantiles.add(values[train], rows[train])
            self.missing += int(np.isnan(values[train]).sum())

    def add_bags(self, bags: Bags, index: np.ndarray, train: np.ndarray) -> None:
        """Add the bags of rows.

        Args:
            bags: distinct bags.
            index: int [N], index of each row's bag, or -1.
            train: bool [N], whether a row is in the train split.
        """
        self.rows += int(train.sum())
        used = np.bincount(index + 1, minlength=len(bags) + 1)[1:] > 0
        self.ids.add(bags[used].values)
        lengths = np.append(bags.lengths, 0)[index]
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        lengths = lengths[train]
        self.missing += int((lengths == 0).sum())
        self.bagged += int(lengths.sum())
        # The number of ids in place k is the number of bags with at least k ids.
        bags_of_length = np.bincount(np.minimum(lengths, PLACES), minlength=PLACES + 1)
        self.places += bags_of_length[::-1].cumsum()[::-1][1:]

    def add_vectors(self, present: np.ndarray, train: np.ndarray) -> None:
        """Add a vector of the item table.

        Args:
            present: bool [N], whether the item of a row has the vector.
            train: bool [N], whether a row is in the train split.
        """
        self.rows += int(train.sum())
        self.missing += int((~present[train]).sum())

    def merge(self, other: "ColumnMeasure") -> None:
        """Add the statistics of other rows."""
        self.rows += other.rows
        self.missing += other.missing
        self.ids.merge(other.ids)
        self.quantiles.merge(other.quantiles)
        self.longest = max(self.longest, other.longest)
        self.places += other.places
        self.bagged += other.bagged

    def stats(self) -> ColumnStats:
        """Return the statistics for the manifest."""
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
    """Numbers of impressions, members, known labels and positive labels of each split."""

    actions: tuple[str, ...]
    impressions: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    members: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))

    def __post_init__(self) -> None:
        shape = (len(SPLITS), len(self.actions))
        self.known, self.positive = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(self, kept: Histories) -> None:
        """Add the impressions and members of a shard."""
        for k in range(len(SPLITS)):
            counts = kept.per_member(kept.split == k)
            self.impressions[k] += int(counts.sum())
            self.members[k] += int((counts > 0).sum())

    def add_labels(self, action: str, labels: np.ndarray, split: np.ndarray) -> None:
        """Add the labels of an action; labels and split are int8 [N], split -1 is left out."""
        a = self.actions.index(action)
        for k in range(len(SPLITS)):
            of_split = labels[split == k]
            self.known[k, a] += int((of_split >= 0).sum())
            self.positive[k, a] += int((of_split == 1).sum())

    def merge(self, other: "SplitMeasure") -> None:
        """Add the numbers of other members."""
        self.impressions += other.impressions
        self.members += other.members
        self.known += other.known
        self.positive += other.positive

    def stats(self, edges: tuple[int, ...]) -> dict[str, SplitStats]:
        """Return the statistics of each split, by name.

        Args:
            edges: start and end times of the splits, milliseconds.
        """
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


@dataclass
class HistoryMeasure:
    """Gaps and sessions of members.

    Attributes:
        gaps: gaps between consecutive times of a member, milliseconds.
        members: number of members.
        one_session: members with exactly one session.
        several_rows: members with more than one impression.
    """

    gaps: Quantiles = field(default_factory=Quantiles)
    members: int = 0
    one_session: int = 0
    several_rows: int = 0

    def add(self, kept: Histories, number: np.ndarray) -> None:
        """Add the members of a shard; `number` (int64 [N]) has the row numbers in the log."""
        timed = kept.time_ms != UNTIMED
        gap = np.diff(kept.time_ms)
        # Items that were shown together have one time, and no gap.
        follows = (kept.member[1:] == kept.member[:-1]) & timed[:-1] & (gap > 0)
        self.gaps.add(gap[follows].astype(np.float32), number[1:][follows])
        last = np.append(kept.first[1:], len(kept.order)) - 1
        first_timed = kept.first + kept.per_member(~timed)
        sessions = kept.session[last] + 1 - kept.session[first_timed]
        self.members += len(last)
        self.several_rows += int((kept.per_member(timed) > 1).sum())
        self.one_session += int((sessions == 1).sum())

    def merge(self, other: "HistoryMeasure") -> None:
        """Add other members."""
        self.gaps.merge(other.gaps)
        self.members += other.members
        self.one_session += other.one_session
        self.several_rows += other.several_rows
