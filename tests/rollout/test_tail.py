"""Following the archive: what is new since the last look, and none of what is there already."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pneumoserve.archive.store import ObjectStore, StoredObject, StoreError
from pneumoserve.rollout.tail import Tail
from tests.archive.data import RELEASE, Chain, id_made, prediction

OTHER = "00000000000c"


class Counting:
    """A store that counts what is listed and read, and can be away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.listed = 0
        self.read: list[str] = []
        self.away = False

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for item in self._store.list(prefix, after):
            self.listed += 1
            yield item

    def get(self, key: str) -> bytes:
        if self.away:
            raise StoreError("away")
        self.read.append(key)
        return self._store.get(key)


@pytest.fixture
def counting(store: ObjectStore) -> Counting:
    store.ensure_bucket()
    return Counting(store)


def follow(counting: Counting, since: datetime) -> Tail:
    return Tail(counting, RELEASE, since)  # type: ignore[arg-type]


def test_each_look_reads_what_is_new_of_every_writer(store: ObjectStore, counting: Counting) -> None:
    tail = follow(counting, datetime.now(UTC) - timedelta(seconds=5))
    writers = [Chain(store, f"front-{name}-0000000{name}") for name in "abc"]
    written = []
    for chain in writers:
        for _ in range(3):
            written.append(prediction())
            chain.write([written[-1]])
    assert {r.prediction_id for r in tail.read()} == {r.prediction_id for r in written}
    listed, read = counting.listed, len(counting.read)
    assert read == 9
    late = [prediction(), prediction()]
    writers[0].write([late[0]])
    newcomer = Chain(store, "front-aa-00000000")
    newcomer.write([late[1]])
    assert {r.prediction_id for r in tail.read()} == {r.prediction_id for r in written + late}
    assert len(counting.read) == read + 2
    # Of each writer that is known the first key tells where it stands, and the new ones are listed.
    assert counting.listed - listed <= 2 * len(writers) + 2
    assert len(tail.read()) == 11


def test_what_is_older_or_of_another_release_is_left_out(store: ObjectStore, counting: Counting) -> None:
    now = datetime.now(UTC)
    chain = Chain(store, "front-a-00000001")
    old, young = prediction(id_made(now - timedelta(seconds=2))), prediction(id_made(now))
    chain.write([old, young])
    Chain(store, "front-b-00000002").write([prediction(release=OTHER)], release=OTHER)
    assert [r.prediction_id for r in follow(counting, now - timedelta(seconds=1)).read()] == [young.prediction_id]
    # Segments that were written long before are not even read.
    assert follow(counting, now + timedelta(hours=1)).read() == []
    assert len(counting.read) == 1


def test_what_a_store_did_not_give_comes_with_the_next_look(store: ObjectStore, counting: Counting) -> None:
    tail = follow(counting, datetime.now(UTC) - timedelta(seconds=5))
    Chain(store, "front-a-00000001").write([prediction()])
    counting.away = True
    with pytest.raises(StoreError):
        tail.read()
    counting.away = False
    assert len(tail.read()) == 1
