"""A collector of traces: it takes what OTLP over HTTP brings, and shows the spans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """A span as a collector gets it; times are nanoseconds, ids hex digits, `parent` empty for a root."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass
class Collector:
    """What was taken, span by span and as it came. While it is `frozen` it answers nobody."""

    endpoint: str = ""
    spans: list[Seen] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)
    stop: Callable[[], None] = lambda: None

    def environment(self, **more: str) -> dict[str, str]:
        """What sends the spans of a process here at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}

    def trace(self, trace_id: str) -> list[Seen]:
        """The spans of a trace that have come."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for group in request.resource_spans:
            self.resources.append(_read(group.resource.attributes))
            self.spans += [_seen(span) for scope in group.scope_spans for span in scope.spans]


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    collector.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.answering.wait()
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def handle(self) -> None:
            # Whoever has given up waiting hears no answer.
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Nor does its end wait for whom it does not answer.
    server.block_on_close = False
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()

    def stop() -> None:
        server.shutdown()
        serving.join()
        server.server_close()

    collector.endpoint, collector.stop = f"http://127.0.0.1:{server.server_port}", stop
    try:
        yield collector
    finally:
        stop()


def _seen(span: Any) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        _read(span.attributes),
    )


def _read(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
