"""MerRec: the labels of a view are the later events on its item in its session."""

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.merrec import IDS, LABELS, merrec_marks
from tests.data.test_kuairand import columns_of

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "merrec"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of MerRec in {SAMPLE}")
VIEW, LIKE, CART, BUY = "item_view", "item_like", "item_add_to_cart_tap", "buy_comp"
DAY_MS = 86_400_000


def events(rows: list[tuple[int, int, str, str, int]]) -> pl.DataFrame:
    """Return the events (user, session, "day hh:mm", event, item) of October or September."""
    frame = pl.DataFrame(
        rows, schema=("user_id", "session_id", "at", "event_id", "item_id"), orient="row"
    )
    stime = pl.col("at").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us")
    ids = {name: pl.lit(k) for k, name in enumerate(IDS)} | {"color": pl.lit("red")}
    return frame.select(
        "user_id", "session_id", "event_id", "item_id",
        stime=stime, product_id=pl.col("item_id") % 100, price=pl.col("item_id") / 10,
        sequence_id=1, sequence_length=99, name=pl.lit("a name"), **ids,
    )  # fmt: skip


SEPTEMBER = [
    (7, 1, "2023-09-30 23:50", VIEW, 201),
    (7, 1, "2023-09-30 23:51", LIKE, 201),
]
OCTOBER = [
    (7, 1, "2023-10-01 10:05", LIKE, 101),  # the files are not sorted
    (7, 1, "2023-10-01 10:00", VIEW, 101),
    (7, 1, "2023-10-01 10:02", VIEW, 101),  # a second view before the like
    (7, 1, "2023-10-01 10:02", CART, 101),  # the same time, a later row
    (7, 1, "2023-10-01 10:06", VIEW, 101),  # after the like
    (7, 1, "2023-10-01 10:07", LIKE, 301),  # the same product, another item
    (8, 1, "2023-10-01 10:08", LIKE, 101),  # another user
    (7, 2, "2023-10-02 10:00", BUY, 101),  # another session
    (7, 2, "2023-10-02 10:01", VIEW, 102),
    (8, 1, "2023-10-03 10:00", VIEW, 101),
]


def write_layout(root: Path, october: list[Any] = OCTOBER) -> None:
    for month, rows in (("20230901", SEPTEMBER), ("20231001", october)):
        (root / month).mkdir(parents=True, exist_ok=True)
        events(rows).write_parquet(root / month / "000000000000.parquet")


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def test_labels_are_later_events_on_the_item_in_the_session(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "MerRec"
    splits = SplitTimes(at("2023-10-02"), at("2023-10-03"))
    manifest = prepare(source, tmp_path / "out", PrepareOptions(splits=splits))
    rows = columns_of(tmp_path / "out", manifest)
    assert rows["member_id"].tolist() == [7, 8]
    assert rows["n_train"].tolist() == [4, 0]
    assert rows["item_id"].tolist() == [1, 1, 1, 1, 2, 1]
    expected = [
        "09-30 23:50",
        "10-01 10:00",
        "10-01 10:02",
        "10-01 10:06",
        "10-02 10:01",
        "10-03 10:00",
    ]
    assert rows["timestamp_ms"].tolist() == [at(f"2023-{text}") for text in expected]
    # Session 1 of September is not session 1 of October.
    assert rows["session"].tolist() == [0, 1, 1, 1, 2, 0]
    assert rows["like"].tolist() == [1, 1, 1, 0, 0, 0]
    assert rows["cart"].tolist() == [0, 1, 1, 0, 0, 0]
    assert rows["purchase"].tolist() == [0] * 6
    assert rows["brand_id"].tolist() == [3] * 6
    assert rows["price"][0] == pytest.approx(20.1)
    assert not {"sequence_length", "name"} & set(manifest.columns)
    assert any("nothing was shown and ignored" in note for note in manifest.notes)


def test_one_month_is_read_alone(tmp_path: Path) -> None:
    write_layout(tmp_path)
    files = open_source(tmp_path / "20231001").description["files"]
    assert [file["name"] for file in files] == ["20231001/000000000000.parquet"]
    assert merrec_marks(tmp_path / "nothing") is None


def test_bad_files_are_refused(tmp_path: Path) -> None:
    write_layout(tmp_path, [*OCTOBER, (7, 2, "2023-10-02 10:02", "item_share", 102)])
    unknown = r"20231001/0+.parquet, row 11, column 'event_id': value 'item_share' is not one of"
    with pytest.raises(BadInput, match=unknown):
        prepare(open_source(tmp_path), tmp_path / "out")
    options = PrepareOptions(fractions=(1, 0, 0), on_bad_row="skip")
    manifest = prepare(open_source(tmp_path), tmp_path / "skipped", options)
    assert manifest.counts["skipped"] == 1
    assert manifest.counts["impressions"] == 6
    # Milliseconds in a column of microseconds are in January 1970.
    path = tmp_path / "20231001" / "000000000000.parquet"
    milliseconds = pl.read_parquet(path).with_columns(pl.col("stime").dt.epoch("ms"))
    milliseconds.write_parquet(path)
    unit = r"column 'stime': the median .* the values are milliseconds: convert .* to microseconds"
    with pytest.raises(BadInput, match=unit):
        prepare(open_source(tmp_path), tmp_path / "out")
    milliseconds.drop("product_id").write_parquet(path)
    with pytest.raises(BadInput, match=r"lacks the columns \['product_id'\] of MerRec"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    log = pl.concat(pl.read_parquet(p) for p in sorted(SAMPLE.rglob("*.parquet")))
    seen = dict.fromkeys(LABELS, 0)
    for _, session in log.sort("stime", maintain_order=True).group_by("user_id", "session_id"):
        listed = list(zip(session["event_id"], session["item_id"], strict=True))
        for k, (event, item) in enumerate(listed):
            for name, wanted in LABELS.items():
                seen[name] += event == VIEW and (wanted, item) in listed[k + 1 :]
    rows = columns_of(tmp_path, manifest)
    assert {name: int((rows[name] == 1).sum()) for name in LABELS} == seen
    assert manifest.counts["impressions"] == (log["event_id"] == VIEW).sum()
    sessions = log.filter(event_id=VIEW).n_unique(("user_id", "session_id"))
    assert manifest.counts["sessions"] + manifest.counts["sessions_merged"] == sessions
