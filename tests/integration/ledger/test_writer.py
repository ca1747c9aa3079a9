"""The writer against a real S3 server, which stalls and which stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pneumoserve.ledger import list_segments
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.records import ArchiveWriter, find_record
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.support.archives import reader_of
from tests.support.entries import KEY, refusal


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[Child, S3Settings]]:
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "a-secret-word", "tests")
    child = s3_child(tmp_path / "data", settings, tmp_path / "log")
    start_s3(child, settings)
    yield child, settings
    child.stop()


async def test_a_slow_store_is_asked_again_and_keeps_one_copy(own_server: tuple[Child, S3Settings]) -> None:
    child, settings = own_server
    assert child.process is not None
    server = psutil.Process(child.process.pid)
    writing = ArchiveWriter(S3Store(settings), KEY, "0" * 12)
    await writing.start()
    await writing.commit(refusal())
    server.suspend()
    written = refusal()
    waiting = asyncio.create_task(writing.commit(written))
    # Longer than one try may take: the first PUT's outcome is unclear, and the same bytes go to the same key.
    await asyncio.sleep(2.5)
    assert not waiting.done()
    server.resume()
    receipt = await waiting
    store = S3Store(settings)
    assert find_record(reader_of(store, KEY), written.prediction_id) == written
    assert receipt.sequence == 3
    assert [place.sequence for place in list_segments(store)] == [1, 2, 3]
    await writing.close()


async def test_a_dead_store_refuses_and_is_taken_up_again(own_server: tuple[Child, S3Settings]) -> None:
    child, settings = own_server
    writing = ArchiveWriter(S3Store(settings), KEY, "0" * 12)
    await writing.start()
    await writing.commit(refusal())
    child.stop()
    with pytest.raises(StoreError) as caught:
        await writing.commit(refusal())
    assert "a-secret-word" not in str(caught.value)
    assert not writing.healthy
    start_s3(child, settings)
    written = refusal()
    await writing.commit(written)
    assert writing.healthy
    assert find_record(reader_of(S3Store(settings), KEY), written.prediction_id) == written
    await writing.close()
