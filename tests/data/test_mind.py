"""MIND: pages become rows, and the earlier clicks of a member's first page become context."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.ids import to_ids
from tests.data.logs import read_arrow, read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "mind"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of MIND in {SAMPLE}")

PAGES = {
    "train": [
        "7\tU1\t11/14/2019 8:00:00 PM\tN8 N9 N9\tN1-0 N2-1",
        "8\tU1\t11/9/2019 12:05:09 AM\tN8\tN3-0 N1-1 N3-0",
        "9\tU2\t11/13/2019 12:00:00 PM\t\tN1-0 N9-1",
        "9\tU2\t11/13/2019 12:00:00 PM\t\tN1-0 N9-1",
    ],
    "dev": [
        "7\tU1\t11/15/2019 1:00:00 AM\tN8 N2\tN3-1",
        "8\tU3\t11/15/2019 8:55:22 AM\tN9 N8\tN3-1 N1-0",
    ],
}
NEWS = {
    "train": [
        'N1\tsports\tfootball_nfl\t"Quoted\tAn "abstract" here\turl\t[]\t[{"Label": "x"}]',
        "N2\tnews\tnewsus\tA title\t\turl\t[]\t[]",
    ],
    "dev": [
        "N2\tnews\tnewsus\tA title\t\turl\t[]\t[]",
        "N3\tnews\tnewsworld\tAnother title\tText\turl\t\t",
    ],
}


def write_layout(directory: Path, names: tuple[str, str] = ("train", "dev")) -> None:
    for split, name in zip(PAGES, names):
        (directory / name).mkdir(parents=True)
        (directory / name / "behaviors.tsv").write_text("\n".join(PAGES[split]) + "\n")
        (directory / name / "news.tsv").write_text("\n".join(NEWS[split]) + "\n")


def ids(*names: str) -> list[int]:
    return to_ids(pl.Series(names)).tolist()


def test_a_page_becomes_a_row_per_article_shown(tmp_path: Path) -> None:
    write_layout(tmp_path / "data")
    source = open_source(tmp_path / "data")
    assert source.name == "MIND"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    assert manifest.counts["duplicates"] == 2  # the repeated page
    (rows,) = (read_rows(tmp_path / "out" / s.file) for s in manifest.shards)
    members = {m["member_id"]: m for m in rows}
    first, second, third = (members[user] for user in ids("U1", "U2", "U3"))
    # The context is the list of the earliest page, which is not the first line.
    assert first["item_id"] == ids("N8", "N3", "N1", "N3", "N1", "N2", "N3")
    assert first["click"] == [1, 0, 1, 0, 0, 1, 1]
    midnight, evening, night = 1573257909000, 1573761600000, 1573779600000
    assert first["timestamp_ms"] == [-1, *[midnight] * 3, *[evening] * 2, night]
    assert first["session"] == [0, 1, 1, 1, 2, 2, 3]
    assert first["hour"][1:] == [0, 0, 0, 20, 20, 1]
    assert second["n_context"] == 0
    assert second["item_id"] == ids("N1", "N9")
    assert third["item_id"] == ids("N9", "N8", "N3", "N1")
    news, sports = ids("news", "sports")
    assert first["category"][1:] == [news, sports, news, sports, news, news]
    items = read_arrow(tmp_path / "out" / "items.arrow")
    assert sorted(items["item_id"].to_pylist()) == sorted(ids("N1", "N2", "N3"))


def test_earlier_clicks_are_no_targets(tmp_path: Path) -> None:
    write_layout(tmp_path)
    with pytest.raises(BadInput, match="earlier rows of MIND are clicks only"):
        prepare(open_source(tmp_path), tmp_path / "out", PrepareOptions(context_block=10))


def test_directories_have_the_names_of_the_archives(tmp_path: Path) -> None:
    write_layout(tmp_path / "a")
    write_layout(tmp_path / "b", ("MINDsmall_train", "MINDsmall_dev"))
    made = [
        prepare(
            open_source(tmp_path / d), tmp_path / f"{d}-out", PrepareOptions(fractions=(1, 0, 0))
        )
        for d in ("a", "b")
    ]
    assert made[0].shards == made[1].shards
    write_layout(tmp_path / "b")
    with pytest.raises(BadInput, match=r"several sizes \(\['train', 'MINDsmall_train'\]\)"):
        open_source(tmp_path / "b")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("behaviors.tsv", "/2019 8", "/2018 8", ""),
        ("behaviors.tsv", "11/9/2019", "2019-11-09", r"row 2, column 'timestamp_ms' \('time' in"),
        ("behaviors.tsv", "N1-0 N9-1", "N1 N9", r"row 3, column 'click'.*value 'N1' is not ID-0"),
        (
            "behaviors.tsv",
            "\t11/",
            "\t5/",
            r"column 'time': the median of the times is before the period of MIND",
        ),
        ("news.tsv", "\tA title", "", r"news.tsv, row 2: 7 fields, and MIND has 8"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    write_layout(tmp_path)
    path = tmp_path / "train" / file
    path.write_text(path.read_text().replace(old, new))
    if not message:  # the median is in the period
        open_source(tmp_path)
        return
    with pytest.raises(BadInput, match=message):
        prepare(
            open_source(tmp_path, "mind"), tmp_path / "out", PrepareOptions(fractions=(1, 0, 0))
        )


def test_files_of_another_layout_are_refused(tmp_path: Path) -> None:
    write_layout(tmp_path)
    (tmp_path / "dev" / "news.tsv").unlink()
    with pytest.raises(BadInput, match=r"dev lacks news.tsv; unpack the archives"):
        open_source(tmp_path, "mind")
    (tmp_path / "dev" / "news.tsv").write_text("news_id\ttitle\nN1\tTitle\n")
    with pytest.raises(BadInput, match=r"news.tsv has 2 fields in its first line; MIND has"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path, PrepareOptions(batch_rows=5))
    lines = [
        [split, *line.split("\t")]
        for split in ("train", "dev")
        for line in (SAMPLE / split / "behaviors.tsv").read_text().splitlines()
    ]
    pages = pl.DataFrame(
        lines, schema=["split", "id", "user", "time", "history", "shown"], orient="row"
    )
    shown = pages["shown"].str.split(" ").explode()
    assert manifest.counts["impressions"] == len(shown)
    clicks = sum(s.impressions * s.positive_rate["click"] for s in manifest.splits.values())
    assert round(clicks) == shown.str.ends_with("-1").sum()
    assert manifest.counts["members"] == pages["user"].n_unique()
    first = pages.sort(pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p")).unique(
        "user", keep="first", maintain_order=True
    )
    assert manifest.counts["context"] == first["history"].str.count_matches("N").sum()
    assert not np.isnan(read_arrow(tmp_path / "items.arrow")["content"].flatten()).any()
