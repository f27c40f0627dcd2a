"""Netflix Prize: ratings below the line of their movie, with days as times."""

from pathlib import Path

import numpy as np
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import DAY_MS, read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "netflix"
FIRST = "1:\n7,3,2005-09-06\n8,5,2005-05-13\n2:\n7,4,2005-09-06\n"
SECOND = "30:\n7,1,2005-09-08\n"
TITLES = "1,2003,Dinosaur Planet\n2,NULL,Ol\xe9, Ol\xe9\x85, and more\n"
DAY = 13_032  # 2005-09-06


def write(directory: Path, first: str = FIRST) -> None:
    directory.mkdir()
    (directory / "combined_data_1.txt").write_text(first)
    (directory / "combined_data_2.txt").write_text(SECOND)
    (directory / "movie_titles.csv").write_text(TITLES, encoding="latin-1")


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_published_layout(tmp_path: Path, batch_rows: int) -> None:
    write(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "Netflix Prize"
    options = PrepareOptions(fractions=(1, 0, 0), batch_rows=batch_rows)
    manifest = prepare(source, tmp_path / "out", options)
    first, second = sorted(
        read_rows(tmp_path / "out" / manifest.shards[0].file), key=lambda m: m["member_id"]
    )
    assert (first["member_id"], second["member_id"]) == (7, 8)
    assert first["item_id"] == [1, 2, 30]
    assert first["timestamp_ms"] == [DAY * DAY_MS, DAY * DAY_MS, (DAY + 2) * DAY_MS]
    assert first["session"] == [0, 0, 1]
    assert (first["rating"], first["like"]) == ([3, 4, 1], [0, 1, 0])
    np.testing.assert_array_equal(first["year"], [2003, np.nan, np.nan])
    assert MISSING not in first["item_id"]
    assert manifest.items is not None
    assert manifest.items.members == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("8,5,", "8;5,", r"combined_data_1.txt, row 3, column 'line': .* is not a line `movie:`"),
        ("1:\n", "", r"column 'line': value '7,3,2005-09-06' \(row 1\) is not a line `movie:`"),
        ("2005-05-13", "1985-05-13", r"row 3, column 'line': .* outside of the period"),
    ],
    ids=["fields", "movie", "period"],
)
def test_bad_lines_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    write(tmp_path / "in", FIRST.replace(old, new))
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Netflix in {SAMPLE}")
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    lines = (SAMPLE / "combined_data_1.txt").read_text().splitlines()
    ratings = [line.split(",") for line in lines if not line.endswith(":")]
    assert manifest.counts["impressions"] + manifest.counts["duplicates"] == len(ratings)
    assert manifest.counts["members"] == len({user for user, *_ in ratings})
    assert manifest.columns["item_id"].distinct == sum(line.endswith(":") for line in lines)
