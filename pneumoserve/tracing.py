"""Traces of calls: spans that OpenTelemetry sends to a collector, where its standard variables name one.

Without a collector nothing of OpenTelemetry's SDK is imported, and a span is an object that does nothing.

Of what a caller sends, a trace takes W3C's `traceparent` alone, whose form is hex digits. `tracestate` and `baggage`
may hold anything, a name too, and are ignored. No exception's text is in a span, for the same reason.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from pneumoserve.errors import PneumoserveError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

__all__ = [
    "HEADER",
    "Attribute",
    "Span",
    "TracingError",
    "call_span",
    "current_call",
    "span",
    "start_tracing",
    "stop_tracing",
]

HEADER: Final = "traceparent"
# W3C Trace Context, 3.2: version 00; ids of zeros are none.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_STOP_SECONDS: Final = 3.0

Attribute = str | int | float | bool | list[str]


class TracingError(PneumoserveError):
    """Traces are asked for, and cannot be made."""

    exit_code = 2


class Span:
    """A piece of work that is timed, as a context manager. This one does nothing: it is for where nothing is traced."""

    sampled = False
    trace_id: str | None = None
    traceparent: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        pass

    def set(self, **attributes: Attribute) -> None:
        """Say more of the work: names from closed lists, ids and numbers."""

    def fail(self, reason: str) -> None:
        """Mark the work as failed by a fault of ours; `reason` is a type of error or a status."""


_NOTHING: Final = Span()
_call: ContextVar[Span] = ContextVar("call", default=_NOTHING)
_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def start_tracing(service: str, **about: str) -> None:
    """Send spans from now on, if a collector is named; `service` and what is said `about` it stand in all of them.

    Endpoint, sampler and queue are those of OpenTelemetry's standard variables. Spans leave from a bounded queue, by a
    thread of their own: a collector that is slow or away delays nothing, and what does not fit is dropped.

    Raises:
        TracingError: a collector is named, and OpenTelemetry is not installed.
    """
    global _provider, _tracer  # noqa: PLW0603 - one for the process, as OpenTelemetry has it
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise TracingError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces; install pneumoserve[tracing], or unset it."
        ) from None
    named = Resource({"service.name": service, **{_name(key): value for key, value in about.items()}})
    _provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("pneumoserve")


def stop_tracing() -> None:
    """Send what is left, for as long as 3 s."""
    global _provider, _tracer  # noqa: PLW0603
    if _provider is not None:
        # It waits longer for a collector that does not answer than a process that ends has.
        ending = threading.Thread(target=_provider.shutdown, daemon=True)
        ending.start()
        ending.join(_STOP_SECONDS)
    _provider = _tracer = None


def span(name: str, **attributes: Attribute) -> Span:
    """A piece of work of the present call, below the piece that it is part of; nothing if the call is not sampled."""
    return _NOTHING if _tracer is None or not _call.get().sampled else _Traced(_tracer, name, attributes)


def call_span(headers: Iterable[tuple[str, str | bytes]], **attributes: Attribute) -> Span:
    """A call, from when it is met to its answer, in the trace that its headers or metadata name, if they do."""
    return _NOTHING if _tracer is None else _TracedCall(_tracer, headers, attributes)


def current_call() -> Span:
    """The span of the call that this task works for."""
    return _call.get()


class _Traced(Span):
    """A span of OpenTelemetry."""

    def __init__(
        self, tracer: Tracer, name: str, attributes: dict[str, Attribute], within: Context | None = None, **kind: Any
    ) -> None:
        self._manager = tracer.start_as_current_span(
            name,
            within,
            attributes={_name(key): value for key, value in attributes.items()},
            **kind,
        )

    def __enter__(self) -> Self:
        self._span = self._manager.__enter__()
        context = self._span.get_span_context()
        self.sampled = context.trace_flags.sampled
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        # Told of no error, it records no text of one.
        self._manager.__exit__(None, None, None)

    def set(self, **attributes: Attribute) -> None:
        """See `Span.set`."""
        for key, value in attributes.items():
            self._span.set_attribute(_name(key), value)

    def fail(self, reason: str) -> None:
        """See `Span.fail`."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_attribute("error.type", reason)
        self._span.set_status(StatusCode.ERROR)


class _TracedCall(_Traced):
    """A call's span; that the call is refused is no fault of ours, so an exception alone marks nothing."""

    def __init__(
        self, tracer: Tracer, headers: Iterable[tuple[str, str | bytes]], attributes: dict[str, Attribute]
    ) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        super().__init__(tracer, "call", attributes, _context_of(headers), kind=SpanKind.SERVER)

    def __enter__(self) -> Self:
        super().__enter__()
        self._token: Token[Span] = _call.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        _call.reset(self._token)
        super().__exit__(None, None, None)


def _context_of(headers: Iterable[tuple[str, str | bytes]]) -> Context:
    """The context that a caller names; an empty one where its `traceparent` is missing, repeated or of another form."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    given = [value for name, value in headers if name.lower() == HEADER]
    found = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 and isinstance(given[0], str) else None
    if found is None:
        return Context()
    trace_id, span_id, flags = (int(digits, 16) for digits in found.groups())
    parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _name(key: str) -> str:
    return f"pneumoserve.{key}"
