"""What callers may take of a front: bodies, heads, connections and messages, against a backend that only answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import ipaddress
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from kserve import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from pneumoserve.front import admission as admissions
from pneumoserve.front import connections, grpc_service, memory, metrics, rest
from pneumoserve.front.admission import MAX_BODY_BYTES, Admission, Budget
from pneumoserve.front.connections import Connection, Connections
from pneumoserve.front.errors import CallError
from pneumoserve.front.idempotency import FirstAnswers
from pneumoserve.front.identity import Callers
from pneumoserve.front.pipeline import Pipeline
from pneumoserve.front.rest import Routes, register_error_handlers
from pneumoserve.front.service import Answer, Refusal
from pneumoserve.front.wire import Call, Origin
from pneumoserve.ledger import SegmentKey, make_receipt
from pneumoserve.records import Protocol, Pseudonyms
from pneumoserve.store import MemoryStore

MIB = 1024 * 1024
RECEIPT = make_receipt(SegmentKey("front-00000000", 1, "2026-11-30", "0" * 12), b"{}", Ed25519PrivateKey.generate())
FILM = b"\xff\xd8\xff film"
PREDICT = b"POST /v1/models/pneumonia-detector:predict HTTP/1.1\r\nHost: a\r\n"
LOGGING: dict[str, Any] = {"log_config": None, "access_log": False}
LIVE = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Backend:
    """Answers every call, once `open` is set, and notes the status of those that are refused."""

    release_id: str = "0" * 12
    callers: Callers = field(default_factory=lambda: Callers(None))
    ready: bool = True
    open: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)

    async def answer(self, model: str, call: Call) -> list[Answer]:
        self.calls.append(call)
        await self.open.wait()
        return [Answer("p", self.release_id, None, 0.5, None, None, "to test with", 0.5, RECEIPT) for _ in call.images]

    async def refuse(self, model: str, call: Call | Origin, error: CallError) -> Refusal:
        self.refusals.append(error.status)
        return Refusal(error, "r", RECEIPT)


class Quiet(uvicorn.Server):
    """uvicorn in this process, which leaves the signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@dataclass
class Front:
    """Both transports over one backend."""

    backend: Backend
    port: int
    grpc: str

    async def send(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which something was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def ask(self, *parts: bytes) -> tuple[int, bytes]:
        """Status and body of an answer to a request that is sent in parts."""
        reader, writer = await self.send()
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        try:
            return await read_answer(reader)
        finally:
            writer.close()

    async def predict(self, body: bytes = FILM) -> int:
        status, _ = await self.ask(PREDICT + b"Content-Length: %d\r\n\r\n" % len(body), body)
        return status


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    status = int(head.split()[1])
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return status, await reader.readexactly(length)


@pytest.fixture(autouse=True)
def _client_in_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests' own gRPC clients hold is no reason to refuse them."""
    monkeypatch.setattr(admissions, "_UNSEEN", 1024 * MIB)


@contextlib.asynccontextmanager
async def serving(bodies: int = 256 * MIB, limits: Connections | None = None) -> AsyncIterator[Front]:
    backend = Backend()
    backend.open.set()
    first_answers = FirstAnswers(MemoryStore(), Pseudonyms(bytes(32)))
    pipeline = Pipeline(backend, Admission(bodies), first_answers)
    app = FastAPI()
    Routes(pipeline).register(app)
    app.add_api_route("/live", lambda: {"live": True})
    register_error_handlers(app)
    sock = socket.create_server(("127.0.0.1", 0))
    protocol = functools.partial(Connection, limits or Connections(1000, ()))
    http = Quiet(uvicorn.Config(app, http=protocol, ws="none", **LOGGING, timeout_keep_alive=60, lifespan="off"))  # type: ignore[arg-type]
    rpc = grpc_service.create_grpc_server(pipeline, DataPlane(ModelRepository()))
    port = rpc.add_insecure_port("127.0.0.1:0")
    await rpc.start()
    task = asyncio.create_task(http.serve([sock]))
    while not http.started:
        await asyncio.sleep(0.01)
    try:
        yield Front(backend, sock.getsockname()[1], f"127.0.0.1:{port}")
    finally:
        backend.open.set()
        http.should_exit = http.force_exit = True
        await task
        await rpc.stop(0)
        first_answers.close()


async def until(condition: Any, seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not become so in time"
        await asyncio.sleep(0.01)


def total(counter: Any) -> float:
    return float(counter._value.get())


# --- bodies ---


@pytest.mark.parametrize(("count", "announced"), [(12, MAX_BODY_BYTES), (256, 1)])
async def test_who_announces_a_body_and_sends_none_takes_nothing_from_others(count: int, announced: int) -> None:
    async with serving() as front:
        idle = [await front.send(PREDICT + b"Content-Length: %d\r\n\r\n" % announced) for _ in range(count)]
        await until(lambda: metrics.IN_FLIGHT._value.get() >= count)
        for _ in range(5):
            assert await front.predict() == 200
        assert (await front.ask(LIVE))[0] == 200
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize(
    ("constant", "sent"), [("FIRST_BYTE_SECONDS", b""), ("IDLE_SECONDS", b"x"), ("BODY_SECONDS", b"drip")]
)
async def test_a_body_that_does_not_come_is_given_up_on_record(
    constant: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (admissions, rest):
        monkeypatch.setattr(module, constant, 0.3, raising=False)
    async with serving() as front:
        reader, writer = await front.send(PREDICT + b"Content-Length: 1000\r\n\r\n")
        for byte in sent:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
        dripping = asyncio.create_task(drip(writer)) if constant == "BODY_SECONDS" else None
        status, body = await read_answer(reader)
        assert status == 408
        assert json.loads(body)["prediction_id"] == "r"
        assert front.backend.refusals == [408]
        if dripping is not None:
            dripping.cancel()
        # Closed: what is late of the body is waited for no longer. A drop that came after that resets the connection.
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.2)  # seldom, so that a drop hardly ever meets the connection's end


async def test_a_large_body_that_dawdles_gives_way_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "_PATIENCE_SECONDS", 0.0)
    async with serving(bodies=60 * MIB) as front:
        reader, writer = await front.send(PREDICT + b"Content-Length: %d\r\n\r\n" % (44 * MIB))
        writer.write(bytes(43 * MIB))
        await writer.drain()
        assert await front.predict(FILM + bytes(30 * MIB)) == 200
        assert (await read_answer(reader))[0] == 429
        writer.close()


@pytest.mark.slow
async def test_large_bodies_leave_room_for_ordinary_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "_PATIENCE_SECONDS", 60.0)
    async with serving(bodies=100 * MIB) as front:
        front.backend.open.clear()
        large = [asyncio.create_task(front.predict(FILM + bytes(37 * MIB))) for _ in range(2)]
        await until(lambda: len(front.backend.calls) == 2)
        # The memory there is would do, but not what of it is for large ones.
        assert await front.predict(FILM + bytes(20 * MIB)) == 429
        ordinary = [asyncio.create_task(front.predict(FILM + bytes(3 * MIB))) for _ in range(6)]
        await until(lambda: len(front.backend.calls) == 8)
        front.backend.open.set()
        assert await asyncio.gather(*large) == [200, 200]
        assert await asyncio.gather(*ordinary) == [200] * 6


@pytest.mark.slow
async def test_memory_comes_back_when_a_call_has_ended() -> None:
    async with serving(bodies=60 * MIB) as front:
        for _ in range(3):
            assert await front.predict(FILM + bytes(44 * MIB - len(FILM))) == 200
        assert await front.predict(FILM + bytes(45 * MIB)) == 413
        assert await front.predict(FILM + bytes(44 * MIB - len(FILM))) == 200


async def test_a_body_of_untold_length_and_one_that_waits_for_leave_are_answered() -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (FILM, b"more")) + b"0\r\n\r\n"
    async with serving() as front:
        assert (await front.ask(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n", chunks))[0] == 200
        assert front.backend.calls[-1].images == [FILM + b"more"]
        reader, writer = await front.send(PREDICT + b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(FILM)
        assert (await read_answer(reader))[0] == 200
        writer.close()


async def test_a_caller_that_hangs_up_leaves_nothing_behind() -> None:
    async with serving(bodies=60 * MIB) as front:
        for _ in range(3):
            _, writer = await front.send(PREDICT + b"Content-Length: %d\r\n\r\n" % (44 * MIB))
            writer.write(bytes(30 * MIB))
            await writer.drain()
            writer.transport.abort()
        await until(lambda: metrics.IN_FLIGHT._value.get() == 0)
        assert await front.predict(FILM + bytes(40 * MIB)) == 200


async def test_a_refused_bodys_rest_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_REST_SECONDS", 0.2)
    async with serving() as front:
        reader, writer = await front.send(b"POST /v1/none HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        assert (await read_answer(reader))[0] == 404
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


@pytest.mark.parametrize("document", [b"[],", b'{"a":1},', b"1,"])
async def test_a_document_of_many_small_values_is_refused_before_it_takes_memory(document: bytes) -> None:
    body = b'{"instances":[' + document * (4 * MIB // len(document)) + b"1]}"
    async with serving() as front:
        status, sentence = await front.ask(PREDICT + b"Content-Length: %d\r\n\r\n" % len(body), body)
    assert status == 400
    assert b"more than 10,000 values" in sentence


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 10, "-1", "1_0", "٣"])
async def test_a_header_length_that_is_none_is_a_bad_request(digits: str) -> None:
    head = b"POST /v2/models/pneumonia/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
    async with serving() as front:
        status, _ = await front.ask(head + f"Inference-Header-Content-Length: {digits}\r\n\r\n{{}}".encode())
    assert status == 400


async def test_parsing_a_large_document_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"instances": [{"image": {"b64": base64.b64encode(FILM + bytes(2 * MIB)).decode()}}]}).encode()
    parse, parsing, go_on = rest._parse, threading.Event(), threading.Event()

    def hold(chunks: list[bytes], headers: Mapping[str, str], protocol: Protocol) -> Call:
        parsing.set()
        # On the event loop it would wait in vain: nobody else could let it go on.
        assert go_on.wait(5)
        return parse(chunks, headers, protocol)

    monkeypatch.setattr(rest, "_parse", hold)
    async with serving() as front:
        call = asyncio.create_task(front.predict(body))
        await until(parsing.is_set)
        assert (await front.ask(LIVE))[0] == 200
        go_on.set()
        assert await call == 200


# --- heads and connections ---


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: a\r\n" % at for at in range(9000)) + b"\r\n",
        b"GET /" + b"a" * 100_000,
    ],
    ids=["one header without end", "many headers", "a long path"],
)
async def test_a_head_that_is_too_large_is_refused_and_counted(head: bytes) -> None:
    before = total(metrics.HTTP_REFUSED)
    async with serving() as front:
        status, body = await front.ask(head)
        assert status == 431
        assert set(json.loads(body)) == {"error", "prediction_id"}
        assert (await front.ask(LIVE))[0] == 200
    assert total(metrics.HTTP_REFUSED) == before + 1


async def test_what_is_no_http_is_refused_and_counted() -> None:
    before = total(metrics.HTTP_REFUSED)
    async with serving() as front:
        status, body = await front.ask(b"Mustermann-in-the-payload\r\n\r\n")
        assert status == 400
        assert b"Mustermann" not in body
        assert (await front.ask(LIVE))[0] == 200
    assert total(metrics.HTTP_REFUSED) == before + 1


async def test_a_head_that_comes_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with serving() as front:
        assert (await front.ask(b"GET / HTTP/1.1\r\nA:"))[0] == 408
        reader, writer = await front.send()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_an_idle_connection_is_kept_for_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)  # long past when the second request comes
    async with serving() as front:
        reader, writer = await front.send(LIVE)
        assert (await read_answer(reader))[0] == 200
        await asyncio.sleep(0.4)
        writer.write(LIVE)
        assert (await read_answer(reader))[0] == 200
        writer.close()


async def test_requests_sent_ahead_are_answered_in_order_and_not_without_end() -> None:
    async with serving() as front:
        reader, writer = await front.send(LIVE * 10 + PREDICT + b"Content-Length: 8\r\n\r\n" + FILM)
        assert [(await read_answer(reader))[0] for _ in range(11)] == [200] * 11
        writer.close()
        front.backend.open.clear()
        reader, writer = await front.send(PREDICT + b"Content-Length: 8\r\n\r\n" + FILM + LIVE * 100)
        assert (await read_answer(reader))[0] == 429
        writer.close()


async def test_a_websocket_handshake_is_no_websocket_and_leaves_no_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YWJj\r\n"
    async with serving() as front:
        status, _ = await front.ask(b"GET /v1/Mustermann?patient=1970 HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")
    assert status == 404
    assert "Mustermann" not in caplog.text
    assert "websocket" not in caplog.text.lower()


async def test_one_address_holds_so_many_connections_and_a_proxy_more() -> None:
    before = total(metrics.HTTP_REFUSED)
    async with serving(limits=Connections(3, ())) as front:
        open_ones = [await front.send() for _ in range(3)]
        await until(lambda: all(writer.get_extra_info("peername") for _, writer in open_ones))
        reader, surplus = await front.send()
        assert (await read_answer(reader))[0] == 429
        surplus.close()
        assert total(metrics.HTTP_REFUSED) == before + 1
        open_ones[0][1].close()
        async with asyncio.timeout(20):
            # The front has a place again once it sees that the other end closed.
            while (await front.ask(LIVE))[0] != 200:
                await asyncio.sleep(0.01)
        for _, writer in open_ones:
            writer.close()
    async with serving(limits=Connections(3, [ipaddress.ip_network("127.0.0.0/8")])) as front:
        open_ones = [await front.send() for _ in range(5)]
        assert (await front.ask(LIVE))[0] == 200
        for _, writer in open_ones:
            writer.close()


async def test_where_all_connections_are_taken_an_idle_one_makes_room() -> None:
    async with serving(limits=Connections(100, (), most=4)) as front:
        reader, writer = await front.send(LIVE)
        await read_answer(reader)
        idle = [await front.send(b"GET / HT") for _ in range(3)]
        assert (await front.ask(LIVE))[0] == 200
        assert await reader.read() == b""
        for _, other in (*idle, (reader, writer)):
            other.close()


# --- gRPC ---


def message(data: bytes = FILM) -> bytes:
    request = pb.ModelInferRequest(model_name="pneumonia-detector")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    return bytes(request.SerializeToString())


def infer(channel: grpc.aio.Channel, *, streams: bool = False) -> Any:
    path = "/inference.GRPCInferenceService/ModelInfer"
    return channel.stream_unary(path) if streams else channel.unary_unary(path)


def channel(front: Front, **options: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(front.grpc, options=[("grpc.max_send_message_length", -1)], **options)


async def code_of(call: Any) -> grpc.StatusCode:
    return await call.code()


async def test_grpc_calls_without_a_message_take_nothing_from_others_and_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(bodies=60 * MIB) as front, channel(front) as idle, channel(front) as other:
        calls = [infer(idle, streams=True)() for _ in range(60)]
        await until(lambda: metrics.IN_FLIGHT._value.get() >= 60)
        for _ in range(5):
            assert pb.ModelInferResponse.FromString(await infer(other)(message())).model_name == "pneumonia-detector"
        monkeypatch.setattr(grpc_service, "MESSAGE_SECONDS", 0.2)
        late = infer(idle, streams=True)()
        assert await code_of(late) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert front.backend.refusals == [408]
        for call in calls:
            call.cancel()
        await until(lambda: metrics.IN_FLIGHT._value.get() == 0)


async def test_a_compressed_message_is_refused_before_it_is_inflated_and_counted() -> None:
    before = total(metrics.GRPC_STARTED) - total(metrics.GRPC_RECEIVED)
    async with serving() as front, channel(front, compression=grpc.Compression.Gzip) as zipped:
        call = infer(zipped)(message(FILM + bytes(40 * MIB)))
        assert await code_of(call) is grpc.StatusCode.UNIMPLEMENTED
        assert not front.backend.calls
    assert total(metrics.GRPC_STARTED) - total(metrics.GRPC_RECEIVED) == before + 1


async def test_messages_over_the_limits_are_refused_by_us_and_then_by_grpc() -> None:
    async with serving() as front, channel(front) as over:
        assert await code_of(infer(over)(message(bytes(MAX_BODY_BYTES)))) is grpc.StatusCode.OUT_OF_RANGE
        before = total(metrics.GRPC_STARTED) - total(metrics.GRPC_RECEIVED)
        assert await code_of(infer(over)(message(bytes(46 * MIB)))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert total(metrics.GRPC_STARTED) - total(metrics.GRPC_RECEIVED) == before + 1


async def test_a_full_front_refuses_a_message_and_takes_it_later() -> None:
    async with serving(bodies=60 * MIB) as front, channel(front) as over:
        front.backend.open.clear()
        first = infer(over)(message(FILM + bytes(40 * MIB)))
        await until(lambda: front.backend.calls)
        refused = infer(over)(message(FILM + bytes(40 * MIB)))
        assert await code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await refused.trailing_metadata())["retry-after"] == "2"
        front.backend.open.set()
        assert await code_of(first) is grpc.StatusCode.OK
        assert await code_of(infer(over)(message(FILM + bytes(40 * MIB)))) is grpc.StatusCode.OK


async def test_messages_that_grpc_still_receives_give_way_where_they_take_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_use = memory.bytes_in_use()
    async with serving() as front, channel(front) as idle, channel(front) as other:
        calls = [infer(idle, streams=True)() for _ in range(8)]
        await until(lambda: metrics.IN_FLIGHT._value.get() >= 8)
        monkeypatch.setattr(admissions, "bytes_in_use", lambda: in_use + 2048 * MIB)
        assert {await code_of(call) for call in calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        monkeypatch.undo()
        assert await code_of(infer(other)(message())) is grpc.StatusCode.OK


@pytest.mark.parametrize(("growth", "taken"), [(60, True), (170, False)])
async def test_what_a_front_grew_by_is_no_messages_doing(
    growth: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use = 200 * MIB
    monkeypatch.setattr(admissions, "_UNSEEN", 96 * MIB)
    monkeypatch.setattr(admissions, "bytes_in_use", lambda: in_use)
    admission = Admission(256 * MIB)
    in_use += growth * MIB
    with (
        contextlib.nullcontext() if taken else pytest.raises(CallError) as refused,
        admission.place() as place,
    ):
        async with admission.arriving(place, 60, unseen=True):
            # A message of the largest size, and its copy.
            in_use += 2 * 45 * MIB
            await asyncio.sleep(10 * admissions._LOOK_SECONDS)
    assert taken or refused.value.status == 429


async def test_methods_that_only_name_a_model_read_no_large_message() -> None:
    async with serving() as front, channel(front) as caller:
        live = caller.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert pb.ServerLiveResponse.FromString(await live(b"")).live
        assert await code_of(live(bytes(8 * MIB))) is grpc.StatusCode.OUT_OF_RANGE
        assert await code_of(live(b"no message")) is grpc.StatusCode.INVALID_ARGUMENT
        unknown = caller.unary_unary("/somebody.Else/ModelInfer")
        assert await code_of(unknown(b"")) is grpc.StatusCode.UNIMPLEMENTED


# --- what fits ---


def test_what_is_admitted_fits_the_charts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    budget = Budget(admissions.DEFAULT_LIMIT)
    assert budget.fits
    assert 220 * MIB < budget.bodies <= 256 * MIB
    assert budget.worst < 0.95 * budget.limit


@pytest.mark.parametrize("limit", [512, 2048, 3072, 16384])
def test_less_memory_holds_fewer_bodies_but_always_one_call(limit: int) -> None:
    budget = Budget(limit * MIB)
    assert 0.75 * budget.bodies >= MAX_BODY_BYTES
    assert budget.bodies <= 256 * MIB
    assert budget.fits == (budget.worst <= 0.9 * limit * MIB)
    assert Budget(limit * MIB, decoding=0).bodies >= budget.bodies


V2 = {"memory.max": "max", "kube/memory.max": "2147483648", "kube/pod/memory.max": "3221225472"}
V1 = {
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "memory/kube/memory.limit_in_bytes": "2147483648",
    "memory/kube/pod/memory.limit_in_bytes": "9223372036854771712",
}


@pytest.mark.parametrize(
    ("files", "groups", "limit"),
    [
        (V2, "0::/kube/pod\n", 2048 * MIB),
        (V1, "5:cpu:/kube\n4:memory:/kube/pod\n", 2048 * MIB),
        (V1, "4:memory:/\n", None),
        # In a container the group that the file names is not there, and the root is the container's.
        ({"memory.max": "1073741824"}, "0::/kube/pod\n", 1024 * MIB),
        ({}, "", None),
    ],
    ids=["v2", "v1", "no limit", "a container's namespace", "nothing"],
)
def test_the_memory_limit_is_that_of_the_closest_group(
    files: dict[str, str], groups: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 64 * 1024 * MIB)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(f"{text}\n")
    (tmp_path / "cgroup").write_text(groups)
    assert memory.memory_limit(tmp_path / "fs", tmp_path / "cgroup") == limit


def test_memory_in_use_is_seen() -> None:
    before = memory.bytes_in_use()
    block = bytearray(64 * MIB)
    assert memory.bytes_in_use() - before >= len(block)
    del block
    memory.give_back()
    assert memory.bytes_in_use() - before < 32 * MIB
