"""Finding a record by its id: quickly where it was written at once, at all where it was not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pneumoserve.ids import uuid7
from pneumoserve.ledger import Reader
from pneumoserve.ledger.search import order_by_time
from pneumoserve.records import append, find_record, find_records, labels_of
from pneumoserve.store import MemoryStore, StoredObject
from tests.support.archives import reader_of
from tests.support.entries import KEY, RELEASE, Chain, id_made, label_of, prediction, refusal

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def reader(store: MemoryStore) -> Reader:
    return reader_of(store, KEY)


def test_the_nearest_in_time_come_first() -> None:
    def written(writer: str, hours: float) -> StoredObject:
        key = f"records/date=2026-05-01/release={RELEASE}/{writer}-00000000-00000001.jsonl"
        return StoredObject(key, 100, NOON + timedelta(hours=hours))

    segments = [written("hours-later", 7), written("soon", 0.01), written("before", -2), written("at-once", 0)]
    segments.append(StoredObject("records/notes.txt", 1, NOON))
    order = [place.writer[:-9] for place in order_by_time(segments, NOON)]
    assert order == ["at-once", "soon", "before", "hours-later"]
    near = order_by_time(segments, NOON, timedelta(minutes=5))
    assert [place.writer[:-9] for place in near] == ["at-once", "soon"]


def test_a_record_that_came_hours_late_is_found(store: MemoryStore) -> None:
    now = datetime.now(UTC)
    for hours in (6, 20):
        late = prediction(id_made(now - timedelta(hours=hours)))
        Chain(store, f"late-{hours:08d}").write([late])
        assert find_record(reader(store), late.prediction_id) == late


def test_a_record_of_a_clock_that_jumped_back_is_found(store: MemoryStore) -> None:
    # The id was made before midnight; the segment stands below the day that the clock then said.
    film = prediction(id_made(datetime.now(UTC) - timedelta(hours=30)))
    day = (datetime.fromisoformat(film.time) - timedelta(days=1)).date().isoformat()
    Chain(store, "jumped-00000001").write([film], date=day)
    assert find_record(reader(store), film.prediction_id) == film


def test_a_record_that_was_written_at_once_needs_few_reads(store: MemoryStore) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    old = Chain(store, "old-00000001")
    for _ in range(5):
        old.write([prediction(id_made(yesterday))])
    film = prediction()
    Chain(store, "quick-00000001").write([prediction(), film])
    store.read.clear()
    assert find_record(reader(store), film.prediction_id) == film
    assert not [key for key in store.read if "/old-" in key]


def test_many_records_are_found_together(store: MemoryStore) -> None:
    now = datetime.now(UTC)
    chain = Chain(store, "many-00000001")
    films = [prediction(id_made(now - timedelta(hours=hours))) for hours in (0, 0, 5, 9)]
    for film in films:
        chain.write([film])
    assert len(find_records(reader(store), [film.prediction_id for film in films])) == 4
    unknown = uuid7()
    found = find_records(reader(store), [*(film.prediction_id for film in films), unknown])
    assert found == {film.prediction_id: film for film in films}


def test_a_label_is_no_record(store: MemoryStore) -> None:
    film = prediction()
    append(store, KEY, [label_of(film)], "label")
    assert find_record(reader(store), film.prediction_id) is None
    Chain(store, "front-00000009").write([film])
    assert find_record(reader(store), film.prediction_id) == film


def test_labels_of_a_prediction_in_their_order(store: MemoryStore) -> None:
    film, other = prediction(), prediction()
    Chain(store, "front-00000010").write([film, other, refusal()])
    labels = [label_of(film, author) for author in ("first", "second")]
    append(store, KEY, [labels[1], label_of(other)], "label")
    append(store, KEY, [labels[0]], "label")
    store.read.clear()
    assert labels_of(reader(store), film.prediction_id) == sorted(labels, key=lambda label: label.label_id)
    assert all("/label-" in key for key in store.read)
    assert labels_of(reader(store), uuid7()) == []


def test_a_segment_cut_in_half_hides_no_other(store: MemoryStore) -> None:
    cut, whole = prediction(), prediction()
    chain = Chain(store, "cut-00000001")
    place = chain.write([cut])
    chain.write([whole])
    body = store.get(place.key)
    store.put(place.key, body[: body.index(b'"time":"')], "application/x-ndjson")
    assert find_record(reader(store), cut.prediction_id) is None
    assert find_record(reader(store), whole.prediction_id) == whole
