"""The console's Prometheus metrics; their labels are closed lists and ids of releases, never words of a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from prometheus_client import Counter, Gauge
from starlette.datastructures import Headers

from pneumoserve.console.access import ACCESS
from pneumoserve.logs import bind, log_event, request_id_of
from pneumoserve.monitoring import Counted, measure
from pneumoserve.review import Counts

_log: Final = logging.getLogger(__name__)

REQUESTS: Final = Counter(
    "pneumoserve_console_requests", "Requests by the page's name in the table of roles and HTTP status.",
    ["page", "status"],
)  # fmt: skip
WAITING: Final = Gauge("pneumoserve_console_studies_waiting", "Studies that wait to be read.")
OVERDUE: Final = Gauge("pneumoserve_console_studies_overdue", "Studies that were to be read by now.")
OLDEST: Final = Gauge(
    "pneumoserve_console_oldest_study_seconds",
    "When the oldest study came that waits to be read, in Unix seconds; 0 where none waits.",
)
FOLLOWED: Final = Gauge("pneumoserve_console_followed_seconds", "When the archive was last followed, in Unix seconds.")
ESTIMATE: Final = Gauge(
    "pneumoserve_estimate", "What blind readings show of a release, with its 95 % limits; none with too few readings.",
    ["release", "figure", "bound"],
)  # fmt: skip
READINGS: Final = Gauge(
    "pneumoserve_estimate_readings", "Studies of a release that count and were read blind.", ["release"]
)
ASSUMED: Final = Gauge(
    "pneumoserve_assumed_prevalence", "The prevalence that a release's probabilities assume.", ["release"]
)
ESTIMATED: Final = Gauge("pneumoserve_estimated_seconds", "When the estimates were last made, in Unix seconds.")


def show_counts(counts: Counts) -> None:
    """Let the gauges show what waits."""
    WAITING.set(counts.waiting)
    OVERDUE.set(counts.overdue)
    OLDEST.set(0 if counts.oldest is None else datetime.fromisoformat(counts.oldest).timestamp())


def show_estimates(counted: Sequence[Counted], assumed: Mapping[str, float], now: datetime) -> None:
    """Let the gauges show what readings say of each release, and nothing of what they do not."""
    for gauge in (ESTIMATE, READINGS, ASSUMED):
        gauge.clear()
    for each in counted:
        READINGS.labels(each.release).set(each.tally.read)
        for name, figure in measure(each.tally).observed.items():
            if figure.interval is not None:
                found = figure.interval
                for bound, value in (("low", found.low), ("estimate", found.value), ("high", found.high)):
                    ESTIMATE.labels(each.release, name, bound).set(value)
    for release, prevalence in assumed.items():
        ASSUMED.labels(release).set(prevalence)
    ESTIMATED.set(now.timestamp())


class CountRequests:
    """Counts and logs what an application answers; files and pages that there are not are `other`.

    A page's name stands in the log and not its address, which may be a link that opens it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What ends without an answer is answered with 500 further out.
        status, started = 500, time.perf_counter()

        async def send_and_note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with bind(request_id=request_id_of(Headers(scope=scope).items())):
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                name = getattr(scope.get("route"), "name", "")
                page = name if name in ACCESS else "other"
                REQUESTS.labels(page, status).inc()
                taken = round((time.perf_counter() - started) * 1000, 1)
                log_event(_log, "page", page=page, status=status, duration_ms=taken)
