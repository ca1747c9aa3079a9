"""Destinations that take, that refuse, that come back later, and that hold up no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModelInstance

from pneumoserve.intake import echo, parse_address
from pneumoserve.intake.errors import PeerAwayError, PeerRefusalError
from pneumoserve.intake.rules import STORAGE_COMMITMENT, VERIFICATION, IntakeRules
from pneumoserve.intake.scp import Receiver
from pneumoserve.local.process import free_ports
from tests.conftest import wait_for
from tests.support.sending import sending

COMMITMENT = UID(STORAGE_COMMITMENT)


@dataclass
class Taking:
    """A PACS that answers each object with `status()`."""

    port: int
    status: Callable[[], int] = lambda: 0
    asked: list[str] = field(default_factory=list)
    associations: int = 0
    # What it is to keep: transaction and instances.
    transactions: list[tuple[str, ...]] = field(default_factory=list)
    server: Any = None

    @property
    def open(self) -> list[Any]:
        """Its open associations."""
        return list(self.server.active_associations)

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"


@contextlib.contextmanager
def take(port: int = 0, *, commits: bool = False, **options: Any) -> Iterator[Taking]:
    """Take results; `options` are settings of pynetdicom's entity. `commits`: storage commitment is offered."""
    entity = AE("PACS")
    for name, value in options.items():
        setattr(entity, name, value)
    for context in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage, VERIFICATION):
        entity.add_supported_context(context)
    taking = Taking(port)

    def store(event: evt.Event) -> int:
        taking.asked.append(str(event.request.AffectedSOPInstanceUID))
        return taking.status()

    def count(_: evt.Event) -> None:
        taking.associations += 1

    def commit(event: evt.Event) -> tuple[int, None]:
        wanted = event.action_information
        instances = [str(each.ReferencedSOPInstanceUID) for each in wanted.ReferencedSOPSequence]
        taking.transactions.append((str(wanted.TransactionUID), *instances))
        return 0, None

    if commits:
        entity.add_supported_context(COMMITMENT)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_REQUESTED, count), (evt.EVT_N_ACTION, commit)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    taking.port = server.server_address[1]
    taking.server = server
    try:
        yield taking
    finally:
        server.shutdown()


def report_kept(port: int, transaction: str, instance: str, *, reason: int | None = None) -> int:
    """What a peer says of a transaction on an association of its own: that it keeps the instance, or why not."""
    entity = AE("PACS")
    entity.add_requested_context(COMMITMENT)
    role = build_role(COMMITMENT, scp_role=True)
    association = entity.associate("127.0.0.1", port, ae_title="PNEUMOSERVE", ext_neg=[role])
    assert association.is_established
    each, said = Dataset(), Dataset()
    each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID = Comprehensive3DSRStorage, instance
    said.TransactionUID = transaction
    if reason is not None:
        each.FailureReason = reason
        said.FailedSOPSequence = [each]
    else:
        said.ReferencedSOPSequence = [each]
    status, _ = association.send_n_event_report(
        said, 1 if reason is None else 2, COMMITMENT, StorageCommitmentPushModelInstance
    )
    association.release()
    return int(status.Status)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.intake.backoff._FIRST_SECONDS", 0.05)


def test_several_destinations_have_the_result_once_each() -> None:
    with take() as one, take() as other, sending(one.address, other.address) as sent:
        wait_for(lambda: "done" in sent.names())
        assert len(one.asked) == len(other.asked) == 1
        assert one.asked == other.asked


def test_a_rejected_association_is_listed_never_loops_and_holds_up_nobody() -> None:
    with (
        take(require_calling_aet=["SOMEBODY"]) as strict,
        take() as other,
        sending(strict.address, other.address) as sent,
    ):
        wait_for(lambda: any(name.startswith("sent-") for name in sent.names()))
        wait_for(sent.spool.all_failures)
        before = strict.associations
        for _ in range(20):
            sent.look()
        (failure,) = sent.spool.all_failures()
        assert "add PNEUMOSERVE to its AE titles" in failure.reason
        assert (strict.associations, before, len(other.asked)) == (1, 1, 1)
        sent.spool.retry(failure)
        wait_for(lambda: sent.names() and strict.associations == 2)


def test_a_destination_that_is_down_gets_it_when_it_is_back() -> None:
    (port,) = free_ports(1)
    with sending(f"PACS@127.0.0.1:{port}") as sent:
        wait_for(lambda: sent.names() and sent.destinations[0]._backoff._failures >= 2)
        with take(port) as late:
            wait_for(lambda: "done" in sent.names())
            assert len(late.asked) == 1


@pytest.mark.parametrize(("status", "tries"), [(0xA700, 3), (0xB000, 1), (0xC000, 1)])
def test_a_status_says_whether_it_is_sent_again(status: int, tries: int) -> None:
    with take() as pacs, sending(pacs.address) as sent:
        answers = iter([status] * 2 if tries > 1 else [status])
        pacs.status = lambda: next(answers, 0)
        wait_for(lambda: "done" in sent.names() or sent.spool.all_failures())
        assert (len(pacs.asked), bool(sent.spool.all_failures())) == (tries, status == 0xC000)


def test_what_a_destination_is_to_keep_goes_only_when_it_says_that_it_does() -> None:
    with take(commits=True) as pacs, sending(pacs.address) as sent:
        receiver = Receiver(sent.spool, IntakeRules(), ("127.0.0.1", 0))
        try:
            wait_for(lambda: any(name.startswith("asked-") for name in sent.names()))
            for _ in range(5):
                sent.look()
            ((transaction, instance),) = pacs.transactions
            assert ([instance], len(sent.spool.objects(sent.study))) == (pacs.asked, 1)
            assert report_kept(receiver.port, f"{transaction}1", instance) == 0
            assert sent.spool.objects(sent.study)
            assert report_kept(receiver.port, transaction, instance) == 0
            wait_for(lambda: "done" in sent.names())
        finally:
            receiver.close()
        assert (sent.spool.studies(), len(pacs.asked), len(pacs.transactions)) == ([], 1, 1)
        assert sent.spool.find_awaited(transaction) is None


def test_a_destination_that_does_not_keep_a_result_needs_a_person_and_gets_it_again() -> None:
    with take(commits=True) as pacs, sending(pacs.address) as sent:
        receiver = Receiver(sent.spool, IntakeRules(), ("127.0.0.1", 0))
        try:
            wait_for(lambda: any(name.startswith("asked-") for name in sent.names()))
            transaction, instance = pacs.transactions[0]
            assert report_kept(receiver.port, transaction, instance, reason=0x0112) == 0
            (failure,) = sent.spool.all_failures()
            assert "(0112)" in failure.reason
            sent.spool.retry(failure)
            wait_for(lambda: sent.names() and len(pacs.transactions) == 2)
            assert (len(pacs.asked), pacs.transactions[0]) == (2, pacs.transactions[1])
        finally:
            receiver.close()


def test_one_transaction_names_all_files_of_a_result() -> None:
    with take(commits=True) as pacs, sending(pacs.address, capture=True) as sent:
        wait_for(lambda: any(name.startswith("asked-") for name in sent.names()))
        ((_, *instances),) = pacs.transactions
        assert (instances, len(set(instances))) == (pacs.asked, 2)


def test_a_destination_may_say_that_it_keeps_a_result_on_the_same_association(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.intake.sender._REPORT_SECONDS", 20.0)
    with take(commits=True) as pacs, sending(pacs.address) as sent:
        wait_for(lambda: sent.names() and pacs.transactions)
        ((transaction, instance),) = pacs.transactions
        said, each = Dataset(), Dataset()
        each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID = Comprehensive3DSRStorage, instance
        said.TransactionUID, said.ReferencedSOPSequence = transaction, [each]
        (association,) = pacs.open
        status, _ = association.send_n_event_report(said, 1, COMMITMENT, StorageCommitmentPushModelInstance)
        assert status.Status == 0
        wait_for(lambda: "done" in sent.names())


def test_a_destination_that_never_says_so_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    with take(commits=True) as pacs, sending(pacs.address) as sent:
        wait_for(lambda: any(name.startswith("asked-") for name in sent.names()))
        monkeypatch.setattr("pneumoserve.intake.sender._LONGEST_REPORT", timedelta(0))
        wait_for(lambda: sent.names() and sent.spool.all_failures())
        (failure,) = sent.spool.all_failures()
        assert ("let it call us" in failure.reason, len(pacs.asked)) == (True, 1)


def test_a_peer_echoes_or_it_is_said_why_not() -> None:
    (nobody,) = free_ports(1)
    with take() as pacs, take(require_called_aet=True, ae_title="OTHER") as other:
        echo("PNEUMOSERVE", parse_address(pacs.address))
        with pytest.raises(PeerRefusalError, match="called ae title not recognised"):
            echo("PNEUMOSERVE", parse_address(other.address))
    with pytest.raises(PeerAwayError, match="cannot be reached"):
        echo("PNEUMOSERVE", parse_address(f"PACS@127.0.0.1:{nobody}"))
