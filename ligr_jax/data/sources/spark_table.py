"""Tables that only Spark reads, such as Iceberg and Delta tables, as a log.

Spark writes the table once to Parquet files, which are then read like any other table. A table has
no order of rows, so they are sorted by time and by a hash of the row: the output does not depend on
the files of the table.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.data.schema import TIME, BadInput
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.table_source import table_source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "table"  # reader of a table by its name in the catalog


@contextmanager
def spark_table(
    spark: "SparkSession", reader: str, name: str, columns: TableColumns, directory: Path
) -> Iterator[LogSource]:
    """Yield a table as a log; its Parquet files are removed after the block.

    Args:
        spark: session that can read the table.
        reader: argument of `spark.read.format`, e.g. `delta`, or `TABLE`.
        name: path or name of the table.
        columns: the meaning of the columns.
        directory: directory for the Parquet files, which driver and executors share.

    Raises:
        BadInput: Spark cannot read the table, or the columns do not fit.
    """
    from pyspark.errors import PySparkException

    try:
        try:
            content = _write_sorted(_read(spark, reader, name), columns, directory)
        except PySparkException as e:
            reason = str(e).splitlines()[0]
            raise BadInput(f"{name}: Spark cannot read it as {reader} ({reason})") from e
        source = table_source(directory, columns)
        described = {**source.description, "files": [{"name": f"{reader}:{name}", **content}]}
        yield replace(source, description=described)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _read(spark: "SparkSession", reader: str, name: str) -> "DataFrame":
    return spark.table(name) if reader == TABLE else spark.read.format(reader).load(name)


def _write_sorted(table: "DataFrame", columns: TableColumns, directory: Path) -> dict[str, Any]:
    """Write a table to numbered files; return its number of rows and a digest of its content."""
    from pyspark.sql import functions as F

    time = columns.names.get(TIME, TIME)
    if time not in table.columns:
        raise BadInput(f"no column {time!r} in the table; its columns are {table.columns}")
    digest = F.xxhash64(*(table[f"`{c}`"] for c in table.columns))
    rows = table.orderBy(table[f"`{time}`"], digest)
    rows.write.mode("overwrite").option("compression", "zstd").parquet(str(directory))
    for k, file in enumerate(sorted(directory.glob("part-*.parquet"))):
        file.rename(directory / f"part-{k:05d}.parquet")
    total = table.agg(F.count("*"), F.sum(digest.cast("decimal(38,0)"))).first()
    assert total is not None
    return {"rows": total[0], "xxhash64": str(total[1])}
