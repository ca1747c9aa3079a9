"""What a sender may do right and wrong, and what it is told; by DCMTK, and by pynetdicom where DCMTK is too honest."""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ

from pneumoserve.intake import IntakeRules, scp, taking
from pneumoserve.intake.rules import CR, DX, KEY_OBJECTS, Peer
from pneumoserve.intake.scp import Receiver
from pneumoserve.store import MemoryStore, StoreError
from tests.conftest import wait_for
from tests.support.dicom_peers import associate, data_set_of, dcmtk, make_request, needs_dcmtk, send_until_taken, store
from tests.support.intake import SELECTING, SELECTIONS, STUDY, Receiving, make_object, make_selection, make_spool

INSTANCE = f"{STUDY}.1.1"
DATA_SET = data_set_of(make_object())


class Listening(Receiving):
    """A receiver."""

    def __init__(self, rules: IntakeRules) -> None:
        super().__init__()
        self.receiver = Receiver(self.spool, rules, ("127.0.0.1", 0), notes=True)
        self.port = self.receiver.port


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    made = Listening(getattr(request, "param", IntakeRules()))
    yield made
    made.receiver.close()


def send(listening: Listening, data_set: bytes, sop_class: str = CR, instance: str = INSTANCE) -> tuple[int, str]:
    with associate(listening.port, CR) as association:
        return store(association, data_set, sop_class, instance)


@needs_dcmtk
@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_dcmtk_sends_and_is_told_success(program: str, listening: Listening, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").write_bytes(make_object(number))
    files = sorted(tmp_path.glob("*.dcm"))
    called = ("-aec", "PNEUMOFLAG", "127.0.0.1", str(listening.port))
    assert subprocess.run([dcmtk("echoscu"), *called], check=False).returncode == 0
    assert subprocess.run([dcmtk(program), *called, *files], check=False).returncode == 0
    assert listening.objects == 2
    assert [each.key.partition("/")[0] for each in listening.bucket.list("flagged/")] == ["flagged"]


@needs_dcmtk
@pytest.mark.parametrize("listening", [SELECTING], indirect=True)
@pytest.mark.parametrize(("title", "folders"), SELECTIONS.items())
def test_a_key_object_selection_does_what_its_title_asks_for(
    title: str, folders: list[str], listening: Listening, tmp_path: Path
) -> None:
    (tmp_path / "selection.dcm").write_bytes(make_selection(title, make_object()))
    command = [dcmtk("storescu"), "-aec", "PNEUMOSERVE", "127.0.0.1", str(listening.port), tmp_path / "selection.dcm"]
    for _ in range(2):
        assert subprocess.run(command, check=False).returncode == 0
    assert sorted({each.key.partition("/")[0] for each in listening.bucket.list("")}) == folders


def test_a_key_object_selection_that_is_damaged_or_comes_with_other_content_is_refused(listening: Listening) -> None:
    note = make_selection("113001^DCM", make_object())
    instance, whole = f"{STUDY}.900.1", data_set_of(note)
    others = [data_set_of(make_selection(title, make_object(2))) for title in ("113001^DCM", "113037^DCM")]
    with associate(listening.port, KEY_OBJECTS) as association:
        statuses = [store(association, each, KEY_OBJECTS, instance)[0] for each in (whole[:-40], whole, *others)]
        assert statuses == [taking.NOT_UNDERSTOOD, taking.SUCCESS, taking.NOT_UNDERSTOOD, taking.NOT_UNDERSTOOD]
        assert store(association, whole, KEY_OBJECTS, f"{STUDY}.9")[0] == taking.MISMATCH
    assert len(listening.spool.list_refused()) == 2


def test_without_an_archive_no_key_object_selection_is_negotiated() -> None:
    receiver = Receiver(make_spool(MemoryStore()), IntakeRules(), ("127.0.0.1", 0))
    try:
        with associate(receiver.port, KEY_OBJECTS) as association:
            assert not association.is_established
    finally:
        receiver.close()


def test_an_object_that_comes_again_succeeds_and_is_kept_once(listening: Listening) -> None:
    assert [send(listening, DATA_SET) for _ in range(2)] == [(taking.SUCCESS, "")] * 2
    assert listening.objects == 1


REFUSED: dict[str, tuple[bytes, str, str, int]] = {
    "cut short": (DATA_SET[:-50], CR, INSTANCE, taking.NOT_UNDERSTOOD),
    "no DICOM": (b"Beispiel" * 100, CR, INSTANCE, taking.NOT_UNDERSTOOD),
    "fewer pixels than announced": (data_set_of(make_object(Rows=65)), CR, INSTANCE, taking.NOT_UNDERSTOOD),
    "a document sent as an image": (
        data_set_of(make_selection("113000^DCM", make_object())), CR, INSTANCE, taking.NOT_UNDERSTOOD,
    ),
    "no study": (data_set_of(make_object(StudyInstanceUID="")), CR, INSTANCE, taking.NOT_UNDERSTOOD),
    "another instance": (DATA_SET, CR, f"{STUDY}.9", taking.MISMATCH),
    "another class inside": (data_set_of(make_object(SOPClassUID=DX)), CR, INSTANCE, taking.MISMATCH),
    "a report under the context of images": (DATA_SET, ComprehensiveSRStorage, INSTANCE, taking.NOT_SUPPORTED),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_refused_by_its_status_and_named_nowhere(
    name: str, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data_set, sop_class, instance, status = REFUSED[name]
    found, comment = send(listening, data_set, sop_class, instance)
    assert (found, bool(comment), listening.objects) == (status, True, 0)
    assert f"{status:04X}" in caplog.text
    assert not any(word in caplog.text for word in ("Beispiel", "4711", STUDY))


def test_the_same_uid_with_other_content_is_refused(listening: Listening) -> None:
    send(listening, DATA_SET)
    status, comment = send(listening, data_set_of(make_object(PatientID="OTHER")))
    assert (status, "came before with other content" in comment) == (taking.NOT_UNDERSTOOD, True)
    assert (listening.objects, len(listening.spool.list_refused())) == (1, 1)


def test_an_object_that_is_too_large_is_not_kept_in_memory_and_costs_no_association(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MAX_OBJECT", 100_000)
    large = data_set_of(make_object(side=1000))
    with associate(listening.port, CR) as association:
        status, comment = store(association, large, CR, INSTANCE)
        assert (status, "larger than" in comment) == (taking.NOT_UNDERSTOOD, True)
        assert store(association, DATA_SET, CR, INSTANCE) == (taking.SUCCESS, "")


def test_without_a_spool_a_sender_is_told_to_try_again_and_then_succeeds(listening: Listening) -> None:
    def fail(operation: str, key: str) -> None:
        raise StoreError("The store is away; start it.")

    listening.bucket.before = fail
    assert send(listening, DATA_SET)[0] == taking.OUT_OF_RESOURCES
    listening.bucket.before = lambda operation, key: None
    assert send(listening, DATA_SET) == (taking.SUCCESS, "")


def begin(association: Association) -> None:
    """Send the first PDUs of a C-STORE."""
    message = C_STORE_RQ()
    message.primitive_to_message(make_request(data_set_of(make_object(side=500)), CR, INSTANCE))
    (context,) = association.accepted_contexts
    for part in list(message.encode_msg(context.context_id, 16_000))[:5]:
        association.dul.send_pdu(part)


def said_by_us(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("pneumoserve")]


CUT_OFF = ["an association from 127.0.0.1 ended in an object, which is not kept; let it send again"]


def test_an_association_that_is_aborted_in_an_object_leaves_one_line_in_the_log(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with associate(listening.port, CR) as association:
        begin(association)
        association.abort()
    wait_for(lambda: not listening.receiver._server.active_associations)
    assert (said_by_us(caplog), listening.objects) == (CUT_OFF, 0)
    caplog.clear()
    assert send(listening, DATA_SET)[0] == taking.SUCCESS
    assert said_by_us(caplog) == []


def stand_still(moment: str, listening: Listening, stack: contextlib.ExitStack) -> None:
    """Send a part of something, and nothing more until the stack is left."""
    if moment in {"before its request", "in its request"}:
        still = stack.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
        still.sendall(b"" if moment == "before its request" else bytes.fromhex("01000000"))
    else:
        association = stack.enter_context(associate(listening.port, CR))
        begin(association)
        if moment == "in a PDU":
            # The header of a P-DATA-TF of 1,000 bytes, and none of them.
            wait_for(lambda: association.dul.event_queue.empty() and association.dul.to_provider_queue.empty())
            association.dul.socket.socket.sendall(bytes.fromhex("0400000003e8"))


@pytest.mark.parametrize(
    ("moment", "said"),
    [("before its request", []), ("in its request", []), ("in a PDU", CUT_OFF), ("between two PDUs", CUT_OFF)],
)
def test_a_sender_that_stands_still_is_let_go_and_holds_up_nobody(
    moment: str, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scp, "_TIMEOUT_SECONDS", 2)
    listening = Listening(IntakeRules(max_associations=2))
    with contextlib.closing(listening.receiver), contextlib.ExitStack() as stack:
        stand_still(moment, listening, stack)
        wait_for(lambda: listening.receiver._server.active_associations)
        send_until_taken(make_object(), listening.port)
        wait_for(lambda: not listening.receiver._server.active_associations)
        assert (said_by_us(caplog), listening.objects) == (said, 1)


def test_a_sender_that_trickles_is_let_go(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scp, "_TIMEOUT_SECONDS", 1)
    with socket.create_connection(("127.0.0.1", listening.port), timeout=5) as connection:
        # An A-ASSOCIATE-RQ of 100,000 bytes.
        connection.sendall(bytes.fromhex("0100000186a0"))
        wait_for(lambda: connection.send(b"\0") and select.select([connection], [], [], 0.05)[0])
    assert listening.objects == 0


def test_a_pdu_of_any_length_is_not_read(listening: Listening) -> None:
    with socket.create_connection(("127.0.0.1", listening.port), timeout=25) as connection:
        connection.sendall(bytes.fromhex("0100ffffffff"))
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (EncapsulatedPDFStorage, "1.2.840.10008.1.2.1"),
        (MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "1.2.840.10008.1.2.1"),
        (ComprehensiveSRStorage, "1.2.840.10008.1.2.1"),
        (CR, "1.2.840.10008.1.2.1.99"),
    ],
)
def test_what_is_not_supported_is_not_negotiated(sop_class: str, syntax: str, listening: Listening) -> None:
    with associate(listening.port, sop_class, syntax) as association:
        assert not association.is_established
        assert [context.result for context in association.rejected_contexts] in ([3], [4])


@pytest.mark.parametrize(
    "listening", [IntakeRules(peers=(Peer(ae_title="PACS", networks=("127.0.0.0/8",)),))], indirect=True
)
@pytest.mark.parametrize(
    ("titles", "reason"),
    [
        ({"calling": "OTHER"}, "Calling AE title not recognised"),
        ({"called": "OTHER"}, "Called AE title not recognised"),
    ],
)
def test_only_who_is_listed_is_let_in(titles: dict[str, str], reason: str, listening: Listening, caplog: Any) -> None:
    with associate(listening.port, CR, **titles) as association:
        assert association.is_rejected
        assert association.acceptor.primitive.reason_str == reason
    assert "was rejected" in caplog.text
    with associate(listening.port, CR) as association:
        assert association.is_established


@pytest.mark.parametrize("listening", [IntakeRules(max_associations=1)], indirect=True)
def test_one_association_too_many_is_told_to_come_later(listening: Listening) -> None:
    with associate(listening.port, CR) as first, associate(listening.port, CR) as second:
        assert (first.is_established, second.is_rejected) == (True, True)
        assert second.acceptor.primitive.result == 2
        assert store(first, DATA_SET, CR, INSTANCE) == (taking.SUCCESS, "")


def test_the_file_that_is_kept_is_what_was_sent(listening: Listening) -> None:
    send(listening, DATA_SET)
    (each,) = listening.bucket.list("objects/")
    assert io.BytesIO(listening.bucket.get(each.key)).getvalue().endswith(DATA_SET)
