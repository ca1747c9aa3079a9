"""A store that trickles: one byte every second and a half, each within any time limit of a single read."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import REGISTRY

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import Journal
from pneumoserve.records import ArchiveWriter
from pneumoserve.store import MemoryStore, S3Settings, S3Store, StoreError
from tests.support.cluster.certificates import new_authority
from tests.support.entries import RELEASE, prediction
from tests.support.listening import listen

_LISTING = b"<ListBucketResult><Name>tests</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
_LIMIT = 64 * 1024**2
# The store's two seconds, and what a busy machine adds.
_SOON = 5.0


@dataclass
class Trickling:
    """An S3 server that takes everything; while `trickles` is set its answers come in bytes, seconds apart."""

    objects: dict[str, bytes] = field(default_factory=dict)
    trickles: bool = False
    listing: bytes = _LISTING
    port: int = 0
    cut: int = 0

    @property
    def settings(self) -> S3Settings:
        return S3Settings(f"http://127.0.0.1:{self.port}", "access", "secret", "tests")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path = head.split(" ", 2)[:2]
                length = next((int(x[15:]) for x in head.split("\r\n") if x.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                await self._send(writer, self._answer(method, path, body))
        if self.trickles:
            self.cut += 1
        writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if method == "PUT":
            self.objects[path] = body
        content = b"" if method in {"PUT", "HEAD"} else self.objects.get(path, self.listing)
        head = f'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: {len(content)}\r\n\r\n'
        return head.encode() + content

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        for place in range(len(answer)):
            if not self.trickles:
                writer.write(answer[place:])
                break
            writer.write(answer[place : place + 1])
            await writer.drain()
            await asyncio.sleep(1.5)
        await writer.drain()


@pytest.fixture
async def store() -> AsyncIterator[Trickling]:
    served = Trickling()
    async with listen(served.serve) as served.port:
        yield served


async def writer_of(store: Trickling, journal: Path | None = None) -> ArchiveWriter:
    kept = None if journal is None else Journal(journal, _LIMIT)
    writer = ArchiveWriter(S3Store(store.settings), Ed25519PrivateKey.generate(), RELEASE, kept)
    await writer.start()
    return writer


def failures() -> float:
    return REGISTRY.get_sample_value("pneumoserve_archive_failures_total") or 0.0


async def seconds_of(work: Awaitable[object]) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


async def until(condition: object, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_each_request_has_one_deadline_and_closes_its_connection(store: Trickling) -> None:
    client = S3Store(store.settings)
    client_calls = (
        client.check,
        lambda: client.put("films/1", b"film", "image/jpeg"),
        lambda: client.get("films/1"),
        lambda: list(client.list("films/")),
        lambda: client.create("films/2", b"film", "image/jpeg"),
    )
    await asyncio.to_thread(client.put, "films/1", b"film", "image/jpeg")
    store.trickles = True

    async def failing(call: object) -> None:
        with pytest.raises(StoreError, match="could not be reached"):
            await asyncio.to_thread(call)  # type: ignore[arg-type]

    assert max(await asyncio.gather(*(seconds_of(failing(call)) for call in client_calls))) < _SOON
    await until(lambda: store.cut == len(client_calls))
    store.trickles = False
    assert await asyncio.to_thread(client.get, "films/1") == b"film"
    client.close()


@pytest.mark.slow
async def test_without_a_journal_calls_are_refused_and_the_front_is_not_ready(store: Trickling) -> None:
    writer = await writer_of(store)
    await writer.commit(prediction())
    before = failures()
    store.trickles = True

    async def refused(work: Awaitable[object]) -> None:
        with pytest.raises(StoreError, match="did not take"):
            await work

    film = writer.put_image(digest_of(b"film"), b"film", "image/jpeg")
    took = await asyncio.gather(seconds_of(refused(film)), seconds_of(refused(writer.commit(prediction()))))
    assert max(took) < 5 + 3
    assert failures() >= before + 2
    assert not writer.healthy
    store.trickles = False
    await until(lambda: writer.healthy)
    assert (await writer.commit(prediction())).recorded == "store"
    await writer.close()


async def test_with_a_journal_it_takes_what_the_store_does_not(store: Trickling, tmp_path: Path) -> None:
    writer = await writer_of(store, tmp_path)
    await writer.commit(prediction())
    before = failures()
    store.trickles = True
    assert await seconds_of(writer.put_image(digest_of(b"film"), b"film", "image/jpeg")) < _SOON
    receipt = await writer.commit(prediction())
    assert receipt.recorded == "journal"
    assert failures() > before
    assert writer.healthy
    store.trickles = False
    async with asyncio.timeout(20):
        while (await writer.commit(prediction())).recorded != "store":
            await asyncio.sleep(0.1)
    await writer.close()


async def test_readiness_follows_a_store_that_nobody_writes_to(store: Trickling) -> None:
    writer = await writer_of(store)
    store.trickles = True
    await until(lambda: not writer.healthy)
    store.trickles = False
    await until(lambda: writer.healthy)
    await writer.close()


async def test_the_deadline_holds_over_tls_and_from_its_handshake_on(tmp_path: Path) -> None:
    authority = new_authority(tmp_path)
    authority.issue("store", "store", hosts=("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "store.crt", tmp_path / "store.key")
    served = Trickling(objects={"/tests/films/1": b"film"})

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def failing(port: int) -> None:
        client = S3Store(S3Settings(f"https://127.0.0.1:{port}", "access", "secret", "tests", "us-east-1", ca))
        with pytest.raises(StoreError, match="could not be reached"):
            await asyncio.to_thread(client.get, "films/1")
        client.close()

    ca = str(authority.file)
    async with listen(served.serve, context) as speaking, listen(silent) as mute:
        client = S3Store(S3Settings(f"https://127.0.0.1:{speaking}", "access", "secret", "tests", ca_file=ca))
        assert await asyncio.to_thread(client.get, "films/1") == b"film"
        served.trickles = True
        assert max(await asyncio.gather(*(seconds_of(failing(port)) for port in (speaking, mute)))) < _SOON
        client.close()


async def test_an_answer_of_another_form_is_reported(store: Trickling) -> None:
    store.listing = b"<ListBucketResult></ListBucketResult>"
    client = S3Store(store.settings)
    with pytest.raises(StoreError, match="cannot be read"):
        await asyncio.to_thread(lambda: list(client.list("films/")))
    client.close()


class Stuck:
    """Makes a store's requests wait before they have even begun, as while its name is looked up in vain."""

    def __init__(self, store: MemoryStore) -> None:
        self.free = threading.Event()
        self.free.set()
        store.before = self._wait

    def _wait(self, operation: str, key: str) -> None:
        if operation in {"put", "check"}:
            self.free.wait()


@pytest.mark.parametrize("journaled", [False, True])
async def test_a_request_that_cannot_begin_holds_nobody(
    journaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TRY_SECONDS", "_REFUSE_SECONDS", "_PROBE_SECONDS"):
        monkeypatch.setattr(f"pneumoserve.ledger.writer.{name}", 0.4)
    store = MemoryStore()
    stuck = Stuck(store)
    journal = Journal(tmp_path, _LIMIT) if journaled else None
    writer = ArchiveWriter(store, Ed25519PrivateKey.generate(), RELEASE, journal)
    await writer.start()
    await writer.commit(prediction())
    stuck.free.clear()
    if journaled:
        monkeypatch.setattr("pneumoserve.ledger.writer._REFUSE_SECONDS", 5.0)
        assert (await writer.commit(prediction())).recorded == "journal"
    else:
        with pytest.raises(StoreError, match="did not take the record"):
            await writer.commit(prediction())
        await until(lambda: not writer.healthy)
    stuck.free.set()
    await until(lambda: writer.healthy)
    await writer.close()


async def test_what_moves_may_take_longer(store: Trickling, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film of 32 MiB on a slow line, in little: two seconds' worth of bytes a second, in three seconds."""
    monkeypatch.setattr("pneumoserve.store.timed._LEAST", 2048)
    film = b"x" * 8192

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(film)}\r\n\r\n".encode())
        for start in range(0, len(film), 1024):
            writer.write(film[start : start + 1024])
            await writer.drain()
            await asyncio.sleep(0.4)
        writer.close()

    async with listen(slow) as store.port:
        client = S3Store(store.settings)
        assert await asyncio.to_thread(client.get, "films/1") == film
        client.close()
