"""Results by STOW-RS: to Orthanc, to our own endpoint, and to a server that answers as it is told."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pneumoserve.intake import IntakeRules, IntakeRulesError, check_destination
from pneumoserve.intake.stow import WebReceiver
from tests.conftest import wait_for
from tests.support.dicom_peers import needs_orthanc, run_orthanc
from tests.support.intake import Receiving
from tests.support.sending import sending
from tests.support.told import Told, report_in, say_stored, uid_in

_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


def stored_another(body: bytes) -> dict[str, Any]:
    answer = say_stored(body)
    answer["00081199"]["Value"][0]["00081155"]["Value"] = ["1.2.3"]
    return answer


def failed(reason: int) -> Any:
    def answer(body: bytes) -> dict[str, Any]:
        item = {
            "00081150": {"vr": "UI", "Value": [_CLASS]}, "00081155": {"vr": "UI", "Value": [uid_in(body)]},
            "00081197": {"vr": "US", "Value": [reason]},
        }  # fmt: skip
        return {"00081198": {"vr": "SQ", "Value": [item]}}

    return answer


@needs_orthanc
def test_orthanc_stores_a_result_once_and_refuses_who_it_does_not_know(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login pneumoserve password secret-4711\n")
    with run_orthanc(tmp_path / "orthanc", 104, users={"pneumoserve": "secret-4711"}) as pacs:
        with sending(pacs.dicomweb) as unknown:
            wait_for(lambda: unknown.names() and unknown.reasons())
            assert "(401); give it a name and password" in unknown.reasons()[0]
            assert pacs.reports() == []
        with sending(pacs.dicomweb, credentials=netrc) as sent:
            wait_for(lambda: "done" in sent.names())
        (report,) = pacs.reports()
        assert pydicom.dcmread(io.BytesIO(report)).PreliminaryFlag == "PRELIMINARY"


def test_our_own_endpoint_refuses_a_report_by_its_reason() -> None:
    receiving = Receiving()
    receiver = WebReceiver(receiving.spool, IntakeRules(), ("127.0.0.1", 0))
    with contextlib.closing(receiver), sending(receiver.url) as sent:
        wait_for(lambda: sent.names() and sent.reasons())
        assert "did not store a result (0122)" in sent.reasons()[0]


def test_a_destination_has_the_bytes_of_the_report(told: Told) -> None:
    told.answers = [(200, say_stored, {})]
    with sending(told.dicomweb, told.dicomweb + "/other") as sent:
        wait_for(lambda: "done" in sent.names())
        one, other = map(report_in, told.bodies)
        assert one == other


@pytest.mark.parametrize(
    ("status", "answer"), [(503, ""), (429, ""), (500, "no DICOM"), (409, failed(0xA700)), (202, failed(0xA701))]
)
def test_what_may_pass_is_sent_again(status: int, answer: Any, told: Told) -> None:
    told.answers = [(status, answer, {}), (status, answer, {}), (200, say_stored, {})]
    with sending(told.dicomweb) as sent:
        wait_for(lambda: "done" in sent.names())
        assert len(told.bodies) == 3


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (400, "", "look at its log"),
        (403, "", "let us in"),
        (404, "", "correct its address"),
        (302, "", "(302)"),
        (501, "", "(501)"),
        (409, failed(0xC000), "C000"),
        (202, failed(0x0110), "0110"),
        (200, failed(0xA900), "A900"),
        (200, "", "does not say"),
        (200, "{}", "no reason"),
        (200, "<NativeDicomModel/>", "does not say"),
        (200, stored_another, "no reason"),
    ],
)
def test_what_never_will_be_taken_waits_for_a_person_and_is_sent_once(
    status: int, answer: Any, why: str, told: Told
) -> None:
    told.answers = [(status, answer, {"location": "/elsewhere"})]
    with sending(told.dicomweb) as sent:
        wait_for(lambda: sent.names() and sent.reasons())
        for _ in range(20):
            sent.look()
        assert (why in sent.reasons()[0], len(told.bodies)) == (True, 1)


def test_a_server_says_when_to_come_back(told: Told) -> None:
    told.answers = [(503, "", {"Retry-After": "1000"})]
    with sending(told.dicomweb) as sent:
        wait_for(lambda: sent.names() and sent.destinations[0]._backoff.seconds > 900)
        assert len(told.bodies) == 1
        assert not sent.reasons()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("https://user:secret@pacs/dicom-web", "netrc"),
        ("ftp://pacs/", "such as https"),
        ("https://", "such as https"),
        ("https://pacs:x/", "such as https"),
        ("https://pacs/?key=secret", "such as https"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(address: str, why: str) -> None:
    with pytest.raises(IntakeRulesError, match=why) as refused:
        check_destination(address)
    assert "secret" not in str(refused.value)
