"""docs/reference/sizing.md quotes the results in benchmarks/; what is measured anew is written there too."""

from __future__ import annotations

import json

import pytest

from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "reference" / "sizing.md").read_text()


@pytest.mark.parametrize(
    ("name", "path", "quoted"),
    [
        ("commit", "calls_per_second_with_archive", "{:.1f} calls a second"),
        ("commit", "p50_ms_with_archive", "within {:.0f} ms"),
        ("replay", "predictions_per_second", "{:.1f} predictions a second"),
        ("replay", "seconds", "| {:.0f} s |"),
        ("outage", "front_mebibytes_at_most", "{} MiB at most"),
        ("intake", "intake_mebibytes_at_most", "{} MiB at most"),
        ("outage", "journal_mebibytes_at_the_end", "{} MiB of"),
        ("outage", "answered", "{:,} calls"),
        ("verify", "peak_memory_mib", "{} MiB"),
        ("verify", "archive.bytes_per_record", "{:,} bytes a record"),
        ("verify", "sealed_rollups_alone.records_per_minute", "{:,} records a minute"),
        ("verify", "with_segments_beside_them.records_per_minute", "{:,} records a minute"),
    ],
)
def test_the_page_quotes_what_was_measured(name: str, path: str, quoted: str) -> None:
    found = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    for key in path.split("."):
        found = found[key]
    assert quoted.format(found) in PAGE
    assert f"benchmarks/{name}.json" in PAGE


def test_what_is_computed_from_them_is_right() -> None:
    calls = json.loads((ROOT / "benchmarks" / "commit.json").read_text())
    assert f"{calls['calls_per_second_with_archive'] / calls['cores']:.0f} a core" in PAGE
    # A year more is paid for each year that went before.
    assert f" or {sum(range(1, 11)) * 12} " in PAGE
    assert f"{sum(range(1, 11)) * 12 * 70:,} GB-months" in PAGE
    assert f"that is {sum(range(1, 11)) * 12 * 70 * 0.02:.0f}." in PAGE
