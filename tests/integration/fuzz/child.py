"""The process that prepares films: it may die of one, and says before each which one it begins.

A line of JSON to the parent when a film begins, and one with its verdict and what it cost when it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from pneumoserve.imaging import LargeFilm, PreparedImage
from pneumoserve.imaging.pool import LANES, DecoderPool, LaneName, Outcome
from pneumoserve.imaging.prepare import prepare
from tests.integration.fuzz.mutators import film_of
from tests.integration.fuzz.oracles import Verdict, judge, judge_answer
from tests.integration.fuzz.seeds import seeds

# So that a bomb ends its own process, not the machine.
_ADDRESS_SPACE = 6 * 2**30


def main(target: str, lines: Iterator[str], out: int) -> None:
    """Judge what each line names, a mutant's number or a file's path, until there are no more."""
    seeds()
    with _decoder(target) as decoder:
        for line in lines:
            name = line.strip()
            data = film_of(name)
            _write(out, begin=name)
            decoder.start()
            verdict = decoder.judge(data)
            _write(out, end=name, size=len(data), **decoder.measured(), **asdict(verdict))


def _write(out: int, **fields: object) -> None:
    os.write(out, json.dumps(fields).encode() + b"\n")


class Decoder:
    """Prepares films in this process, and notes what they cost after `start`."""

    def __init__(self) -> None:
        self.large = False
        self.seconds = 0.0
        self.events: list[str] = []
        self._before: dict[int, float] = {}

    def start(self) -> None:
        """Begin to measure."""
        self.large, self.seconds, self.events = False, 0.0, []
        self._before = {pid: _reset_peak(pid) for pid in self.processes()}

    def processes(self) -> list[int]:
        """Those that do the work."""
        return [os.getpid()]

    def measured(self) -> dict[str, object]:
        """Seconds of CPU, MiB of resident memory added, whether the film is large, and what became of workers."""
        peaks = [_peak_mib(pid) - before for pid, before in self._before.items()]
        return {
            "seconds": round(self.seconds, 4),
            "peak_mib": max(peaks, default=0),
            "large": self.large,
            "events": self.events,
        }

    def judge(self, data: bytes) -> Verdict:
        """How a film ends."""
        return judge(data, self.prepare)

    def prepare(self, data: bytes) -> PreparedImage:
        """`prepare`, as a worker of the fast lane does it and then, for a large film, one of the slow lane."""
        start = time.process_time()
        try:
            return prepare(data, refuse_large=True)
        except LargeFilm:
            self.large = True
            return prepare(data)
        finally:
            self.seconds = max(self.seconds, time.process_time() - start)


class PooledDecoder(Decoder):
    """Prepares films in the pool's workers, as the front does."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: queue.SimpleQueue[tuple[LaneName, Outcome, float]] = queue.SimpleQueue()
        lanes = {**LANES, "fast": replace(LANES["fast"], workers=1)}
        self.pool = DecoderPool(lanes, report=lambda *end: self._ends.put(end))

    def processes(self) -> list[int]:
        """This process, as the front, and the workers."""
        tasks = Path("/proc/self/task").iterdir()
        return [os.getpid(), *(int(pid) for task in tasks for pid in (task / "children").read_text().split())]

    def prepare(self, data: bytes) -> PreparedImage:
        """`DecoderPool.prepare`; waits for the pool's report too."""
        try:
            return self.pool.prepare(data)
        finally:
            self._read_ends()

    def _read_ends(self) -> None:
        outcome: Outcome = "moved"
        while outcome in ("moved", "killed"):
            lane, outcome, seconds = self._ends.get(timeout=60)
            self.large = self.large or lane == "slow"
            self.seconds = max(self.seconds, seconds)
            if outcome not in ("prepared", "refused", "moved"):
                self.events.append(f"{outcome} in the {lane} lane")


class Caller(Decoder):
    """Sends films to a service, and measures how long its answers take; its processes are its own affair."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=60)

    def processes(self) -> list[int]:
        """None that can be measured."""
        return []

    def judge(self, data: bytes) -> Verdict:
        """What the service answers."""
        start = time.monotonic()
        try:
            self._connection.request(
                "POST", "/v1/models/pneumonia:predict", data, {"Content-Type": "application/dicom"}
            )
            with self._connection.getresponse() as answer:
                return judge_answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Verdict("no answer", type(error).__name__, "no answer")
        finally:
            self.seconds = time.monotonic() - start


@contextmanager
def _decoder(target: str) -> Iterator[Decoder]:
    if target == "pool":
        pooled = PooledDecoder()
        with pooled.pool:
            yield pooled
    elif target == "direct":
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        yield Decoder()
    else:
        yield Caller(target)


def _reset_peak(pid: int) -> float:
    """Start a process's peak anew (proc(5), clear_refs); its resident memory now, in MiB."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return 0.0
    return _peak_mib(pid)


def _peak_mib(pid: int) -> float:
    """0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int((status.partition("VmHWM:")[2].split() or ["0"])[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], iter(sys.stdin.readline, ""), int(sys.argv[2]))
