"""Long dwell: a fixed share of every cluster, by thresholds of the previous day."""

import numpy as np
import pytest

from ligr_jax.data.dwell import DwellCounts, LongDwell, clusters, long_dwell, position_bucket

SIZE = 6


def drifting(rng: np.random.Generator, n: int, days: int) -> tuple[np.ndarray, ...]:
    """Return dwell, cluster and day; clusters differ by a factor of 100 and drift by 3 % a day."""
    cluster, day = rng.integers(0, SIZE, n), rng.integers(0, days, n)
    scale = 2.5**cluster * 1.03**day
    return scale * rng.lognormal(0, 1, n), cluster, day


def test_a_tenth_of_every_cluster_is_long_on_every_day() -> None:
    dwell, cluster, day = drifting(np.random.default_rng(0), 600_000, 20)
    label = long_dwell(dwell, cluster, day)
    assert (label[day == 0] == -1).all()
    for k in range(SIZE):
        shares = [label[(cluster == k) & (day == d)].mean() for d in range(1, 20)]
        # A drift of 3 % per day changes a share of 10 % by half a percentage point.
        assert 0.09 < np.mean(shares) < 0.115, (k, shares)
        assert 0.075 < min(shares) <= max(shares) < 0.13, (k, shares)
    # A single threshold selects slow clusters, and more impressions every day.
    fixed = dwell > np.quantile(dwell[day == 0], 0.9)
    assert fixed[cluster == 5].mean() > 10 * max(fixed[cluster == 2].mean(), 0.001)
    assert fixed[day == 19].mean() > 1.4 * fixed[day == 1].mean()


def test_labels_of_a_day_depend_only_on_the_previous_day() -> None:
    dwell, cluster, day = drifting(np.random.default_rng(1), 20_000, 4)
    label = long_dwell(dwell, cluster, day)
    later = np.where(day >= 2, dwell * 100, dwell)
    assert (long_dwell(later, cluster, day)[day < 2] == label[day < 2]).all()
    # The share of day 2 shows that its thresholds are those of day 1, and those of day 3 of day 2.
    found = long_dwell(later, cluster, day)
    assert found[day == 2].mean() > 0.9
    assert found[day == 3].mean() == pytest.approx(label[day == 3].mean(), abs=0.01)


def test_thresholds_are_within_a_hundredth_of_the_exact_percentile_and_parts_add_up() -> None:
    rng = np.random.default_rng(2)
    dwell, cluster, _ = drifting(rng, 30_000, 1)
    dwell[rng.random(len(dwell)) < 0.1] = np.nan
    parts = [
        DwellCounts.of(dwell[s], cluster[s], SIZE) for s in np.array_split(np.arange(30_000), 7)
    ]
    found = sum(parts[1:], parts[0]).thresholds(0.9, least=1)
    for k in range(SIZE):
        own = dwell[(cluster == k) & ~np.isnan(dwell)]
        exact = np.quantile(own, 0.9, method="inverted_cdf")
        assert exact * (1 - 1e-9) <= found[k] <= exact * 1.0101


def test_a_stream_in_pieces_is_labelled_as_the_whole_log() -> None:
    dwell, cluster, day = drifting(np.random.default_rng(3), 9_000, 3)
    stream, labels = LongDwell(SIZE), np.zeros(len(dwell), np.int8)
    for d in range(3):
        for rows in np.array_split(np.flatnonzero(day == d), 5):
            labels[rows] = stream.add(d, dwell[rows], cluster[rows])
    np.testing.assert_array_equal(labels, long_dwell(dwell, cluster, day))
    with pytest.raises(ValueError, match="day 1 is added after day 2"):
        stream.add(1, dwell[:1], cluster[:1])


def test_new_clusters_use_all_clusters_and_gaps_the_latest_day() -> None:
    stream = LongDwell(3, percentile=0.5, least=3)
    assert stream.add(4, [1.0, 1, 1, 64, 64, 64, 64], [0, 0, 0, 1, 1, 1, 1]).tolist() == [-1] * 7
    # Cluster 2 has no impressions on day 4, so its threshold is the median of all, 64.
    found = stream.add(9, [2.0, 2, 2, 66, np.nan], [0, 1, 2, 2, 0])
    assert found.tolist() == [1, 0, 0, 1, -1]
    # A day on which no dwell was recorded is a gap.
    assert stream.add(10, [np.nan], [0]).tolist() == [-1]
    assert stream.add(11, [1.0, 65], [0, 2]).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"cluster\[1\]=3 is outside 0\.\.2"):
        stream.add(11, [1.0, 1], [0, 3])
    assert LongDwell(1).add(0, [], []).tolist() == []


def test_clusters_are_numbered_by_combination() -> None:
    surface, kind, position = [0, 1, 2], [4, 0, 1], [0, 2, 40]
    found = clusters((surface, 3), (kind, 5), (position_bucket(position), 4))
    assert found.tolist() == [4 * 4 + 0, 5 * 4 + 1, (2 * 5 + 1) * 4 + 3]
    assert position_bucket([0, 1, 2, 3, 9, 10]).tolist() == [0, 1, 1, 2, 2, 3]
    with pytest.raises(ValueError, match=r"column 1, row 0: 5 is outside 0..4"):
        clusters((surface, 3), ([5, 0, 0], 5))
