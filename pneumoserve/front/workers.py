"""The client of the models' workers, where they run without TorchServe: a connection to each, over a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import orjson
from prometheus_client import Counter

from pneumoserve.front import metrics
from pneumoserve.front.errors import CallError
from pneumoserve.front.scores import UNANSWERED, note_engine, read_score, trace_score
from pneumoserve.models.exchange import GREETING, LENGTH, MODELS, find_sockets
from pneumoserve.models.scorer import Score

# A worker that dies takes about 1.5 s to come back. Time in the queue does not count while the queue moves.
_DEADLINE_SECONDS: Final = 20.0
# Longer than a worker takes for what it has been sent, whatever else the machine does.
_STALL_SECONDS: Final = 6.0
# The second is there when the first is done: no worker waits for this process.
_SENT_AHEAD: Final = 2
# Workers that may die over one film. One may be killed by somebody else, so may the next; a third is the film's doing.
_DEATHS: Final = 3
_LOOK_SECONDS: Final = 1.0

# Of the names of TorchServe's own, so one of the two is registered.
QUEUE_SECONDS: Final = Counter(
    "pneumoserve_engine_queue_seconds", "Seconds that films have waited for a worker, by model.", ["model"],
    registry=None,
)  # fmt: skip
REQUESTS: Final = Counter(
    "pneumoserve_engine_requests", "Films that workers have been sent, by model.", ["model"], registry=None
)


class _Job:
    """A film on its way to its score; `began` is when it was last queued or sent."""

    def __init__(self, model: str, pixels: bytes) -> None:
        self.model = model
        self.pixels = pixels
        self.score: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        self.began = time.monotonic()
        self.deaths = 0

    def refuse(self) -> None:
        if not self.score.done():
            self.score.set_exception(CallError(503, UNANSWERED))


class Workers:
    """Sends prepared pixels to whichever worker has least to do; `ready` says whether there is one."""

    def __init__(self, sockets: Path) -> None:
        self._sockets = sockets
        self._waiting: deque[_Job] = deque()
        self._connections: dict[Path, _Connection] = {}
        self._lost = asyncio.Event()
        self._moved = time.monotonic()
        self._watch: asyncio.Task[None] | None = None
        for model in MODELS:
            metrics.ENGINE_WAITING.labels(model).set_function(functools.partial(self._count_waiting, model))
            metrics.ENGINE_WORKERS.labels(model).set_function(lambda: len(self._ready()))

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded the models."""
        return bool(self._ready())

    def start(self) -> None:
        """Begin to connect to the workers, and to watch them."""
        self._watch = asyncio.create_task(self._watch_workers())

    async def close(self) -> None:
        """Stop watching and close the connections."""
        if self._watch is not None:
            self._watch.cancel()
        for connection in list(self._connections.values()):
            connection.close()

    async def score(self, model: str, pixels: npt.NDArray[np.uint8]) -> Score:
        """The score of one film; `pixels` is uint8 of shape [224, 224].

        A film that a dying worker held is sent again: scoring has no side effects.

        Raises:
            CallError: 503 where no worker answers anything for 20 s, or the film has ended one after another.
        """
        with trace_score(model):
            job = _Job(model, pixels.tobytes())
            self._waiting.append(job)
            self._dispatch()
            return await job.score

    def _ready(self) -> list[_Connection]:
        return [each for each in self._connections.values() if each.greeted]

    def _count_waiting(self, model: str) -> int:
        return sum(job.model == model for job in self._waiting)

    def _dispatch(self) -> None:
        """Send what waits to workers that have room."""
        free = [each for each in self._ready() if len(each.sent) < _SENT_AHEAD]
        while self._waiting and free:
            job = self._waiting.popleft()
            # Its caller may have gone.
            if job.score.done():
                continue
            worker = min(free, key=lambda each: len(each.sent))
            now = time.monotonic()
            QUEUE_SECONDS.labels(job.model).inc(now - job.began)
            REQUESTS.labels(job.model).inc()
            job.began = now
            worker.send(job)
            if len(worker.sent) >= _SENT_AHEAD:
                free.remove(worker)

    def take_answer(self, job: _Job, answer: bytes) -> None:
        """Give a film its score."""
        self._moved = time.monotonic()
        score = read_score(orjson.loads(answer), "inprocess")
        metrics.ENGINE_SECONDS.labels(job.model).observe(self._moved - job.began)
        note_engine(job.model, score)
        if not job.score.done():
            job.score.set_result(score)
        self._dispatch()

    def take_loss(self, path: Path, held: deque[_Job]) -> None:
        """Queue again, in front, what a worker held whose connection has ended; the first is what it was at."""
        self._connections.pop(path, None)
        self._lost.set()
        if held:
            held[0].deaths += 1
        for job in reversed(held):
            if job.deaths >= _DEATHS:
                job.refuse()
                continue
            metrics.BACKEND_RETRIES.inc()
            job.began = time.monotonic()
            self._waiting.appendleft(job)
        self._dispatch()

    async def _watch_workers(self) -> None:
        while True:
            self._lost.clear()
            for path in find_sockets(self._sockets):
                if path not in self._connections:
                    await self._connect(path)
            now = time.monotonic()
            for connection in self._connections.values():
                connection.end_stalled(now)
            if now - self._moved > _DEADLINE_SECONDS:
                for job in [each for each in self._waiting if now - each.began > _DEADLINE_SECONDS]:
                    self._waiting.remove(job)
                    job.refuse()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _LOOK_SECONDS)

    async def _connect(self, path: Path) -> None:
        """Connect to a worker, which greets as soon as it has loaded; nothing where nobody listens."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            transport, connection = await loop.create_unix_connection(
                lambda: _Connection(self._dispatch, self.take_answer, functools.partial(self.take_loss, path)),
                str(path),
            )
            # It may have been lost at once.
            if not transport.is_closing():
                self._connections[path] = connection


class _Connection(asyncio.Protocol):
    """One worker: the films that it has been sent, in their order. `greeted` says whether it has loaded."""

    def __init__(
        self,
        on_greeting: Callable[[], None],
        on_answer: Callable[[_Job, bytes], None],
        on_loss: Callable[[deque[_Job]], None],
    ) -> None:
        self.sent: deque[_Job] = deque()
        self.greeted = False
        self._on_greeting, self._on_answer, self._on_loss = on_greeting, on_answer, on_loss
        self._received = bytearray()
        self._moved = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.greeted:
            self._read_greeting()
        while self.sent and (answer := self._take_answer()) is not None:
            self._moved = time.monotonic()
            self._on_answer(self.sent.popleft(), answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's form
        self.greeted = False
        held, self.sent = self.sent, deque()
        self._on_loss(held)

    def send(self, job: _Job) -> None:
        """Send a film."""
        if not self.sent:
            self._moved = time.monotonic()
        self.sent.append(job)
        self._transport.write(bytes((MODELS.index(job.model),)) + job.pixels)

    def end_stalled(self, now: float) -> None:
        """End the connection where the worker has not answered for long."""
        if self.sent and now - self._moved > _STALL_SECONDS:
            self.close()

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()

    def _read_greeting(self) -> None:
        if len(self._received) < len(GREETING):
            return
        if self._received[: len(GREETING)] != GREETING:
            self.close()
            return
        del self._received[: len(GREETING)]
        self.greeted = True
        self._on_greeting()

    def _take_answer(self) -> bytes | None:
        """One whole answer, None where it is still coming."""
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        end = LENGTH.size + length
        if len(self._received) < end:
            return None
        answer = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return answer
