"""Records on their way to the store: each is there before its answer is sent.

One segment is on its way at a time; whatever is committed meanwhile goes into the next one (group commit), so that
many calls share the cost of a PUT. A PUT whose outcome is unclear is sent again, the same bytes to the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram

from pneumoserve.archive.record import Receipt, Record
from pneumoserve.archive.store import ObjectStore, StoreError
from pneumoserve.release.schema import canonical_json, digest_of

_RETRY_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.2
_PROBE_SECONDS: Final = 2.0
_UPLOADS: Final = 8
_KNOWN_IMAGES: Final = 10_000

_SEGMENTS = Counter("pneumoserve_archive_segments", "Segments of records written.")
_RECORDS = Counter("pneumoserve_archive_records", "Records written.")
_FAILURES = Counter("pneumoserve_archive_failures", "Tries to write a segment or an image that failed.")
_PUT_SECONDS = Histogram(
    "pneumoserve_archive_put_seconds",
    "Seconds of a successful segment PUT.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)

_log = logging.getLogger(__name__)


def image_key(stored_sha256: str) -> str:
    """Where the archive keeps a film, by the digest of its stored bytes."""
    return f"images/sha256/{stored_sha256[:2]}/{stored_sha256}"


def segment_key(date: str, release: str, writer: str, sequence: int) -> str:
    """Where a segment of records stands; `date` is YYYY-MM-DD in UTC."""
    return f"records/date={date}/release={release}/{writer}-{sequence:08d}.jsonl"


def writer_name() -> str:
    """A name for this process start: `<host>-<8 hex>`."""
    host = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower())[:40].strip("-") or "host"
    return f"{host}-{os.urandom(4).hex()}"


@dataclass(frozen=True)
class _Waiting:
    line: bytes
    place: tuple[str, str]
    receipt: asyncio.Future[Receipt]


class ArchiveWriter:
    """The one writer of a process. Its calls to the store run in threads of its own, off the event loop."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._name = writer_name()
        self._sequence = 0
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(_UPLOADS + 2, thread_name_prefix="archive")
        self._known: OrderedDict[str, None] = OrderedDict()
        self._healthy = False
        self._last_success = 0.0

    async def start(self) -> None:
        """Begin to write and to watch the store."""
        self._tasks = [asyncio.create_task(self._write_segments()), asyncio.create_task(self._watch())]

    async def close(self) -> None:
        """Write what is queued, then end."""
        self._closing = True
        self._wake.set()
        if self._tasks:
            writing, watching = self._tasks
            await writing
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        self._threads.shutdown()
        self._store.close()

    @property
    def healthy(self) -> bool:
        """Whether the store took or answered the last request."""
        return self._healthy

    async def put_image(self, stored_sha256: str, data: bytes, content_type: str) -> None:
        """Store a film once.

        Raises:
            StoreError: the store did not take it within 5 s.
        """
        if stored_sha256 in self._known:
            self._known.move_to_end(stored_sha256)
            return
        key = image_key(stored_sha256)
        # A second PUT of the same content is harmless; asking first would cost the new film a round trip.
        await self._persist(lambda: self._store.put(key, data, content_type))
        self._known[stored_sha256] = None
        if len(self._known) > _KNOWN_IMAGES:
            self._known.popitem(last=False)

    async def commit(self, record: Record) -> Receipt:
        """Write a record; returns when the store has it.

        Raises:
            StoreError: the store did not take it within 5 s, or the writer is closing.
        """
        if self._closing:
            raise StoreError("The archive is closing; send the call to another instance.")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(canonical_json(record), (record.time[:10], record.release), future))
        self._wake.set()
        return await future

    async def _write_segments(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                # Records of another day or release go into a segment of their own.
                place = self._queue[0].place
                taken = [waiting for waiting in self._queue if waiting.place == place]
                self._queue = [waiting for waiting in self._queue if waiting.place != place]
                await self._write(taken)
            if self._closing:
                return

    async def _write(self, taken: list[_Waiting]) -> None:
        self._sequence += 1
        sequence = self._sequence
        date, release = taken[0].place
        key = segment_key(date, release, self._name, sequence)
        body = b"".join(waiting.line + b"\n" for waiting in taken)
        started = time.perf_counter()
        try:
            await self._persist(lambda: self._store.put(key, body, "application/x-ndjson"))
        except Exception as error:  # noqa: BLE001 - a fault that ended this task would hang every later commit
            _log.error("a segment was not written (%s)", type(error).__name__)
            for waiting in taken:
                _settle(waiting.receipt, StoreError("The archive did not take the record; try again."))
            return
        _PUT_SECONDS.observe(time.perf_counter() - started)
        _SEGMENTS.inc()
        _RECORDS.inc(len(taken))
        for waiting in taken:
            _settle(waiting.receipt, Receipt(writer=self._name, sequence=sequence, hash=digest_of(waiting.line)))

    async def _persist(self, put: Callable[[], None]) -> None:
        """Run a PUT until it succeeds or its time is over."""
        give_up = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, put)
            except StoreError as error:
                _FAILURES.inc()
                self._healthy = False
                if time.monotonic() + _PAUSE_SECONDS > give_up:
                    _log.error("the archive's store does not take what is written: %s", error)
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._healthy = True
                self._last_success = time.monotonic()
                return

    async def _watch(self) -> None:
        """Ask the store now and then while nothing is written, so that readiness follows it."""
        while True:
            if time.monotonic() - self._last_success > _PROBE_SECONDS:
                self._healthy = await asyncio.get_running_loop().run_in_executor(self._threads, self._reachable)
            await asyncio.sleep(_PROBE_SECONDS / 2)

    def _reachable(self) -> bool:
        try:
            self._store.check()
        except StoreError as error:
            _log.warning("the archive's store is out of reach: %s", error)
            return False
        return True


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | StoreError) -> None:
    """Tell a waiting call; one that was cancelled meanwhile has its record all the same."""
    if future.done():
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
