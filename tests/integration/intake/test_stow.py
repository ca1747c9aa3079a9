"""STOW-RS as DICOMweb clients speak it, and what a sender may do wrong."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
from collections.abc import Iterator

import httpx
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from pydicom.uid import ComprehensiveSRStorage

from pneumoserve.intake import IntakeRules, IntakeRulesError, parts, stow, taking
from pneumoserve.intake.rules import CR
from pneumoserve.intake.scp import Receiver
from pneumoserve.intake.stow import WebReceiver
from pneumoserve.store import MemoryStore, StoreError
from tests.conftest import wait_for
from tests.support.dicom_peers import associate, data_set_of
from tests.support.dicom_peers import store as c_store
from tests.support.intake import SELECTING, SELECTIONS, STUDY, Receiving, make_object, make_selection, make_spool

FILE = make_object()
_TYPE = 'multipart/related; type="application/dicom"; boundary=x'


class Listening(Receiving):
    """A receiver, and a client of it."""

    def __init__(self, rules: IntakeRules) -> None:
        super().__init__()
        self.rules = rules
        self.receiver = WebReceiver(self.spool, rules, ("127.0.0.1", 0), notes=True)
        self.http = httpx.Client(base_url=self.receiver.url, timeout=30)


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    made = Listening(getattr(request, "param", IntakeRules()))
    yield made
    made.http.close()
    made.receiver.close()


def body_of(*files: bytes) -> bytes:
    parts = (b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
    return b"".join(parts) + b"--x--\r\n"


def send(listening: Listening, *files: bytes, path: str = "/studies", **headers: str) -> httpx.Response:
    return listening.http.post(path, content=body_of(*files), headers={"Content-Type": _TYPE} | headers)


def reasons_of(response: httpx.Response) -> dict[str, list[str]]:
    """The failure reasons in hex, by the sequence that names them."""
    module = pydicom.Dataset.from_json(response.json())
    return {
        name: [f"{item.FailureReason:04X}" for item in module[name].value]
        for name in ("FailedSOPSequence", "OtherFailuresSequence")
        if name in module
    }


@pytest.mark.parametrize(("path", "flagged"), [("", 0), ("/flagged", 1)])
def test_a_dicomweb_client_stores_and_reads_what_became_of_it(path: str, flagged: int, listening: Listening) -> None:
    client = DICOMwebClient(url=listening.receiver.url + path)
    stored = client.store_instances([pydicom.dcmread(io.BytesIO(make_object(number))) for number in (1, 2)])
    assert [item.ReferencedSOPInstanceUID for item in stored.ReferencedSOPSequence] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert (listening.objects, "FailedSOPSequence" in stored) == (2, False)
    assert len(list(listening.bucket.list("flagged/"))) == flagged


def test_an_object_is_the_same_by_either_way(listening: Listening) -> None:
    receiver = Receiver(listening.spool, listening.rules, ("127.0.0.1", 0))
    with contextlib.closing(receiver), associate(receiver.port, CR) as association:
        assert c_store(association, data_set_of(FILE), CR, f"{STUDY}.1.1") == (taking.SUCCESS, "")
    assert (send(listening, FILE).status_code, listening.objects) == (200, 1)
    assert listening.spool.list_refused() == []


@pytest.mark.parametrize("listening", [SELECTING], indirect=True)
@pytest.mark.parametrize(("title", "folders"), SELECTIONS.items())
def test_a_key_object_selection_does_as_by_c_store(title: str, folders: list[str], listening: Listening) -> None:
    assert [send(listening, make_selection(title, FILE)).status_code for _ in range(2)] == [200, 200]
    assert sorted({each.key.partition("/")[0] for each in listening.bucket.list("")}) == folders


def test_a_rejection_note_that_is_damaged_or_comes_with_other_content_is_refused(listening: Listening) -> None:
    note = make_selection("113001^DCM", FILE)
    other = make_selection("113037^DCM", FILE)
    answers = [send(listening, file) for file in (note[:-40], note, other)]
    assert [answer.status_code for answer in answers] == [409, 200, 409]
    assert reasons_of(answers[0]) == {"OtherFailuresSequence": ["C000"]}
    assert reasons_of(answers[2]) == {"FailedSOPSequence": ["C000"]}


def test_without_an_archive_no_key_object_selection_is_taken() -> None:
    receiver = WebReceiver(make_spool(MemoryStore()), IntakeRules(), ("127.0.0.1", 0))
    with contextlib.closing(receiver), httpx.Client(base_url=receiver.url, timeout=30) as client:
        body = body_of(make_selection("113001^DCM", FILE))
        refused = client.post("/studies", content=body, headers={"Content-Type": _TYPE})
    assert (refused.status_code, reasons_of(refused)) == (409, {"FailedSOPSequence": ["0122"]})


REFUSED: dict[str, tuple[bytes, str, dict[str, list[str]]]] = {
    "cut short": (FILE[:-50], "/studies", {"FailedSOPSequence": ["C000"]}),
    "no DICOM": (b"Beispiel" * 100, "/studies", {"OtherFailuresSequence": ["C000"]}),
    "no study": (make_object(StudyInstanceUID=""), "/studies", {"FailedSOPSequence": ["C000"]}),
    "a UID that is none": (
        FILE.replace(f"{STUDY}.1.1".encode(), f"Beispiel{STUDY[8:]}.1.1".encode()), "/studies",
        {"OtherFailuresSequence": ["C000"]},
    ),
    "of another study": (FILE, "/studies/1.2.3", {"FailedSOPSequence": ["A900"]}),
    "a report": (make_object(SOPClassUID=ComprehensiveSRStorage), "/studies", {"FailedSOPSequence": ["0122"]}),
    "in another syntax": (
        FILE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1), "/studies",
        {"FailedSOPSequence": ["C122"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_has_its_reason_and_is_named_nowhere(
    name: str, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file, path, reasons = REFUSED[name]
    refused = send(listening, file, path=path)
    assert (refused.status_code, reasons_of(refused), listening.objects) == (409, reasons, 0)
    assert refused.headers["Warning"].startswith("299 ")
    assert next(iter(reasons.values()))[0] in caplog.text
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert not any(word in ours for word in ("Beispiel", "4711", STUDY))


def test_what_is_refused_spoils_no_other(listening: Listening) -> None:
    mixed = send(listening, FILE, FILE[:-50].replace(f"{STUDY}.1.1".encode(), f"{STUDY}.1.2".encode()), make_object(3))
    assert (mixed.status_code, reasons_of(mixed), listening.objects) == (202, {"FailedSOPSequence": ["C000"]}, 2)
    assert send(listening, FILE, path=f"/studies/{STUDY}").status_code == 200


def test_the_same_uid_with_other_content_is_refused(listening: Listening) -> None:
    send(listening, FILE)
    refused = send(listening, make_object(PatientID="OTHER"))
    assert (refused.status_code, "other content" in refused.headers["Warning"]) == (409, True)
    assert (listening.objects, len(listening.spool.list_refused())) == (1, 1)


def test_an_object_that_is_too_large_is_not_kept_in_memory_and_spoils_no_other(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MAX_OBJECT", 100_000)
    answered = send(listening, make_object(2, side=1000), FILE)
    assert (answered.status_code, reasons_of(answered)) == (202, {"FailedSOPSequence": ["C000"]})
    assert "larger than" in answered.headers["Warning"]
    assert listening.objects == 1


def test_each_object_is_kept_before_the_next_one_is_read(listening: Listening) -> None:
    body = body_of(FILE, make_object(2))

    def slowly() -> Iterator[bytes]:
        yield body[: len(body) // 2 + 500]
        # The second half is sent only now.
        wait_for(lambda: listening.objects == 1)
        yield body[len(body) // 2 + 500 :]

    assert listening.http.post("/studies", content=slowly(), headers={"Content-Type": _TYPE}).status_code == 200
    assert listening.objects == 2


def test_more_objects_than_a_request_may_have_are_413(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "_MOST_OBJECTS", 2)
    refused = send(listening, *(make_object(number) for number in (1, 2, 3)))
    assert (refused.status_code, "several requests" in refused.json()["error"]) == (413, True)


WRONG: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "no multipart": (415, FILE, {"Content-Type": "application/dicom"}),
    "metadata": (415, body_of(FILE), {"Content-Type": _TYPE.replace("/dicom", "/dicom+json")}),
    "compressed": (415, body_of(FILE), {"Content-Encoding": "gzip"}),
    "XML wanted": (406, body_of(FILE), {"Accept": "application/dicom+xml"}),
    "no boundary": (400, body_of(FILE), {"Content-Type": _TYPE.partition("; boundary")[0]}),
    "no parts": (400, b"--x--\r\n", {}),
    "garbage": (400, b"Beispiel", {}),
    "broken off": (400, body_of(FILE, make_object(2))[:-10], {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_request_that_is_none_is_told_so_in_words(name: str, listening: Listening) -> None:
    status, body, headers = WRONG[name]
    refused = listening.http.post("/studies", content=body, headers={"Content-Type": _TYPE} | headers)
    assert (refused.status_code, "; " in refused.json()["error"]) == (status, True)
    assert "Beispiel" not in refused.text


def test_without_a_spool_a_sender_is_told_to_try_again_and_then_succeeds(listening: Listening) -> None:
    def fail(operation: str, key: str) -> None:
        raise StoreError("The store is away; start it.")

    listening.bucket.before = fail
    refused = send(listening, FILE)
    assert (refused.status_code, reasons_of(refused)) == (503, {"FailedSOPSequence": ["A700"]})
    assert int(refused.headers["Retry-After"]) > 0
    listening.bucket.before = lambda operation, key: None
    assert send(listening, FILE).status_code == 200


def test_a_request_that_ends_in_an_object_leaves_the_whole_ones_and_is_told_of(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(listening.receiver.url)
    with socket.create_connection((url.host, url.port)) as connection:
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\nContent-Type: {_TYPE}\r\n\r\n"
        )
        connection.sendall(head.encode() + body_of(FILE, make_object(2))[:-100])
        wait_for(lambda: listening.objects == 1)
    wait_for(lambda: "a store request from 127.0.0.1 broke off" in caplog.text)
    assert send(listening, FILE, make_object(2)).status_code == 200
    assert listening.objects == 2


def test_a_sender_that_stands_still_is_told_so_and_gives_its_place_at_once(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_TIMEOUT_SECONDS", 0.5)
    url = httpx.URL(listening.receiver.url)
    with socket.create_connection((url.host, url.port), timeout=25) as connection:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\nContent-Type: {_TYPE}\r\n\r\n"
        connection.sendall(head.encode() + body_of(FILE)[:100])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"send it again" in answer


@pytest.mark.parametrize("listening", [IntakeRules(web_networks=("10.0.0.0/8",))], indirect=True)
def test_only_listed_networks_are_let_in(listening: Listening) -> None:
    refused = send(listening, FILE)
    assert (refused.status_code, "webNetworks" in refused.json()["error"], listening.objects) == (403, True, 0)


@pytest.mark.parametrize("listening", [IntakeRules(flagged_ae_title=None)], indirect=True)
def test_without_a_second_title_nothing_is_flagged(listening: Listening) -> None:
    assert send(listening, FILE, path="/flagged/studies").status_code == 404


@pytest.mark.parametrize("listening", [IntakeRules(max_associations=1)], indirect=True)
def test_one_request_too_many_is_told_to_come_later(listening: Listening) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body_of(FILE)[:100]
        begun.set()
        go_on.wait(30)
        yield body_of(FILE)[100:]

    answers: list[httpx.Response] = []

    def send_slowly() -> None:
        url = f"{listening.receiver.url}/studies"
        answers.append(httpx.post(url, content=slowly(), headers={"Content-Type": _TYPE}, timeout=60))

    first = threading.Thread(target=send_slowly)
    first.start()
    begun.wait(30)
    wait_for(lambda: send(listening, FILE).status_code == 503)
    go_on.set()
    first.join()
    assert answers[0].status_code == 200


def test_a_port_in_use_is_told_so(listening: Listening) -> None:
    port = httpx.URL(listening.receiver.url).port
    with pytest.raises(IntakeRulesError, match="give another"):
        WebReceiver(listening.spool, IntakeRules(), ("127.0.0.1", port or 0))
