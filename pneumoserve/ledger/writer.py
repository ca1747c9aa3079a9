"""Lines on their way to the store: what is acknowledged is kept.

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

from pneumoserve.ledger.chain import Chain, now_text, writer_name
from pneumoserve.ledger.journal import Journal, PendingObject, SpoolDirectory
from pneumoserve.ledger.receipts import Receipt, make_receipt
from pneumoserve.ledger.segment import RECORDS
from pneumoserve.store import Lock, Store, StoreError

_REFUSE_SECONDS: Final = 5.0
_TRY_SECONDS: Final = 4.0
_PAUSE_SECONDS: Final = 0.2
_PROBE_SECONDS: Final = 2.0
# A writer that says nothing for longer than a sealer is patient would look dead.
_IDLE_SECONDS: Final = 3600.0
_FLUSH_SECONDS: Final = 10.0
_ADOPT_SECONDS: Final = 5.0
_UPLOADS: Final = 8
_DISK_THREADS: Final = 2
_KNOWN_OBJECTS: Final = 10_000
_NAMES: Final = 10

_SEGMENTS = Counter("pneumoserve_archive_segments", "Segments of records written.")
_RECORDS = Counter("pneumoserve_archive_records", "Records written.")
_FAILURES = Counter("pneumoserve_archive_failures", "Tries to write a segment or an object that failed.")
_JOURNALED = Counter("pneumoserve_archive_journaled", "Objects that the journal took in the store's place.")
_JOURNAL_BYTES = Gauge("pneumoserve_archive_journal_bytes", "Bytes that wait in the journal for the store.")
_JOURNAL_OBJECTS = Gauge("pneumoserve_archive_journal_objects", "Objects that wait in the journal for the store.")
_JOURNAL_OLDEST = Gauge(
    "pneumoserve_archive_journal_oldest_seconds", "Seconds since the oldest object came that waits in the journal."
)
_WAITING = Gauge("pneumoserve_archive_waiting_records", "Records that wait to be written.")
_WAITING_OLDEST = Gauge(
    "pneumoserve_archive_waiting_oldest_seconds", "Seconds for which the oldest record has waited to be written."
)
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
    since: float


class LedgerWriter:
    """The one writer of a process. Its calls to the store run in threads of its own, off the event loop.

    `release` is the one that the process serves: the chain's first and last segments, which hold no lines, stand below
    it. Readers find what a `role` writes by the writer's name, which begins with it.
    """

    def __init__(
        self,
        store: Store,
        key: Ed25519PrivateKey,
        release: str,
        journal: Journal | None = None,
        lock: LockRule | None = None,
        role: str = "",
    ) -> None:
        self._store = store
        self._role = role
        self._key = key
        self._release = release
        self._journal = journal
        self._lock = lock or LockRule()
        self._queue: list[_Waiting] = []
        self._writing: Sequence[_Waiting] = ()
        self._wake = asyncio.Event()
        self._closing = False
        self._give_up: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(_UPLOADS + 4, thread_name_prefix="archive")
        # A store that is slow must keep nothing from the journal.
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="journal")
        self._known: OrderedDict[str, None] = OrderedDict()
        self._reachable = False
        self._last_success = 0.0

    async def start(self) -> None:
        """Begin to write and to watch the store.

        Raises:
            StoreError: there is to be a journal, and it cannot be opened.
        """
        chain = Chain(self._key, await self._in_thread(self._free_name))
        self._reachable = await self._answers()
        if self._journal is not None:
            await self._on_disk(self._journal.open, chain.writer)
        jobs = [self._write_segments(chain), self._watch()]
        if self._journal is not None:
            self._show_journal(self._journal.own)
            jobs.append(self._drain(self._journal))
        self._tasks = [asyncio.create_task(job) for job in jobs]
        _OPEN.add(self)

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
        self._disk.shutdown()
        _OPEN.discard(self)
        if self._journal is not None and self._tasks:
            self._journal.own.close()
        self._store.close()

    @property
    def healthy(self) -> bool:
        """Whether a line would be taken: by the store, which took or answered the last request, or the journal."""
        return self._reachable or (self._journal is not None and self._journal.has_room)

    @property
    def waits(self) -> list[float]:
        """For how many seconds each line has waited to be written."""
        now = time.monotonic()
        return [now - each.since for each in (*self._writing, *self._queue)]

    def _show_journal(self, own: SpoolDirectory) -> None:
        _JOURNAL_OBJECTS.set_function(lambda: own.count)
        _JOURNAL_OLDEST.set_function(lambda: own.oldest_seconds)

    async def put_object(self, key: str, data: bytes, content_type: str, *, locked: bool = True) -> None:
        """Store an object once; its key is made from its bytes, or is one that nothing else gets.

        Raises:
            StoreError: neither the store nor a journal took it within 5 s.
        """
        if key in self._known:
            self._known.move_to_end(key)
            return
        # A second PUT of the same content is harmless; asking first would cost a new object a round trip.
        pending = PendingObject(key, data, content_type, self._lock.lock() if locked else None)
        try:
            async with asyncio.timeout(_REFUSE_SECONDS):
                while await self._try(pending) is None:
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            raise StoreError("The archive did not take the object; try again.") from None
        self._known[key] = None
        if len(self._known) > _KNOWN_OBJECTS:
            self._known.popitem(last=False)

    async def commit(self, line: bytes, date: str, release: str) -> Receipt:
        """Write a line into a segment of a day (YYYY-MM-DD, UTC) and a release; returns when it is kept.

        Raises:
            StoreError: neither the store nor a journal took it within 5 s, or the writer is closing.
        """
        if self._closing:
            raise StoreError("The archive is closing; send the call to another instance.")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(line, (date, release), future, time.monotonic())
        self._queue.append(waiting)
        self._wake.set()
        try:
            async with asyncio.timeout(_REFUSE_SECONDS):
                return await future
        except TimeoutError:
            with contextlib.suppress(ValueError):
                self._queue.remove(waiting)
            refused = StoreError("The archive did not take the record; try again.")
            # Calls that come now are better sent to another instance, until the store is seen to answer.
            self._note_failure(refused)
            raise refused from None

    async def _write_segments(self, chain: Chain) -> None:
        """A chain, from its first segment, which says that this writer exists, to its last."""
        if not await self._write_segment(chain, []):
            return
        while not (self._closing and not self._queue):
            if not self._queue:
                self._wake.clear()
                try:
                    async with asyncio.timeout(_IDLE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    await self._write_segment(chain, [])
                continue
            # Lines of another day or release go into a segment of their own.
            place = self._queue[0].place
            taken = [waiting for waiting in self._queue if waiting.place == place]
            self._queue = [waiting for waiting in self._queue if waiting.place != place]
            if not await self._write_segment(chain, taken):
                return
        await self._write_segment(chain, [], last=True)

    async def _write_segment(self, chain: Chain, taken: Sequence[_Waiting], last: bool = False) -> bool:
        """Write one segment, however long it takes; False where the writer must close before that."""
        date, release = taken[0].place if taken else (now_text()[:10], self._release)
        self._writing = taken
        place, body = chain.next([waiting.line for waiting in taken], date, release, last)
        pending = PendingObject(place.key, body, "application/x-ndjson", self._lock.lock())
        started = time.perf_counter()
        while (recorded := await self._try(pending)) is None:
            if self._give_up is not None and time.monotonic() > self._give_up:
                _log.error("segment %s was not written before the end", place.sequence)
                for waiting in [*taken, *self._queue]:
                    _settle(waiting.receipt, StoreError("The archive is closing; send the call to another instance."))
                return False
            await asyncio.sleep(_PAUSE_SECONDS)
        _PUT_SECONDS.observe(time.perf_counter() - started)
        _SEGMENTS.inc()
        _RECORDS.inc(len(taken))
        self._writing = ()
        for waiting in taken:
            _settle(waiting.receipt, make_receipt(place, waiting.line, self._key, recorded))
        return True

    async def _try(self, pending: PendingObject) -> Literal["store", "journal"] | None:
        """One try to bring an object to the store, else to the journal; None where neither took it."""
        # What waits in the journal goes first, and a store known to be away would only cost its time limit.
        if self._journal is None or (self._journal.own.empty and self._reachable):
            try:
                # The store's own deadline is sooner; this one also bounds looking its name up, and large films.
                async with asyncio.timeout(_TRY_SECONDS):
                    await self._in_thread(pending.send, self._store)
            except Exception as error:  # noqa: BLE001 - a fault that ended this task would hang every later commit
                self._note_failure(error)
            else:
                self._note_success()
                return "store"
        if self._journal is None:
            return None
        try:
            await self._on_disk(self._journal.put, pending)
        except Exception as error:  # noqa: BLE001
            self._note_failure(error)
            return None
        _JOURNALED.inc()
        _JOURNAL_BYTES.set(self._journal.bytes)
        return "journal"

    def _note_success(self) -> None:
        if not self._reachable:
            _log.warning("the archive's store takes what is written")
        self._reachable = True
        self._last_success = time.monotonic()

    def _note_failure(self, error: Exception) -> None:
        _FAILURES.inc()
        reason = str(error) if isinstance(error, StoreError) else type(error).__name__
        _log.error("the archive could not write: %s", reason)
        self._reachable = False

    async def _drain(self, journal: Journal) -> None:
        """Send what waits in the journal, and what processes that are gone left there."""
        adopted_at = 0.0
        while True:
            if self._reachable:
                await self._send_all(journal.own)
                if time.monotonic() - adopted_at > _ADOPT_SECONDS:
                    adopted_at = time.monotonic()
                    await self._adopt(journal)
                _JOURNAL_BYTES.set(journal.bytes)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _adopt(self, journal: Journal) -> None:
        for spool in await self._on_disk(lambda: list(journal.orphans())):
            sent = await self._send_all(spool)
            _ADOPTED.inc(sent)
            await self._on_disk(spool.close)
            if sent:
                _log.warning("sent %d objects that a process which is gone left in the journal", sent)

    async def _send_all(self, spool: SpoolDirectory) -> int:
        sent = 0
        while not spool.empty:
            try:
                await self._in_thread(spool.send_oldest, self._store)
            except Exception as error:  # noqa: BLE001 - it goes on waiting, whatever the fault is
                self._note_failure(error)
                break
            sent += 1
            self._note_success()
        return sent

    async def _watch(self) -> None:
        """Ask the store now and then while nothing is written, so that readiness follows it."""
        while True:
            if not self._reachable or time.monotonic() - self._last_success > _PROBE_SECONDS:
                self._reachable = await self._answers()
            await asyncio.sleep(_PROBE_SECONDS / 2)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await self._in_thread(self._store.check)
        except (StoreError, TimeoutError) as error:
            _log.warning("the archive's store is out of reach: %s", str(error) or "it does not answer")
            return False
        return True

    def _free_name(self) -> str:
        """A name that no writer has had today; chance alone would do, but a copied machine may repeat its chances."""
        day = now_text()[:10]
        for _ in range(_NAMES):
            name = writer_name(self._role)
            prefix = f"{RECORDS}date={day}/release={self._release}/{name}-"
            try:
                if next(iter(self._store.list(prefix)), None) is None:
                    return name
            except StoreError:
                return name
        raise StoreError("No name is free for this writer; its random numbers repeat.")

    async def _in_thread(self, work: Callable[[Unpack[_Given]], _Outcome], *given: *_Given) -> _Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _on_disk(self, work: Callable[[Unpack[_Given]], _Outcome], *given: *_Given) -> _Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *given)


# The writers of this process. Gauges are asked by another thread, which takes the set as it is at that moment.
_OPEN: Final[set[LedgerWriter]] = set()
_WAITING.set_function(lambda: sum(len(writer.waits) for writer in tuple(_OPEN)))
_WAITING_OLDEST.set_function(lambda: max((wait for writer in tuple(_OPEN) for wait in writer.waits), default=0.0))


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | StoreError) -> None:
    """Give a waiting call its outcome; one that was cancelled meanwhile has its line kept all the same."""
    if future.done():
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
