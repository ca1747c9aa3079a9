"""Whose word stops and resumes a release, and what fronts make of the objects in the store."""

from __future__ import annotations

from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json
from pneumoserve.ids import uuid7
from pneumoserve.ledger import now_text
from pneumoserve.records import (
    ReleaseResume,
    ReleaseStop,
    StopBook,
    StopError,
    Stopping,
    read_entries,
    record_stop,
    stop_key,
)
from pneumoserve.signing import Trust, add_signature, key_id
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import KEY, RELEASE

APPROVER, REVOKED, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
KEYS = {key_id(each.public_key()): each.public_key() for each in (APPROVER, REVOKED)}
STOPPING = Stopping(Trust(KEYS, frozenset({key_id(REVOKED.public_key())}), frozenset()), KEY.public_key())
Act = TypeVar("Act", ReleaseStop, ReleaseResume)


def new_stop(release: str = RELEASE) -> ReleaseStop:
    return ReleaseStop(time=now_text(), release=release, stop_id=uuid7(), by="lead", why="pale images")


def new_resume(*stops: ReleaseStop) -> ReleaseResume:
    ids = tuple(each.stop_id for each in stops)
    return ReleaseResume(time=now_text(), release=RELEASE, resume_id=uuid7(), by="lead", why="mended", stop_ids=ids)


def sign(entry: Act, key: Ed25519PrivateKey) -> Act:
    return entry.model_copy(update={"signature": add_signature(canonical_json(entry), key).decode()})


def put(store: MemoryStore, *entries: ReleaseStop | ReleaseResume) -> None:
    for entry in entries:
        store.put(stop_key(entry), canonical_json(entry), "application/json")


@pytest.mark.parametrize(
    ("key", "stops", "resumes"),
    [(APPROVER, True, True), (KEY, True, False), (REVOKED, True, False), (STRANGER, False, False)],
    ids=["approver", "program", "revoked", "stranger"],
)
def test_approvers_stop_and_resume_programs_only_stop(key: Ed25519PrivateKey, stops: bool, resumes: bool) -> None:
    stop = new_stop()
    assert STOPPING.believes(sign(stop, key)) is stops
    assert STOPPING.believes(sign(new_resume(stop), key)) is resumes
    assert not STOPPING.believes(sign(stop, key).model_copy(update={"why": "another reason"}))


def test_only_a_resume_that_names_it_ends_a_stop() -> None:
    store, second = MemoryStore(), sign(new_stop(), KEY)
    first = sign(new_stop().model_copy(update={"time": "2026-01-01T00:00:00.000Z"}), APPROVER)
    put(store, second, first)
    book = StopBook(store, RELEASE)
    assert (book.list_standing(STOPPING), book.resumed) == ([first, second], None)
    ended = sign(new_resume(first), APPROVER)
    put(store, ended)
    assert (book.list_standing(STOPPING), book.resumed) == ([second], ended.time)


def test_what_is_unsigned_or_of_another_release_stops_nothing() -> None:
    store, other = MemoryStore(), sign(new_stop("ba9876543210"), APPROVER)
    put(store, new_stop(), sign(new_stop(), STRANGER))
    for name, data in {"a": b"", "b": b"[]", "c": b"{}", "d": b"\xff", "e": canonical_json(other)}.items():
        store.put(f"stops/{RELEASE}/{name}.json", data, "application/json")
    assert StopBook(store, RELEASE).list_standing(STOPPING) == []


def test_a_stop_that_was_read_is_not_forgotten_when_its_object_is_written_over() -> None:
    store, stop = MemoryStore(), sign(new_stop(), APPROVER)
    put(store, stop)
    book = StopBook(store, RELEASE)
    assert book.list_standing(STOPPING) == [stop]
    store.put(stop_key(stop), b"{}", "application/json")
    assert book.list_standing(STOPPING) == [stop]


def test_the_object_is_the_very_line_of_the_record() -> None:
    store = MemoryStore()
    signed = record_stop(store, KEY, APPROVER, new_stop(), STOPPING)
    (entry,) = read_entries(reader_of(store, KEY), None, RELEASE)
    assert entry == signed
    assert store.get(stop_key(signed)) == canonical_json(entry)


def test_what_fronts_would_not_believe_is_not_put_on_record() -> None:
    store = MemoryStore()
    with pytest.raises(StopError, match="do not believe this key"):
        record_stop(store, KEY, STRANGER, new_stop(), STOPPING)
    assert list(store.list("")) == []
