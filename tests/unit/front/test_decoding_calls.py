"""How the front has a call's films decoded: which film is named, who pays, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from pneumoserve.front import service as services
from pneumoserve.front.identity import Callers
from pneumoserve.front.service import Refusal, Service
from pneumoserve.front.stops import Served
from pneumoserve.front.wire import Call
from pneumoserve.imaging import ImageError, PreparedImage
from pneumoserve.imaging.prepare import prepare
from pneumoserve.imaging.turns import CALL_PIXELS, Budget
from pneumoserve.records import Pseudonyms
from tests.support import films
from tests.support.front import REFERENCE_KEY, FakeArchive, FakeModels, make_release

FILM = films.sample_films()[0].read_bytes()


class Decoders:
    """A pool whose films end as a test says; the n-th film of a call is `films[n]`."""

    ready = True

    def __init__(self) -> None:
        self.films: list[Future[PreparedImage]] = []
        self.budgets: list[Budget] = []
        self.asked = asyncio.Event()

    def submit(self, data: bytes, budget: Budget) -> Future[PreparedImage]:
        self.films.append(Future())
        self.budgets.append(budget)
        self.asked.set()
        return self.films[-1]


class Front:
    """A service without servers, and what it is made of."""

    def __init__(self) -> None:
        self.decoders, self.archive = Decoders(), FakeArchive()
        references, callers = Pseudonyms(REFERENCE_KEY), Callers(None)
        self.service = Service(Served(make_release()), FakeModels(), self.archive, references, callers, self.decoders)

    async def asked(self, count: int, subject: str | None = None) -> asyncio.Task[Any]:
        call = Call([FILM] * count, "v1", "plain", subject=subject)
        asking = asyncio.create_task(self.service.answer("pneumonia", call))
        await self.decoders.asked.wait()
        assert len(self.decoders.films) == count
        return asking


@pytest.fixture
def front() -> Front:
    return Front()


def refuse(film: Future[PreparedImage], status: int = 400) -> None:
    film.set_exception(ImageError(status, "No."))


async def refusal(asking: asyncio.Task[Any]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await asyncio.wait_for(asking, 30)
    return refused.value


async def test_films_are_decoded_outside_and_answered_in_their_order(front: Front) -> None:
    asking = await front.asked(2)
    for film in reversed(front.decoders.films):
        film.set_result(prepare(FILM))
    assert len(await asyncio.wait_for(asking, 30)) == 2
    assert [record.call.index for record in front.archive.records] == [0, 1]


async def test_the_first_film_that_is_refused_is_named_and_those_after_it_are_given_up(front: Front) -> None:
    asking = await front.asked(4)
    first, second, third, last = front.decoders.films
    refuse(third)
    async with asyncio.timeout(30):
        while not last.cancelled():
            await asyncio.sleep(0)
    assert not asking.done()
    first.set_result(prepare(FILM))
    refuse(second, 415)
    error = (await refusal(asking)).error
    assert (error.index, error.status) == (1, 415)
    (record,) = front.archive.records
    assert (record.kind, record.call.index) == ("refusal", 1)


async def test_a_call_over_its_budget_is_refused_as_a_whole_at_once(front: Front) -> None:
    asking = await front.asked(3)
    front.decoders.budgets[0].pixels = CALL_PIXELS + 1
    refuse(front.decoders.films[2], 413)
    error = (await refusal(asking)).error
    assert (error.index, error.status) == (None, 413)
    assert "80 megapixels" in error.message
    assert front.decoders.films[0].cancelled()
    assert front.archive.records[0].kind == "refusal"


async def test_the_films_of_a_call_that_is_given_up_are_given_up(front: Front) -> None:
    asking = await front.asked(3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert all(film.cancelled() for film in front.decoders.films)


async def test_the_caller_pays_for_all_films_of_a_call(front: Front) -> None:
    asking = await front.asked(2, "clinic")
    first, second = front.decoders.budgets
    assert first is second
    assert first.caller == "clinic"
    asking.cancel()


async def test_no_film_is_awaited_where_no_worker_can_be_had(front: Front) -> None:
    assert front.service.ready
    front.decoders.ready = False
    assert not front.service.ready


async def test_a_refused_film_is_hashed_beside_the_event_loop(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    hashing: list[int] = []

    def note(data: bytes) -> str:
        hashing.append(threading.get_ident())
        return hashlib.sha256(data).hexdigest()

    monkeypatch.setattr(services, "digest_of", note)
    asking = await front.asked(1)
    refuse(front.decoders.films[0])
    await refusal(asking)
    (record,) = front.archive.records
    assert record.refused is not None
    assert record.refused.input_sha256 == hashlib.sha256(FILM).hexdigest()
    assert hashing
    assert threading.get_ident() not in hashing
