"""How soon an alert follows its answer (the goal: p95 within 2 s), how many are lost (0), and what the front pays.

`python -m benchmarks.alerts` starts a stack whose alerts go to a webhook here. It sends an image a second, and notes
when each answer came and when its alert did. Then it sends images to two fronts by turns, one of them without
alerts, and compares the processor time that each took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import yaml
from rich.progress import track

from benchmarks.bench import Front, Stack, console, front, publish, sample, stack
from pneumoserve.review import study_number

_NAMES = {"Pneumoserve-Practitioner": "dr.meier", "Pneumoserve-Reference": "ACC-4711"}
_PER_SECOND = 1.0
_PATIENCE_SECONDS = 60.0
_UNMEASURED = 40


class Receiver:
    """A webhook's receiver: when it was first told of each study."""

    def __init__(self) -> None:
        self.url = ""
        self.times: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Receive for as long as the context lasts."""
        times = self.times

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                times.setdefault(event["data"]["study"], time.monotonic())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def write_policy(self, folder: Path) -> None:
        """The policy that sends here."""
        step = {"afterMinutes": 0, "channels": ["here"], "who": "this program"}
        policy = {
            "channels": {"here": {"kind": "webhook", "url": self.url}},
            "routes": [{"name": "all", "steps": [step]}],
        }
        (folder / "alerts.yaml").write_text(yaml.safe_dump(policy))


def main() -> int:
    """Measure and write the result; 1 where an alert is lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts", description=__doc__)
    parser.add_argument("--images", type=int, default=180, help="how many images to send")
    parser.add_argument("--turns", type=int, default=250, help="how many calls each of the two fronts gets")
    options = parser.parse_args()
    receiver = Receiver()
    with receiver.running(), stack(receiver.write_policy) as running:
        answered = send(running, options.images)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not answered.keys() <= receiver.times.keys() and time.monotonic() < give_up:
            time.sleep(0.1)
        load = os.getloadavg()[0]
        ratios = [compare(running, options.turns, headers) for headers in ({}, _NAMES)]
    # The answer is on its way to this program while the alert is: one may overtake the other.
    took = sorted(max(0.0, receiver.times[study] - at) for study, at in answered.items() if study in receiver.times)
    lost = len(answered) - len(took)
    publish(
        "alerts",
        f"python -m benchmarks.alerts --images {options.images} --turns {options.turns}",
        {
            "images_per_second": _PER_SECOND,
            "alerts": len(answered),
            "lost": lost,
            "seconds_p50": round(statistics.median(took), 2),
            "seconds_p95": round(statistics.quantiles(took, n=20)[-1], 2),
            "load_average": round(load, 1),
            "cpu_ratio_hints": ratios[0],
            "cpu_ratio_names": ratios[1],
        },
    )
    return 1 if lost else 0


def send(running: Stack, count: int) -> dict[str, float]:
    """When each answer came that must alert, by its study's number."""
    images, answered = sample(), dict[str, float]()
    began = time.monotonic()
    for number in track(range(count), "sending", console=console):
        time.sleep(max(0.0, began + number / _PER_SECOND - time.monotonic()))
        (answer,) = predict(running.announced["url"], images[number % len(images)], _NAMES)
        if answer["finding"] == "pneumonia" or "uncertain_finding" in answer["reasons"]:
            answered[study_number(answer["prediction_id"])] = time.monotonic()
    return answered


def predict(url: str, image: bytes, headers: dict[str, str]) -> list[dict[str, str]]:
    """The answers to one image."""
    response = httpx.post(f"{url}/v1/models/pneumonia:predict", content=image, headers=headers, timeout=60)
    response.raise_for_status()
    answers: list[dict[str, str]] = response.json()["predictions"]
    return answers


def compare(running: Stack, turns: int, headers: dict[str, str]) -> float:
    """Processor time of a front with alerts against one without, which get the same images by turns."""
    options = (f"--envelope-key={running.state.sealing_key}", "--alert-hint=127.0.0.1:9")
    given = [(front(running, *options), headers), (front(running), {})]
    images = sample()
    for each, _ in given:
        each.start()
    for number in range(_UNMEASURED):
        for each, named in given:
            predict(f"http://{each.address}", images[number % len(images)], named)
    before = [cpu_seconds(each) for each, _ in given]
    for number in track(range(turns), "comparing", console=console):
        for each, named in given if number % 2 else reversed(given):
            predict(f"http://{each.address}", images[number % len(images)], named)
    with_alerts, without = (cpu_seconds(each) - begun for (each, _), begun in zip(given, before, strict=True))
    for each, _ in given:
        each.kill()
    return round(with_alerts / without, 3)


def cpu_seconds(of: Front) -> float:
    """Processor time that a front and its decode workers have taken."""
    if of.child.process is None:
        raise AssertionError("a front is measured while it runs")
    own = psutil.Process(of.child.process.pid)
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    sys.exit(main())
