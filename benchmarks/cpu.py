"""What a call costs in processor time, by part, against the bare work of decoding and scoring in this process.

`python -m benchmarks.cpu` sends images that the store has not seen, one and eight at a time, and does the bare work on
images alike in turns, so that both see the same machine. Processor time hardly depends on what else the machine does.
A call's own cost is that of front and models; the store's is told beside it. Goal: own cost at most 1.3 times the bare
work. Both engines are measured, each on a stack of its own.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, get_args

import psutil

from benchmarks.bench import Front, Stack, front, publish, stack
from pneumoserve.decision import Policy, Scores, needs_type
from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.inprocess import load_scorers
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DETECTOR, TYPER, ModelServer
from pneumoserve.release import verify
from tests.support.films import SAMPLE

_GOAL: Final = 1.3
_WARM_UP: Final = 60
_TRIES: Final = 5
_PATH: Final = "/v1/models/pneumonia:predict"
# Of the front's threads, by how their names begin; what has no such name is the event loop's thread.
_THREADS: Final = {"archive": "archive threads", "journal": "archive threads", "decode": "decode threads"}
_STORE: Final = "store"
_QUANTIZATION: Final = b"\xff\xdb\x00\x43"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and write the result; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--calls", type=int, default=240, help="calls measured at each number of callers, in two turns")
    parser.add_argument("--engine", choices=get_args(ModelServer), action="append", help="measure only this one")
    options = parser.parse_args()
    numbers = iter(range(10_000_000))
    engines = options.engine or get_args(ModelServer)
    found = {engine: _measure_engine(engine, options.calls, numbers) for engine in engines}
    only = "".join(f" --engine {engine}" for engine in options.engine or ())
    publish("cpu", f"python -m benchmarks.cpu --calls {options.calls}{only}", found)
    return 0 if all(each["own_by_bare"] <= _GOAL for of_one in found.values() for each in of_one.values()) else 1


def _measure_engine(engine: str, calls: int, numbers: Iterator[int]) -> dict[str, dict[str, Any]]:
    """What a call costs with one engine, by the number of callers."""
    with stack(lambda _: None, "--engine", engine) as running:
        own = front(running, module="benchmarks.named")
        own.start()
        release = verify(running.state.releases.resolve() / running.announced["release"], running.state.trust)
        with load_scorers(release) as scorers:
            bare = _Bare(scorers, release.manifest.policy)
            bare.work(new_images(20, numbers))
            _send(own, new_images(_WARM_UP, numbers), 8)
            found = {
                f"{callers}_at_a_time": _measure(running, own, bare, numbers, calls, callers) for callers in (1, 8)
            }
        own.child.stop()
    return found


def new_images(number: int, numbers: Iterator[int]) -> list[bytes]:
    """The sample's originals over and over, each a little different from all that came before.

    The quantization of the two highest frequencies, which hold next to nothing, is a number of the image's own.
    """
    originals = [path.read_bytes() for path in sorted((SAMPLE / "originals").glob("*/*.jpeg"))]
    images = []
    for index in range(number):
        data, own = bytearray(originals[index % len(originals)]), next(numbers)
        end = data.index(_QUANTIZATION) + len(_QUANTIZATION) + 1 + 64
        data[end - 2 : end] = 1 + own // 255 % 255, 1 + own % 255
        images.append(bytes(data))
    return images


class _Bare:
    """Decoding, detector and, where asked, typer, with nothing around them."""

    def __init__(self, scorers: dict[str, Scorer], policy: Policy) -> None:
        self._scorers = scorers
        self._policy = policy

    def work(self, images: list[bytes]) -> tuple[float, list[float]]:
        """Processor seconds for images, and the seconds that each took."""
        started, took = time.process_time(), []
        for image in images:
            began = time.perf_counter()
            pixels = prepare(image).pixels
            (detector,) = self._scorers[DETECTOR].scores([pixels])
            if needs_type(self._policy, Scores(detector.probability, None, detector.chest_probability)):
                self._scorers[TYPER].scores([pixels])
            took.append(time.perf_counter() - began)
        return time.process_time() - started, took


def _measure(
    running: Stack, own: Front, bare: _Bare, numbers: Iterator[int], calls: int, callers: int
) -> dict[str, Any]:
    """Milliseconds a call, by part, of so many callers."""
    parts: Counter[str] = Counter()
    alone = wall = 0.0
    took: list[float] = []
    bare_took: list[float] = []
    for _ in range(2):
        seconds, each = bare.work(new_images(calls // 2, numbers))
        alone, bare_took = alone + seconds, bare_took + each
        images = new_images(calls // 2, numbers)
        before = _cpu_seconds(running, own)
        started = time.perf_counter()
        took += _send(own, images, callers)
        wall += time.perf_counter() - started
        parts.update(_cpu_seconds(running, own) - before)
    milliseconds = {part: round(1000 * seconds / calls, 2) for part, seconds in sorted(parts.items())}
    cost = sum(value for part, value in milliseconds.items() if part != _STORE)
    work = 1000 * alone / calls
    return {
        "cpu_ms": milliseconds,
        "own_ms": round(cost, 2),
        "bare_ms": round(work, 2),
        "own_by_bare": round(cost / work, 2),
        "p50_ms": round(1000 * statistics.median(took), 1),
        "bare_p50_ms": round(1000 * statistics.median(bare_took), 1),
        "calls_per_second": round(calls / wall, 1),
    }


def _send(own: Front, images: list[bytes], callers: int) -> list[float]:
    """Send each image once; the seconds that each took."""
    bodies = [json.dumps({"instances": [{"image": {"b64": base64.b64encode(each).decode()}}]}) for each in images]

    def call(first: int) -> list[float]:
        connection, took = http.client.HTTPConnection(own.address, timeout=60), []
        for body in bodies[first::callers]:
            started = time.perf_counter()
            _ask(connection, body)
            took.append(time.perf_counter() - started)
        connection.close()
        return took

    with ThreadPoolExecutor(callers) as threads:
        return [seconds for took in threads.map(call, range(callers)) for seconds in took]


def _ask(connection: http.client.HTTPConnection, body: str) -> None:
    """Send a call, and again where the service says so: a machine that others use too may stall for seconds."""
    for _ in range(_TRIES):
        connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == http.client.OK:
            return
        time.sleep(int(answer.headers["Retry-After"]))
    raise RuntimeError(f"a call was answered with {answer.status} again and again")


def _cpu_seconds(running: Stack, own: Front) -> Counter[str]:
    """Processor seconds that each part has used since it began."""
    if own.child.process is None:
        raise AssertionError("the front is started before it is measured")
    found: Counter[str] = Counter()
    of_front = psutil.Process(own.child.process.pid)
    for task in Path(f"/proc/{of_front.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        part = next((part for start, part in _THREADS.items() if name.startswith(start)), "event loop")
        found[part] += _seconds_of(task)
    for worker in of_front.children():
        found["decode workers"] += _seconds_of(Path(f"/proc/{worker.pid}"))
    for child in psutil.Process(running.process.pid).children(recursive=True):
        words = " ".join(child.cmdline())
        if "model_service_worker" in words:
            part = json.loads((Path(child.cwd()) / "model.json").read_text())["name"]
        elif "org.pytorch.serve" in words:
            part = "java"
        elif "pneumoserve.models.worker" in words:
            part = "models' worker"
        elif "pneumoserve.models" in words:
            part = "models' parent"
        elif "weed" in words:
            part = _STORE
        else:
            continue
        found[part] += _seconds_of(Path(f"/proc/{child.pid}"))
    return found


def _seconds_of(folder: Path) -> float:
    """User and system seconds of a process or thread, by its folder in /proc."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    sys.exit(main())
