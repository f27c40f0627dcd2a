"""Criteo: every row is a member of its own, in the order of the file."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.criteo import START_MS
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import to_ids
from tests.data.logs import DAY_MS, read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "criteo"
FIRST = ["1", "", "-2", *["5"] * 11, "78dde6c4", "", *["00000000"] * 24]
SECOND = ["0", *["7"] * 13, *["0000a100"] * 26]


def write(directory: Path, *rows: list[str]) -> None:
    directory.mkdir()
    text = "".join("\t".join(row) + "\n" for row in rows)
    (directory / "train.txt").write_text(text)


def test_rows_are_members_spread_over_a_week(tmp_path: Path) -> None:
    write(tmp_path / "in", FIRST, SECOND, SECOND)
    source = open_source(tmp_path / "in")
    assert source.name == "Criteo"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    members = read_rows(tmp_path / "out" / manifest.shards[0].file)
    times = {m["member_id"]: m["timestamp_ms"] for m in members}
    assert times == {k + 1: [START_MS + k * 7 * DAY_MS // 3] for k in range(3)}
    first = next(m for m in members if m["member_id"] == 1)
    assert first["click"] == [1]
    np.testing.assert_array_equal(first["I1"], [np.nan])
    np.testing.assert_array_equal(first["I2"], [-2])
    assert (first["C1"], first["C2"]) == (to_ids(pl.Series(["78dde6c4"])).tolist(), [MISSING])
    assert manifest.counts["duplicates"] == 0  # equal lines are impressions of different users


def test_another_number_of_fields_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", FIRST[:-1])
    with pytest.raises(BadInput, match=r"train.txt has 39 fields in its first line; Criteo has 40"):
        open_source(tmp_path / "in")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Criteo in {SAMPLE}")
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    lines = (SAMPLE / "train.txt").read_text().splitlines()
    assert manifest.counts["members"] == manifest.counts["impressions"] == len(lines) == 200
    clicks = sum(s.impressions * s.positive_rate["click"] for s in manifest.splits.values())
    assert round(clicks) == sum(line.startswith("1") for line in lines)
