"""Start of a Spark session for `ligr prepare --engine spark`."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ligr_jax.data.schema import BadInput

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Settings that `--spark-conf` can replace. Executors run one task per core, so that libraries
# inside a task use one thread. Times are written in a type that Arrow reads as a timestamp.
DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
}


def start_session(master: str, settings: Mapping[str, str]) -> "SparkSession":
    """Start a session, or return the one of this process.

    Args:
        master: URL of the cluster, e.g. `local[4]`, `spark://host:7077`, `yarn` or `k8s://...`;
            "" leaves it to the settings of Spark's installation.
        settings: further settings of Spark, by name.

    Raises:
        BadInput: PySpark or Java is missing, or the session does not start.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as e:
        raise BadInput(
            "--engine spark needs PySpark: pip install 'ligr-jax[spark]' (and Java 17 or newer)"
        ) from e
    if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
        raise BadInput(
            "--engine spark needs Java 17 or newer, and there is no `java`; install it, e.g. "
            "apt-get install openjdk-17-jre-headless, or set JAVA_HOME"
        )
    defaults = dict(DEFAULTS)
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        defaults["spark.driver.bindAddress"] = "127.0.0.1"
    builder = SparkSession.builder.appName("ligr prepare")
    if master:
        builder = builder.master(master)
    for name, value in {**defaults, **settings}.items():
        builder = builder.config(name, value)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise BadInput(f"--master {master}: Spark does not start ({reason})") from e
    spark.sparkContext.setLogLevel("ERROR")
    return spark
