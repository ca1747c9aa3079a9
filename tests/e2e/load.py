"""A steady load of real films over HTTP and gRPC inside the test's own process, and what became of each call.

Beside loadtest/, whose calls and checks it shares: locust patches the standard library, which a test's process cannot
have, and a test asks while the load runs which calls were answered, and with which predictions.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import httpx
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

from loadtest import calls as made

_TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Call:
    """One call: how it was made, when it was due and when it ended (monotonic seconds), and what came back."""

    transport: str
    due: float
    ended: float
    outcome: str
    prediction_id: str | None = None

    @property
    def answered(self) -> bool:
        return self.outcome == "ok"


@contextlib.contextmanager
def beside(act: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Let it run beside the test; `stop`, which ends it, is set when the context is left."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass
class Load:
    """Calls at a constant rate, HTTP and gRPC in turn, each sent when it is due whatever became of the others."""

    gateway: str
    films: list[bytes]
    per_second: float
    # Where gRPC has an address of its own.
    grpc_address: str | None = None
    # Host name to ask the gateway for; its own address unless given.
    host: str | None = None
    calls: list[Call] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Run it beside the test; every call that was sent has ended when the context is left."""
        with beside(lambda: asyncio.run(self._run()), self._stop):
            yield self

    def wait_for_answers(self, count: int, seconds: float = 60.0) -> None:
        """Wait until that many more calls were answered."""
        wanted = self.answered + count
        give_up = time.monotonic() + seconds
        while self.answered < wanted:
            assert time.monotonic() < give_up, self.failures[-5:]
            time.sleep(0.05)

    @property
    def answered(self) -> int:
        return sum(call.answered for call in self.calls)

    @property
    def failures(self) -> list[Call]:
        return [call for call in self.calls if not call.answered]

    def summary(self) -> str:
        """One line of figures."""
        seconds = sorted(call.ended - call.due for call in self.calls if call.answered)
        half, tail = (f"{1000 * seconds[int(len(seconds) * part)]:.0f} ms" for part in (0.5, 0.99))
        return f"{len(self.calls)} calls, {len(self.failures)} lost, p50 {half}, p99 {tail}"

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=200)
        async with (
            httpx.AsyncClient(
                base_url=f"http://{self.gateway}",
                timeout=_TIMEOUT_SECONDS,
                limits=limits,
                headers={"Host": self.host} if self.host else {},
            ) as http,
            grpc.aio.insecure_channel(
                self.grpc_address or self.gateway,
                options=[("grpc.default_authority", self.host)] if self.host else [],
            ) as channel,
            asyncio.TaskGroup() as calls,
        ):
            infer = channel.unary_unary(made.GRPC_INFER)
            over_http = made.calls_of("v1", self.films, 1)
            over_grpc = made.calls_of("grpc", self.films, 1, messages)
            started, number = time.monotonic(), 0
            while not self._stop.is_set():
                due = started + number / self.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                film = number % len(self.films)
                if number % 2:
                    calls.create_task(self._grpc(infer, over_grpc[film], due))
                else:
                    calls.create_task(self._http(http, over_http[film], due))
                number += 1

    async def _http(self, client: httpx.AsyncClient, call: made.Call, due: float) -> None:
        prediction_id = None
        try:
            response = await client.post(call.path, content=call.body, headers=call.headers)
            (prediction_id,) = made.check_answer(
                call, response.status_code, response.headers.get, response.content
            ).predictions
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        except made.WrongAnswer as wrong:
            outcome = f"{response.status_code} {wrong} {response.text[:200]}"
        else:
            outcome = "ok"
        self.calls.append(Call("http", due, time.monotonic(), outcome, prediction_id))

    async def _grpc(self, infer: Any, call: made.Call, due: float) -> None:
        prediction_id = None
        try:
            body = await infer(call.body, timeout=_TIMEOUT_SECONDS)
            (prediction_id,) = made.check_grpc_answer(call, messages, body).predictions
        except grpc.aio.AioRpcError as error:
            outcome = f"{error.code().name} {(error.details() or '')[:200]}"
        except made.WrongAnswer as wrong:
            outcome = str(wrong)
        else:
            outcome = "ok"
        self.calls.append(Call("grpc", due, time.monotonic(), outcome, prediction_id))
