"""How fast a reader gets the next study of 10,000 that wait, on both engines; writes queue.json beside this file.

Run it with `python -m benchmarks.queue`. An archive in memory holds 100,000 studies, a tenth of which wait to be read.
Each database follows it, then 500 readers take one study each, while the studies that they hold are passed over. Goal:
the next study within 300 ms at the 95th percentile.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import console, publish
from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import time_text
from pneumoserve.ledger import Reader
from pneumoserve.records import append
from pneumoserve.review import AlertDesk, Chance, ReadingRoom, ReviewDatabase, commit_to, list_waiting
from pneumoserve.store import MemoryStore
from tests.support import postgres
from tests.support.archives import reader_of
from tests.support.entries import KEY, id_made, prediction

STUDIES: Final = 100_000
WAITING: Final = 10_000
READERS: Final = 500
GOAL_MS: Final = 300
_TOGETHER: Final = 2_000
_NORMAL: Final = Decision(finding="normal", pneumonia_type=None, confidence=0.99, referred=False, reasons=())
_UNSURE: Final = Decision(
    finding=None, pneumonia_type=None, confidence=0.6, referred=True, reasons=("uncertain_finding",)
)


def fill(store: MemoryStore) -> None:
    """Put the studies on record, one image each, over a day."""
    started = datetime.now(UTC) - timedelta(days=1)
    for first in range(0, STUDIES, _TOGETHER):
        records = []
        for number in range(first, first + _TOGETHER):
            moment = started + timedelta(seconds=number * 0.8)
            made = prediction(id_made(moment))
            call = made.call.model_copy(update={"study": digest_of(str(number).encode())})
            decision = _UNSURE if number % (STUDIES // WAITING) == 0 else _NORMAL
            records.append(made.model_copy(update={"call": call, "decision": decision, "time": time_text(moment)}))
        append(store, KEY, records, "front")


@contextlib.contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    """Note the seconds of what is done."""
    started = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - started, 1)


def measure(url: str, reader: Reader, store: MemoryStore) -> dict[str, Any]:
    """One engine's figures."""
    figures: dict[str, Any] = {}
    with contextlib.closing(ReviewDatabase(url)) as database:
        with timed(figures, "follow_seconds"):
            database.follow(reader)
        commit = commit_to(store, KEY)
        room = ReadingRoom(database, commit, Chance(b"a key of the measurement, 32 bytes"))
        if len(list_waiting(database, datetime.now(UTC))) != WAITING:
            raise RuntimeError("Not every study waits that should.")
        taken = []
        for number in range(READERS):
            started = time.perf_counter()
            if room.next_study(f"r.{number}") is None:
                raise RuntimeError("A reader got no study.")
            taken.append(1000 * (time.perf_counter() - started))
        figures["next_study_ms"] = {
            "p50": round(statistics.median(taken), 1),
            "p95": round(statistics.quantiles(taken, n=20)[-1], 1),
            "largest": round(max(taken), 1),
        }
        started = time.perf_counter()
        raised = len(AlertDesk(database, commit).raise_alerts())
        figures["raise_alert_ms"] = round(1000 * (time.perf_counter() - started) / raised, 1)
        with timed(figures, "rebuild_seconds"):
            database.rebuild(reader)
    return figures


def main() -> None:
    """Measure both engines, and write the result."""
    store = MemoryStore()
    console.print("writing ...")
    fill(store)
    reader = reader_of(store, KEY)
    with tempfile.TemporaryDirectory() as folder, postgres.server() as url:
        console.print("SQLite ...")
        on_sqlite = measure(f"sqlite:///{Path(folder) / 'review.sqlite'}", reader, store)
        console.print("PostgreSQL ...")
        on_postgres = measure(url, reader, store)
    publish(
        "queue",
        "python -m benchmarks.queue",
        {
            "studies": STUDIES,
            "waiting": WAITING,
            "goal_p95_ms": GOAL_MS,
            "sqlite": on_sqlite,
            "postgresql": on_postgres,
        },
    )


if __name__ == "__main__":
    main()
