"""Running a load with locust, and its reports: locust's HTML and CSV too, whose times count from due."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import gevent
from locust import LoadTestShape
from locust.html import get_html_report
from locust.stats import CSV_STATS_INTERVAL_SEC, PERCENTILES_TO_REPORT, StatsCSVFileWriter, stats_history

from loadtest.summary import Summary, Thresholds
from loadtest.users import USERS, Load, LoadEnvironment
from pneumoserve.errors import PneumoserveError

_SPARE_SECONDS: Final = 0.5


class NotServing(PneumoserveError):  # noqa: N818 - it is how the service is
    """The service does not answer rightly even before the load; the text says how."""


class UntilDone(LoadTestShape):
    """For locust: one user of each kind, until the last call has ended. When calls are due is the load's own shape."""

    def __init__(self, load: Load) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._load = load

    def tick(self) -> tuple[int, float] | None:
        """How many users there are, and how many start a second."""
        users = len(self._load.kinds)
        return None if self._load.finished == users else (users, users)


def run(load: Load, thresholds: Thresholds, parameters: dict[str, Any], out: Path) -> Summary:
    """Make a load and write its reports: report.html, summary.json and locust's CSV files.

    Raises:
        NotServing: a first call of some kind was not answered rightly, so no load was made.
    """
    environment = LoadEnvironment(
        user_classes=[USERS[kind] for kind in load.kinds], shape_class=UntilDone(load), host=load.target.url
    )
    environment.load = load
    runner = environment.create_local_runner()
    csv = StatsCSVFileWriter(environment, PERCENTILES_TO_REPORT, str(out / "locust"), full_history=False)
    beside = [gevent.spawn(csv.stats_writer), gevent.spawn(stats_history, runner)]
    started, busy = time.monotonic(), _processor_seconds()
    runner.start_shape()
    gevent.joinall([runner.shape_greenlet])
    if load.refusals:
        text = "; ".join(f"{kind}: {problem}" for kind, problem in load.refusals.items())
        raise NotServing(f"A first call was not answered rightly, so no load was made ({text}).")
    share = (_processor_seconds() - busy) / (time.monotonic() - started)
    html = get_html_report(environment, show_download_link=False)  # type: ignore[no-untyped-call]
    (out / "report.html").write_text(html)
    # Locust writes its files every second: the next time holds everything.
    gevent.sleep(CSV_STATS_INTERVAL_SEC + _SPARE_SECONDS)
    gevent.killall(beside)
    csv.close_files()
    summary = Summary(
        parameters, load.outcomes, thresholds, load.shape.seconds, load.most_under_way, processor_share=share
    )
    (out / "summary.json").write_text(json.dumps(summary.document(), indent=2) + "\n")
    runner.quit()
    return summary


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system
