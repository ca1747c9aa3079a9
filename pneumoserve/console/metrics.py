"""The console's Prometheus metrics; their labels are closed lists, never words of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from prometheus_client import Counter, Gauge

from pneumoserve.console.access import ACCESS
from pneumoserve.review import Counts

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


def show_counts(counts: Counts) -> None:
    """Let the gauges show what waits."""
    WAITING.set(counts.waiting)
    OVERDUE.set(counts.overdue)
    OLDEST.set(0 if counts.oldest is None else datetime.fromisoformat(counts.oldest).timestamp())


class CountRequests:
    """Counts what an application answers; files and pages that there are not are `other`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What ends without an answer is answered with 500 further out.
        status = 500

        async def send_and_note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            name = getattr(scope.get("route"), "name", "")
            REQUESTS.labels(name if name in ACCESS else "other", status).inc()
