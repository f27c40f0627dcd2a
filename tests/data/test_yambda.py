"""Yambda: listens of the recommender are targets, other listens are history with labels."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.yambda import ORIGIN_MS, yambda_marks
from tests.data.test_kuairand import columns_of

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "yambda"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Yambda in {SAMPLE}")
COLUMNS = {
    "uid": pl.UInt32, "timestamp": pl.UInt32, "item_id": pl.UInt32, "is_organic": pl.UInt8,
    "event_type": pl.String, "played_ratio_pct": pl.UInt16, "track_length_seconds": pl.UInt32,
}  # fmt: skip
EVENTS = [
    (7, 0, 1, 0, "like", None, None),  # before the first listen
    (7, 100, 1, 0, "listen", 50, 200),
    (7, 105, 1, 0, "like", None, None),
    (7, 300, 2, 1, "listen", 130, 0),  # organic; played again after rewinding; length unknown
    (7, 310, 1, 1, "like", None, None),  # another track than the last listen
    (7, 320, 2, 1, "dislike", None, None),
    (7, 400, 3, 0, "listen", 10, 90),
    (7, 400, 4, 0, "listen", 49, 90),  # a tie of 5 s keeps the order of the file
    (7, 400, 3, 0, "like", None, None),  # after the listen of track 4
    (7, 90_000, 1, 0, "listen", 100, 200),
    (7, 90_005, 1, 0, "unlike", None, None),
    (8, 90_010, 1, 0, "like", None, None),  # user 8 has no listen yet
    (8, 90_100, 5, 0, "listen", 90, 60),
    (8, 90_105, 5, 0, "like", None, None),
]


def write_size(
    root: Path, events: list[tuple[object, ...]] = EVENTS, one_file: bool = True
) -> Path:
    size = root / "flat" / "50m"
    size.mkdir(parents=True, exist_ok=True)
    log = pl.DataFrame(events, schema=COLUMNS, orient="row")
    if one_file:
        kind = pl.col("event_type").cast(pl.Enum(log["event_type"].unique().sort()))
        log.with_columns(kind).write_parquet(size / "multi_event.parquet", row_group_size=5)
        return size
    for kind in ("listen", "like", "dislike"):
        rows = log.filter(event_type=kind).drop("event_type")
        rows = rows if kind == "listen" else rows.select(list(COLUMNS)[:4])
        rows.write_parquet(size / f"{kind}s.parquet")
    return size


def test_listens_are_rows_and_reactions_count_for_the_last_listen(tmp_path: Path) -> None:
    write_size(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "Yambda"
    border = ORIGIN_MS + 50_000_000
    options = PrepareOptions(splits=SplitTimes(border, border), batch_rows=3)
    manifest = prepare(source, tmp_path / "out", options)
    rows = columns_of(tmp_path / "out", manifest)
    assert rows["member_id"].tolist() == [7, 8]
    assert rows["item_id"].tolist() == [1, 2, 3, 4, 1, 5]
    seconds = (rows["timestamp_ms"] - ORIGIN_MS) / 1000
    assert seconds.tolist() == [100, 300, 400, 400, 90_000, 90_100]
    assert rows["session"].tolist() == [0, 0, 0, 0, 1, 0]
    assert rows["listened"].tolist() == [1, 1, 0, 0, 1, 1]
    assert rows["like"].tolist() == [1, 0, 0, 0, 0, 1]
    assert rows["dislike"].tolist() == [0, 1, 0, 0, 0, 0]
    assert rows["is_organic"].tolist() == [0, 1, 0, 0, 0, 0]
    assert rows["weight"].tolist() == [1, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(rows["track_length_s"], [200, np.nan, 90, 90, 200, 60])
    assert manifest.columns["played_ratio_pct"].outcome
    # The rates are those of the targets: the organic listen does not count.
    assert manifest.splits["train"].positive_rate == {
        "listened": 1 / 3,
        "like": 1 / 3,
        "dislike": 0,
    }
    assert manifest.counts["history_only"] == 1


def test_an_organic_listen_is_history_and_no_target(tmp_path: Path) -> None:
    write_size(tmp_path)
    border = ORIGIN_MS + 50_000_000
    options = PrepareOptions(splits=SplitTimes(border, border))
    prepared = prepare(open_source(tmp_path), tmp_path / "out", options)
    records = Records(tmp_path / "out", (ORIGIN_MS, border, border, border + 10**9))
    for name, split in prepared.splits.items():
        assert records.manifest.splits[name].positive_rate == split.positive_rate
    model = ModelConfig(
        features={"item_id": Feature(rows=8, lookup="direct")}, actions=("listened", "dislike")
    )
    batches = {}
    for split in ("train", "test"):
        plan = make_packing_plan(records, split, 8)
        batches[split] = Assembler(records, plan, model)(np.arange(1))
    # The listens of user 7: recommended, organic, recommended twice; the test listen; user 8.
    assert batches["train"].weight[0, :4].tolist() == [1, 0, 1, 1]
    assert batches["test"].weight[0, :6].tolist() == [0, 0, 0, 0, 1, 1]
    assert batches["test"].labels[0, :4].tolist() == [[1, 0], [1, 1], [0, 0], [0, 0]]


def test_separate_files_give_the_same_labels(tmp_path: Path) -> None:
    size = write_size(tmp_path / "in", one_file=False)
    options = PrepareOptions(fractions=(1, 0, 0), batch_rows=2)
    manifest = prepare(open_source(size), tmp_path / "out", options)
    rows = columns_of(tmp_path / "out", manifest)
    assert rows["item_id"].tolist() == [1, 2, 3, 4, 1, 5]
    assert rows["like"].tolist() == [1, 0, 0, 0, 0, 1]
    assert rows["dislike"].tolist() == [0, 1, 0, 0, 0, 0]
    (size / "dislikes.parquet").unlink()
    manifest = prepare(open_source(size), tmp_path / "other", options)
    assert set(columns_of(tmp_path / "other", manifest)["dislike"]) == {-1}


def test_tracks_have_artists_albums_and_vectors(tmp_path: Path) -> None:
    write_size(tmp_path)
    pairs = {"artist_id": [10, 11, 12], "item_id": [1, 1, 5]}
    pl.DataFrame(pairs).write_parquet(tmp_path / "artist_item_mapping.parquet")
    pairs = {"album_id": [20, 21], "item_id": [2, 9]}
    pl.DataFrame(pairs).write_parquet(tmp_path / "album_item_mapping.parquet")
    vectors = {"item_id": [1, 2], "normalized_embed": [[1.0, 0.0], [0.0, 1.0]]}
    pl.DataFrame(vectors).write_parquet(tmp_path / "embeddings.parquet")
    prepare(open_source(tmp_path), tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    records = Records(tmp_path / "out")
    rows = np.arange(6)
    assert records.bag("artists", rows, 2)[:, 0].clip(0).tolist() == [10, 0, 0, 0, 10, 12]
    assert records.bag("artists", rows, 2)[:, 1].clip(0).tolist() == [11, 0, 0, 0, 11, 0]
    assert records.bag("albums", rows, 1)[:, 0].clip(0).tolist() == [0, 20, 0, 0, 0, 0]
    content = records.feature("content", rows)
    assert content.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 0]]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    assert yambda_marks(tmp_path) is None
    options = PrepareOptions(fractions=(1, 0, 0))
    for events, message in (
        ([*EVENTS, EVENTS[0]], r"row 15, column 'uid': value 7 follows 8; sort the file by uid"),
        (
            [(u, 1_000_000 * t, *rest) for u, t, *rest in EVENTS if t <= 400],
            r"column 'timestamp': the median is outside of the 27,648,000 seconds of Yambda",
        ),
        (
            [*EVENTS, (8, 90_110, 5, 0, "skip", None, None)],
            r"'event_type': value 'skip' is not one",
        ),
    ):
        write_size(tmp_path, events)
        with pytest.raises(BadInput, match=message):
            prepare(open_source(tmp_path), tmp_path / "out", options)
    other = write_size(tmp_path / "other")
    other.rename(tmp_path / "flat" / "5b")
    with pytest.raises(BadInput, match=r"has the events of flat/50m, flat/5b; give one of these"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    log = pl.read_parquet(SAMPLE / "flat" / "50m" / "multi_event.parquet")
    liked, last = 0, {}
    for uid, item, kind in log.select("uid", "item_id", "event_type").iter_rows():
        if kind == "listen":
            last[uid] = [item, False]
        elif kind == "like" and last.get(uid, [None])[0] == item:
            liked += not last[uid][1]
            last[uid][1] = True
    rows = columns_of(tmp_path, manifest)
    listens = log.filter(event_type="listen")
    assert manifest.counts["impressions"] == listens.height
    assert (rows["like"] == 1).sum() == liked
    assert (rows["weight"] == 0).sum() == (listens["is_organic"] == 1).sum()
    assert (rows["listened"] == 1).sum() == (listens["played_ratio_pct"] >= 50).sum()
    assert any("2000-01-01" in note for note in manifest.notes)
