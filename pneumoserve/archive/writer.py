"""Records on their way to the store: each is there before its answer is sent.

One segment is on its way at a time; whatever is committed meanwhile goes into the next one (group commit), so that
many calls share the cost of a PUT. A PUT whose outcome is unclear is sent again, the same bytes to the same key, and
nothing of the chain goes before it. Where the store is away, a journal takes its place; without one, calls are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar, TypeVarTuple, Unpack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import Counter, Gauge, Histogram

from pneumoserve.archive.chain import Chain, now_text, writer_name
from pneumoserve.archive.films import image_key
from pneumoserve.archive.journal import Drawer, Journal, Parcel
from pneumoserve.archive.record import Receipt, Record
from pneumoserve.archive.segment import RECORDS
from pneumoserve.archive.store import Lock, ObjectStore, StoreError
from pneumoserve.release.schema import canonical_json, digest_of

_REFUSE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.2
_PROBE_SECONDS: Final = 2.0
# A writer that says nothing for longer than a sealer is patient would look dead.
_IDLE_SECONDS: Final = 3600.0
_FLUSH_SECONDS: Final = 10.0
_ADOPT_SECONDS: Final = 5.0
_UPLOADS: Final = 8
_KNOWN_IMAGES: Final = 10_000
_NAMES: Final = 10

_SEGMENTS = Counter("pneumoserve_archive_segments", "Segments of records written.")
_RECORDS = Counter("pneumoserve_archive_records", "Records written.")
_FAILURES = Counter("pneumoserve_archive_failures", "Tries to write a segment or an image that failed.")
_JOURNALED = Counter("pneumoserve_archive_journaled", "Objects that the journal took in the store's place.")
_JOURNAL_BYTES = Gauge("pneumoserve_archive_journal_bytes", "Bytes that wait in the journal for the store.")
_ADOPTED = Counter("pneumoserve_archive_adopted", "Objects of processes that are gone, sent to the store.")
_PUT_SECONDS = Histogram(
    "pneumoserve_archive_put_seconds",
    "Seconds of a segment's way to the store or the journal.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)

_log = logging.getLogger(__name__)
_Given = TypeVarTuple("_Given")
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class LockRule:
    """For how long what is written cannot be removed; 0 days lock nothing. Counted from the moment of writing."""

    days: int = 0
    mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"

    def lock(self) -> Lock | None:
        """The lock for an object written now."""
        return Lock(datetime.now(UTC) + timedelta(days=self.days), self.mode) if self.days else None


@dataclass(frozen=True)
class _Waiting:
    line: bytes
    place: tuple[str, str]
    receipt: asyncio.Future[Receipt]


class ArchiveWriter:
    """The one writer of a process. Its calls to the store run in threads of its own, off the event loop.

    `release` is the one that the process serves: the chain's first and last segments, which hold no records, stand
    below it.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: Ed25519PrivateKey,
        release: str,
        journal: Journal | None = None,
        lock: LockRule | None = None,
    ) -> None:
        self._store = store
        self._key = key
        self._release = release
        self._journal = journal
        self._lock = lock or LockRule()
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._give_up: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(_UPLOADS + 4, thread_name_prefix="archive")
        self._known: OrderedDict[str, None] = OrderedDict()
        self._reachable = False
        self._last_success = 0.0

    async def start(self) -> None:
        """Begin to write and to watch the store.

        Raises:
            StoreError: there is to be a journal, and it cannot be opened.
        """
        chain = Chain(self._key, await self._in_thread(self._free_name))
        self._reachable = await self._in_thread(self._answers)
        if self._journal is not None:
            await self._in_thread(self._journal.open, chain.writer)
        jobs = [self._write_segments(chain), self._watch()]
        if self._journal is not None:
            jobs.append(self._drain(self._journal))
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def close(self) -> None:
        """Write what is queued and the chain's end, then stop; what the store does not take waits in the journal."""
        self._closing = True
        self._give_up = time.monotonic() + _FLUSH_SECONDS
        self._wake.set()
        if self._tasks:
            writing, *others = self._tasks
            await writing
            for task in others:
                task.cancel()
            for task in others:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._threads.shutdown()
        if self._journal is not None and self._tasks:
            self._journal.own.close()
        self._store.close()

    @property
    def healthy(self) -> bool:
        """Whether a record would be taken: by the store, which took or answered the last request, or the journal."""
        return self._reachable or (self._journal is not None and self._journal.has_room)

    async def put_image(self, stored_sha256: str, data: bytes, content_type: str) -> None:
        """Store a film once.

        Raises:
            StoreError: neither the store nor a journal took it within 5 s.
        """
        if stored_sha256 in self._known:
            self._known.move_to_end(stored_sha256)
            return
        # A second PUT of the same content is harmless; asking first would cost the new film a round trip.
        parcel = Parcel(image_key(stored_sha256), data, content_type, self._lock.lock())
        give_up = time.monotonic() + _REFUSE_SECONDS
        while await self._try(parcel) is None:
            if time.monotonic() + _PAUSE_SECONDS > give_up:
                raise StoreError("The archive did not take the film; try again.")
            await asyncio.sleep(_PAUSE_SECONDS)
        self._known[stored_sha256] = None
        if len(self._known) > _KNOWN_IMAGES:
            self._known.popitem(last=False)

    async def commit(self, record: Record) -> Receipt:
        """Write a record; returns when the store or the journal has it.

        Raises:
            StoreError: neither took it within 5 s, or the writer is closing.
        """
        if self._closing:
            raise StoreError("The archive is closing; send the call to another instance.")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(canonical_json(record), (record.time[:10], record.release), future)
        self._queue.append(waiting)
        self._wake.set()
        try:
            async with asyncio.timeout(_REFUSE_SECONDS):
                return await future
        except TimeoutError:
            with contextlib.suppress(ValueError):
                self._queue.remove(waiting)
            raise StoreError("The archive did not take the record; try again.") from None

    async def _write_segments(self, chain: Chain) -> None:
        """A chain, from its first segment, which says that this writer exists, to its last."""
        if not await self._written(chain, []):
            return
        while not (self._closing and not self._queue):
            if not self._queue:
                self._wake.clear()
                try:
                    async with asyncio.timeout(_IDLE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    await self._written(chain, [])
                continue
            # Records of another day or release go into a segment of their own.
            place = self._queue[0].place
            taken = [waiting for waiting in self._queue if waiting.place == place]
            self._queue = [waiting for waiting in self._queue if waiting.place != place]
            if not await self._written(chain, taken):
                return
        await self._written(chain, [], last=True)

    async def _written(self, chain: Chain, taken: Sequence[_Waiting], last: bool = False) -> bool:
        """Write one segment, however long it takes; False where the writer must close before that."""
        date, release = taken[0].place if taken else (now_text()[:10], self._release)
        place, body = chain.next([waiting.line for waiting in taken], date, release, last)
        parcel = Parcel(place.key, body, "application/x-ndjson", self._lock.lock())
        started = time.perf_counter()
        while (recorded := await self._try(parcel)) is None:
            if self._give_up is not None and time.monotonic() > self._give_up:
                _log.error("segment %s was not written before the end", place.sequence)
                for waiting in [*taken, *self._queue]:
                    _settle(waiting.receipt, StoreError("The archive is closing; send the call to another instance."))
                return False
            await asyncio.sleep(_PAUSE_SECONDS)
        _PUT_SECONDS.observe(time.perf_counter() - started)
        _SEGMENTS.inc()
        _RECORDS.inc(len(taken))
        for waiting in taken:
            receipt = Receipt(
                writer=place.writer, sequence=place.sequence, hash=digest_of(waiting.line), recorded=recorded
            )
            _settle(waiting.receipt, receipt)
        return True

    async def _try(self, parcel: Parcel) -> Literal["store", "journal"] | None:
        """One try to bring an object to the store, else to the journal; None where neither took it."""
        # What waits in the journal goes first, and a store known to be away would only cost its time limit.
        if self._journal is None or (self._journal.own.empty and self._reachable):
            try:
                await self._in_thread(parcel.send, self._store)
            except Exception as error:  # noqa: BLE001 - a fault that ended this task would hang every later commit
                self._failed(error)
            else:
                self._succeeded()
                return "store"
        if self._journal is None:
            return None
        try:
            await self._in_thread(self._journal.put, parcel)
        except Exception as error:  # noqa: BLE001
            self._failed(error)
            return None
        _JOURNALED.inc()
        _JOURNAL_BYTES.set(self._journal.bytes)
        return "journal"

    def _succeeded(self) -> None:
        if not self._reachable:
            _log.warning("the archive's store takes what is written")
        self._reachable = True
        self._last_success = time.monotonic()

    def _failed(self, error: Exception) -> None:
        _FAILURES.inc()
        told = str(error) if isinstance(error, StoreError) else type(error).__name__
        _log.error("the archive could not write: %s", told)
        self._reachable = False

    async def _drain(self, journal: Journal) -> None:
        """Send what waits in the journal, and what processes that are gone left there."""
        adopted_at = 0.0
        while True:
            if self._reachable:
                await self._sent(journal.own)
                if time.monotonic() - adopted_at > _ADOPT_SECONDS:
                    adopted_at = time.monotonic()
                    await self._adopt(journal)
                _JOURNAL_BYTES.set(journal.bytes)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _adopt(self, journal: Journal) -> None:
        for drawer in await self._in_thread(lambda: list(journal.orphans())):
            sent = await self._sent(drawer)
            _ADOPTED.inc(sent)
            await self._in_thread(drawer.close)
            if sent:
                _log.warning("sent %d objects that a process which is gone left in the journal", sent)

    async def _sent(self, drawer: Drawer) -> int:
        sent = 0
        while not drawer.empty:
            try:
                await self._in_thread(drawer.send_oldest, self._store)
            except Exception as error:  # noqa: BLE001 - it goes on waiting, whatever the fault is
                self._failed(error)
                break
            sent += 1
            self._succeeded()
        return sent

    async def _watch(self) -> None:
        """Ask the store now and then while nothing is written, so that readiness follows it."""
        while True:
            if not self._reachable or time.monotonic() - self._last_success > _PROBE_SECONDS:
                self._reachable = await self._in_thread(self._answers)
            await asyncio.sleep(_PROBE_SECONDS / 2)

    def _answers(self) -> bool:
        try:
            self._store.check()
        except StoreError as error:
            _log.warning("the archive's store is out of reach: %s", error)
            return False
        return True

    def _free_name(self) -> str:
        """A name that no writer has had today; chance alone would do, but a copied machine may repeat its chances."""
        day = now_text()[:10]
        for _ in range(_NAMES):
            name = writer_name()
            prefix = f"{RECORDS}date={day}/release={self._release}/{name}-"
            try:
                if next(iter(self._store.list(prefix)), None) is None:
                    return name
            except StoreError:
                return name
        raise StoreError("No name is free for this writer; its random numbers repeat.")

    async def _in_thread(self, work: Callable[[Unpack[_Given]], _Outcome], *given: *_Given) -> _Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | StoreError) -> None:
    """Tell a waiting call; one that was cancelled meanwhile has its record all the same."""
    if future.done():
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
