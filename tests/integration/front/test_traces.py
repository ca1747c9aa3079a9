"""Traces of a real front over TorchServe and S3, as a collector gets them."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from pneumoserve.records import Record, find_record
from tests.conftest import Stack, wait_for
from tests.integration.front.conftest import SecondFront, StartFront
from tests.support import films
from tests.support.collector import Collector, Seen, running_collector
from tests.support.commands import invoke
from tests.support.front import make_request

# A pneumonia, so that the typer counts too: it answers in the detector's run.
FILM = next(path for path in films.sample_films() if path.parent.name == "bacteria").read_bytes()
STEPS = ["call", "decode", "detector", "decision", "upload", "commit"]
# What a quick answer takes on a busy machine; a front that waited for its collector would take ten.
LONGEST_SECONDS = 5.0
# Draining takes seconds; the SDK would wait thirty for its last batch.
LONGEST_END_SECONDS = 20.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(start_front: StartFront, collector: Collector) -> Iterator[SecondFront]:
    with start_front(LOG_FORMAT="json", **collector.environment()) as front:
        yield front


def by_v1(front: SecondFront, traceparent: str) -> None:
    headers = {"traceparent": traceparent}
    httpx.post(f"{front.url}/v1/models/pneumonia:predict", content=FILM, headers=headers, timeout=60).raise_for_status()


def by_v2(front: SecondFront, traceparent: str) -> None:
    data = [base64.b64encode(FILM).decode()]
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
    url, headers = f"{front.url}/v2/models/pneumonia/infer", {"traceparent": traceparent}
    httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()


def by_grpc(front: SecondFront, traceparent: str) -> None:
    with grpc.insecure_channel(front.grpc) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(make_request(FILM), metadata=[("traceparent", traceparent)], timeout=60)


def whole_trace(collector: Collector, trace_id: str) -> dict[str, Seen]:
    """The spans of a call by name, once its own, which ends last, has come."""
    wait_for(lambda: any(seen.name == "call" for seen in collector.trace(trace_id)), 30)
    spans = collector.trace(trace_id)
    assert sorted(seen.name for seen in spans) == sorted(STEPS)
    return {seen.name: seen for seen in spans}


@pytest.mark.parametrize(("way", "protocol"), [(by_v1, "v1"), (by_v2, "v2"), (by_grpc, "grpc")])
def test_a_call_is_one_trace_below_its_callers_span(
    way: Callable[[SecondFront, str], None],
    protocol: str,
    traced: SecondFront,
    collector: Collector,
    stack: Stack,
) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    before = time.time_ns()
    way(traced, f"00-{trace_id}-{caller}-01")
    after = time.time_ns()
    spans = whole_trace(collector, trace_id)
    call = spans["call"]
    assert call.parent == caller
    assert {spans[name].parent for name in STEPS[1:]} == {call.span_id}
    # Each within its call, in the order of the work; the upload goes on beside the models.
    assert before <= call.start <= call.end <= after
    ordered = [spans[name] for name in ("decode", "detector", "decision", "commit")]
    moments = [moment for seen in ordered for moment in (seen.start, seen.end)]
    assert moments == sorted(moments)
    assert spans["decode"].end <= spans["upload"].start <= spans["upload"].end <= spans["commit"].start
    assert all(call.start <= seen.start and seen.end <= call.end for seen in spans.values())
    said = {name.removeprefix("pneumoserve."): value for name, value in call.attributes.items()}
    assert (said["protocol"], said["model"], said["status"]) == (protocol, "pneumonia", 200)
    (prediction_id,) = said["prediction_ids"]
    record = find_record(stack.reader, prediction_id)
    assert isinstance(record, Record)
    assert record.traceparent == call.traceparent
    assert record.decision is not None
    assert said["reasons"] == sorted(record.decision.reasons)
    shown = invoke(["archive", "show", prediction_id, "--state", str(stack.state)], {})
    assert f"trace {trace_id}\n" in shown.stdout
    assert {resource["pneumoserve.release"] for resource in collector.resources} == {stack.release}


def test_what_is_no_traceparent_begins_a_trace_of_its_own(traced: SecondFront, collector: Collector) -> None:
    marker = "Zq99Mustermann99"
    hostile = [f"00-{marker}", "00-" + "f" * 30_000, marker * 1000]
    collector.spans.clear()
    for value in hostile:
        headers = {"traceparent": value, "tracestate": f"hospital={marker}", "baggage": f"name={marker}"}
        url = f"{traced.url}/v1/models/pneumonia:predict?{marker}"
        assert httpx.post(url, content=FILM, headers=headers, timeout=60).is_success
    # More than a head may hold is refused before it is a call.
    head = {"traceparent": "f" * 1024 * 1024}
    assert httpx.post(f"{traced.url}/v1/models/pneumonia:predict", headers=head, timeout=60).status_code == 431
    wait_for(lambda: [seen.name for seen in collector.spans].count("call") == len(hostile), 30)
    calls = [seen for seen in collector.spans if seen.name == "call"]
    assert {seen.parent for seen in calls} == {""}
    assert len({seen.trace_id for seen in calls}) == len(hostile)
    assert not any(marker.encode() in body for body in collector.bodies)
    assert marker not in traced.log.read_text()


def test_a_collector_that_is_frozen_and_then_gone_delays_no_answer_and_no_end(start_front: StartFront) -> None:
    # Five calls fill the queue.
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "32", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    with running_collector() as frozen, start_front(**frozen.environment(**small)) as front:
        frozen.answering.clear()
        call_quickly(front)
        frozen.stop()
        call_quickly(front)
        ending = time.monotonic()
    assert time.monotonic() - ending < LONGEST_END_SECONDS
    assert not frozen.spans
    # Said, and not once a span.
    assert 1 <= front.log.read_text().count("Queue full, dropping Span") <= 5


def call_quickly(front: SecondFront) -> None:
    for _ in range(15):
        started = time.monotonic()
        by_v1(front, f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")
        assert time.monotonic() - started < LONGEST_SECONDS
