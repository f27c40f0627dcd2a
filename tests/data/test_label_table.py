"""Labels in a table of their own: the join, and the tables that cannot be joined."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources import label_table
from tests.data.test_table_source import FULL, events, prepared, run

ON = ["--labels-on", "request,item_id"]


def positives() -> pl.DataFrame:
    """The impressions with a click, in another order, with ids as text."""
    clicked = events().filter(pl.col("click") == 1).reverse()
    return clicked.select("click", "post", pl.col("request").cast(pl.String))


def prepare(
    directory: Path, labels: pl.DataFrame, *more: object, shown: pl.DataFrame | None = None
) -> Path:
    """Prepare the impressions in two files, and labels in a third one of the same directory."""
    log, out = directory / "log", directory / "out"
    log.mkdir()
    shown = (events() if shown is None else shown).drop("click")
    shown[:15].write_parquet(log / "a.parquet")
    shown[15:].write_parquet(log / "b.parquet")
    labels.write_csv(log / "clicks.csv")
    run(log, "--out", out, *FULL, "--labels", log / "clicks.csv", *(more or ON))
    return out


@pytest.mark.parametrize("collide", [False, True])
def test_two_tables_give_the_shards_of_the_joined_one(
    collide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impression without a row has no click; equal hashes of different keys change nothing."""
    if collide:
        few = lambda keys: keys[0].view(np.uint64) % np.uint64(3)  # noqa: E731
        monkeypatch.setattr(label_table, "_hash", few)
    events().write_parquet(tmp_path / "joined.parquet")
    run(tmp_path / "joined.parquet", "--out", tmp_path / "one", *FULL)
    joined, manifest = (
        load_manifest(tmp_path / "one"),
        load_manifest(prepare(tmp_path, positives())),
    )
    assert manifest.shards == joined.shards
    assert manifest.splits == joined.splits
    assert [file["name"] for file in manifest.source["files"]][-1] == "clicks.csv"
    assert not manifest.notes
    summary = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert (summary["labelled"], summary["warnings"]) == (20, [])


def test_labels_are_unknown_where_the_table_or_the_key_is_empty(tmp_path: Path) -> None:
    """Times are keys too."""
    last = pl.col("ts") == pl.col("ts").max()
    labels = events().select("user", "ts", click=pl.when(~last).then(1))
    _, rows = prepared(prepare(tmp_path, labels, "--labels-on", "member_id,timestamp_ms"))
    assert sorted(label for row in rows for label in row["click"]) == [-1] + [1] * 39
    without = events().with_columns(request=pl.when(pl.col("request") != 1).then("request"))
    (tmp_path / "2").mkdir()
    _, rows = prepared(prepare(tmp_path / "2", positives(), shown=without))
    assert sorted(label for row in rows for label in row["click"]) == [-1] + [0] * 20 + [1] * 19


def test_impressions_that_share_a_row_of_labels_are_a_warning(tmp_path: Path) -> None:
    by_place = pl.DataFrame({"place": ["home"], "click": [1]})
    out = prepare(tmp_path, by_place, "--labels-on", "place")
    summary = json.loads((out / "prepare.json").read_text())
    assert summary["labelled"] == 20
    assert any("20 impressions share 1 rows of labels" in text for text in summary["warnings"])


REFUSED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], list[str], str]] = {
    "a key twice": (
        lambda t: pl.concat([t, t[3:4]]),
        ON,
        r"clicks.csv, row 21: the key request=.33., item_id=.5. is also in row 4; write one row",
    ),
    "no key": (
        lambda t: t.with_columns(request=pl.when(pl.col("request") != "33").then("request")),
        ON,
        r"row 4, column 'request': None is not a key; correct or remove the row",
    ),
    "another coding": (lambda t: t.with_columns(click=2), ON, r"row 1, column 'click': .2. "),
    "no such key": (lambda t: t, ["--labels-on", "requst"], r"clicks.csv: no column 'requst'"),
    "a key that the log lacks": (
        lambda t: t.with_columns(page=1),
        ["--labels-on", "page"],
        r"a.parquet: no column 'page' \(--labels-on\)",
    ),
    "no action": (lambda t: t.rename({"click": "tap"}), ON, "none of its columns .* is an action"),
    "no rows": (lambda t: t[:0], ON, "the table has no rows"),
    "other keys": (
        lambda t: t.with_columns(request=pl.lit("x")).unique("post"),
        ON,
        "clicks.csv: none of the 40 impressions has its key there; compare the key columns",
    ),
    "no keys": (lambda t: t, ["--json"], "give both --labels FILE and --labels-on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be_joined_are_refused(name: str, tmp_path: Path) -> None:
    change, more, said = REFUSED[name]
    with pytest.raises(BadInput, match=said):
        prepare(tmp_path, change(positives()), *more)


def test_a_label_in_both_tables_is_refused(tmp_path: Path) -> None:
    events().write_parquet(tmp_path / "log.parquet")
    positives().write_csv(tmp_path / "clicks.csv")
    with pytest.raises(BadInput, match=r"'click' is a column of .*parquet and of .*clicks.csv"):
        run(tmp_path / "log.parquet", "--out", tmp_path / "out", *FULL, "--labels",
            tmp_path / "clicks.csv", *ON)  # fmt: skip
