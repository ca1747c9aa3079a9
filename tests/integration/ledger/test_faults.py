"""The archive before a store that answers, but nothing that can be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.records import ArchiveWriter
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.support.entries import KEY, refusal
from tests.support.listening import listen

BODIES = {"xml that breaks off": b"<Error><C", "no text at all": b"\xff\xfe\x00"}


@contextlib.asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[S3Settings]:
    """A server that answers every request 500, claiming that the body is XML."""
    head = f"HTTP/1.1 500 Oops\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode() + b"\r\n" + body)
            await writer.drain()
        writer.close()

    async with listen(answer) as port:
        yield S3Settings(f"http://127.0.0.1:{port}", "access", "secret", "tests")


async def test_batch_work_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "secret", "tests")
    child = s3_child(tmp_path / "s3", settings, tmp_path / "s3.log")
    start_s3(child, settings)
    child.stop()
    with pytest.raises(StoreError):
        S3Store(settings).put("checkpoint", b"weights", "application/octet-stream")
    saving = asyncio.create_task(
        asyncio.to_thread(S3Store(settings, patient=True).put, "checkpoint", b"weights", "application/octet-stream")
    )
    await asyncio.to_thread(start_s3, child, settings)
    try:
        await saving
        assert S3Store(settings).get("checkpoint") == b"weights"
    finally:
        child.stop()


@pytest.mark.parametrize("name", BODIES)
async def test_unreadable_answers_refuse_calls_and_hang_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_REFUSE_SECONDS", "_FLUSH_SECONDS"):
        monkeypatch.setattr(f"pneumoserve.ledger.writer.{limit}", 0.5)
    async with answering(BODIES[name]) as settings:
        writer = ArchiveWriter(S3Store(settings), KEY, "0" * 12)
        await writer.start()
        try:
            # The second commit is the one that hangs where the first has ended the task that writes.
            for _ in range(2):
                async with asyncio.timeout(5):
                    with pytest.raises(StoreError):
                        await writer.commit(refusal())
            with pytest.raises(StoreError):
                await writer.put_image(digest_of(b"film"), b"film", "image/jpeg")
            assert not writer.healthy
        finally:
            await writer.close()
