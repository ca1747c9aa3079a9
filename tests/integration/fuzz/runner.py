"""Runs films through child processes, and watches over time, memory and deaths."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from pneumoserve.imaging.pool import LANES
from tests.integration.fuzz.mutators import film_of, make_mutant

# Of processor time; and of time, for what only waits, however busy the machine is.
_HANG_SECONDS: Final = 30
_LOOK_AFTER_SECONDS: Final = 5
_STUCK_SECONDS: Final = 600
_MOST_SAVED: Final = 10
_LARGEST_COLLECTED: Final = 20_000


@dataclass
class Report:
    """What came of a run. `faults` holds, by what was wrong, the names of films: mutants' numbers or paths.

    `events` holds those that cost the pool a worker, which is what workers are for: no fault, but worth a look.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)
    events: dict[str, list[str]] = field(default_factory=dict)
    smallest: dict[str, tuple[int, str]] = field(default_factory=dict)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    largest: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    large: int = 0

    def add(self, end: dict[str, Any]) -> None:
        """Count one film that came to an end."""
        name, outcome = end["end"], end["outcome"]
        self.outcomes[outcome] += 1
        reason = f"{outcome}: {end['reason']}"
        self.reasons[reason] += 1
        self.smallest[reason] = min(self.smallest.get(reason, (2**40, "")), (end["size"], name))
        self.large += end["large"]
        self.slowest = sorted([*self.slowest, (end["seconds"], name)], reverse=True)[:5]
        self.largest = sorted([*self.largest, (end["peak_mib"], name)], reverse=True)[:5]
        if end["fault"]:
            self.add_fault(end["fault"], name)
        lane = LANES["slow" if end["large"] else "fast"]
        if end["seconds"] > lane.seconds:
            self.add_fault("slow", name)
        if end["peak_mib"] * 2**20 > lane.memory:
            self.add_fault("memory", name)
        for event in end["events"]:
            self.events.setdefault(event, []).append(name)

    def add_fault(self, kind: str, name: str) -> None:
        """Note a film that broke a rule."""
        self.faults.setdefault(kind, []).append(name)

    def text(self) -> str:
        """The report for people."""
        total = sum(self.outcomes.values())
        lines = [f"{total} films in {self.seconds:.0f} s, {total / max(self.seconds, 0.001):.0f} a second"]
        lines += [f"  {count:8} {outcome}" for outcome, count in self.outcomes.most_common()]
        lines += [f"{self.large:10} of them large"]
        lines += ["slowest, seconds of CPU: " + ", ".join(f"{value:.2f} ({name})" for value, name in self.slowest)]
        lines += ["largest, MiB more: " + ", ".join(f"{value:.0f} ({name})" for value, name in self.largest)]
        lines += [f"worker {kind}: {len(names)}, first {', '.join(names[:8])}" for kind, names in self.events.items()]
        lines += [f"FAULT {kind}: {len(names)}, first {', '.join(names[:8])}" for kind, names in self.faults.items()]
        return "\n".join([*lines, "no faults" if not self.faults else "faults: see above"])


class _Child:
    """A child process, given one film at a time."""

    def __init__(self, target: str) -> None:
        self.lines, write = os.pipe()
        os.set_blocking(self.lines, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.fuzz.child", target, str(write)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[write],
            start_new_session=True,  # an interrupt from the keyboard is for the runner alone
            text=True,
        )
        os.close(write)
        self.film: str | None = None
        self.since = time.monotonic()
        self._cpu_before: float | None = None
        self._rest = b""

    def give(self, name: str) -> None:
        """Let it judge a film."""
        assert self.process.stdin is not None
        self.film, self.since, self._cpu_before = name, time.monotonic(), None
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # its death is seen at its other pipe

    def messages(self) -> list[dict[str, Any]] | None:
        """What it has said; None once it is dead."""
        try:
            data = os.read(self.lines, 65536)
        except BlockingIOError:
            return []
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def hangs(self) -> bool:
        """Whether its film takes far too much time, of processors or at all."""
        waited = time.monotonic() - self.since
        if waited < _LOOK_AFTER_SECONDS:
            return False
        if self._cpu_before is None:
            self._cpu_before = self._cpu_seconds()
        return waited > _STUCK_SECONDS or self._cpu_seconds() - self._cpu_before > _HANG_SECONDS

    def _cpu_seconds(self) -> float:
        """Processor time of the child and of its own children."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children()))
        return 0.0

    def end(self) -> int:
        """Its exit status; it is killed if it still runs."""
        assert self.process.stdin is not None
        self.process.kill()
        status = self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self.lines)
        return status


class Runner:
    """Films through children; a child that dies or hangs is replaced, and the film noted."""

    def __init__(self, target: str = "direct", workers: int = 1) -> None:
        self._target = target
        self._workers = workers
        self._selector = selectors.DefaultSelector()
        self._interrupted = False
        self.report = Report()

    def run(self, names: Iterator[str], seconds: float, progress: bool = False) -> Report:
        """Judge films until there are no more, or the time is up."""
        start = reported = time.monotonic()
        for _ in range(self._workers):
            self._start(next(names, None))
        over = False
        while self._selector.get_map():
            over = over or self._interrupted or time.monotonic() - start > seconds
            for key, _ in self._selector.select(1.0):
                self._read(key.data, iter(()) if over else names)
            self._kill_hanging(names)
            if progress and time.monotonic() - reported > 10:
                reported = time.monotonic()
                done = sum(self.report.outcomes.values())
                faults = ", ".join(f"{kind}: {len(names)} ({names[-1]})" for kind, names in self.report.faults.items())
                print(f"{done} films, {done / (reported - start):.0f} a second, faults: {faults or 'none'}", flush=True)
        self.report.seconds = time.monotonic() - start
        return self.report

    def interrupt(self, *_: object) -> None:
        """Give out no more films; the report comes once those at work have ended."""
        self._interrupted = True

    def _start(self, name: str | None) -> None:
        if name is None:
            return
        child = _Child(self._target)
        self._selector.register(child.lines, selectors.EVENT_READ, child)
        child.give(name)

    def _read(self, child: _Child, names: Iterator[str]) -> None:
        messages = child.messages()
        if messages is None:
            self._replace(child, "death", names)
            return
        for message in messages:
            if "end" in message:
                self.report.add(message)
                name = next(names, None)
                if name is None:
                    self._remove(child)
                    return
                child.give(name)

    def _kill_hanging(self, names: Iterator[str]) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data.hangs():
                self._replace(key.data, "hang", names)

    def _replace(self, child: _Child, kind: str, names: Iterator[str]) -> None:
        status = self._remove(child)
        kind = f"{kind} ({status})" if kind == "death" else kind
        self.report.outcomes[kind] += 1
        self.report.add_fault(kind, child.film or "none")
        self._start(next(names, None))

    def _remove(self, child: _Child) -> int:
        self._selector.unregister(child.lines)
        return child.end()


def collect(report: Report, folder: Path) -> None:
    """Write the smallest film of each end that was seen, unless it is large."""
    folder.mkdir(parents=True, exist_ok=True)
    for size, name in report.smallest.values():
        if size <= _LARGEST_COLLECTED:
            seed = make_mutant(int(name))[0] if name.isdigit() else ""
            (folder / f"{Path(name).stem}-{seed}.bin").write_bytes(film_of(name))


def save_faults(report: Report, folder: Path) -> None:
    """Write the films that broke a rule, and how to make each again."""
    for kind, names in (report.faults | report.events).items():
        place = folder / "".join(letter if letter.isalnum() else "-" for letter in kind)
        place.mkdir(parents=True, exist_ok=True)
        for name in names[:_MOST_SAVED]:
            if name.isdigit():
                seed, data = make_mutant(int(name))
                (place / f"{name}-{seed}.bin").write_bytes(data)
        commands = "".join(
            f"python -m tests.integration.fuzz run --first {name} --mutants 1\n" for name in names if name.isdigit()
        )
        (place / "reproduce.txt").write_text(commands)
