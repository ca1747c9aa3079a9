"""The journal: what takes the store's place while it is away, and what becomes of it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.archive.films import image_key
from pneumoserve.archive.find import find_record
from pneumoserve.archive.journal import Drawer, Journal, Parcel
from pneumoserve.archive.read import places
from pneumoserve.archive.segment import verified_segment
from pneumoserve.archive.store import ObjectStore, S3Settings, StoreError
from pneumoserve.archive.writer import ArchiveWriter
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.release.schema import digest_of
from tests.archive.test_archive import KEY, record, trust

LIMIT = 64 * 1024**2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Child, S3Settings]]:
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "secret", "tests")
    child = s3_child(tmp_path / "s3", settings, tmp_path / "s3.log")
    start_s3(child, settings)
    yield child, settings
    child.stop()


async def started(settings: S3Settings, folder: Path, limit: int = LIMIT) -> ArchiveWriter:
    writer = ArchiveWriter(ObjectStore(settings), KEY, "0" * 12, Journal(folder, limit))
    await writer.start()
    return writer


async def until(condition: Any, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def parcel(number: int, size: int = 10) -> Parcel:
    return Parcel(f"images/{number}", bytes([number]) * size, "image/jpeg")


async def test_the_journal_takes_the_stores_place_and_gives_all_back_in_order(
    server: tuple[Child, S3Settings], tmp_path: Path
) -> None:
    child, settings = server
    writer = await started(settings, tmp_path / "journal")
    before = await writer.commit(record())
    child.stop()
    film = digest_of(b"film")
    await writer.put_image(film, b"film", "image/jpeg")
    written = [record(number) for number in range(5)]
    receipts = [await writer.commit(each) for each in written]
    assert before.recorded == "store"
    assert {receipt.recorded for receipt in receipts} == {"journal"}
    assert writer.healthy
    start_s3(child, settings)
    store = ObjectStore(settings)
    await until(lambda: len(places(store)) == 7)
    later = 1
    async with asyncio.timeout(30):
        # The journal lets go of an object a moment after the store has it.
        while (await writer.commit(record())).recorded != "store":
            later += 1
            await asyncio.sleep(0.05)
    await writer.close()
    segments = [verified_segment(store.get(place.key), trust()) for place in places(store)]
    assert [segment.header.sequence for segment in segments] == list(range(1, 9 + later))
    assert [segment.header.previous for segment in segments[1:]] == [segment.hash for segment in segments[:-1]]
    assert store.get(image_key(film)) == b"film"
    assert all(find_record(store, each.prediction_id) == each for each in written)
    assert not list((tmp_path / "journal").iterdir())


WRITER = """
import asyncio, sys
from pathlib import Path
from pneumoserve.archive.journal import Journal
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.archive.writer import ArchiveWriter
from tests.archive.test_archive import KEY, record

async def main(endpoint, folder):
    settings = S3Settings(endpoint, "access", "secret", "tests")
    writer = ArchiveWriter(ObjectStore(settings), KEY, "0" * 12, Journal(Path(folder), 1024**2))
    await writer.start()
    while True:
        written = record()
        receipt = await writer.commit(written)
        print(written.prediction_id, receipt.recorded, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_left_is_adopted(server: tuple[Child, S3Settings], tmp_path: Path) -> None:
    child, settings = server
    child.stop()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, settings.endpoint, str(tmp_path / "journal")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    told = [process.stdout.readline().split() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    told += [line.split() for line in process.stdout.read().splitlines()]
    process.stdout.close()
    assert {where for _, where in told} == {"journal"}
    start_s3(child, settings)
    writer = await started(settings, tmp_path / "journal")
    own = (await writer.commit(record())).writer
    await until(lambda: [path.name for path in (tmp_path / "journal").iterdir()] == [own])
    store = ObjectStore(settings)
    assert all(find_record(store, prediction_id) is not None for prediction_id, _ in told)
    orphan = [place for place in places(store) if place.writer != own]
    assert [place.sequence for place in orphan] == list(range(1, len(orphan) + 1))
    await writer.close()


async def test_a_full_journal_refuses(server: tuple[Child, S3Settings], tmp_path: Path) -> None:
    child, settings = server
    writer = await started(settings, tmp_path / "journal", limit=4000)
    await writer.commit(record())
    child.stop()
    outcomes = [await writer.commit(record())]
    with pytest.raises(StoreError, match="did not take the record"):
        await asyncio.gather(*(writer.commit(record(number)) for number in range(20)))
    assert outcomes[0].recorded == "journal"
    assert not writer.healthy
    start_s3(child, settings)
    assert await writer.commit(record())
    await writer.close()


def test_an_object_that_did_not_reach_the_disk_whole_was_never_there(tmp_path: Path) -> None:
    drawer = Drawer(tmp_path / "writer-00000000")
    drawer.put(parcel(1))
    drawer.close()
    (tmp_path / "writer-00000000" / "0000000002.part").write_bytes(b"half")
    again = Drawer(tmp_path / "writer-00000000")
    assert sorted(path.name for path in again.folder.iterdir()) == ["0000000001", "lock"]
    again.put(parcel(2))
    assert (again.folder / "0000000002").is_file()
    again.close()


def test_a_full_disk_is_told_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = Drawer(tmp_path / "writer-00000000")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pneumoserve.archive.journal.os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        drawer.put(parcel(1))
    monkeypatch.undo()
    assert [path.name for path in drawer.folder.iterdir()] == ["lock"]
    drawer.put(parcel(1))
    assert not drawer.empty
    drawer.close()


def test_a_file_that_cannot_be_read_stays_and_stops_nothing(s3_server: S3Settings, tmp_path: Path) -> None:
    drawer = Drawer(tmp_path / "writer-00000000")
    for number in (1, 2):
        drawer.put(parcel(number))
    cut = drawer.folder / "0000000001"
    cut.write_bytes(cut.read_bytes()[:-1])
    store = ObjectStore(s3_server)
    while not drawer.empty:
        drawer.send_oldest(store)
    drawer.close()
    assert (drawer.folder / "0000000001.bad").is_file()
    assert store.get("images/2") == parcel(2).data
    assert not store.exists("images/1")


def test_a_journal_in_use_is_not_adopted(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path, LIMIT) for _ in range(2))
    first.open("first-00000000")
    first.put(parcel(1))
    second.open("second-00000000")
    assert not list(second.orphans())
    assert second.bytes > 0, "what others hold counts"
    first.own.close()
    (orphan,) = second.orphans()
    assert orphan.folder.name == "first-00000000"
    orphan.close()
    second.own.close()


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="check its folder and rights"):
        Journal(tmp_path / "journal", LIMIT).open("writer-00000000")
