"""Documents that must stay true: published schemas, and the tables of the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from pneumoserve.archive.label import Label
from pneumoserve.archive.reading import ReadingRequest
from pneumoserve.archive.record import Record
from pneumoserve.archive.seals import Seal
from pneumoserve.archive.segment import Header
from pneumoserve.decision import Reason
from pneumoserve.front.models import DECISION_OUTPUTS
from pneumoserve.lineage import Lineage
from pneumoserve.release.schema import ReleaseManifest, RunFacts
from pneumoserve.rollout.records import RolloutEvent

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS: dict[str, type[BaseModel]] = {
    "label": Label,
    "lineage": Lineage,
    "reading": ReadingRequest,
    "record": Record,
    "release": ReleaseManifest,
    "rollout": RolloutEvent,
    "run": RunFacts,
    "seal": Seal,
    "segment": Header,
}


def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(by_alias=True), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schemas_are_those_of_the_code(name: str) -> None:
    """After a change on purpose: `python -m tests.unit.test_docs` writes them anew."""
    assert (DOCS / "schemas" / f"{name}.schema.json").read_text() == schema_text(SCHEMAS[name])


def test_the_protocol_names_every_output_and_reason() -> None:
    text = (DOCS / "protocol.md").read_text()
    for word in (*DECISION_OUTPUTS, *get_args(Reason)):
        assert f"`{word}`" in text


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Result file, what is told of it, the figures that are told.
FIGURES: list[tuple[str, str, str]] = [
    ("commit", "throughput lost by having every call on record (goal: at most 3 %)",
     "{throughput_lost_percent} % ({calls_per_second_with_archive} calls a second with, "
     "{calls_per_second_without} without)"),
    ("commit", "added to a single caller's median call (goal: at most a PUT's median + 2 ms)",
     "{p50_ms_added} ms; a PUT's median is {store_put_p50_ms} ms"),
    ("outage", "records lost while the store was away and a front was killed meanwhile (goal: 0)",
     "{records_lost} of {answered} in {seconds_away} s; the front took {front_mebibytes_at_most} MiB at most, "
     "{front_mebibytes_before} before"),
    ("kills", "answered calls without a record, fronts killed at random moments under load (goal: 0)",
     "{answered_without_record} of {answered}, {kills} kills"),
    ("verify", "records that `archive verify` gets through in a minute, sealed roll-ups alone (goal: 100,000)",
     "{sealed_rollups_alone[records_per_minute]:,}"),
    ("replay", "mismatches in a replay of 1,000 predictions (goal: 0)",
     "{mismatches}; {equal_bit_for_bit} equal bit for bit"),
]  # fmt: skip
BEGIN, END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->\n"


def benchmark_table() -> str:
    lines = ["| what | measured | by |", "| --- | --- | --- |"]
    for name, told, figures in FIGURES:
        result = json.loads((BENCHMARKS / f"{name}.json").read_text())
        lines.append(
            f"| {told} | {figures.format(**result)} | `{result['command']}`, {result['cores']} cores "
            f"([result](../benchmarks/{name}.json)) |"
        )
    return "\n".join(lines) + "\n"


def test_published_figures_are_the_measured_ones() -> None:
    text = (DOCS / "archive.md").read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == benchmark_table()


if __name__ == "__main__":
    archive = (DOCS / "archive.md").read_text()
    before, _, rest = archive.partition(BEGIN)
    (DOCS / "archive.md").write_text(before + BEGIN + benchmark_table() + END + rest.partition(END)[2])
    for name, model in SCHEMAS.items():
        (DOCS / "schemas" / f"{name}.schema.json").write_text(schema_text(model))
