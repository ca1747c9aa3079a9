"""The front's Prometheus metrics; their labels are closed lists, never words of a caller."""

from __future__ import annotations

import functools
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from pneumoserve.decision import Decision
from pneumoserve.imaging.pool import DecoderPool, LaneName, Outcome

# How a call ended, the same for all protocols: refused is the caller's own fault; overloaded, failed and unrecorded are
# ours, and what the service level objective counts as bad.
CallOutcome = Literal["answered", "refused", "overloaded", "failed", "unrecorded", "abandoned"]

CALLS = Counter(
    "pneumoserve_calls", "Calls by model, protocol, status as the protocol names it, and outcome.",
    ["model", "protocol", "status", "outcome"],
)  # fmt: skip
IMAGES = Counter(
    "pneumoserve_images", "Films answered, by finding (none where a human must look) and referral.",
    ["finding", "referred"],
)  # fmt: skip
REFERRALS = Counter(
    "pneumoserve_referrals", "Films referred, by reason; one that has several reasons counts for each.", ["reason"]
)
CALL_SECONDS = Histogram(
    "pneumoserve_call_seconds", "Seconds from a call's last byte to its answer, archive included.",
    ["model", "protocol"],
    buckets=(0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30),
)  # fmt: skip
RELEASE_STOPPED = Gauge(
    "pneumoserve_release_stopped", "1 while the release is stopped, so that every answer is referred, else 0."
)
IN_FLIGHT = Gauge("pneumoserve_calls_in_flight", "Calls that are being read or answered.")
ENGINE_INFO = Gauge(
    "pneumoserve_engine_info", "1, with the engine that has computed scores of a model.",
    ["model", "engine", "engine_version"],
)  # fmt: skip
ENGINE_WORKERS = Gauge("pneumoserve_engine_workers", "Workers of the models that are ready, by model.", ["model"])
ENGINE_WAITING = Gauge("pneumoserve_engine_waiting", "Films that wait to be sent to the models, by model.", ["model"])
ENGINE_SECONDS = Histogram(
    "pneumoserve_engine_seconds",
    "Seconds of a request to the models that was answered; TorchServe's queue and wait for a batch included.",
    ["model"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 6),
)  # fmt: skip
BACKEND_RETRIES = Counter("pneumoserve_backend_retries", "Requests to the models that were sent again.")
UNRECORDED = Counter("pneumoserve_unrecorded_calls", "Calls refused with 503 because the archive took no record.")
# gRPC's core drops messages over the receive limit before any of our code sees them: they are the difference.
GRPC_STARTED = Counter("pneumoserve_grpc_infer_started", "ModelInfer calls whose headers arrived.")
GRPC_RECEIVED = Counter("pneumoserve_grpc_infer_received", "ModelInfer calls whose message arrived whole.")
HTTP_REFUSED = Counter(
    "pneumoserve_http_refused",
    "Connections and requests refused before they were a call: no HTTP, too large a head, too slow, or too many.",
)
DECODE_SECONDS = Histogram(
    "pneumoserve_decode_seconds", "Processor seconds of a decode worker for one film, by lane and outcome; died, "
    "killed, timeout, stalled and garbage are ends of a worker.", ["lane", "outcome"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)  # fmt: skip
DECODE_WAITING = Gauge("pneumoserve_decode_waiting", "Films that wait for a decode worker.", ["lane"])
DECODER_STARTS = Gauge("pneumoserve_decoder_starts", "Decode workers that have come up since the front has started.")
DECODERS_FILTERED = Gauge(
    "pneumoserve_decoders_filtered", "1 where the kernel refuses decode workers all system calls but a few, else 0."
)


def outcome_of(status: int, recorded: bool = True) -> CallOutcome:
    """How a call ended that HTTP would answer with this status; `recorded`: the archive took what became of it."""
    if status < 400:
        return "answered"
    if status == 499:
        return "abandoned"
    if status == 429:
        return "overloaded"
    if status < 500:
        return "refused"
    return "failed" if recorded else "unrecorded"


def count_decision(decision: Decision) -> None:
    """Count what an image was answered with."""
    IMAGES.labels(decision.finding or "none", decision.referred).inc()
    for reason in decision.reasons:
        REFERRALS.labels(reason).inc()


def count_decoding(lane: LaneName, outcome: Outcome, seconds: float) -> None:
    """Count what a decode worker has done with one film."""
    DECODE_SECONDS.labels(lane, outcome).observe(seconds)


def watch_decoders(pool: DecoderPool) -> None:
    """Let the gauges show a pool's state."""
    for lane in get_args(LaneName):
        DECODE_WAITING.labels(lane).set_function(functools.partial(pool.waiting, lane))
    DECODER_STARTS.set_function(lambda: pool.starts)
    DECODERS_FILTERED.set_function(lambda: pool.filtered)
