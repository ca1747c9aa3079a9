"""The journal: what takes the store's place while it is away, and what becomes of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import Journal, list_segments, verify_segment
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.records import ArchiveWriter, find_record, image_key
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.support.archives import reader_of, trust_in
from tests.support.entries import KEY, refusal

LIMIT = 64 * 1024**2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Child, S3Settings]]:
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "secret", "tests")
    child = s3_child(tmp_path / "s3", settings, tmp_path / "s3.log")
    start_s3(child, settings)
    yield child, settings
    child.stop()


async def started(settings: S3Settings, folder: Path, limit: int = LIMIT) -> ArchiveWriter:
    writer = ArchiveWriter(S3Store(settings), KEY, "0" * 12, Journal(folder, limit))
    await writer.start()
    return writer


async def until(condition: Any, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_the_journal_takes_the_stores_place_and_gives_all_back_in_order(
    server: tuple[Child, S3Settings], tmp_path: Path
) -> None:
    child, settings = server
    writer = await started(settings, tmp_path / "journal")
    before = await writer.commit(refusal())
    child.stop()
    film = digest_of(b"film")
    await writer.put_image(film, b"film", "image/jpeg")
    written = [refusal() for _ in range(5)]
    receipts = [await writer.commit(each) for each in written]
    assert before.recorded == "store"
    assert {receipt.recorded for receipt in receipts} == {"journal"}
    assert writer.healthy
    start_s3(child, settings)
    store = S3Store(settings)
    await until(lambda: len(list_segments(store)) == 7)
    later = 1
    async with asyncio.timeout(30):
        # The journal lets go of an object a moment after the store has it.
        while (await writer.commit(refusal())).recorded != "store":
            later += 1
            await asyncio.sleep(0.05)
    await writer.close()
    segments = [verify_segment(store.get(place.key), trust_in(KEY)) for place in list_segments(store)]
    assert [segment.header.sequence for segment in segments] == list(range(1, 9 + later))
    assert [segment.header.previous for segment in segments[1:]] == [segment.hash for segment in segments[:-1]]
    assert store.get(image_key(film)) == b"film"
    assert all(find_record(reader_of(store, KEY), each.prediction_id) == each for each in written)
    assert not list((tmp_path / "journal").iterdir())


WRITER = """
import asyncio, sys
from pathlib import Path
from pneumoserve.ledger import Journal
from pneumoserve.store import S3Settings, S3Store, Store
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pneumoserve.records import ArchiveWriter
from tests.support.entries import refusal

async def main(endpoint, folder, key):
    settings = S3Settings(endpoint, "access", "secret", "tests")
    signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key))
    writer = ArchiveWriter(S3Store(settings), signing, "0" * 12, Journal(Path(folder), 1024**2))
    await writer.start()
    while True:
        written = refusal()
        receipt = await writer.commit(written)
        print(written.prediction_id, receipt.recorded, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_left_is_adopted(server: tuple[Child, S3Settings], tmp_path: Path) -> None:
    child, settings = server
    child.stop()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, settings.endpoint, str(tmp_path / "journal"), KEY.private_bytes_raw().hex()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    printed = [process.stdout.readline().split() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    printed += [line.split() for line in process.stdout.read().splitlines()]
    process.stdout.close()
    assert {where for _, where in printed} == {"journal"}
    start_s3(child, settings)
    writer = await started(settings, tmp_path / "journal")
    own = (await writer.commit(refusal())).writer
    await until(lambda: [path.name for path in (tmp_path / "journal").iterdir()] == [own])
    store = S3Store(settings)
    assert all(find_record(reader_of(store, KEY), prediction_id) is not None for prediction_id, _ in printed)
    orphan = [place for place in list_segments(store) if place.writer != own]
    assert [place.sequence for place in orphan] == list(range(1, len(orphan) + 1))
    await writer.close()


async def test_a_full_journal_refuses(server: tuple[Child, S3Settings], tmp_path: Path) -> None:
    child, settings = server
    writer = await started(settings, tmp_path / "journal", limit=4000)
    await writer.commit(refusal())
    child.stop()
    outcomes = [await writer.commit(refusal())]
    with pytest.raises(StoreError, match="did not take the record"):
        await asyncio.gather(*(writer.commit(refusal()) for _ in range(20)))
    assert outcomes[0].recorded == "journal"
    assert not writer.healthy
    start_s3(child, settings)
    assert await writer.commit(refusal())
    await writer.close()
