"""A stand-in for the service, for what a healthy one does not do on demand: stand still, fail, answer wrongly."""

from __future__ import annotations

import contextlib
import json
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

RELEASE = "0123456789ab"


def infer_response(predictions: list[str], releases: list[str]) -> bytes:
    """A ModelInfer response as the service gives it, as far as it is looked at."""
    made = messages.ModelInferResponse()
    for name, values in (("prediction_id", predictions), ("release", releases)):
        made.outputs.add(name=name, datatype="BYTES", shape=[len(values)])
        made.raw_output_contents.append(b"".join(struct.pack("<I", len(v)) + v.encode() for v in values))
    whole: bytes = made.SerializeToString()
    return whole


@dataclass
class Stub:
    """Answers V1 calls, each after `seconds`, as it is told."""

    url: str = ""
    seconds: float = 0.002
    # It stands still from this many calls on, once, for so many seconds: every call that is there or comes waits.
    stall_at: int | None = None
    stall_seconds: float = 0.0
    status: int = 200
    body: bytes | None = None
    fail_every: int | None = None
    calls: int = 0
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    _until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, headers: dict[str, str]) -> tuple[int, bytes]:
        with self._lock:
            self.calls += 1
            number = self.calls
            self.seen_headers.append(headers)
            if number == self.stall_at:
                self._until = time.monotonic() + self.stall_seconds
            until = self._until
        time.sleep(max(self.seconds, until - time.monotonic()))
        if self.fail_every and number % self.fail_every == 0:
            return 503, b'{"error": "busy"}'
        prediction = {"prediction_id": str(uuid.uuid4()), "release": RELEASE}
        return self.status, self.body or json.dumps({"predictions": [prediction]}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes, which Nagle's algorithm and a delayed acknowledgement would part by 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.stub.answer(dict(self.headers.items()))
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("pneumoserve-release", RELEASE)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    stub: Stub


@contextlib.contextmanager
def served(stub: Stub, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """The stub, listening on loopback."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.stub = stub
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        stub.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
