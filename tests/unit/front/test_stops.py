"""A stopped release: every answer is referred, and what the front does while it does not know."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from pneumoserve.decision import STOPPED
from pneumoserve.front.stops import Served, StopWatch
from pneumoserve.ids import uuid7
from pneumoserve.ledger import now_text
from pneumoserve.records import ReleaseResume, ReleaseStop, Stopping, record_stop
from pneumoserve.signing import Trust, key_id
from pneumoserve.store import MemoryStore, StoredObject, StoreError
from tests.support import films
from tests.support.entries import KEY
from tests.support.front import RELEASE_ID, Front, make_release, make_request, run_front

FILM = films.sample_films()[0].read_bytes()
APPROVERS = Trust({key_id(KEY.public_key()): KEY.public_key()}, frozenset(), frozenset())
STOPPING = Stopping(APPROVERS, KEY.public_key())


class Store(MemoryStore):
    """A store that can be away."""

    away = False

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        if self.away:
            raise StoreError("The store is away.")
        return super().list(prefix, after)

    def stop(self) -> ReleaseStop:
        entry = ReleaseStop(time=now_text(), release=RELEASE_ID, stop_id=uuid7(), by="lead", why="pale images")
        return record_stop(self, KEY, KEY, entry, STOPPING)

    def resume(self, stop: ReleaseStop) -> None:
        made = {"resume_id": uuid7(), "stop_ids": (stop.stop_id,), "by": "lead", "why": "mended"}
        record_stop(self, KEY, KEY, ReleaseResume(time=now_text(), release=RELEASE_ID, **made), STOPPING)


@pytest.fixture
async def watched() -> AsyncIterator[tuple[Front, Store, StopWatch]]:
    store, served = Store(), Served(make_release())
    async with run_front(served=served) as front:
        yield front, store, StopWatch(served, store, lambda: STOPPING)


async def test_a_stopped_release_refers_everything_and_keeps_its_scores_on_record(
    watched: tuple[Front, Store, StopWatch],
) -> None:
    front, store, watch = watched
    stop = store.stop()
    await watch.look()
    response = await front.predict(FILM)
    (answer,) = response.json()["predictions"]
    assert (answer["finding"], answer["referred"], answer["reasons"]) == (None, True, ["release_stopped"])
    assert [answer[name] for name in ("confidence", "pneumonia_probability", "bacterial_probability")] == [None] * 3
    record = front.record(answer["prediction_id"])
    assert (record.schema_, record.stop, record.decision) == ("pneumoserve.record/6", stop.stop_id, STOPPED)
    assert [use.probability for use in record.models] == [0.999, 0.999]
    over_grpc = await front.infer(make_request(FILM))
    reasons = next(each for each in over_grpc.outputs if each.name == "reasons")
    assert json.loads(over_grpc.raw_output_contents[list(over_grpc.outputs).index(reasons)][4:]) == ["release_stopped"]
    # Raw scores state no finding that could be wrong.
    raw = await front.predict(FILM, model="pneumonia-detector")
    assert raw.json()["predictions"][0]["pneumonia_probability"] == 0.999
    store.resume(stop)
    await watch.look()
    (answer,) = (await front.predict(FILM)).json()["predictions"]
    assert (answer["finding"], front.record(answer["prediction_id"]).stop) == ("pneumonia", None)


async def test_what_was_known_goes_on_to_hold_while_the_store_is_away(
    watched: tuple[Front, Store, StopWatch],
) -> None:
    front, store, watch = watched
    await watch.look()
    for finding in ("pneumonia", None):
        store.away = True
        await watch.look()
        assert front.service.ready
        assert (await front.predict(FILM)).json()["predictions"][0]["finding"] == finding
        store.away = False
        store.stop()
        await watch.look()


async def test_a_front_that_never_knew_answers_nothing(watched: tuple[Front, Store, StopWatch]) -> None:
    front, store, watch = watched
    store.away = True
    await watch.look()
    assert not front.service.ready
    refused = await front.predict(FILM)
    assert (refused.status_code, "whether this release is stopped" in refused.json()["error"]) == (503, True)
    store.away = False
    await watch.look()
    assert front.service.ready
    assert (await front.predict(FILM)).status_code == 200
