"""Results to a FHIR server: Medplum's, and one that answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pneumoserve.intake.selections import REJECTIONS
from tests.conftest import wait_for
from tests.support.fhir_server import FhirServer, needs_node, run_fhir_server
from tests.support.intake import make_note
from tests.support.sending import sending
from tests.support.told import Told


@pytest.fixture
def server() -> Iterator[FhirServer]:
    with run_fhir_server() as running:
        yield running


@needs_node
def test_a_result_that_comes_again_makes_nothing_twice(server: FhirServer, told: Told) -> None:
    # The first answer is lost on its way.
    told.answers = [(503, server.take, {}), (200, server.take, {})]
    with sending(fhir=told.url) as sent:
        wait_for(lambda: "done" in sent.names())
    assert len(told.bodies) == 2
    assert told.bodies[0] == told.bodies[1]
    kinds = {"Device": 1, "DiagnosticReport": 1, "ImagingStudy": 1, "Observation": 2, "Provenance": 1}
    assert {kind: len(server.find(kind)) for kind in kinds} == kinds
    (report,), (study,) = server.find("DiagnosticReport"), server.find("ImagingStudy")
    assert report["imagingStudy"][0]["reference"] == f"ImagingStudy/{study['id']}"


@needs_node
def test_a_rejection_makes_an_error_of_what_the_server_has(server: FhirServer) -> None:
    with sending(fhir=server.url) as sent:
        wait_for(lambda: "done" in sent.names())
        (before,) = server.find("DiagnosticReport")
        note, selection = make_note("113001^DCM", 1)
        sent.spool.keep_rejection(note, REJECTIONS["113001^DCM"], selection.studies)

        def is_over() -> bool:
            sent.look()
            return not sent.spool.studies()

        wait_for(is_over)
    reports = {each["id"]: each for each in server.find("DiagnosticReport")}
    assert (len(reports), reports[before["id"]]["identifier"]) == (2, before["identifier"])
    # The observations of the study and of its image, and that of the rejection.
    observations = server.find("Observation")
    assert len(observations) == 3
    assert {each["status"] for each in (*reports.values(), *observations)} == {"entered-in-error"}


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (400, "", "(400)"),
        (401, "", "name and password"),
        (412, "", "(412)"),
        (422, "", "(422)"),
        (200, "", "does not say"),
        (200, '{"type": "transaction-response", "entry": []}', "does not say"),
        (200, '{"type": "batch-response", "entry": []}', "does not say"),
    ],
)
def test_what_never_will_be_taken_waits_for_a_person(status: int, answer: str, why: str, told: Told) -> None:
    told.answers = [(status, answer, {})]
    with sending(fhir=told.url) as sent:
        wait_for(lambda: sent.names() and sent.reasons())
        for _ in range(20):
            sent.look()
        assert (why in sent.reasons()[0], len(told.bodies)) == (True, 1)


@needs_node
def test_one_that_was_created_in_part_waits_for_a_person(server: FhirServer, told: Told) -> None:
    def refuse_one(body: bytes) -> dict[str, Any]:
        answer = server.take(body)
        answer["entry"][1]["response"]["status"] = "412 Precondition Failed"
        return answer

    told.answers = [(200, refuse_one, {})]
    with sending(fhir=told.url) as sent:
        wait_for(lambda: sent.names() and sent.reasons())
        assert "whole result" in sent.reasons()[0]


@needs_node
def test_nothing_is_made_for_fhir_where_no_server_is_named(server: FhirServer) -> None:
    with sending("PACS@127.0.0.1:1") as sent:
        wait_for(lambda: "report" in sent.names())
        assert "bundle" not in sent.names()
    with sending(fhir=server.url) as sent:
        wait_for(lambda: "done" in sent.names())
        assert "report" not in sent.names()
