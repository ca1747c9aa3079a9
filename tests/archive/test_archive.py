"""The archive against a real S3 server, and against one that stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.films import image_key
from pneumoserve.archive.find import find_record
from pneumoserve.archive.read import parse_entry, places
from pneumoserve.archive.record import CallDetail, ErrorDetail, Record, RefusedInput
from pneumoserve.archive.segment import verified_segment
from pneumoserve.archive.store import NotFoundError, ObjectStore, S3Settings, StoreError
from pneumoserve.archive.writer import ArchiveWriter
from pneumoserve.ids import time_of, uuid7
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.release.schema import canonical_json, digest_of
from pneumoserve.release.signing import Trust, key_id

KEY = Ed25519PrivateKey.generate()


def record(number: int = 0, release: str = "0123456789ab") -> Record:
    prediction_id = uuid7()
    return Record(
        kind="refusal",
        prediction_id=prediction_id,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        release=release,
        release_digest="0" * 64,
        preprocessing_version="1",
        call=CallDetail(
            call_id=prediction_id, index=number, count=1, model="pneumonia", protocol="v1", encoding="json"
        ),
        refused=RefusedInput(input_sha256=None, input_bytes=None),
        error=ErrorDetail(status=400, message="no."),
    )


def trust() -> Trust:
    public = KEY.public_key()
    return Trust({key_id(public): public}, frozenset(), frozenset())


@pytest.fixture
def store(s3_server: S3Settings) -> ObjectStore:
    return ObjectStore(s3_server)


@pytest.fixture
async def writer(s3_server: S3Settings) -> AsyncIterator[ArchiveWriter]:
    writing = ArchiveWriter(ObjectStore(s3_server), KEY, "0" * 12)
    await writing.start()
    yield writing
    await writing.close()


async def test_a_committed_record_is_in_the_store(writer: ArchiveWriter, store: ObjectStore) -> None:
    written = record()
    receipt = await writer.commit(written)
    found = find_record(store, written.prediction_id)
    assert found == written
    assert receipt.hash == digest_of(canonical_json(written))
    key = f"records/date={written.time[:10]}/release={written.release}/{receipt.writer}-{receipt.sequence:08d}.jsonl"
    segment = verified_segment(store.get(key), trust())
    assert segment.lines == (canonical_json(written),)
    assert (segment.header.sequence, segment.header.last) == (2, False)


async def test_a_chain_says_that_it_begins_and_that_it_ends(s3_server: S3Settings, store: ObjectStore) -> None:
    writing = ArchiveWriter(ObjectStore(s3_server), KEY, "cccccccccccc")
    await writing.start()
    receipt = await writing.commit(record(release="cccccccccccc"))
    await writing.close()
    found = [place for place in places(store) if place.writer == receipt.writer]
    segments = [verified_segment(store.get(place.key), trust()) for place in found]
    assert [segment.header.place for segment in segments] == found
    assert [(each.header.sequence, each.header.count, each.header.last) for each in segments] == [
        (1, 0, False),
        (2, 1, False),
        (3, 0, True),
    ]
    assert [segment.header.previous for segment in segments] == [None, segments[0].hash, segments[1].hash]


async def test_an_idle_writer_says_that_it_lives(s3_server: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.archive.writer._IDLE_SECONDS", 0.2)
    store = ObjectStore(s3_server)
    writing = ArchiveWriter(ObjectStore(s3_server), KEY, "dddddddddddd")
    await writing.start()
    async with asyncio.timeout(30):
        while len(places(store, release="dddddddddddd")) < 3:
            await asyncio.sleep(0.1)
    await writing.close()


async def test_a_writer_takes_no_name_that_is_in_use(s3_server: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["twin-00000000", "twin-00000000", "twin-11111111"])
    monkeypatch.setattr("pneumoserve.archive.writer.writer_name", lambda: next(names))
    writers = []
    for _ in range(2):
        writing = ArchiveWriter(ObjectStore(s3_server), KEY, "eeeeeeeeeeee")
        await writing.start()
        writers.append((await writing.commit(record(release="eeeeeeeeeeee"))).writer)
        await writing.close()
    assert writers == ["twin-00000000", "twin-11111111"]


async def test_records_committed_together_share_segments(writer: ArchiveWriter, store: ObjectStore) -> None:
    many = [record(number) for number in range(100)]
    receipts = await asyncio.gather(*(writer.commit(each) for each in many))
    assert len({receipt.sequence for receipt in receipts}) == 1
    for each in (many[0], many[50], many[99]):
        assert find_record(store, each.prediction_id) == each


async def test_releases_do_not_share_segments(writer: ArchiveWriter) -> None:
    first, *others = await asyncio.gather(
        *(writer.commit(record(release=release)) for release in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "aaaaaaaaaaaa"))
    )
    assert first.sequence not in {others[0].sequence}


async def test_an_image_is_stored_once(writer: ArchiveWriter, store: ObjectStore) -> None:
    digest = digest_of(b"film")
    for _ in range(2):
        await writer.put_image(digest, b"film", "image/jpeg")
    assert store.get(image_key(digest)) == b"film"
    assert [found.key for found in store.list(image_key(digest))] == [image_key(digest)]


def test_an_unknown_prediction_has_no_record(store: ObjectStore) -> None:
    assert find_record(store, uuid7()) is None
    with pytest.raises(ValueError, match="UUIDv7"):
        find_record(store, "5f64ad3c-37fb-4b0f-9c40-f4a1e1d8a6f0")


def test_an_id_carries_its_time() -> None:
    assert abs((time_of(uuid7()) - datetime.now(UTC)).total_seconds()) < 1
    assert len({uuid7() for _ in range(1000)}) == 1000


@pytest.fixture
def own_server(tmp_path: Path) -> Any:
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "a-secret-word", "tests")
    child = s3_child(tmp_path / "data", settings, tmp_path / "log")
    start_s3(child, settings)
    yield child, settings
    child.stop()


async def test_a_slow_store_is_asked_again_and_keeps_one_copy(own_server: tuple[Child, S3Settings]) -> None:
    child, settings = own_server
    assert child.process is not None
    server = psutil.Process(child.process.pid)
    writing = ArchiveWriter(ObjectStore(settings), KEY, "0" * 12)
    await writing.start()
    await writing.commit(record())
    server.suspend()
    written = record()
    waiting = asyncio.create_task(writing.commit(written))
    # Longer than one try may take: the first PUT's outcome is unclear, and the same bytes go to the same key.
    await asyncio.sleep(2.5)
    assert not waiting.done()
    server.resume()
    receipt = await waiting
    store = ObjectStore(settings)
    assert find_record(store, written.prediction_id) == written
    assert receipt.sequence == 3
    assert [place.sequence for place in places(store)] == [1, 2, 3]
    await writing.close()


async def test_a_dead_store_refuses_and_is_taken_up_again(own_server: tuple[Child, S3Settings]) -> None:
    child, settings = own_server
    writing = ArchiveWriter(ObjectStore(settings), KEY, "0" * 12)
    await writing.start()
    await writing.commit(record())
    child.stop()
    with pytest.raises(StoreError) as caught:
        await writing.commit(record())
    assert "a-secret-word" not in str(caught.value)
    assert not writing.healthy
    start_s3(child, settings)
    written = record()
    await writing.commit(written)
    assert writing.healthy
    assert find_record(ObjectStore(settings), written.prediction_id) == written
    await writing.close()


def test_errors_of_the_store_name_no_secret(s3_server: S3Settings) -> None:
    with pytest.raises(NotFoundError):
        ObjectStore(s3_server).get("nothing")
    wrong = S3Settings(s3_server.endpoint, "test-access", "not-the-secret", "tests")
    with pytest.raises(StoreError, match="check keys") as caught:
        ObjectStore(wrong).get("nothing")
    assert "not-the-secret" not in str(caught.value) + repr(wrong)


def test_settings_say_what_is_missing() -> None:
    with pytest.raises(StoreError, match="S3_ENDPOINT, S3_SECRET_KEY"):
        S3Settings.from_env({"S3_ACCESS_KEY": "a"})


async def test_a_clock_that_jumps_back_breaks_no_chain_and_hides_no_record(
    s3_server: S3Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = ArchiveWriter(ObjectStore(s3_server), KEY, "ffffffffffff")
    await writing.start()
    first = record(release="ffffffffffff")
    receipt = await writing.commit(first)
    now = time.time_ns
    monkeypatch.setattr("pneumoserve.ids.time.time_ns", lambda: now() - 7200 * 10**9)
    early = (datetime.now(UTC) - timedelta(hours=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    monkeypatch.setattr("pneumoserve.archive.chain.now_text", lambda: early)
    second = record(release="ffffffffffff").model_copy(update={"time": early})
    await writing.commit(second)
    await writing.close()
    assert second.prediction_id < first.prediction_id
    assert find_record(store, first.prediction_id) == first
    assert find_record(store, second.prediction_id) == second
    found = sorted(
        (place for place in places(store) if place.writer == receipt.writer), key=lambda place: place.sequence
    )
    segments = [verified_segment(store.get(place.key), trust()) for place in found]
    assert [segment.header.sequence for segment in segments] == [1, 2, 3, 4]
    assert [segment.header.previous for segment in segments[1:]] == [segment.hash for segment in segments[:-1]]


def test_records_of_the_first_version_stay_readable() -> None:
    line = (Path(__file__).parents[1] / "data" / "archive" / "record-1.json").read_bytes()
    entry = parse_entry(line)
    assert isinstance(entry, Record)
    assert entry.schema_ == "pneumoserve.record/1"
    assert (entry.call.study, entry.call.patient) == (None, None)
