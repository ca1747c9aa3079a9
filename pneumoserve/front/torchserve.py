"""The client of the models container: TorchServe on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import numpy as np
import numpy.typing as npt

from pneumoserve.front import metrics
from pneumoserve.front.errors import CallError
from pneumoserve.front.scores import UNANSWERED, note_engine, read_score, trace_score
from pneumoserve.models.scorer import Score
from pneumoserve.tracing import HEADER

# A killed worker costs the request it held (507) and takes about 2 s to come back.
_DEADLINE_SECONDS: Final = 20.0
# Rarely TorchServe never answers the request that a dying worker held: one try must not take the whole time.
_TRY_SECONDS: Final = 6.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 0.5
_READY_PERIOD_SECONDS: Final = 1.0


class TorchServe:
    """Sends prepared pixels to TorchServe's models; `ready` says whether all of them have a worker."""

    def __init__(self, inference_url: str, management_url: str, models: tuple[str, ...], concurrency: int) -> None:
        self._inference_url = inference_url.rstrip("/")
        self._management_url = management_url.rstrip("/")
        self._models = models
        self._slots = asyncio.Semaphore(concurrency)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TRY_SECONDS), connector=aiohttp.TCPConnector(limit=concurrency)
        )
        self._watch: asyncio.Task[None] | None = None
        self.ready = False

    def start(self) -> None:
        """Begin to watch the workers."""
        self._watch = asyncio.create_task(self._watch_workers())

    async def close(self) -> None:
        """Stop watching and close the connections."""
        if self._watch is not None:
            self._watch.cancel()
        await self._session.close()

    async def score(self, model: str, pixels: npt.NDArray[np.uint8]) -> Score:
        """The score of one film; `pixels` is uint8 of shape [224, 224].

        A request that a dying worker drops is sent again: scoring has no side effects.

        Raises:
            CallError: 503 where no worker answers within 20 s.
        """
        headers = {"Content-Type": "application/octet-stream"}
        with trace_score(model) as asked:
            if asked.traceparent is not None:
                headers[HEADER] = asked.traceparent
            async with self._slot(model):
                return await self._ask(model, pixels.tobytes(), headers)

    async def _ask(self, model: str, body: bytes, headers: dict[str, str]) -> Score:
        pause = _FIRST_PAUSE_SECONDS
        # Time in the queue does not count: a call that waited long may be dropped, and sent again, too.
        give_up = time.monotonic() + _DEADLINE_SECONDS
        while True:
            answer = await self._once(model, body, headers)
            if answer is not None:
                return answer
            if time.monotonic() + pause > give_up:
                raise CallError(503, UNANSWERED)
            metrics.BACKEND_RETRIES.inc()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @contextlib.asynccontextmanager
    async def _slot(self, model: str) -> AsyncIterator[None]:
        with metrics.ENGINE_WAITING.labels(model).track_inprogress():
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _once(self, model: str, body: bytes, headers: dict[str, str]) -> Score | None:
        """One try; None where it failed in a way that another try may mend."""
        started = time.perf_counter()
        try:
            async with self._session.post(
                f"{self._inference_url}/predictions/{model}", data=body, headers=headers
            ) as response:
                if response.status >= 500:
                    return None
                document: dict[str, Any] = await response.json(content_type=None)
                if response.status != 200:
                    raise CallError(500, "The models refused prepared pixels; this is a fault of the service.")
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        score = read_score(document, "torchserve")
        metrics.ENGINE_SECONDS.labels(model).observe(time.perf_counter() - started)
        note_engine(model, score)
        return score

    async def _watch_workers(self) -> None:
        while True:
            workers = {model: await self._count_workers(model) for model in self._models}
            for model, ready in workers.items():
                metrics.ENGINE_WORKERS.labels(model).set(ready)
            self.ready = all(workers.values())
            await asyncio.sleep(_READY_PERIOD_SECONDS)

    async def _count_workers(self, model: str) -> int:
        """Workers that are ready; none where TorchServe does not say."""
        try:
            async with self._session.get(
                f"{self._management_url}/models/{model}", timeout=aiohttp.ClientTimeout(total=2)
            ) as response:
                if response.status != 200:
                    return 0
                described = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0
        return sum(worker.get("status") == "READY" for worker in described[0].get("workers", []))
