"""Commit before answer: nothing is said before the store has what was said."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pneumoserve.front.identity import Callers
from pneumoserve.front.service import Refusal, Service
from pneumoserve.front.wire import Call
from pneumoserve.ledger import Reader
from pneumoserve.records import find_record
from pneumoserve.store import Lock, MemoryStore
from tests.support import films
from tests.support.front import FakeModels, ThreadDecoders, run_service

FILM = films.sample_films()[0].read_bytes()


class HeldStore(MemoryStore):
    """A store that takes nothing below a prefix until it is let go, and notes the order of what it took."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix
        self.asked, self.let_go = threading.Event(), threading.Event()
        self.taken: list[str] = []
        # The writer's first segment, which only says that there is a writer, is let through.
        self.opened = threading.Event()

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:
        if not self.opened.is_set():
            super().put(key, data, content_type, lock)
            self.opened.set()
            return
        if key.startswith(self._prefix):
            self.asked.set()
            assert self.let_go.wait(60)
        super().put(key, data, content_type, lock)
        self.taken.append(key.partition("/")[0])


@contextlib.asynccontextmanager
async def serving(store: HeldStore) -> AsyncIterator[tuple[Service, Reader]]:
    decoders = ThreadDecoders()
    async with run_service(store, Callers(None), decoders, FakeModels()) as (service, reader):
        assert await asyncio.to_thread(store.opened.wait, 30)
        yield service, reader
    decoders.close()


async def ended_once_stored(store: HeldStore, saying: asyncio.Task[Any]) -> Any:
    """What a call ends with, which it does only after the store took what was held."""
    try:
        assert await asyncio.to_thread(store.asked.wait, 30)
        # Long enough for whoever does not wait for the store.
        done, _ = await asyncio.wait({saying}, timeout=0.5)
        assert not done
    finally:
        store.let_go.set()
    return await saying


@pytest.mark.parametrize("prefix", ["images/", "records/"])
async def test_nothing_is_answered_before_it_is_stored(prefix: str) -> None:
    store = HeldStore(prefix)
    async with serving(store) as (service, reader):
        asked = asyncio.create_task(service.answer("pneumonia", Call([FILM], "v1", "plain")))
        (answer,) = await ended_once_stored(store, asked)
        assert store.taken == ["images", "records"]
        record = find_record(reader, answer.prediction_id)
        assert record is not None
        assert record.image is not None
        assert store.get(record.image.stored_key)


async def test_nothing_is_refused_before_it_is_stored() -> None:
    store = HeldStore("records/")
    async with serving(store) as (service, reader):

        async def refused() -> str:
            with pytest.raises(Refusal) as caught:
                await service.answer("pneumonia", Call([b"no film"], "v1", "plain"))
            return caught.value.prediction_id

        prediction_id = await ended_once_stored(store, asyncio.create_task(refused()))
        assert find_record(reader, prediction_id) is not None
