"""What putting every call on record costs: the same front with its store and with one that takes all at once.

`python -m benchmarks.commit` runs both fronts on the same models, in turns, so that both see the same machine. Goals:
throughput lost at most 3 %, the median of a single caller's calls longer by at most the median of a store's PUT + 2 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import count

import httpx
from rich.progress import track

from benchmarks.bench import Front, ask, console, front, keep_busy, publish, sample, stack
from pneumoserve.store import S3Settings, S3Store

_RECORD_BYTES = 2000
# A second bucket's name of the local store is never asked for: without a store nothing is written.
_NOWHERE = "benchmarks.nowhere"


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each front")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a turn")
    options = parser.parse_args()
    with stack() as running:
        fronts = {"on": front(running), "off": front(running, module=_NOWHERE)}
        for own in fronts.values():
            own.start()
            keep_busy(own, 3.0)
        rates: dict[str, list[float]] = {name: [] for name in fronts}
        medians: dict[str, list[float]] = {name: [] for name in fronts}
        puts: list[float] = []
        for turn in track(range(options.rounds), "measuring", console=console):
            for name in sorted(fronts, reverse=bool(turn % 2)):
                rates[name].append(keep_busy(fronts[name], options.seconds))
                medians[name].append(statistics.median(_alone(fronts[name], options.seconds)))
            puts += _puts(running.store, 50)
        for own in fronts.values():
            own.child.stop()
    lost = [1 - on / off for on, off in zip(rates["on"], rates["off"], strict=True)]
    added = [on - off for on, off in zip(medians["on"], medians["off"], strict=True)]
    publish(
        "commit",
        f"python -m benchmarks.commit --rounds {options.rounds} --seconds {options.seconds:g}",
        {
            "calls_per_second_with_archive": round(statistics.median(rates["on"]), 1),
            "calls_per_second_without": round(statistics.median(rates["off"]), 1),
            "throughput_lost_percent": round(100 * statistics.median(lost), 1),
            "p50_ms_with_archive": round(1000 * statistics.median(medians["on"]), 1),
            "p50_ms_without": round(1000 * statistics.median(medians["off"]), 1),
            "p50_ms_added": round(1000 * statistics.median(added), 1),
            "store_put_p50_ms": round(1000 * statistics.median(puts), 1),
        },
    )
    return 0


def _alone(own: Front, seconds: float) -> list[float]:
    """Seconds of each call of a single caller."""
    films, times, end = sample(), [], time.perf_counter() + seconds
    with httpx.Client(base_url=f"http://{own.address}", timeout=60) as client:
        for number in count():
            started = time.perf_counter()
            if started > end:
                return times
            ask(client, films[number % len(films)])
            times.append(time.perf_counter() - started)
    return times


def _puts(settings: S3Settings, number: int) -> list[float]:
    """Seconds of each PUT of an object as large as a record."""
    store, times = S3Store(settings), []
    for index in range(number):
        started = time.perf_counter()
        store.put(f"benchmark/{index}", b"x" * _RECORD_BYTES, "text/plain")
        times.append(time.perf_counter() - started)
    store.close()
    return times


if __name__ == "__main__":
    sys.exit(main())
