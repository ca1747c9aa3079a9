"""Following the archive: what is new since the last look, and none of what is there already."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pneumoserve.rollout.tail import Tail
from pneumoserve.store import MemoryStore, StoredObject, StoreError
from tests.support.archives import reader_of
from tests.support.entries import KEY, RELEASE, Chain, id_made, prediction

OTHER = "00000000000c"


class Counting:
    """A store that counts what is listed of records; all else is the store's own."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.listed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for item in self._store.list(prefix, after):
            self.listed += 1
            yield item


def away(operation: str, key: str) -> None:
    if operation == "get":
        raise StoreError("away")


@pytest.fixture
def kept() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(kept: MemoryStore) -> Counting:
    return Counting(kept)


def follow(store: Counting, since: datetime) -> Tail:
    return Tail(reader_of(store, KEY), RELEASE, since)


def test_each_look_reads_what_is_new_of_every_writer(store: Counting) -> None:
    tail = follow(store, datetime.now(UTC) - timedelta(seconds=5))
    writers = [Chain(store, f"front-{name}-0000000{name}") for name in "abc"]
    written = []
    for chain in writers:
        for _ in range(3):
            written.append(prediction())
            chain.write([written[-1]])
    assert {r.prediction_id for r in tail.read()} == {r.prediction_id for r in written}
    listed, read = store.listed, len(store.read)
    assert read == 9
    late = [prediction(), prediction()]
    writers[0].write([late[0]])
    newcomer = Chain(store, "front-aa-00000000")
    newcomer.write([late[1]])
    assert {r.prediction_id for r in tail.read()} == {r.prediction_id for r in written + late}
    assert len(store.read) == read + 2
    # Of each writer that is known the first key tells where it stands, and the new ones are listed.
    assert store.listed - listed <= 2 * len(writers) + 2
    assert len(tail.read()) == 11


def test_what_is_older_or_of_another_release_is_left_out(store: Counting) -> None:
    now = datetime.now(UTC)
    chain = Chain(store, "front-a-00000001")
    old, young = prediction(id_made(now - timedelta(seconds=2))), prediction(id_made(now))
    chain.write([old, young])
    Chain(store, "front-b-00000002").write([prediction(release=OTHER)], release=OTHER)
    assert [r.prediction_id for r in follow(store, now - timedelta(seconds=1)).read()] == [young.prediction_id]
    # Segments that were written long before are not even read.
    assert follow(store, now + timedelta(hours=1)).read() == []
    assert len(store.read) == 1


def test_what_a_store_did_not_give_comes_with_the_next_look(store: Counting, kept: MemoryStore) -> None:
    tail = follow(store, datetime.now(UTC) - timedelta(seconds=5))
    Chain(store, "front-a-00000001").write([prediction()])
    here, kept.before = kept.before, away
    with pytest.raises(StoreError):
        tail.read()
    kept.before = here
    assert len(tail.read()) == 1
