"""What the store's administrator puts into the archive without a key is believed by no reader, and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.decision import Decision
from pneumoserve.ledger import Chain, Finding, Reader, SealSettings, SegmentKey, Spans, listing, seal
from pneumoserve.records import (
    Entry,
    ExportReport,
    FolderTarget,
    ReadingRequest,
    Record,
    export,
    find_record,
    labels_of,
    open_ledger,
    read_entries,
)
from pneumoserve.release.data import Item, film_key, manifest_of
from pneumoserve.replay import select_predictions
from pneumoserve.rollout.evidence import EvidenceError, set_from_dataset, set_from_labels
from pneumoserve.rollout.tail import Tail
from pneumoserve.signing import Trust, key_id
from pneumoserve.store import MemoryStore, StoredObject
from tests.support.archives import trust_in
from tests.support.entries import RELEASE, label_of, prediction, request_of
from tests.support.films import sample_films

WRITER, SEALER, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
FRONT, LABELLER = "front-00000001", "label-host-00000002"
NOW = datetime.now(UTC)
TODAY = NOW.date().isoformat()


@dataclass
class Archive:
    """An archive in memory, with what its writers and its administrator can do."""

    store: MemoryStore = field(default_factory=MemoryStore)
    reported: list[Finding] = field(default_factory=list)
    chains: dict[str, Chain] = field(default_factory=dict)

    @property
    def reader(self) -> Reader:
        return Reader(self.store, trust_in(WRITER), trust_in(SEALER), self.reported.append)

    def write(self, *entries: Entry, writer: str = FRONT, key: Ed25519PrivateKey = WRITER) -> SegmentKey:
        chain = self.chains.setdefault(writer, Chain(key, writer))
        place, body = chain.next([canonical_json(entry) for entry in entries], TODAY, RELEASE)
        self.store.put(place.key, body, "application/x-ndjson")
        return place

    def seal(self) -> None:
        seal(
            open_ledger(self.store, trust_in(WRITER), trust_in(SEALER)),
            SEALER,
            datetime.now(UTC),
            SealSettings(lock_days=0),
        )

    def expire(self) -> None:
        for item in list(self.store.list("records/")):
            self.store.remove(item.key)

    def forge(self, *entries: Entry, name: str = "zz-00000000-00000001") -> str:
        """Lines that nobody signed, as segments were before they had headers."""
        key = f"records/date={TODAY}/release={RELEASE}/{name}.jsonl"
        self.store.put(key, b"".join(canonical_json(entry) + b"\n" for entry in entries), "application/x-ndjson")
        return key


@pytest.fixture
def archive() -> Archive:
    return Archive()


def turned(record: Record) -> Record:
    """The same prediction, with the opposite finding."""
    assert record.decision is not None
    other = Decision(finding="pneumonia", pneumonia_type="viral", confidence=0.99, referred=False, reasons=())
    return record.model_copy(update={"decision": other, "time": record.time})


def live(archive: Archive) -> list[Record]:
    return [entry for entry in read_entries(archive.reader) if isinstance(entry, Record)]


@pytest.mark.parametrize(("sealed", "expired"), [(False, False), (True, False), (True, True)])
def test_an_unsigned_record_changes_no_answer(archive: Archive, sealed: bool, expired: bool) -> None:
    true = prediction(typed=False)
    archive.write(true)
    if sealed:
        archive.seal()
    if expired:
        archive.expire()
    key = archive.forge(turned(true))
    assert find_record(archive.reader, true.prediction_id) == true
    assert live(archive) == [true]
    assert list(select_predictions(archive.reader, None, None, None, 0)) == [true]
    assert Tail(archive.reader, RELEASE, NOW - timedelta(minutes=1)).read() == [true]
    assert {(finding.key, finding.kind, finding.sealed) for finding in archive.reported} == {(key, "altered", False)}


def test_an_invented_record_is_none(archive: Archive) -> None:
    invented = prediction()
    key = archive.forge(invented)
    assert find_record(archive.reader, invented.prediction_id) is None
    archive.write(invented, writer="stranger-00000003", key=STRANGER)
    assert find_record(archive.reader, invented.prediction_id) is None
    assert {finding.kind for finding in archive.reported} == {"altered", "wrong_signer"}
    assert key in {finding.key for finding in archive.reported}


def test_a_signed_segment_counts_at_its_own_place_alone(archive: Archive) -> None:
    true = prediction()
    place = archive.write(true)
    copy = SegmentKey("front-ffffffff", 7, TODAY, RELEASE).key
    archive.store.put(copy, archive.store.get(place.key), "application/x-ndjson")
    assert live(archive) == [true]
    assert [(finding.key, finding.kind) for finding in archive.reported] == [(copy, "reordered")]


def test_what_a_seal_vouches_for_counts_before_what_a_stolen_key_signed_later(archive: Archive) -> None:
    true = prediction(typed=False)
    place = archive.write(true)
    archive.seal()
    _, body = Chain(WRITER, FRONT).next([canonical_json(turned(true))], TODAY, RELEASE)
    archive.store.put(place.key, body, "application/x-ndjson")
    assert find_record(archive.reader, true.prediction_id) == true
    assert live(archive) == [true]
    assert Tail(archive.reader, RELEASE, NOW - timedelta(minutes=1)).read() == [true]


def test_a_roll_up_that_no_seal_names_counts_after_those_of_seals(archive: Archive, tmp_path: Path) -> None:
    true = prediction(typed=False)
    archive.write(true)
    archive.seal()
    archive.expire()
    _, body = Chain(WRITER, FRONT).next([canonical_json(turned(true))], TODAY, RELEASE)
    archive.store.put(f"rollups/date={TODAY}/00000000-0001-{'0' * 12}.jsonl", body, "application/x-ndjson")
    assert find_record(archive.reader, true.prediction_id) == true
    assert live(archive) == [true]
    assert Tail(archive.reader, RELEASE, NOW - timedelta(minutes=1)).read() == [true]
    assert export(archive.reader, FolderTarget(tmp_path)) == ExportReport(1, 1, 0, [])
    with duckdb.connect(":memory:") as database:
        exported = database.sql(f"select finding from read_parquet('{tmp_path}/predictions/**/*.parquet')")
        assert exported.fetchall() == [("normal",)]


def test_records_of_a_key_that_was_revoked_count_where_they_were_sealed_in_time(archive: Archive) -> None:
    sealed, later = prediction(), prediction()
    archive.write(sealed)
    archive.seal()
    place = archive.write(later)
    keys = trust_in(WRITER).keys
    revoked = Trust(keys, frozenset({key_id(WRITER.public_key())}), frozenset())
    reader = Reader(archive.store, revoked, trust_in(SEALER))
    assert list(read_entries(reader)) == [sealed]
    assert find_record(reader, later.prediction_id) is None
    # Who has the key could add it to the roll-up, but not to the seal.
    (key,) = (item.key for item in archive.store.list("rollups/"))
    added = archive.store.get(place.key)
    archive.store.put(key, archive.store.get(key) + added, "application/x-ndjson")
    assert find_record(Reader(archive.store, revoked, trust_in(SEALER)), later.prediction_id) is None


def test_an_altered_roll_up_is_reported_and_its_whole_segments_count(archive: Archive) -> None:
    first, second = prediction(typed=False), prediction()
    archive.write(first)
    archive.write(second)
    archive.seal()
    archive.expire()
    (key,) = (item.key for item in archive.store.list("rollups/"))
    body = archive.store.get(key)
    archive.store.put(key, body.replace(b'"finding":"normal"', b'"finding":"NORMAL"'), "application/x-ndjson")
    assert live(archive) == [second]
    assert find_record(archive.reader, first.prediction_id) is None
    assert {(finding.key, finding.kind, finding.sealed) for finding in archive.reported} == {(key, "altered", True)}


def test_copies_of_roll_ups_count_once_and_what_a_sealer_left_never(archive: Archive) -> None:
    true = prediction()
    archive.write(true)
    archive.seal()
    (key,) = (item.key for item in archive.store.list("rollups/"))
    for copy in (key.replace("/00000001-", "/00000009-"), key.replace("-0001-", "-0002-")):
        archive.store.put(copy, archive.store.get(key), "application/x-ndjson")
    archive.expire()
    assert live(archive) == [true]
    assert len(Tail(archive.reader, RELEASE, NOW - timedelta(minutes=1)).read()) == 1
    assert archive.reported == []


def test_a_seal_of_a_stranger_vouches_for_nothing(archive: Archive) -> None:
    true = prediction()
    archive.write(true)
    seal(open_ledger(archive.store, trust_in(WRITER), trust_in(STRANGER)), STRANGER, NOW, SealSettings(lock_days=0))
    archive.expire()
    # The segments in its roll-up are signed by the writer all the same.
    assert live(archive) == [true]
    assert [(finding.key, finding.kind) for finding in archive.reported] == [("seals/00000001.json", "wrong_signer")]


def test_labels_stay_after_segments_have_expired_and_unsigned_ones_are_none(archive: Archive) -> None:
    film = prediction()
    archive.write(film)
    archive.seal()
    label = label_of(film)
    archive.write(label, writer=LABELLER)
    archive.seal()
    archive.expire()
    late = label_of(film, "late")
    archive.write(late, writer="label-host-00000005")
    key = archive.forge(label_of(film, "forged"), name="label-host-00000009-00000001")
    archive.store.read.clear()
    assert labels_of(archive.reader, film.prediction_id) == [label, late]
    assert key in {finding.key for finding in archive.reported}
    # The first seal names no writer of labels, so that its roll-up is not even read.
    assert [key for key in archive.store.read if key.startswith("rollups/") and "/00000001-" in key] == []


def test_a_label_of_a_stolen_key_does_not_take_the_place_of_what_was_sealed(archive: Archive) -> None:
    film, other = prediction(), prediction()
    place = archive.write(label_of(other), writer=LABELLER)
    archive.seal()
    _, body = Chain(WRITER, LABELLER).next([canonical_json(label_of(film))], TODAY, RELEASE)
    archive.store.put(place.key, body, "application/x-ndjson")
    assert labels_of(archive.reader, film.prediction_id) == []


def test_unsigned_labels_and_requests_are_no_evidence_and_ask_nobody(archive: Archive) -> None:
    film = prediction()
    archive.write(film)
    archive.forge(label_of(film), name="label-host-00000009-00000001")
    archive.forge(request_of(film), name="reading-host-00000009-00000001")
    with pytest.raises(EvidenceError, match="No prediction has a label"):
        set_from_labels(archive.reader)
    assert [entry for entry in read_entries(archive.reader) if isinstance(entry, ReadingRequest)] == []
    archive.write(label_of(film), writer=LABELLER)
    archive.seal()
    archive.expire()
    assert len(set_from_labels(archive.reader).stored.films) == 1


@pytest.mark.slow
def test_a_dataset_is_evidence_under_the_name_of_its_digest_alone(archive: Archive) -> None:
    film = sample_films()[0].read_bytes()
    item = Item(sha256=digest_of(film), cls="normal", patient="1", split="train", name="film.jpeg")
    manifest = manifest_of([item])
    archive.store.put(film_key("datasets", item.sha256), film, "image/jpeg")
    archive.store.put(f"datasets/{digest_of(manifest)}.json", manifest, "application/json")
    assert len(set_from_dataset(archive.store, f"datasets/{digest_of(manifest)}.json").stored.films) == 1
    turned_over = manifest.replace(b'"normal"', b'"viral"')
    archive.store.put(f"datasets/{digest_of(manifest)}.json", turned_over, "application/json")
    with pytest.raises(EvidenceError, match="not the one that its name says"):
        set_from_dataset(archive.store, f"datasets/{digest_of(manifest)}.json")


def test_an_export_holds_what_has_expired_and_nothing_unsigned(archive: Archive, tmp_path: Path) -> None:
    films = [prediction() for _ in range(3)]
    archive.write(films[0])
    archive.write(films[1])
    archive.seal()
    archive.expire()
    archive.write(films[2])
    key = archive.forge(turned(films[0]))
    target = FolderTarget(tmp_path)
    assert export(archive.reader, target) == ExportReport(2, 3, 0, [key])
    archive.store.remove(key)
    archive.store.read.clear()
    assert export(archive.reader, target) == ExportReport(0, 0, 0, [])
    assert [key for key in archive.store.read if key.startswith("rollups/")] == []
    # What was exported before it was sealed is not exported again.
    archive.seal()
    assert export(archive.reader, target) == ExportReport(0, 0, 0, [])


def test_an_export_holds_labels_that_have_expired(archive: Archive, tmp_path: Path) -> None:
    film = prediction()
    archive.write(film)
    archive.write(label_of(film), writer=LABELLER)
    archive.seal()
    archive.expire()
    assert export(archive.reader, FolderTarget(tmp_path)) == ExportReport(2, 1, 1, [])
    with duckdb.connect(":memory:") as database:
        exported = database.sql(f"select prediction_id, author from read_parquet('{tmp_path}/labels/**/*.parquet')")
        assert exported.fetchall() == [(film.prediction_id, "r.17")]


def test_a_roll_up_that_cannot_be_believed_whole_is_asked_for_by_every_run(archive: Archive, tmp_path: Path) -> None:
    archive.write(prediction())
    archive.seal()
    archive.expire()
    (key,) = (item.key for item in archive.store.list("rollups/"))
    body = archive.store.get(key)
    archive.store.put(key, body.replace(b'"pneumonia"', b'"PNEUMONIA"', 1), "application/x-ndjson")
    assert export(archive.reader, FolderTarget(tmp_path)) == ExportReport(0, 0, 0, [key])
    archive.store.put(key, body, "application/x-ndjson")
    assert export(archive.reader, FolderTarget(tmp_path)) == ExportReport(1, 1, 0, [])


def test_a_record_that_came_days_late_is_found_in_what_was_sealed_then(archive: Archive) -> None:
    true = prediction()
    archive.store.clock = lambda: NOW - timedelta(days=3)
    archive.write(prediction())
    archive.seal()
    archive.write(true)
    archive.seal()
    archive.expire()
    assert find_record(archive.reader, true.prediction_id) == true


def test_findings_are_reported_once(archive: Archive) -> None:
    archive.forge(prediction())
    reader = archive.reader
    assert list(read_entries(reader)) == list(read_entries(reader)) == []
    assert len(archive.reported) == 1
    assert json.dumps(archive.reported[0].sentence).isascii()


def test_spans_merge_whatever_comes_in_whatever_order() -> None:
    spans = Spans()
    for first, stop in ((5, 6), (1, 3), (8, 12), (3, 4), (2, 6), (20, 21), (7, 8)):
        spans.add_range("a", range(first, stop))
    held = {n for n in range(30) if spans.hold(SegmentKey("a", n, TODAY, RELEASE))}
    assert held == {1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 20}
    assert not spans.hold(SegmentKey("b", 1, TODAY, RELEASE))


def test_what_was_read_is_not_even_listed_again(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers: where one has read 20 segments, a page holding 5, all but its last are jumped over."""
    monkeypatch.setattr(listing, "_PAGE", 5)
    for _ in range(20):
        archive.write(prediction())
    archive.write(prediction(), writer="front-00000002")
    listed: list[str] = []
    real = archive.store.list

    def list_(prefix: str, after: str = "") -> Iterator[StoredObject]:
        for item in real(prefix, after):
            listed.append(item.key)
            yield item

    monkeypatch.setattr(archive.store, "list", list_)

    def look(read: dict[str, int]) -> list[SegmentKey]:
        batches = archive.reader.batches(None, lambda _: False, read=read)
        return [place for batch in batches for place, _ in batch.segments]

    everything = look({})
    assert len(everything) == 21
    listed.clear()
    line = everything[0].line
    assert [place.line == line for place in look({line: 20})] == [False]
    assert len(listed) < 5
    assert [place.sequence for place in look({line: 18, everything[-1].line: 1})] == [19, 20]
