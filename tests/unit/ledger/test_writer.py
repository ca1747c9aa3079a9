"""The writer: what it commits is in the store, in a chain that begins and ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ids import time_of, uuid7
from pneumoserve.ledger import list_segments, verify_segment
from pneumoserve.records import ArchiveWriter, Record, find_record, image_key, parse_entry
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of, trust_in
from tests.support.entries import KEY, refusal


@pytest.fixture
async def writer(store: MemoryStore) -> AsyncIterator[ArchiveWriter]:
    writing = ArchiveWriter(store, KEY, "0" * 12)
    await writing.start()
    yield writing
    await writing.close()


async def test_a_committed_record_is_in_the_store(writer: ArchiveWriter, store: MemoryStore) -> None:
    written = refusal()
    receipt = await writer.commit(written)
    found = find_record(reader_of(store, KEY), written.prediction_id)
    assert found == written
    assert receipt.hash == digest_of(canonical_json(written))
    key = f"records/date={written.time[:10]}/release={written.release}/{receipt.writer}-{receipt.sequence:08d}.jsonl"
    segment = verify_segment(store.get(key), trust_in(KEY))
    assert segment.lines == (canonical_json(written),)
    assert (segment.header.sequence, segment.header.last) == (2, False)


async def test_a_chain_says_that_it_begins_and_that_it_ends(store: MemoryStore) -> None:
    writing = ArchiveWriter(store, KEY, "cccccccccccc")
    await writing.start()
    receipt = await writing.commit(refusal(release="cccccccccccc"))
    await writing.close()
    found = [place for place in list_segments(store) if place.writer == receipt.writer]
    segments = [verify_segment(store.get(place.key), trust_in(KEY)) for place in found]
    assert [segment.header.segment_key for segment in segments] == found
    assert [(each.header.sequence, each.header.count, each.header.last) for each in segments] == [
        (1, 0, False),
        (2, 1, False),
        (3, 0, True),
    ]
    assert [segment.header.previous for segment in segments] == [None, segments[0].hash, segments[1].hash]


async def test_an_idle_writer_says_that_it_lives(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.ledger.writer._IDLE_SECONDS", 0.2)
    writing = ArchiveWriter(store, KEY, "dddddddddddd")
    await writing.start()
    async with asyncio.timeout(30):
        while len(list_segments(store, release="dddddddddddd")) < 3:
            await asyncio.sleep(0.1)
    await writing.close()


async def test_a_writer_takes_no_name_that_is_in_use(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["twin-00000000", "twin-00000000", "twin-11111111"])
    monkeypatch.setattr("pneumoserve.ledger.writer.writer_name", lambda _: next(names))
    writers = []
    for _ in range(2):
        writing = ArchiveWriter(store, KEY, "eeeeeeeeeeee")
        await writing.start()
        writers.append((await writing.commit(refusal(release="eeeeeeeeeeee"))).writer)
        await writing.close()
    assert writers == ["twin-00000000", "twin-11111111"]


async def test_records_committed_together_share_segments(writer: ArchiveWriter, store: MemoryStore) -> None:
    many = [refusal() for number in range(100)]
    receipts = await asyncio.gather(*(writer.commit(each) for each in many))
    assert len({receipt.sequence for receipt in receipts}) == 1
    for each in (many[0], many[50], many[99]):
        assert find_record(reader_of(store, KEY), each.prediction_id) == each


async def test_what_waits_to_be_written_is_counted(writer: ArchiveWriter, store: MemoryStore) -> None:
    go_on = threading.Event()
    store.before = lambda verb, _: go_on.wait(10) if verb == "put" else None
    commits = [asyncio.create_task(writer.commit(refusal())) for _ in range(3)]
    async with asyncio.timeout(10):
        while not shown("oldest_seconds"):
            await asyncio.sleep(0.01)
    assert shown("records") == 3
    go_on.set()
    await asyncio.gather(*commits)
    assert (shown("records"), shown("oldest_seconds")) == (0, 0)


def shown(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"pneumoserve_archive_waiting_{name}")


async def test_releases_do_not_share_segments(writer: ArchiveWriter) -> None:
    first, *others = await asyncio.gather(
        *(writer.commit(refusal(release=release)) for release in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "aaaaaaaaaaaa"))
    )
    assert first.sequence not in {others[0].sequence}


async def test_an_image_is_stored_once(writer: ArchiveWriter, store: MemoryStore) -> None:
    digest = digest_of(b"film")
    for _ in range(2):
        await writer.put_image(digest, b"film", "image/jpeg")
    assert store.get(image_key(digest)) == b"film"
    assert len(list(store.versions(image_key(digest)))) == 1


def test_an_unknown_prediction_has_no_record(store: MemoryStore) -> None:
    assert find_record(reader_of(store, KEY), uuid7()) is None
    with pytest.raises(ValueError, match="UUIDv7"):
        find_record(reader_of(store, KEY), "5f64ad3c-37fb-4b0f-9c40-f4a1e1d8a6f0")


def test_an_id_carries_its_time() -> None:
    assert abs((time_of(uuid7()) - datetime.now(UTC)).total_seconds()) < 1
    assert len({uuid7() for _ in range(1000)}) == 1000


async def test_a_clock_that_jumps_back_breaks_no_chain_and_hides_no_record(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = ArchiveWriter(store, KEY, "ffffffffffff")
    await writing.start()
    first = refusal(release="ffffffffffff")
    receipt = await writing.commit(first)
    now = time.time_ns
    monkeypatch.setattr("pneumoserve.ids.time.time_ns", lambda: now() - 7200 * 10**9)
    early = (datetime.now(UTC) - timedelta(hours=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    monkeypatch.setattr("pneumoserve.ledger.chain.now_text", lambda: early)
    second = refusal(release="ffffffffffff").model_copy(update={"time": early})
    await writing.commit(second)
    await writing.close()
    assert second.prediction_id < first.prediction_id
    assert find_record(reader_of(store, KEY), first.prediction_id) == first
    assert find_record(reader_of(store, KEY), second.prediction_id) == second
    found = sorted(
        (place for place in list_segments(store) if place.writer == receipt.writer), key=lambda place: place.sequence
    )
    segments = [verify_segment(store.get(place.key), trust_in(KEY)) for place in found]
    assert [segment.header.sequence for segment in segments] == [1, 2, 3, 4]
    assert [segment.header.previous for segment in segments[1:]] == [segment.hash for segment in segments[:-1]]


def test_records_of_the_first_version_stay_readable() -> None:
    line = (Path(__file__).parents[2] / "data" / "archive" / "record-1.json").read_bytes()
    entry = parse_entry(line)
    assert isinstance(entry, Record)
    assert entry.schema_ == "pneumoserve.record/1"
    assert (entry.call.study, entry.call.patient) == (None, None)
