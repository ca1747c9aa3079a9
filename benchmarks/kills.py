"""Fronts killed at random moments under load: how many answered calls have no record (the goal is 0).

`python -m benchmarks.kills` starts a stack and, again and again, a front of its own beside it, sends that films over
HTTP and gRPC and kills it with SIGKILL at a random moment. At the end it looks for the record of every answered call.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from rich.progress import track

from benchmarks.bench import Stack, console, front, publish, recorded, sample, stack
from tests.e2e.load import Call, Load

_PER_SECOND = 20.0
_LONGEST_SECONDS = 1.0


def main() -> int:
    """Measure and write the result; 1 where a record is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often to kill a front")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311 - moments, no secrets
    calls: list[Call] = []
    with stack() as running:
        for _ in track(range(options.kills), "killing", console=console):
            calls += killed(running, moments.uniform(0.0, _LONGEST_SECONDS))
        there = recorded(running)
    answered = [call for call in calls if call.answered]
    missing = [call for call in answered if call.prediction_id not in there]
    publish(
        "kills",
        f"python -m benchmarks.kills --kills {options.kills} --seed {options.seed}",
        {
            "kills": options.kills,
            "calls": len(calls),
            "answered": len(answered),
            "cut_off": len(calls) - len(answered),
            "answered_without_record": len(missing),
        },
    )
    return 1 if missing else 0


def killed(running: Stack, seconds: float) -> list[Call]:
    """What became of a front's calls that was killed `seconds` after its first answer."""
    own = front(running)
    own.start()
    load = Load(own.address, sample(), _PER_SECOND, own.grpc)
    with load.running():
        load.wait_for_answers(1)
        time.sleep(seconds)
        own.kill()
    return load.calls


if __name__ == "__main__":
    sys.exit(main())
