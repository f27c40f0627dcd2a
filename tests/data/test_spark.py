"""Spark and one machine give the same bytes and the same messages."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.prepare import spark_session
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.spark import prepare_on_spark
from ligr_jax.data.prepare.spark_session import start_session
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources import files
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.label_rules import parse_label
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.world.config import WorldConfig
from ligr_jax.data.world.generate import generate_world
from tests.data.logs import write_log
from tests.data.test_bad_input import BAD_ROWS, COLUMN_FAULTS, good_log, write_bad_log
from tests.data.test_kuairand import SLICE, write_csv_layout
from tests.data.test_table_source import FULL, START_MS, events, run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java for Spark"),
    # A process that had JAX starts the JVM only in tests; `ligr prepare` has no JAX.
    pytest.mark.filterwarnings(r"ignore:os\.fork:RuntimeWarning"),
    # Sockets of Python workers are closed by the JVM, at some time.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def spark() -> "Iterator[SparkSession]":
    # A JVM of a minute gains nothing from its second compiler and its parallel collector.
    quickly = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    settings = {"spark.sql.shuffle.partitions": "2", "spark.driver.extraJavaOptions": quickly}
    session = start_session("local[2]", settings)
    yield session
    session.stop()


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def world(directory: Path) -> LogSource:
    generate_world(WorldConfig(members=60, items=400), directory, workers=1)
    return canonical_source(directory)


def messy_table(directory: Path) -> LogSource:
    """Partitioned text and Parquet with repeated rows, ties, odd ids, rules and bad rows."""
    n = 500
    log = pl.DataFrame(
        {
            "member_id": [("u1", "17", "017", "+17", "58.0", " x")[k % 6] for k in range(n)],
            "timestamp_ms": [START_MS + 1000 * (k // 3) for k in range(n)],
            "item_id": [str(k % 7) for k in range(n)],
            "rating": ["?" if k == 123 else str(k % 6) for k in range(n)],
            "tags": [("a|b", "", "17| 17|")[k % 3] for k in range(n)],
            "age": ["old" if k == 321 else f"{k / 8}" for k in range(n)],
        }
    )
    log = pl.concat([log, log[360:380]])
    for day, part in (("1", log[:200]), ("2", log[200:350]), ("3", log[350:])):
        (directory / f"day={day}").mkdir(parents=True)
        part.write_csv(directory / f"day={day}" / "part-0.csv")
    kinds = {"categorical": ("day",), "bag": ("tags",), "numeric": ("age",)}
    labels = (parse_label("like=rating>=4"), parse_label("top=rating==5"))
    return open_source(directory, columns=TableColumns(labels=labels, **kinds))  # type: ignore[arg-type]


def two_tables(directory: Path) -> LogSource:
    """Impressions in two files, and their clicks in another table."""
    directory.mkdir()
    shown = events().rename({"user": "member_id", "post": "item_id", "ts": "timestamp_ms"})
    clicks = shown.filter(pl.col("click") == 1).select("request", "item_id", "click")
    clicks.write_csv(directory / "clicks.csv")
    for k, part in enumerate((shown[:25], shown[25:])):
        part.drop("click").write_parquet(directory / f"{k}.parquet")
    return open_source(
        directory,
        columns=TableColumns(
            actions=("click",),
            numeric=("age",),
            label_table=directory / "clicks.csv",
            labels_on=("request", "item_id"),
        ),
    )


def kuairand(directory: Path) -> LogSource:
    """The public slice with context rows where it is at hand, else the layout of its files."""
    if SLICE.is_dir():
        return open_source(SLICE)
    write_csv_layout(directory)
    return open_source(directory)


LOGS: dict[str, tuple[Callable[[Path], LogSource], dict[str, object]]] = {
    "world": (world, {"shard_rows": 2_000}),
    "messy table": (messy_table, {"shard_rows": 100, "on_bad_row": "skip", "batch_rows": 64}),
    "two tables": (two_tables, {"shard_rows": 15}),
    "KuaiRand": (kuairand, {"shard_rows": 100_000, "fractions": (1, 0, 0)}),
}


@pytest.mark.parametrize("name", LOGS)
def test_spark_writes_the_bytes_of_one_machine(
    tmp_path: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "PART_ROWS", 1_000)
    make, given = LOGS[name]
    source, options = make(tmp_path / "log"), PrepareOptions(**given)  # type: ignore[arg-type]
    alone = prepare(source, tmp_path / "alone", options)
    assert prepare_on_spark(source, tmp_path / "spark", options, spark).digest == alone.digest
    assert contents(tmp_path / "spark") == contents(tmp_path / "alone")
    if name == "messy table":
        assert (alone.counts["skipped"], alone.counts["duplicates"]) == (2, 20)


FAULTS = {**BAD_ROWS, **COLUMN_FAULTS}


def test_faults_have_the_messages_of_one_machine(tmp_path: Path, spark: "SparkSession") -> None:
    for k, name in enumerate(FAULTS):
        source = tmp_path / str(k)
        write_bad_log(source, FAULTS[name][0](good_log()), csv=name in BAD_ROWS and k % 2 == 1)
        assert failure(canonical_source(source), tmp_path, spark), name
    # The first fault in the order of the log is reported, whichever part is read first.
    write_log(tmp_path / "two", rows=3000, files=3)
    for k in (2, 1):
        file = tmp_path / "two" / f"impressions-0000{k}.parquet"
        label = pl.when(pl.int_range(pl.len()) == 900 // k).then(7).otherwise("click")
        pl.read_parquet(file).with_columns(click=label).write_parquet(file)
    assert "00001.parquet, row 901" in failure(canonical_source(tmp_path / "two"), tmp_path, spark)


def failure(source: LogSource, directory: Path, spark: "SparkSession") -> str:
    """Return the message of both engines."""
    options = PrepareOptions(batch_rows=2 if source.rows < 100 else 700)
    messages = set()
    for prepare_log in (
        lambda: prepare(source, directory / "out", options),
        lambda: prepare_on_spark(source, directory / "out", options, spark),
    ):
        with pytest.raises(BadInput) as raised:
            prepare_log()
        messages.add(str(raised.value))
        assert not (directory / "out" / "manifest.json").exists()
    (message,) = messages
    return message


def test_a_table_that_only_spark_reads(tmp_path: Path, spark: "SparkSession") -> None:
    """Iceberg and Delta are read by the same calls, but their jars are not part of Spark."""
    events().write_parquet(tmp_path / "events.parquet")
    shuffled = spark.read.parquet(str(tmp_path / "events.parquet")).repartition(2)
    shuffled.createOrReplaceTempView("impressions")
    (tmp_path / "parts").mkdir()
    for k, part in enumerate((events()[30:], events()[:30])):
        part.write_parquet(tmp_path / "parts" / f"{k}.parquet")
    on_spark = [*FULL, "--engine", "spark", "--spark-format"]
    run("impressions", "--out", tmp_path / "view-out", *on_spark, "table")
    run(tmp_path / "parts", "--out", tmp_path / "parts-out", *on_spark, "parquet")
    # The times of these rows are distinct, so the table has one order.
    run(tmp_path / "events.parquet", "--out", tmp_path / "alone", *FULL)
    made = [load_manifest(tmp_path / name) for name in ("view-out", "parts-out", "alone")]
    assert len({m.shards for m in made}) == 1
    names = [m.source["files"][0].get("name") for m in made]
    assert names == ["table:impressions", f"parquet:{tmp_path / 'parts'}", "events.parquet"]
    assert made[0].source["files"][0]["xxhash64"] == made[1].source["files"][0]["xxhash64"]
    assert not list(tmp_path.glob("*.staged"))
    with pytest.raises(BadInput, match="nothing: Spark cannot read it as table"):
        run("nothing", "--out", tmp_path / "none", *on_spark, "table")


def test_missing_java_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_session.shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BadInput, match="apt-get install openjdk-17-jre-headless"):
        start_session("local[2]", {})
    with pytest.raises(BadInput, match="are for Spark: --engine spark"):
        run("log", "--out", "out", "--actions", "click", "--master", "yarn")
