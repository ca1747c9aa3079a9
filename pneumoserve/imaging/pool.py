"""Decoding outside of this process: films go to workers that hold nothing, can do nothing, and may die."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import logging
import math
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from pneumoserve.imaging.metadata import DisplayImage, ImageError, PreparedImage
from pneumoserve.imaging.process import (
    Answer,
    Deadline,
    End,
    EndError,
    Large,
    OutOfMemory,
    WorkerProcess,
    worker_command,
)
from pneumoserve.imaging.turns import Budget, FairQueue, Job

__all__ = [
    "LANES",
    "MOST_MEMORY",
    "SPARES",
    "WORKER_BASE",
    "Budget",
    "DecoderPool",
    "Lane",
    "LaneName",
    "NotDecodedError",
    "Outcome",
    "shared_pool",
]

_MIB: Final = 1024 * 1024

LaneName = Literal["fast", "slow"]
# How the decoding of a film ended, or its worker did.
Outcome = Literal["prepared", "refused", "moved", "memory", "died", "killed", "timeout", "stalled", "garbage"]


class NotDecodedError(ImageError):
    """A film that was not tried: nothing is said of it, and trying again may help."""


@dataclass(frozen=True)
class Lane:
    """Workers of one kind; `memory` is how many bytes the address space of each may grow after its warm-up.

    A film has `seconds` of its worker's processor time, and `wall_seconds` in all, whatever else the machine does.
    """

    workers: int
    seconds: float
    wall_seconds: float
    memory: int


LANES: Final[Mapping[LaneName, Lane]] = {
    "fast": Lane(workers=2, seconds=2.0, wall_seconds=10.0, memory=192 * _MIB),
    "slow": Lane(workers=1, seconds=10.0, wall_seconds=40.0, memory=640 * _MIB),
}
# Resident bytes of a worker that has decoded nothing but its warm-up, and how many wait to take a dead one's place.
WORKER_BASE: Final = 85 * _MIB
SPARES: Final = 1
# What all workers may take at once.
MOST_MEMORY: Final = SPARES * WORKER_BASE + sum(lane.workers * (WORKER_BASE + lane.memory) for lane in LANES.values())

_START_SECONDS: Final = 30.0
# A spare may have been killed with the worker whose place it takes.
_STARTS_TRIED: Final = 3
# The next worker may be one that is just being killed too, a third is not.
_KILLS_FORGIVEN: Final = 2
_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 1.0
_REMEMBERED: Final = 10_000

_UNSAFE: Final = (400, "The film could not be decoded safely; export it again, or in another format.")
_TOO_LONG: Final = (413, "The film takes too long to decode; send it uncompressed, or a smaller copy.")
_TOO_MUCH_MEMORY: Final = (413, "The film needs more memory to decode than one may have; send a smaller copy.")
_BUSY: Final = (429, "Too many films wait to be decoded; try again after a moment.")
_STALLED: Final = (503, "The film was not decoded in time, since its decoder stood still; try again.")
_NO_WORKER: Final = (503, "No film can be decoded at the moment; try again.")

_log = logging.getLogger(__name__)


class DecoderPool:
    """Workers in two lanes: a film starts in the fast one, and goes to the slow one where its header says it is large.

    Usable from any thread and, through `asyncio.wrap_future`, from an event loop; a context manager that starts and
    ends the workers. `report` is called after each film with its lane, outcome and its worker's processor seconds.
    A film waits for `wait_seconds` at most before it is refused. `starts` counts the workers that have come up; they
    are `filtered` where the kernel refuses them all system calls but a few.
    """

    def __init__(
        self,
        lanes: Mapping[LaneName, Lane] = LANES,
        report: Callable[[LaneName, Outcome, float], None] = lambda *_: None,
        wait_seconds: float = 20.0,
        command: Sequence[str] | None = None,
    ) -> None:
        self.starts = 0
        self.filtered = True
        self._report = report
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._queues = {name: FairQueue() for name in lanes}
        self._coming = {name: threading.Condition(self._lock) for name in lanes}
        self._unsafe: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._closing = threading.Event()
        self._stock = _Stock(command or worker_command(max(lane.memory for lane in lanes.values())))
        self._seats = [_Seat(self, name, lane) for name, lane in lanes.items() for _ in range(lane.workers)]

    def __enter__(self) -> Self:
        self._stock.start()
        for seat in self._seats:
            seat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with self._lock:
            for coming in self._coming.values():
                coming.notify_all()
        for seat in self._seats:
            seat.interrupt()
        for seat in self._seats:
            seat.join()
        self._stock.close()
        for name in self._queues:
            self._refuse_waiting(name)

    @property
    def ready(self) -> bool:
        """Whether each lane has a worker, or one to come in the place of one that has just ended."""
        return all(any(seat.ready for seat in self._seats_of(name)) for name in self._queues)

    def waiting(self, lane: LaneName) -> int:
        """How many films wait for a worker of a lane."""
        with self._lock:
            return len(self._queues[lane])

    def submit(self, data: bytes, budget: Budget) -> Future[PreparedImage]:
        """Have a film prepared at the cost of its call; a future that is cancelled gives its place back.

        The future raises ImageError: as `prepare` does, 400 where the film ended its worker, 413 where it or its call
        takes too much time, memory or pixels, 429 where it has waited too long, 503 where no worker can be started.
        """
        job = Job(data, budget, Future())
        self._put("fast", job)
        return job.future

    def prepare(self, data: bytes) -> PreparedImage:
        """`imaging.prepare.prepare`, in a worker.

        Raises:
            ImageError: as `submit` says.
        """
        return self.submit(data, Budget()).result()

    def display(self, data: bytes) -> DisplayImage:
        """`imaging.prepare.display`, in a worker.

        Raises:
            ImageError: as `submit` says.
        """
        job = Job(data, Budget(), Future(), shown=True)
        self._put("fast", job)
        shown: DisplayImage = job.future.result()
        return shown

    def _seats_of(self, lane: LaneName) -> list[_Seat]:
        return [seat for seat in self._seats if seat.lane == lane]

    def _put(self, lane: LaneName, job: Job) -> None:
        with self._lock:
            self._queues[lane].put(job)
            self._coming[lane].notify()
        if self._closing.is_set():
            self._refuse_waiting(lane)

    def _take(self, lane: LaneName) -> Job | None:
        """The next job of a lane; None where none comes for a while. `_finish` must follow."""
        with self._lock:
            if not self._queues[lane] and not self._closing.is_set():
                self._coming[lane].wait(_POLL_SECONDS)
            return None if self._closing.is_set() else self._queues[lane].take()

    def _finish(self, lane: LaneName, job: Job, seconds: float) -> None:
        with self._lock:
            self._queues[lane].finish(job, seconds)
            job.budget.seconds += seconds

    def _note_start(self, filtered: bool) -> None:
        with self._lock:
            self.starts += 1
            first, self.filtered = self.filtered and not filtered, filtered
        if first:
            _log.warning("decode workers run without a system call filter: this system has no seccomp or libseccomp")

    def _refuse_waiting(self, lane: LaneName) -> None:
        """Refuse whatever waits for a lane that has no worker."""
        while True:
            with self._lock:
                job = self._queues[lane].take()
            if job is None:
                return
            self._finish(lane, job, 0.0)
            job.settle(NotDecodedError(*_NO_WORKER))

    def _refusal(self, job: Job) -> ImageError | None:
        """Why a film is not even tried; None where it is."""
        if time.monotonic() - job.queued > self._wait_seconds:
            return NotDecodedError(*_BUSY)
        return job.budget.refusal()

    def _charge(self, job: Job, pixels: int) -> ImageError | None:
        """Count a film's pixels, once; why its call is refused where they are too many."""
        with self._lock:
            job.budget.pixels += max(pixels - job.pixels, 0)
            job.pixels = max(pixels, job.pixels)
            return job.budget.refusal()

    def _find_fault(self, digest: str) -> ImageError | None:
        with self._lock:
            known = self._unsafe.get(digest)
        return None if known is None else ImageError(*known)

    def _remember(self, digest: str, refusal: tuple[int, str]) -> ImageError:
        """Never try a film again that has ended a worker, as long as this process lives and there is room."""
        with self._lock:
            self._unsafe[digest] = refusal
            if len(self._unsafe) > _REMEMBERED:
                self._unsafe.popitem(last=False)
        return ImageError(*refusal)


@functools.cache
def shared_pool() -> DecoderPool:
    """The pool of a command that works through films: a worker for each core, no film waits in vain; ends with it."""
    fast = replace(LANES["fast"], workers=len(os.sched_getaffinity(0)))
    pool = DecoderPool({**LANES, "fast": fast}, wait_seconds=math.inf).__enter__()
    atexit.register(pool.__exit__)
    return pool


class _Seat(threading.Thread):
    """The place of one worker in a lane, and the thread that speaks with it."""

    def __init__(self, pool: DecoderPool, lane: LaneName, limits: Lane) -> None:
        super().__init__(name=f"decode-{lane}", daemon=True)
        self.lane = lane
        self.ready = False
        self._pool = pool
        self._limits = limits
        self._worker: WorkerProcess | None = None
        self._failures = 0

    def run(self) -> None:
        pool = self._pool
        while not pool._closing.is_set():
            worker = self._take_seat()
            job = None if worker is None else pool._take(self.lane)
            if worker is None or job is None:
                continue
            refusal = pool._refusal(job)
            if refusal is None and not job.future.cancelled() and worker.alive:
                self._decode(worker, job)
                continue
            pool._finish(self.lane, job, 0.0)
            if refusal is not None:
                job.settle(refusal)
            elif not job.future.cancelled():
                pool._put(self.lane, job)
        self._unseat()

    def interrupt(self) -> None:
        """End the worker, whatever it does: the pool closes."""
        worker = self._worker
        if worker is not None:
            worker.interrupt()

    def _take_seat(self) -> WorkerProcess | None:
        """The worker, a new one where the last has ended; None where none can be had for now."""
        if self._worker is not None and self._worker.alive:
            return self._worker
        self._unseat()
        try:
            worker = self._pool._stock.take()
            self._worker = worker
            worker.wait_until_ready(self._limits.memory, _START_SECONDS)
            if not worker.alive:
                raise EndError("died")
        except (EndError, OSError) as error:
            self._fail(error)
            return None
        self._failures = 0
        self.ready = True
        self._pool._note_start(worker.filtered)
        return worker

    def _fail(self, error: Exception) -> None:
        """Try again, after a while where it fails again and again; then what waits for the lane is refused."""
        self._unseat()
        self._failures += 1
        if self._pool._closing.is_set():
            return
        _log.error("a decode worker did not start (%s)", error)
        if self._failures < _STARTS_TRIED:
            return
        self.ready = False
        if not any(seat.ready for seat in self._pool._seats_of(self.lane)):
            self._pool._refuse_waiting(self.lane)
        backoff = _FIRST_BACKOFF_SECONDS * 2 ** min(self._failures - _STARTS_TRIED, 10)
        self._pool._closing.wait(min(backoff, _MAX_BACKOFF_SECONDS))

    def _unseat(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _decode(self, worker: WorkerProcess, job: Job) -> None:
        answer: Answer | EndError
        seconds, digest = 0.0, ""
        started = time.monotonic()
        try:
            before = worker.cpu_seconds()
            deadline = Deadline(worker, self._limits.seconds, self._limits.wall_seconds)
            if self._pool._unsafe:
                digest = hashlib.sha256(job.data).hexdigest()
            known = self._pool._find_fault(digest)
            if known is None:
                worker.send(job.data, self.lane == "fast", job.shown, deadline)
                # The worker is at work meanwhile.
                digest = digest or hashlib.sha256(job.data).hexdigest()
                answer = worker.receive_shown(deadline) if job.shown else worker.receive(job.data, digest, deadline)
                if isinstance(answer, Large) and self.lane == "slow":
                    raise EndError("garbage")
                seconds = worker.cpu_seconds() - before
            else:
                answer = known
        except EndError as end:
            answer, seconds = end, min(time.monotonic() - started, self._limits.seconds)
            self._unseat()
        self._pool._finish(self.lane, job, seconds)
        self._pool._report(self.lane, self._settle(job, digest, answer), seconds)

    def _settle(self, job: Job, digest: str, answer: Answer | EndError) -> Outcome:
        """Give the film's caller the answer, or the film to the slow lane."""
        match answer:
            case EndError():
                return self._bury(job, digest, answer.end)
            case Large():
                return self._move(job, self._pool._charge(job, answer.pixels))
            case OutOfMemory():
                over = ImageError(*_TOO_MUCH_MEMORY) if self.lane == "slow" else None
                return "memory" if self._move(job, over) == "refused" else "moved"
            case ImageError():
                job.settle(answer)
                return "refused"
        job.settle(self._pool._charge(job, answer.width * answer.height) or answer)
        return "prepared"

    def _move(self, job: Job, refusal: ImageError | None) -> Outcome:
        """Let the slow lane try it, unless there is a reason not to."""
        if refusal is not None:
            job.settle(refusal)
            return "refused"
        self._pool._put("slow", job)
        return "moved"

    def _bury(self, job: Job, digest: str, end: End) -> Outcome:
        """What becomes of a film whose worker has ended: of one that was killed or stood still, that says nothing."""
        _log.warning("a decode worker of the %s lane has ended (%s)", self.lane, end)
        if end == "killed" and job.kills < _KILLS_FORGIVEN:
            job.kills += 1
            self._pool._put(self.lane, job)
        elif end == "stalled":
            job.settle(NotDecodedError(*_STALLED))
        else:
            digest = digest or hashlib.sha256(job.data).hexdigest()
            job.settle(self._pool._remember(digest, _TOO_LONG if end == "timeout" else _UNSAFE))
        return end


class _Stock:
    """Workers that are started before they are needed, and warm up meanwhile.

    A thread of its own starts them: the kernel kills a worker when the thread that started it ends.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._workers: queue.SimpleQueue[WorkerProcess | OSError] = queue.SimpleQueue()
        self._room = threading.Semaphore(SPARES)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="decode-start", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> WorkerProcess:
        """The oldest of the stock, not necessarily warm yet.

        Raises:
            OSError: the system starts none.
        """
        worker = self._workers.get()
        self._room.release()
        if isinstance(worker, OSError):
            raise worker
        return worker

    def close(self) -> None:
        """End what has been started and not taken."""
        self._closing.set()
        self._room.release()
        self._thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._workers.get_nowait()
                if isinstance(worker, WorkerProcess):
                    worker.kill()

    def _fill(self) -> None:
        while True:
            self._room.acquire()
            if self._closing.is_set():
                return
            try:
                self._workers.put(WorkerProcess(self._command))
            except OSError as error:
                self._workers.put(error)
