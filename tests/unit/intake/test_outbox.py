"""A destination that is down for long, and what must not end its thread; the clock is the test's."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from pneumoserve.intake import backoff
from pneumoserve.intake.errors import PeerAwayError, PeerRefusalError
from pneumoserve.intake.sender import Outbox
from pneumoserve.intake.spool import Batch, Spool
from pneumoserve.store import MemoryStore, StoreError
from tests.support.intake import make_spool

BATCHES = [Batch("a" * 64, 1), Batch("b" * 64, 1), Batch("c" * 64, 1)]


class Clock:
    """Stands still but while somebody waits; in place of `time` and of a condition."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify(self) -> None: ...

    def wait(self, seconds: float | None) -> None:
        assert seconds is not None, "nothing is left to wait for"
        self.now += seconds


class Queue(Outbox):
    """Raises `fault` until `until`, and ends when all is sent, or a person must look."""

    def __init__(self, spool: Spool, clock: Clock, until: float, fault: Exception) -> None:
        super().__init__(spool, "PACS@127.0.0.1:104")
        self._changed = clock  # type: ignore[assignment]
        self._clock = clock
        self._until = until
        self._fault = fault
        self.tries: list[float] = []
        self.sent: list[bytes] = []

    def send(self, reports: Sequence[bytes]) -> None:
        self.tries.append(self._clock.now)
        if self._clock.now < self._until:
            raise self._fault
        self.sent += reports

    def _next(self) -> Batch | None:
        return super()._next() if self._waiting else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(backoff, "time", made)
    return made


def offer_to(queue: Queue, spool: Spool) -> None:
    for batch in BATCHES:
        spool.put_report(batch, batch.study.encode())
        queue.offer(batch)


def test_a_destination_that_is_down_for_an_hour_gets_each_result_once(clock: Clock) -> None:
    spool = make_spool(MemoryStore())
    queue = Queue(spool, clock, 3600.0, PeerAwayError("It cannot be reached."))
    offer_to(queue, spool)
    queue._run()
    assert sorted(queue.sent) == [batch.study.encode() for batch in BATCHES]
    # It is not asked without an end, and found soon after it is back.
    assert 60 <= len(queue.tries) <= 70
    assert clock.now <= 3600 + 60
    assert all(spool.is_sent(batch, queue.id) for batch in BATCHES)


@pytest.mark.parametrize("fault", [RuntimeError("Beispiel"), ValueError("Beispiel")])
def test_no_fault_ends_a_queue_or_is_repeated(fault: Exception, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    spool = make_spool(MemoryStore())
    queue = Queue(spool, clock, 10.0, fault)
    offer_to(queue, spool)
    queue._run()
    assert len(queue.sent) == 3
    assert (type(fault).__name__ in caplog.text, "Beispiel" in caplog.text) == (True, False)


def test_a_refusal_is_noted_when_the_spool_has_room_again(clock: Clock) -> None:
    store = MemoryStore()
    spool = make_spool(store)
    queue = Queue(spool, clock, float("inf"), PeerRefusalError("It refuses a result."))
    offer_to(queue, spool)

    def refuse(operation: str, _: str) -> None:
        if operation == "create" and clock.now < 10:
            raise StoreError("The store has no room; give it more.")

    store.before = refuse
    queue._run()
    assert [sorted(spool.names_of(batch)) for batch in BATCHES] == [[f"failed-{queue.id}", "report"]] * 3
