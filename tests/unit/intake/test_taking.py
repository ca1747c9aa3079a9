"""What senders are told when the spool is full or a fault is ours, and that nothing of it names a patient."""

from __future__ import annotations

import itertools
import logging

import pytest

from pneumoserve.intake import IntakeRules, taking
from pneumoserve.intake.rules import CR
from pneumoserve.intake.spool import Spool
from pneumoserve.store import MemoryStore, StoreError
from tests.support.dicom_peers import data_set_of
from tests.support.intake import STUDY, make_object, make_spool

ARRIVAL = taking.Arrival(CR, f"{STUDY}.1.1", "1.2.840.10008.1.2.1", data_set_of(make_object()), flagged=True)


def fill(store: MemoryStore, step: int) -> None:
    """Let a store take so many objects, and no more."""
    left = itertools.count(1)

    def refuse(operation: str, _: str) -> None:
        if operation == "create" and next(left) >= step:
            raise StoreError("The store has no room; give it more.")

    store.before = refuse


def take(spool: Spool) -> taking.Told:
    return taking.answer(lambda: taking.keep(spool, IntakeRules(), ARRIVAL, notes=True), "10.0.0.7")


def test_a_disk_that_is_full_at_any_step_is_told_and_the_next_try_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for step in itertools.count(1):
        store = MemoryStore()
        spool = make_spool(store)
        fill(store, step)
        status, _ = take(spool)
        if status == taking.SUCCESS:
            break
        assert (status, list(store.list("objects/"))) == (taking.OUT_OF_RESOURCES, []), step
        fill(store, 1000)
        told = take(spool)
        assert (told, len(list(store.list("objects/")))) == ((taking.SUCCESS, ""), 1), step
    assert step > 3
    assert "10.0.0.7 was refused with A700" in caplog.text
    assert not any(word in caplog.text for word in ("Beispiel", "4711", STUDY))


def test_a_fault_of_ours_is_told_as_one_that_passes_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> taking.Told:
        raise ValueError("Beispiel")

    status, comment = taking.answer(fail, "10.0.0.7")
    assert (status, "send it again" in comment) == (taking.OUT_OF_RESOURCES, True)
    assert ("(ValueError)" in caplog.text, "Beispiel" in caplog.text) == (True, False)
