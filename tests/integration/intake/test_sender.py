"""Destinations that take, that refuse, that come back later, and that hold up no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt

from pneumoserve.intake import echo, parse_address
from pneumoserve.intake.errors import PeerAwayError, PeerRefusalError
from pneumoserve.intake.rules import VERIFICATION, IntakeRules
from pneumoserve.intake.sender import Destination
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.studies import Studies
from pneumoserve.local.process import free_ports
from pneumoserve.store import MemoryStore
from tests.conftest import wait_for
from tests.support.dicom_peers import leaves_sockets
from tests.support.intake import FakeService, make_incoming, make_spool

pytestmark = leaves_sockets


@dataclass
class Taking:
    """A PACS that answers each object with `status()`."""

    port: int
    status: Callable[[], int] = lambda: 0
    asked: list[str] = field(default_factory=list)
    associations: int = 0

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"


@contextlib.contextmanager
def take(port: int = 0, **options: Any) -> Iterator[Taking]:
    """Take results; `options` are settings of pynetdicom's entity."""
    entity = AE("PACS")
    for name, value in options.items():
        setattr(entity, name, value)
    for context in (Comprehensive3DSRStorage, VERIFICATION):
        entity.add_supported_context(context)
    taking = Taking(port)

    def store(event: evt.Event) -> int:
        taking.asked.append(str(event.request.AffectedSOPInstanceUID))
        return taking.status()

    def count(_: evt.Event) -> None:
        taking.associations += 1

    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_REQUESTED, count)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    taking.port = server.server_address[1]
    try:
        yield taking
    finally:
        server.shutdown()


class Sending:
    """A study with a result, and the destinations that are to have it."""

    def __init__(self, *addresses: str) -> None:
        self.spool: Spool = make_spool(MemoryStore())
        self.destinations = [Destination(self.spool, "PNEUMOSERVE", parse_address(each)) for each in addresses]
        self.studies = Studies(self.spool, IntakeRules(quiet_seconds=0), FakeService(), self.destinations)
        self.spool.keep(make_incoming(), flagged=False)
        (self.study,) = self.spool.studies()

    def look(self) -> None:
        if self.spool.studies():
            self.studies.advance(self.study)

    def names(self) -> set[str]:
        """What is known of the one batch."""
        self.look()
        return next(iter(self.spool.batches(self.study).values()), set())


@contextlib.contextmanager
def sending(*addresses: str) -> Iterator[Sending]:
    made = Sending(*addresses)
    for each in made.destinations:
        each.start()
    try:
        yield made
    finally:
        for each in made.destinations:
            each.stop()
        made.studies.finish()


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


def test_a_peer_echoes_or_it_is_said_why_not() -> None:
    (nobody,) = free_ports(1)
    with take() as pacs, take(require_called_aet=True, ae_title="OTHER") as other:
        echo("PNEUMOSERVE", parse_address(pacs.address))
        with pytest.raises(PeerRefusalError, match="called ae title not recognised"):
            echo("PNEUMOSERVE", parse_address(other.address))
    with pytest.raises(PeerAwayError, match="cannot be reached"):
        echo("PNEUMOSERVE", parse_address(f"PACS@127.0.0.1:{nobody}"))
