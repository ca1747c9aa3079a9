"""Browsing the archive: page by page, whether a segment is an object of its own or lies in a roll-up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ids import time_text
from pneumoserve.ledger import Header, SealSettings, SegmentKey, key_id_of, seal
from pneumoserve.ledger.segment import sign_segment
from pneumoserve.records import Entry, Record, Selection, append, browse, open_ledger
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of, trust_in
from tests.support.entries import KEY, RELEASE, id_made, label_of, prediction, refusal

SEALER = Ed25519PrivateKey.generate()
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
OTHER = "ba9876543210"


class Archive:
    """Writers and a sealer at moments of the test's own; the store's clock goes with them."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = MemoryStore(clock=lambda: self.now)
        self.sequences: dict[str, int] = {}
        self.previous: dict[str, str] = {}

    def write(self, entries: list[Entry], writer: str = "front-00000001", release: str = RELEASE) -> SegmentKey:
        """A segment of a day, made at that moment, as a writer makes it."""
        self.now = datetime.fromisoformat(entries[-1].time)
        self.sequences[writer] = self.sequences.get(writer, 0) + 1
        header = Header(
            writer=writer, sequence=self.sequences[writer], date=entries[0].time[:10], release=release,
            opened=time_text(self.now), count=len(entries), previous=self.previous.get(writer), last=False,
            software="0.2.0", key_id=key_id_of(KEY),
        )  # fmt: skip
        body = sign_segment(header, [canonical_json(entry) for entry in entries], KEY)
        self.previous[writer] = digest_of(body)
        self.store.put(header.segment_key.key, body, "application/x-ndjson")
        return header.segment_key

    def seal(self, later: timedelta = timedelta(minutes=7)) -> None:
        self.now += later
        ledger = open_ledger(self.store, trust_in(KEY), trust_in(SEALER))
        assert not seal(ledger, SEALER, self.now, SealSettings()).problems

    def browse(self, limit: int = 100, after: Record | None = None, **selection: Any) -> list[Record]:
        return browse(reader_of(self.store, KEY, sealers=[SEALER]), Selection(**selection), limit, after)


@pytest.fixture
def archive() -> Archive:
    return Archive()


def made(hours_ago: float, make: Callable[..., Record] = prediction, **given: Any) -> Record:
    return make(id_made(NOW - timedelta(hours=hours_ago)), **given)


@pytest.mark.parametrize("sealed_until", [0, 2, 5])
@pytest.mark.parametrize("expired", [False, True])
def test_pages_hold_every_record_once_the_newest_first(archive: Archive, sealed_until: int, expired: bool) -> None:
    records = [made(hours) for hours in (100, 99, 50, 49.5, 3, 2, 1, 0.5)]
    for number, record in enumerate(records):
        archive.write([record])
        if number <= sealed_until:
            archive.seal()
    if expired:
        for item in list(archive.store.list("records/"))[: sealed_until + 1]:
            archive.store.remove(item.key)
    newest_first = records[::-1]
    assert archive.browse() == newest_first
    first = archive.browse(limit=3)
    second = archive.browse(limit=3, after=first[-1])
    third = archive.browse(limit=3, after=second[-1])
    assert [*first, *second, *third] == newest_first
    assert archive.browse(after=third[-1]) == []


def test_records_of_one_moment_are_on_one_page_each(archive: Archive) -> None:
    films = [prediction(id_made(NOW)) for _ in range(5)]
    archive.write(films)  # type: ignore[arg-type]
    pages: list[Record] = []
    while page := archive.browse(limit=2, after=pages[-1] if pages else None):
        pages += page
    assert pages == sorted(films, key=lambda film: film.prediction_id, reverse=True)


def test_the_first_page_reads_no_other_day(archive: Archive) -> None:
    for hours in range(240, 0, -12):
        archive.write([made(hours)])
        archive.seal()
    last = archive.write([made(0)])
    archive.store.read.clear()
    assert len(archive.browse(limit=1)) == 1
    days = {key.split("date=")[1][:10] for key in archive.store.read if "date=" in key}
    assert last.key in archive.store.read
    assert days <= {"2026-06-29", "2026-06-30"}


def test_an_old_day_needs_few_roll_ups(archive: Archive) -> None:
    """Each seal says between which moments its writers wrote."""
    for hours in range(240, 0, -12):
        film = made(hours)
        archive.write([film])
        # Whoever labels is a writer that no earlier seal knows.
        archive.write([label_of(film).model_copy(update={"time": film.time})], f"label-{hours:08d}")
        archive.seal()
    archive.store.read.clear()
    day = date(2026, 6, 22)
    assert [record.time[:10] for record in archive.browse(since=day, until=day)] == ["2026-06-22"] * 2
    read = [key for key in archive.store.read if key.startswith("rollups/")]
    assert 2 <= len(read) <= 8


def test_all_of_it_is_read_once_for_each_of_its_days(archive: Archive) -> None:
    """Writers that began since the last seal leave open of which days their segments are, until they are read."""
    for hours in range(240, 0, -12):
        for _ in range(2):
            archive.write([made(hours)], f"front-{hours:08d}")
        archive.seal()
    archive.store.read.clear()
    assert len(archive.browse()) == 40
    read = [key for key in archive.store.read if key.startswith("rollups/")]
    assert len(set(read)) == 20
    assert len(read) <= 40


def test_what_was_sealed_late_is_listed_too(archive: Archive) -> None:
    late = made(24 * 20)
    place = archive.write([late], "journal-00000002")
    archive.now = NOW
    for _ in range(3):
        archive.write([prediction(id_made(archive.now))])
        archive.seal()
    archive.store.remove(place.key)
    assert archive.browse(until=date(2026, 6, 12)) == [late]


def test_what_a_seal_vouches_for_counts(archive: Archive) -> None:
    first = made(2)
    place = archive.write([first])
    archive.seal()
    archive.sequences.clear()
    archive.previous.clear()
    assert archive.write([made(2)]) == place
    assert archive.browse() == [first]


@pytest.mark.parametrize("sealed", [False, True])
def test_selections(archive: Archive, sealed: bool) -> None:
    typed, normal, refused, other = made(30), made(4, typed=False), made(3, refusal), made(2, release=OTHER)
    shadow = made(1).model_copy(update={"arm": "shadow"})
    nothing = made(0.5)
    assert nothing.decision is not None
    decided = {"finding": None, "pneumonia_type": None, "reasons": ("uncertain_finding",), "referred": True}
    nothing = nothing.model_copy(update={"decision": nothing.decision.model_copy(update=decided)})
    for record in (typed, normal, refused, other, shadow, nothing):
        archive.write([record], release=record.release)
    if sealed:
        archive.seal()
    append(archive.store, KEY, [label_of(typed)], "label")
    predictions = [nothing, shadow, other, normal, typed]
    for given, expected in [
        ({}, predictions),
        ({"kind": "refusal"}, [refused]),
        ({"kind": "failure"}, []),
        ({"release": OTHER}, [other]),
        ({"finding": "normal"}, [normal]),
        ({"finding": "none"}, [nothing]),
        ({"finding": "pneumonia"}, [shadow, other, typed]),
        ({"referred": False}, [normal]),
        ({"referred": True, "reason": "uncertain_finding"}, [nothing]),
        ({"reason": "lateral_view", "until": date(2026, 6, 29)}, [typed]),
        ({"since": date(2026, 6, 30)}, predictions[:-1]),
        ({"since": date(2026, 7, 1)}, []),
    ]:
        assert archive.browse(**given) == expected, given


def test_what_nobody_trusted_signed_is_not_listed(archive: Archive) -> None:
    archive.write([made(1)])
    reader = reader_of(archive.store, Ed25519PrivateKey.generate())
    assert browse(reader, Selection(), 10) == []
    assert len(reader.findings) == 1


def test_folders_that_are_no_days_are_passed_over(archive: Archive) -> None:
    record = made(1)
    archive.write([record])
    for key in ("records/date=x/release=y/z", "rollups/date=2026-13-01/z", "records/date=9999-12-31/a/b"):
        archive.store.put(key, b"", "text/plain")
    assert archive.browse() == [record]


def test_a_record_of_a_version_to_come_is_left_out(archive: Archive) -> None:
    record = made(1)
    archive.write([made(2).model_copy(update={"schema_": "pneumoserve.record/99"}), record])
    assert archive.browse() == [record]
