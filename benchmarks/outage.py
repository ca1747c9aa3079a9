"""The store stopped under steady load: how many records are lost (the goal is 0), and how much memory the front takes.

`python -m benchmarks.outage` starts a stack and a front of its own with a journal beside it, sends films at a steady
rate, stops the S3 server (SIGSTOP), kills the front in the middle of the outage and starts another on the same journal,
as Kubernetes does where a pod is deleted, lets the S3 server go on, and looks for the record of every answered call.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil
from rich.progress import track

from benchmarks.bench import Front, Stack, console, front, publish, recorded, sample, stack
from tests.e2e.load import Load

_PER_SECOND = 5.0
_DRAIN_SECONDS = 300.0


def main() -> int:
    """Measure and write the result; 1 where a record is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long the store is away")
    options = parser.parse_args()
    with stack() as running:
        journal = running.state.folder / "journal-of-the-benchmark"
        first, second = (front(running, f"--journal={journal}") for _ in range(2))
        server = psutil.Process(_pid_of(running))
        first.start()
        before, first_rss = _memory(first), 0
        server.suspend()
        half = options.seconds // 2
        try:
            first_load, first_rss = _under_load(first, half)
            first.kill()
            second.start()
            second_load, second_rss = _under_load(second, half)
            waiting = sum(path.stat().st_size for path in journal.rglob("*") if path.is_file())
        finally:
            server.resume()
        drained = _drained(journal, second)
        there = recorded(running)
        second.child.stop()
    calls = first_load.calls + second_load.calls
    answered = [call for call in calls if call.answered]
    missing = [call for call in answered if call.prediction_id not in there]
    publish(
        "outage",
        f"python -m benchmarks.outage --seconds {options.seconds}",
        {
            "seconds_away": options.seconds,
            "calls_per_second": _PER_SECOND,
            "answered": len(answered),
            "not_answered": len(calls) - len(answered),
            "records_lost": len(missing),
            "journal_mebibytes_at_the_end": round(waiting / 2**20, 1),
            "seconds_until_the_journal_was_empty": round(drained, 1),
            "front_mebibytes_before": round(before / 2**20),
            "front_mebibytes_at_most": round(max(first_rss, second_rss) / 2**20),
        },
    )
    return 1 if missing else 0


def _under_load(own: Front, seconds: int) -> tuple[Load, int]:
    """A front's calls for some time, and the most memory it took."""
    load = Load(own.address, sample(), _PER_SECOND, own.grpc)
    most = 0
    with load.running():
        for _ in track(range(seconds), "the store is away", console=console):
            time.sleep(1)
            most = max(most, _memory(own))
    console.print(load.summary())
    return load, most


def _drained(journal: Path, own: Front) -> float:
    """Seconds until nothing waits in the journal."""
    started = time.monotonic()
    while any(path.name.isdigit() for path in journal.rglob("*")):
        if time.monotonic() - started > _DRAIN_SECONDS or not own.child.running:
            break
        time.sleep(0.2)
    return time.monotonic() - started


def _memory(own: Front) -> int:
    return 0 if own.child.process is None else psutil.Process(own.child.process.pid).memory_info().rss


def _pid_of(running: Stack) -> int:
    children = psutil.Process(running.process.pid).children()
    return next(child.pid for child in children if any("weed" in word for word in child.cmdline()))


if __name__ == "__main__":
    sys.exit(main())
