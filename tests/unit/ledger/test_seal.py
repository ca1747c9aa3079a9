"""The sealer: what it signs of, what it passes over, and what becomes of what was not whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ids import uuid7
from pneumoserve.ledger import Seal, SealerError, SealSettings
from pneumoserve.ledger import sealer as sealing
from pneumoserve.ledger.seals import split_segments
from pneumoserve.ledger.segment import read_segment
from pneumoserve.records import Record, RolloutEvent, append, find_record, open_ledger, read_entries
from pneumoserve.rollout.events import WRITERS, events_of
from pneumoserve.store import Lock, MemoryStore, StoreError
from tests.support.archives import DATE, RELEASE, Archive, trust_in

A, B = "front-00000001", "front-00000002"


def seal_number(archive: Archive, number: int) -> Seal:
    return Seal.model_validate_json(archive.store.get(f"seals/{number:08d}.json"))


def test_a_seal_names_heads_and_keeps_whole_segments(archive: Archive) -> None:
    first = archive.write(A)
    second = archive.write(A, [b"film 1", b"film 2"])
    other = archive.write(B, last=True)
    report = archive.seal()
    assert (report.number, report.segments, report.records, report.open) == (1, 3, 2, 1)
    assert report.closed == {B: "ended"}
    seal = seal_number(archive, 1)
    assert seal.previous is None
    assert seal.heads[A].sequence == 2
    assert seal.heads[A].hash == digest_of(archive.store.get(second.key))
    assert seal.heads[B].closed == "ended"
    (rollup,) = seal.rollups
    body = archive.store.get(rollup.key)
    assert digest_of(body) == rollup.sha256
    assert list(split_segments(body)) == [archive.store.get(place.key) for place in (first, second, other)]


def test_what_a_rollout_did_is_sealed_and_verified_like_calls(archive: Archive) -> None:
    event = RolloutEvent(
        event_id=uuid7(), rollout_id=uuid7(), number=1, time=f"{DATE}T12:00:00.000Z", release=RELEASE,
        stable="ba9876543210", what="started", percent=0,
    )  # fmt: skip
    (receipt,) = append(archive.store, archive.writer_key, [event], WRITERS)
    assert archive.seal().closed == {receipt.writer: "ended"}
    assert not archive.verify().findings
    assert events_of(archive.reader, archive.now - timedelta(days=1), event.rollout_id) == [event]
    (key,) = archive.keys("records/")
    archive.replace(key, archive.store.get(key).replace(b'"percent":0', b'"percent":9'))
    assert [(kind, where) for kind, where, _ in archive.found()] == [("altered", key)]


def test_seals_are_a_chain_and_name_what_is_new(archive: Archive) -> None:
    archive.write(A)
    archive.write(B, last=True)
    assert archive.seal().number == 1
    assert archive.seal().number is None
    archive.write(A, [b"film"], last=True)
    report = archive.seal()
    assert (report.number, report.segments) == (2, 1)
    seal = seal_number(archive, 2)
    assert seal.previous == digest_of(archive.store.get("seals/00000001.json"))
    # B was closed by the seal before, and is not repeated.
    assert {writer: head.closed for writer, head in seal.heads.items()} == {A: "ended"}
    assert report.hash == digest_of(archive.store.get("seals/00000002.json"))


def test_the_newest_seal_of_a_trusted_sealer_says_how_fresh_seals_are(archive: Archive) -> None:
    reader = archive.reader
    assert reader.find_last_sealing() is None
    for hours in (0, 1):
        archive.write(A)
        archive.seal(later=timedelta(hours=hours))
        assert reader.find_last_sealing() == seal_number(archive, 1 + hours).time
    forged = archive.store.get("seals/00000002.json").replace(b'"number":2', b'"number":3')
    archive.store.put("seals/00000003.json", forged, "application/json")
    assert reader.find_last_sealing() == archive.reader.find_last_sealing() == seal_number(archive, 2).time


def test_a_bad_segment_stops_its_writer_alone(archive: Archive) -> None:
    archive.write(A)
    bad = archive.write(A, [b"film"])
    archive.write(A)
    archive.write(B)
    good = archive.flip(bad.key, 200, 0)
    report = archive.seal()
    assert list(report.problems) == [bad.key]
    assert {writer: head.sequence for writer, head in seal_number(archive, 1).heads.items()} == {A: 1, B: 1}
    archive.replace(bad.key, good)
    assert archive.seal().segments == 2
    assert seal_number(archive, 2).heads[A].sequence == 3


@pytest.mark.parametrize("tampering", ["gap", "relinked", "continued", "moved", "twice", "stranger"])
def test_what_does_not_follow_is_not_sealed(archive: Archive, tampering: str) -> None:
    archive.write(A)
    if tampering == "gap":
        archive.next(A)
        place = archive.write(A)
        said = "segment 2 of its writer is not there"
    elif tampering == "relinked":
        copy = Archive(archive.store, writer_key=archive.writer_key)
        copy.next(A, [canonical_json({"another": "beginning"})])
        place = copy.write(A)
        said = "does not follow"
    elif tampering == "continued":
        archive.write(A, last=True)
        place = archive.write(A)
        said = "had ended"
    elif tampering == "moved":
        place = archive.write(A)
        body = archive.store.get(place.key)
        archive.remove(place.key)
        moved = place.key.replace("release=0", "release=1")
        archive.store.put(moved, body, "text/plain")
        assert "belongs to" in archive.seal().problems[moved]
        return
    elif tampering == "twice":
        place = archive.write(A)
        chain = Archive(archive.store, writer_key=archive.writer_key)
        chain.next(A)
        other, body = chain.chains[A].next([], place.date, "f" * 12)
        archive.store.put(other.key, body, "text/plain")
        place = other
        said = "another segment of this number"
    else:
        stranger = Archive(archive.store)
        place = stranger.write(B)
        said = "not trusted"
    assert said in archive.seal().problems[place.key]


def test_writers_that_say_nothing_are_closed_and_may_come_back(archive: Archive) -> None:
    archive.write(A)
    assert archive.seal(later=timedelta(days=6)).closed == {}
    report = archive.seal(later=timedelta(days=8))
    assert report.closed == {A: "abandoned"}
    assert (report.segments, report.open) == (0, 0)
    # A journal that was adopted late.
    archive.write(A, [b"film"])
    late = archive.seal()
    assert (late.segments, late.problems) == (1, {})
    assert seal_number(archive, 3).heads[A].closed is None
    assert archive.found() == []


def test_roll_ups_are_written_in_parts(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_PART_BYTES", 2000)
    for _ in range(3):
        archive.write(A, [b"film"])
    report = archive.seal()
    assert [key.split("/")[2][:13] for key in report.rollups] == ["00000001-0001", "00000001-0002", "00000001-0003"]
    assert archive.found() == []


def kill(operation: str, key: str) -> None:
    if operation == "create":
        raise KeyboardInterrupt


def time_out(operation: str, key: str) -> None:
    if operation == "create":
        raise StoreError("timed out")


def test_a_sealer_killed_before_its_seal_leaves_nothing_half(archive: Archive, store: MemoryStore) -> None:
    archive.write(A, [b"film"])
    alive, store.before = store.before, kill
    with pytest.raises(KeyboardInterrupt):
        archive.seal()
    store.before = alive
    assert len(archive.keys("rollups/")) == 1
    assert archive.found() == []
    archive.write(A)
    assert archive.seal().segments == 2
    verdict = archive.verify()
    assert verdict.findings == ()
    assert verdict.summary.unsealed_rollups == 1


def test_two_sealers_at_once_write_one_seal(archive: Archive, store: MemoryStore) -> None:
    archive.write(A, [b"film"])
    barrier = threading.Barrier(2)
    created: list[str] = []

    def meet(operation: str, key: str) -> None:
        # Neither goes on before the other is as far: both have seal 1 in hand.
        if operation == "create":
            created.append(key)
            barrier.wait(30)

    store.before = meet
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda second: archive.seal(later=timedelta(seconds=second)), range(2)))
    assert created == ["seals/00000001.json"] * 2
    # The other one found nothing new after it.
    assert sorted(report.number or 0 for report in reports) == [0, 1]
    assert len(list(archive.store.versions("seals/"))) == 1
    assert archive.found() == []


def test_a_seal_whose_outcome_is_unclear_is_looked_at(archive: Archive, store: MemoryStore) -> None:
    archive.write(A)
    store.after = time_out
    assert archive.seal().number == 1
    archive.write(A)
    store.before = time_out
    with pytest.raises(StoreError, match="timed out"):
        archive.seal()
    assert len(archive.keys("seals/")) == 1


def test_seals_roll_ups_and_films_are_locked(archive: Archive) -> None:
    archive.write(A, [b"film"])
    (film,) = archive.keys("images/")
    report = archive.seal(SealSettings(lock_days=2))
    assert (report.lock_days, report.bucket_has_lock) == (2, True)
    for key in (film, report.rollups[0], "seals/00000001.json"):
        with pytest.raises(Exception, match="AccessDenied"):
            archive.remove(key)
    archive.store.extend_lock(film, Lock(archive.now + timedelta(days=1), "GOVERNANCE"))
    assert (archive.store.lock_end(film) or archive.now) > archive.now + timedelta(days=1.9)
    assert archive.found() == []


def test_a_missing_film_is_reported_when_it_is_locked(archive: Archive) -> None:
    archive.write(A, [b"film"])
    (film,) = archive.keys("images/")
    archive.remove(film)
    report = archive.seal(SealSettings(lock_days=1))
    assert list(report.problems) == [film]
    assert report.number == 1


def test_a_bucket_without_locks_is_reported() -> None:
    archive = Archive(MemoryStore(object_lock=False))
    archive.write(A, [b"film"])
    with pytest.raises(SealerError, match="no object lock"):
        archive.seal(SealSettings(lock_days=1))
    report = archive.seal(SealSettings())
    assert (report.lock_days, report.bucket_has_lock) == (0, False)
    assert archive.found() == []


def test_nothing_is_sealed_after_a_damaged_chain(archive: Archive) -> None:
    archive.write(A)
    archive.seal()
    archive.write(A)
    archive.flip("seals/00000001.json", 40, 1)
    with pytest.raises(SealerError, match=r"seals/00000001\.json"):
        archive.seal()


def test_a_sealer_whose_seals_nobody_trusts_does_not_seal(archive: Archive) -> None:
    writers, sealers = trust_in(archive.writer_key), trust_in(archive.sealer_key)
    with pytest.raises(SealerError, match="not among the trusted sealers"):
        sealing.seal(
            open_ledger(archive.store, writers, sealers), Ed25519PrivateKey.generate(), archive.now, SealSettings()
        )


def test_records_are_read_from_roll_ups_when_their_segments_have_expired(archive: Archive) -> None:
    gone = archive.write(A, [b"film 1"])
    archive.seal()
    lines = read_segment(archive.store.get(gone.key)).lines
    kept = archive.write(A, [b"film 2"])
    archive.remove(gone.key)
    first = Record.model_validate_json(lines[0])
    second = Record.model_validate_json(read_segment(archive.store.get(kept.key)).lines[0])
    assert list(read_entries(archive.reader)) == [first, second]
    assert list(read_entries(archive.reader, release="f" * 12)) == []
    assert list(read_entries(archive.reader, datetime.fromisoformat(first.time))) == [first, second]
    assert find_record(archive.reader, first.prediction_id) == first
    assert find_record(archive.reader, second.prediction_id) == second
    assert find_record(archive.reader, uuid7()) is None
