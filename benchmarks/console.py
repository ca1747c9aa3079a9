"""How fast the console's pages are; writes console.json beside this file.

Run it with `python -m benchmarks.console`. A real S3 server holds 10,000 studies that wait, each with an X-ray of 2,048
by 2,048 pixels as PNG. A reader asks for the next study, opens it, loads its image and saves a verdict, one study after
another, over HTTP. Goals at the 95th percentile: the next study is open within 300 ms, its image within 500 ms. Over
1,000 studies the process's memory stays where it was after the first 100.
"""

from __future__ import annotations

import contextlib
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.bench import console, publish
from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import time_text
from pneumoserve.local.stack import s3_alone
from pneumoserve.local.state import State
from pneumoserve.records import append, image_key
from pneumoserve.store import S3Store
from tests.support.entries import id_made, prediction

WAITING: Final = 10_000
READ: Final = 1_000
WARM: Final = 100
SIDE: Final = 2_048
GOALS_MS: Final = {"next_study": 300, "image": 500}
_TOGETHER: Final = 1_000
_MIB: Final = 1024 * 1024
_UNSURE: Final = Decision(
    finding=None, pneumonia_type=None, confidence=0.6, referred=True, reasons=("uncertain_finding",)
)


def fill(store: S3Store, state: State) -> None:
    """Put the studies on record, one image each; all show the same X-ray."""
    gradient = np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 4096 * 16
    noise = np.random.default_rng(1).integers(0, 256, gradient.shape)
    out = io.BytesIO()
    Image.fromarray((gradient + noise).astype(np.uint16)).save(out, "PNG")
    key = image_key(digest_of(out.getvalue()))
    store.put(key, out.getvalue(), "image/png")
    started = datetime.now(UTC) - timedelta(days=1)
    for first in range(0, WAITING, _TOGETHER):
        records = []
        for number in range(first, first + _TOGETHER):
            moment = started + timedelta(seconds=number)
            made = prediction(id_made(moment))
            call = made.call.model_copy(update={"study": digest_of(str(number).encode())})
            image = made.image.model_copy(update={"stored_key": key, "format": "png"})
            given = {"call": call, "image": image, "decision": _UNSURE, "time": time_text(moment)}
            records.append(made.model_copy(update=given))
        append(store, state.archive_key, records, "front")


@contextlib.contextmanager
def running(state: State) -> Iterator[tuple[str, psutil.Process]]:
    """A console as `pneumoserve console` starts it, and its process; it has read the archive."""
    command = [str(Path(sys.executable).with_name("pneumoserve")), "console", "--state", str(state.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("The console says nothing.")
        url = re.search(r"http://[\d.:]+", process.stdout.readline())
        if url is None:
            raise RuntimeError("The console did not start.")
        yield url[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def token_of(page: str) -> str:
    """The token of a page's forms."""
    found = re.search(r'name="token" value="([^"]+)"', page)
    if found is None:
        raise RuntimeError("The page has no form.")
    return found[1]


def follow(client: httpx.Client) -> float:
    """Wait until all studies wait to be read; the seconds that took."""
    started = time.perf_counter()
    while f"<dd>{WAITING}</dd>" not in client.get("/overview/numbers").text:
        time.sleep(0.5)
    return round(time.perf_counter() - started, 1)


def read(client: httpx.Client, process: psutil.Process) -> dict[str, Any]:
    """Read studies one after another; milliseconds, and the process's memory."""
    taken: dict[str, list[float]] = {"next_study": [], "image": [], "save": []}
    memory: list[int] = []
    page = client.get("/").text

    def timed(name: str, method: str, place: str, **data: str) -> httpx.Response:
        started = time.perf_counter()
        answer = client.request(method, place, data=data or None)
        taken[name].append(1000 * (time.perf_counter() - started))
        answer.raise_for_status()
        return answer

    for number in range(READ):
        answer = timed("next_study", "POST", "/studies/next", token=token_of(page))
        place, page = answer.url.path, answer.text
        image = timed("image", "GET", place.replace("/read", "/images/1"))
        if len(image.content) < _MIB:
            raise RuntimeError("The image is not whole.")
        verdict = {"finding": "normal", "certainty": "sure", "no_result": "yes", "token": token_of(page)}
        page = timed("save", "POST", place, **verdict).text
        if (number + 1) % WARM == 0:
            memory.append(process.memory_info().rss // _MIB)
    return {"milliseconds": {name: spread(values) for name, values in taken.items()}, "memory_mib": memory}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    p95 = statistics.quantiles(values, n=20)[-1]
    return {"p50": round(statistics.median(values), 1), "p95": round(p95, 1), "largest": round(max(values), 1)}


def main() -> None:
    """Measure, and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder) / "state")
        with s3_alone(state) as settings, contextlib.closing(S3Store(settings)) as store:
            console.print("writing ...")
            fill(store, state)
        with running(state) as (url, process), httpx.Client(base_url=url, follow_redirects=True, timeout=60) as client:
            client.get("/")
            console.print("following ...")
            seconds = follow(client)
            console.print("reading ...")
            figures = read(client, process)
    publish(
        "console",
        "python -m benchmarks.console",
        {"waiting": WAITING, "read": READ, "goals_p95_ms": GOALS_MS, "follow_seconds": seconds, **figures},
    )


if __name__ == "__main__":
    main()
