"""What the sealer looks at and holds; its work on a real store is tested in tests/integration/ledger."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import Chain, SealReport, SealSettings, SegmentKey, seal
from pneumoserve.ledger import sealer as sealing
from pneumoserve.records import image_key, open_ledger
from pneumoserve.store import MemoryStore, StoredObject
from tests.support.archives import record_of, trust_in

WRITER = "front-0000000a"
RELEASE = "0123456789ab"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEY, SEALER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def write(store: MemoryStore, chain: Chain, date: str = "2026-11-30") -> SegmentKey:
    place, body = chain.next([], date, RELEASE)
    store.put(place.key, body, "application/x-ndjson")
    return place


def sealed(store: MemoryStore, now: datetime = NOW) -> SealReport:
    return seal(open_ledger(store, trust_in(KEY), trust_in(SEALER)), SEALER, now, SealSettings(lock_days=0))


class LongStore:
    """A store that lists what it holds 500 times over; all else is the store's own."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for item in self._store.list(prefix, after):
            yield from repeat(item, 500)


def test_what_is_sealed_already_costs_no_memory() -> None:
    store, chain = MemoryStore(), Chain(KEY, WRITER)
    for _ in range(100):
        write(store, chain)
    assert sealed(store).segments == 100
    tracemalloc.start()
    assert sealed(LongStore(store)).number is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 50,000 places took 19 MB when all of them were held.
    assert peak < 2 << 20


def test_a_journal_that_was_found_late_is_sealed_within_a_day() -> None:
    """Hourly seals look at the last days alone."""
    store, chain = MemoryStore(), Chain(KEY, WRITER)
    write(store, chain)
    assert sealed(store).segments == 1
    late, recent = Chain(KEY, "front-0000000b"), Chain(KEY, "front-0000000c")
    write(store, late, "2026-10-01")
    write(store, recent, "2026-11-23")
    assert sealed(store, NOW + timedelta(hours=1)).segments == 1
    assert sealed(store, NOW + timedelta(hours=12)).segments == 1
    assert sealed(store, NOW + timedelta(hours=13)).number is None


def test_films_are_locked_roll_up_by_roll_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no list of all films of a long backlog is held."""
    monkeypatch.setattr(sealing, "_PART_BYTES", 2000)
    store, chain = MemoryStore(), Chain(KEY, WRITER)
    for film in range(4):
        store.put(image_key(digest_of(b"film %d" % film)), b"film %d" % film, "image/jpeg")
        place, body = chain.next([record_of(b"film %d" % film)], "2026-11-30", RELEASE)
        store.put(place.key, body, "application/x-ndjson")
    done: list[str] = []
    store.after = lambda operation, key: done.append(key) if operation in {"put", "create", "extend_lock"} else None
    report = seal(open_ledger(store, trust_in(KEY), trust_in(SEALER)), SEALER, NOW, SealSettings(lock_days=1))
    assert len(report.rollups) == 4
    films = [image_key(digest_of(b"film %d" % film)) for film in range(4)]
    assert done == [each for pair in zip(report.rollups, films, strict=True) for each in pair] + ["seals/00000001.json"]
