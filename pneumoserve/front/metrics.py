"""The front's Prometheus metrics; their labels are closed lists, never words of a caller."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter(
    "pneumoserve_calls", "Calls by model, protocol and HTTP status of the outcome.", ["model", "protocol", "status"]
)
IMAGES = Counter(
    "pneumoserve_images", "Films answered, by finding (none where a human must look) and referral.",
    ["finding", "referred"],
)  # fmt: skip
CALL_SECONDS = Histogram(
    "pneumoserve_call_seconds", "Seconds from a call's last byte to its answer, archive included.", ["model"],
    buckets=(0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30),
)  # fmt: skip
IN_FLIGHT = Gauge("pneumoserve_calls_in_flight", "Calls that are being read or answered.")
BACKEND_RETRIES = Counter("pneumoserve_backend_retries", "Requests to TorchServe that were sent again.")
UNRECORDED = Counter("pneumoserve_unrecorded_calls", "Calls refused with 503 because the archive took no record.")
# gRPC's core drops messages over the receive limit before any of our code sees them: they are the difference.
GRPC_STARTED = Counter("pneumoserve_grpc_infer_started", "ModelInfer calls whose headers arrived.")
GRPC_RECEIVED = Counter("pneumoserve_grpc_infer_received", "ModelInfer calls whose message arrived whole.")
HTTP_REFUSED = Counter("pneumoserve_http_refused", "Requests that were no HTTP, refused before they were a call.")
