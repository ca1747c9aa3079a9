"""Traces: off they are nothing, on they go to a collector, and no word of a caller goes with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from aiohttp import web

from pneumoserve import tracing
from pneumoserve.front.torchserve import TorchServe
from pneumoserve.tracing import call_span, current_call, span, start_tracing, stop_tracing
from tests.support import films
from tests.support.collector import Collector, running_collector
from tests.support.front import make_request, run_front

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
FILM = films.sample_films()[0].read_bytes()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Where the spans of this process go; `stop_tracing` sends them."""
    with running_collector() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        start_tracing("tests", release="0123456789ab")
        try:
            yield running
        finally:
            stop_tracing()


def test_without_a_collector_nothing_is_imported_and_nothing_is_done() -> None:
    code = (
        "import sys; from pneumoserve.tracing import *; start_tracing('tests', release='x')\n"
        f"with call_span([('traceparent', {TRACEPARENT!r})]) as call, span('work') as work: work.set(a=1)\n"
        "assert call is work and call.traceparent is None and current_call() is call\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environment = {"PATH": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_a_collector_without_the_extra_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.TracingError, match=r"install pneumoserve\[tracing\], or unset it"):
        start_tracing("tests")


@pytest.mark.parametrize(
    "given",
    [
        [], [TRACEPARENT, TRACEPARENT], [TRACEPARENT.encode()], [TRACEPARENT.upper()], [TRACEPARENT + "\n"],
        [TRACEPARENT + "-Mustermann"], ["01" + TRACEPARENT[2:]], [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"], ["Mustermann"], ["00-" + "a" * 1024 * 1024],
    ],
)  # fmt: skip
def test_only_one_traceparent_in_its_form_is_taken(given: list[str | bytes], collector: Collector) -> None:
    with call_span([("Traceparent", value) for value in given]) as call:
        assert call.trace_id not in (None, TRACE)
    stop_tracing()
    assert [seen.parent for seen in collector.spans] == [""]


def test_an_unsampled_caller_is_followed_and_nothing_is_sent(collector: Collector) -> None:
    with call_span([("traceparent", TRACEPARENT[:-2] + "00")]) as call:
        assert call.trace_id == TRACE
        assert call.traceparent is not None
        assert call.traceparent.endswith("-00")
    stop_tracing()
    assert not collector.spans


def test_an_error_leaves_its_type_and_not_its_text(collector: Collector) -> None:
    with pytest.raises(ValueError, match="Mustermann"), call_span([]), span("work"):
        raise ValueError("Mustermann")
    stop_tracing()
    work, call = collector.spans
    assert (work.failed, work.attributes["error.type"]) == (True, "ValueError")
    # A call that is refused is no fault of ours.
    assert not call.failed
    assert not any(b"Mustermann" in body for body in collector.bodies)
    assert collector.resources[0] == {"service.name": "tests", "pneumoserve.release": "0123456789ab"}


async def test_a_call_by_each_transport_is_one_trace_and_its_record_names_it(collector: Collector) -> None:
    async with run_front() as front:
        await front.predict(FILM, {"traceparent": TRACEPARENT, "tracestate": "hospital=Mustermann"})
        await front.infer(make_request(FILM), ("traceparent", TRACEPARENT), ("tracestate", "a=Mustermann"))
        await front.predict(b"Mustermann", {"traceparent": TRACEPARENT})
        stop_tracing()
        calls = [seen for seen in collector.spans if seen.name == "call"]
        for seen in calls:
            (prediction_id,) = seen.attributes["pneumoserve.prediction_ids"]
            assert front.record(prediction_id).traceparent == seen.traceparent
    assert [seen.parent for seen in calls] == [PARENT] * 3
    assert {seen.trace_id for seen in collector.spans} == {TRACE}
    assert [seen.attributes["pneumoserve.status"] for seen in calls] == [200, 200, 400]
    assert [seen.attributes["pneumoserve.protocol"] for seen in calls] == ["v1", "grpc", "v1"]
    assert not any(b"Mustermann" in body for body in collector.bodies)


async def test_torchserve_is_told_the_span_that_waits_for_it(collector: Collector) -> None:
    told: list[str] = []

    async def predict(request: web.Request) -> web.Response:
        told.append(request.headers["traceparent"])
        return web.json_response({"probability": 0.5, "logit": 0.0, "profile": {}})

    application = web.Application()
    application.router.add_post("/predictions/pneumonia-typer", predict)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = TorchServe(url, url, ("pneumonia-typer",), 2)
    try:
        with call_span([("traceparent", TRACEPARENT)]):
            assert current_call().trace_id == TRACE
            await client.score("pneumonia-typer", np.zeros((224, 224), dtype=np.uint8))
    finally:
        await client.close()
        await runner.cleanup()
    stop_tracing()
    typer = next(seen for seen in collector.spans if seen.name == "typer")
    assert told == [typer.traceparent]
