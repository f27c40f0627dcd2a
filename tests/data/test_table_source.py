"""Tables with columns that are declared on the command line."""

import argparse
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.commands import prepare as command
from ligr_jax.data.manifest import Manifest, load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.listing import list_tables
from ligr_jax.data.sources.table_columns import TableColumns
from tests.data.logs import read_rows

START_MS = 1_650_000_000_000


def events() -> pl.DataFrame:
    n = 40
    return pl.DataFrame(
        {
            "user": [f"u{k % 4}" for k in range(n)],
            "post": [k % 7 for k in range(n)],
            "ts": [START_MS + 60_000 * k for k in range(n)],
            "click": [k % 2 for k in range(n)],
            "place": ["home", "search"] * (n // 2),
            "age": [float(k) for k in range(n)],
            "dwell": [0.5] * n,
            "request": range(n),
        }
    )


def run(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(a) for a in arguments]))


MAPPED = ["--map", "member_id=user", "item_id=post", "timestamp_ms=ts", "surface=place"]
DECLARED = ["--actions", "click", "--categorical", "surface", "--numeric", "age"]
FULL = [*MAPPED, *DECLARED, "--outcome", "dwell"]


def prepared(directory: Path) -> tuple[Manifest, list[dict]]:
    manifest = load_manifest(directory)
    return manifest, read_rows(directory / manifest.shards[0].file)


def test_csv_and_parquet_by_mapping(tmp_path: Path) -> None:
    events().write_csv(tmp_path / "events.csv")
    events().write_parquet(tmp_path / "events.parquet")
    for suffix in ("csv", "parquet"):
        run(tmp_path / f"events.{suffix}", "--out", tmp_path / suffix, *FULL)
    manifest, rows = prepared(tmp_path / "csv")
    assert rows == prepared(tmp_path / "parquet")[1]
    assert [(k, c.kind, c.outcome) for k, c in manifest.columns.items()] == [
        ("item_id", "categorical", False),
        ("surface", "categorical", False),
        ("age", "numeric", False),
        ("dwell", "numeric", True),
    ]
    assert manifest.counts["members"] == 4
    assert manifest.notes == ("columns of the table that are not used: request",)
    assert sum(len(r["age"]) for r in rows) == 40


def test_a_directory_with_item_table_and_vectors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    events()[:20].write_parquet(log / "a.parquet")
    events()[20:].write_parquet(log / "b.parquet")
    items = pl.DataFrame({"post": range(7), "maker": "m", "content": [[0.5, 1.5]] * 7})
    items.write_parquet(log / "posts.parquet")
    run(log, "--out", tmp_path / "out", *MAPPED, "actor_id=maker", *DECLARED,
        "--items", log / "posts.parquet", "--vector", "content")  # fmt: skip
    manifest, rows = prepared(tmp_path / "out")
    assert manifest.columns["content"].width == 2
    assert manifest.columns["actor_id"].distinct == 1
    assert rows[0]["item_row"] == rows[0]["item_id"]


def test_late_actions_are_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events().with_columns(buy=pl.lit(0)).write_csv(tmp_path / "events.csv")
    arguments = [tmp_path / "events.csv", "--out", tmp_path / "out", *FULL]
    run(*arguments, "--label", "bought=buy>0", "--late", "bought")
    assert load_manifest(tmp_path / "out").late_actions == ("bought",)
    assert "known late: a target, never history" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--late buy: not an action"):
        run(*arguments, "--late", "buy")


def test_bags_by_a_separator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = pl.Series("tags", [["a", "b", "a"], ["c"], None, []] * 10)
    events().with_columns(tags).write_parquet(tmp_path / "events.parquet")
    events().with_columns(tags.list.join(";")).write_csv(tmp_path / "events.csv")
    arguments = [*FULL, "--bag", "tags", "--separator", ";"]
    made = []
    for suffix in ("csv", "parquet"):
        run(tmp_path / f"events.{suffix}", "--out", tmp_path / suffix, *arguments)
        made.append(prepared(tmp_path / suffix)[1])
    assert made[0] == made[1]
    assert "tags  -> feature, bag, up to 3 of 3 ids in a bag" in capsys.readouterr().out
    assert {len(b) for r in made[0] for b in r["tags"]} == {0, 1, 3}
    with pytest.raises(BadInput, match=r'columns.tags is .*";".* in the output and .*"\|"'):
        run(tmp_path / "events.csv", "--out", tmp_path / "csv", *FULL, "--bag", "tags")
    with pytest.raises(BadInput, match=r"'surface' is categorical: .*remove it from --bag"):
        run(tmp_path / "events.csv", "--out", tmp_path / "out", *FULL, "--bag", "surface")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            TableColumns(),
            r"its columns are \['user', .*Declare what the columns mean, e.g. ligr prepare FILE",
        ),
        (TableColumns(actions=("click",)), "missing: member_id, timestamp_ms, item_id"),
        (TableColumns({"member_id": "usr"}, ("click",)), r"member_id=usr.*did you mean 'user'\?"),
        (
            TableColumns({"click": "user"}, ("click",)),
            "has both a column 'click' and a column 'user'",
        ),
    ],
)
def test_missing_declarations_are_an_error(
    tmp_path: Path, columns: TableColumns, message: str
) -> None:
    events().write_csv(tmp_path / "events.csv")
    with pytest.raises(BadInput, match=message):
        open_source(tmp_path / "events.csv", columns=columns)


def test_faults_name_the_column_of_the_file(tmp_path: Path) -> None:
    text = events().with_columns(post=pl.col("post").cast(pl.String).replace("5", None))
    text.write_csv(tmp_path / "events.csv")
    with pytest.raises(
        BadInput, match=r"row 6, column 'item_id' \('post' in the file\): value None"
    ):
        run(tmp_path / "events.csv", "--out", tmp_path / "out", *FULL)
    with pytest.raises(BadInput, match="write each name once"):
        run(tmp_path / "events.csv", "--out", tmp_path / "out", "--map", "member_id", *DECLARED)


def test_a_role_by_name_alone_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = 40
    log = events().with_columns(
        weight=pl.lit(0.0), session_id=pl.Series([7] * n), is_random=pl.Series([True, False] * 20)
    )
    log.write_csv(tmp_path / "events.csv")
    out, base = tmp_path / "out", [tmp_path / "events.csv", *MAPPED, *DECLARED]
    run(*base, "--out", out)
    said = capsys.readouterr().out
    assert "session_id -> session (by its name; --ignore session_id leaves it out)" in said
    assert "not used: dwell, request, weight" in said
    manifest, rows = prepared(out)
    assert {w for r in rows for w in r["weight"]} == {1.0}
    assert manifest.counts["sessions"] == 4
    run(*base, "--out", out, "--overwrite", "--ignore", "session_id,is_random",
        "--weight", "weight", "--numeric", "weight", "--session-gap", "1m")  # fmt: skip
    manifest, rows = prepared(out)
    assert manifest.columns["weight"].quantiles[0] == 0
    (shard,) = manifest.shards
    batch = pa.ipc.open_file((out / shard.file).read_bytes()).get_batch(0)
    for column in ("weight", "feature:weight"):
        assert set(batch[column].flatten().to_pylist()) == {0.0}
    assert {x for r in rows for x in r["is_random"]} == {-1}
    assert manifest.counts["sessions"] == n


def test_a_column_can_have_two_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = events().rename({"age": "a,ge"})
    log.write_parquet(tmp_path / "events.parquet")
    run(tmp_path / "events.parquet", "--out", tmp_path / "out", "--json", *MAPPED,
        "group=a,ge", "--actions", "click", "--categorical", "user", "--categorical", "group",
        "--numeric", '"a,ge"')  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    features = {c["name"]: (c["column"], c["kind"]) for c in said["columns"] if "kind" in c}
    assert features == {
        "item_id": ("post", "categorical"),
        "user": ("user", "categorical"),
        "group": ("a,ge", "categorical"),
        "a,ge": ("a,ge", "numeric"),
    }
    _, rows = prepared(tmp_path / "out")
    assert all({r["member_id"]} == set(r["user"]) for r in rows)
    with pytest.raises(BadInput, match=r"'surface' is named by --categorical and --numeric"):
        TableColumns(categorical=("surface",), numeric=("surface",))


def test_the_case_of_suffixes_does_not_matter(tmp_path: Path) -> None:
    for name in ("a.csv", "b.CSV", "c.TSV.GZ", "d.Parquet", "e.TXT"):
        (tmp_path / name).write_text("x")
    listing = list_tables(tmp_path)
    assert [file.name for file in listing.files] == ["a.csv", "b.CSV", "c.TSV.GZ", "d.Parquet"]
    assert listing.not_read == ["e.TXT"]
