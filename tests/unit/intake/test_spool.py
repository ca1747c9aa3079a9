"""Objects are kept once, and no key or kept document names a patient."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from pneumoserve.intake.spool import Batch, Form, Spool
from pneumoserve.store import MemoryStore, StoreError
from tests.support.intake import STUDY, make_incoming, make_spool


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def spool(store: MemoryStore) -> Spool:
    return make_spool(store)


def test_an_object_is_kept_once_however_often_it_is_sent(spool: Spool) -> None:
    one = make_incoming()
    assert [spool.keep(one, flagged=False) for _ in range(3)] == ["kept", "repeat", "repeat"]
    (study,) = spool.studies()
    assert len(spool.objects(study)) == 1


def test_the_same_uid_with_other_content_is_refused_and_listed(spool: Spool) -> None:
    spool.keep(make_incoming(), flagged=False)
    others = [make_incoming(PatientID="OTHER"), replace(make_incoming(PatientID="OTHER"), study_uid="1.2.3")]
    assert [spool.keep(each, flagged=False) for each in others] == ["refused", "refused"]
    assert {study for study, _ in spool.list_refused()} <= {*spool.studies(), spool._hashes.hash("study", "1.2.3")}
    spool.forget_refused(spool.studies()[0])
    assert len(spool.studies()) == 1


def test_what_was_done_with_is_neither_kept_nor_answered_again(spool: Spool) -> None:
    spool.keep(make_incoming(), flagged=False)
    (study,) = spool.studies()
    batch = Batch(study, 1)
    spool.plan(batch, list(spool.objects(study)))
    assert spool.drop(batch, "dropped") == 1
    assert (spool.studies(), spool.keep(make_incoming(), flagged=False)) == ([], "repeat")
    assert spool.keep(make_incoming(PatientID="OTHER"), flagged=False) == "refused"


def test_a_repeat_that_meets_its_end_leaves_nothing(store: MemoryStore, spool: Spool) -> None:
    spool.keep(make_incoming(), flagged=False)
    (study,) = spool.studies()
    batch, objects = Batch(study, 1), list(spool.objects(study))
    spool.plan(batch, objects)
    ended = False

    def end(operation: str, key: str) -> None:
        nonlocal ended
        if operation == "create" and key.startswith("objects/") and not ended:
            ended = True
            make_spool(store).drop(batch, "dropped")

    store.before = end
    assert spool.keep(make_incoming(), flagged=False) == "repeat"
    assert ended
    assert spool.studies() == []


def test_a_flag_holds_for_what_is_planned_later(spool: Spool) -> None:
    spool.keep(make_incoming(), flagged=False)
    spool.keep(make_incoming(2), flagged=True)
    (study,) = spool.studies()
    spool.plan(Batch(study, 1), list(spool.objects(study)))
    assert spool.read_plan(Batch(study, 1)).flagged


def test_keys_and_documents_name_nobody(store: MemoryStore, spool: Spool) -> None:
    spool.keep(make_incoming(), flagged=True)
    spool.keep(make_incoming(PatientID="OTHER"), flagged=True)
    for each in store.list(""):
        assert STUDY not in each.key
        if not each.key.startswith("objects/"):
            assert not any(word in store.get(each.key) for word in (b"4711", b"Beispiel", STUDY.encode()))


def test_without_a_store_nothing_is_kept(store: MemoryStore, spool: Spool) -> None:
    def fail(operation: str, key: str) -> None:
        raise StoreError("away")

    store.before = fail
    with pytest.raises(StoreError):
        spool.keep(make_incoming(), flagged=False)


def test_each_form_of_a_report_is_kept_as_what_it_is(
    store: MemoryStore, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, str] = {}
    monkeypatch.setattr(store, "create", lambda key, data, kind: kinds.setdefault(key.rpartition("/")[2], kind))
    for form in get_args(Form):
        spool.put_report(Batch("a" * 64, 1), b"", form)
    assert kinds == {"report": "application/dicom", "capture": "application/dicom", "bundle": "application/fhir+json"}
