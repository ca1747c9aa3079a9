"""Results to a FHIR server. None can be had from a package index here, so these are mock servers.

The one that takes results reads them by fhir.resources, and creates as the standard says of conditional creates.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from pneumoserve.intake.selections import REJECTIONS
from tests.conftest import wait_for
from tests.support.intake import make_note
from tests.support.sending import sending
from tests.support.told import Told


class MockFhirServer:
    """Creates what is not there by its condition, and updates by it."""

    def __init__(self) -> None:
        self.created: dict[str, str] = {}

    def take(self, body: bytes) -> dict[str, Any]:
        transaction = Bundle.model_validate_json(body)
        answers = []
        for entry in transaction.entry:
            is_update = entry.request.method == "PUT"
            key = entry.request.url if is_update else f"{entry.request.url}?{entry.request.ifNoneExist}"
            status = "200 OK" if key in self.created else "201 Created"
            if is_update or key not in self.created:
                self.created[key] = entry.resource.model_dump_json()
            answers.append({"response": {"status": status}})
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}


def test_a_result_that_comes_again_makes_nothing_twice(told: Told) -> None:
    server = MockFhirServer()
    # The first answer is lost on its way.
    told.answers = [(503, server.take, {}), (200, server.take, {})]
    with sending(fhir=told.url) as sent:
        wait_for(lambda: "done" in sent.names())
    assert len(told.bodies) == 2
    assert told.bodies[0] == told.bodies[1]
    kinds = sorted(key.partition("?")[0] for key in server.created)
    assert kinds == ["Device", "DiagnosticReport", "ImagingStudy", "Observation", "Observation", "Provenance"]


def test_a_rejection_makes_an_error_of_what_the_server_has(told: Told) -> None:
    server = MockFhirServer()
    told.answers = [(200, server.take, {})] * 2
    with sending(fhir=told.url) as sent:
        wait_for(lambda: "done" in sent.names())
        note, selection = make_note("113001^DCM", 1)
        sent.spool.keep_rejection(note, REJECTIONS["113001^DCM"], selection.studies)
        wait_for(lambda: sent.look() or len(told.bodies) == 2)
        wait_for(lambda: sent.look() or not sent.spool.studies())
    states = sorted(
        (key.partition("?")[0], json.loads(text)["status"]) for key, text in server.created.items() if "status" in text
    )
    of_results = [each for each in states if each[0] in {"DiagnosticReport", "Observation"}]
    # The report and the observations of the study and its image; then those of the rejection.
    assert of_results == [("DiagnosticReport", "entered-in-error")] * 2 + [("Observation", "entered-in-error")] * 3


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


def test_one_that_was_created_in_part_waits_for_a_person(told: Told) -> None:
    def refuse_one(body: bytes) -> dict[str, Any]:
        answer = MockFhirServer().take(body)
        answer["entry"][1]["response"]["status"] = "412 Precondition Failed"
        return answer

    told.answers = [(200, refuse_one, {})]
    with sending(fhir=told.url) as sent:
        wait_for(lambda: sent.names() and sent.reasons())
        assert "whole result" in sent.reasons()[0]


def test_nothing_is_made_for_fhir_where_no_server_is_named(told: Told) -> None:
    server = MockFhirServer()
    told.answers = [(200, server.take, {})]
    with sending("PACS@127.0.0.1:1") as sent:
        wait_for(lambda: "report" in sent.names())
        assert "bundle" not in sent.names()
    with sending(fhir=told.url) as sent:
        wait_for(lambda: "done" in sent.names())
        assert "report" not in sent.names()
