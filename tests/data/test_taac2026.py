"""TAAC 2026: only events before the impression are history, and conversions are known late."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.taac2026 import KEPT
from tests.data.logs import read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "taac2026"
T = 1_770_000_000


def rows() -> pl.DataFrame:
    """Return two impressions; the first has events before, at and after it, and padding."""
    many = [T - k for k in range(1, KEPT + 10)]
    return pl.DataFrame(
        {
            "user_id": [1, 1],
            "item_id": [5, 6],
            "label_type": [2, 1],
            "label_time": [T + 90_000, T + 50],
            "timestamp": [T, T + 100],
            "user_int_feats_1": [10, None],
            "user_int_feats_15": [[1, 2], []],
            "user_dense_feats_61": [[0.5, 1.5], None],
            "user_dense_feats_62": [[0.5], [0.1, 0.2]],
            "item_int_feats_5": [50, 60],
            "domain_a_seq_38": [[31, 32, 33, 34, 35], None],
            "domain_a_seq_39": [[T - 3600, T - 60, T, T + 1, 0], None],
            "domain_b_seq_67": [many, []],
            "domain_b_seq_68": [[*range(len(many))], []],
            "domain_c_seq_27": [[], [T]],
            "domain_c_seq_28": [[], [8]],
            "domain_d_seq_26": [[], []],
        }
    )


def test_only_earlier_events_are_history_newest_first(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows().write_parquet(tmp_path / "in" / "demo.parquet")
    source = open_source(tmp_path / "in")
    assert source.name == "TAAC 2026"
    assert "user_dense_feats_62" in source.schema.notes[-1]
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    assert manifest.late_actions == ("conversion",)
    assert not {"label_time", "label_type", "user_dense_feats_62"} & {*manifest.columns}
    (member,) = read_rows(tmp_path / "out" / manifest.shards[0].file)
    assert member["timestamp_ms"] == [T * 1000, (T + 100) * 1000]
    assert (member["click"], member["conversion"]) == ([1, 1], [1, 0])
    assert member["user_int_feats_15"] == [[1, 2], []]
    assert member["user_dense_feats_61"] == [[0.5, 1.5], [0.0, 0.0]]
    assert member["domain_a_seq_38"] == [[32, 31], []]
    assert member["domain_b_seq_68"] == [[*range(KEPT)], []]
    assert member["domain_c_seq_28"] == [[], [8]]
    np.testing.assert_allclose(member["domain_a_seq_hours"], [60 / 3600, np.nan])
    np.testing.assert_allclose(member["domain_c_seq_hours"], [np.nan, 100 / 3600])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"timestamp": pl.col("timestamp") * 1000},
            r"column 'timestamp': .* the values are millis",
        ),
        ({"label_type": pl.lit(7)}, r"column 'label_type': value 7 \(row 1\) is not 0"),
        ({"domain_a_seq_38": pl.lit([1])}, r"row 1, column 'domain_a_seq_38': .* has 1 elements"),
        ({"user_feature": pl.lit(1), "seq_feature": pl.lit(1)}, r"older layout with nested"),
    ],
    ids=["unit", "label", "lengths", "layout"],
)
def test_bad_input_is_refused(tmp_path: Path, changes: dict[str, pl.Expr], message: str) -> None:
    (tmp_path / "in").mkdir()
    rows().with_columns(**changes).write_parquet(tmp_path / "in" / "demo.parquet")
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of TAAC 2026 in {SAMPLE}")
def test_sample_has_all_columns(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    table = pl.read_parquet(SAMPLE / "demo.parquet")
    assert manifest.counts["impressions"] == table.height == 40
    conversions = sum(
        s.impressions * s.positive_rate["conversion"] for s in manifest.splits.values()
    )
    assert round(conversions) == (table["label_type"] == 2).sum()
    # 120 columns without user, label_type, label_time, timestamp and 4 times, and with 4 hours.
    assert len(manifest.columns) == 120 - 4 - 4 + 4
    kinds = [c.kind for c in manifest.columns.values()]
    assert kinds.count("vector") == 10
    assert kinds.count("bag") == 45 - 4 + sum(
        table[n].dtype == pl.List for n in table.columns if "_int_feats_" in n
    )
