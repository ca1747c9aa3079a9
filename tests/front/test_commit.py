"""Commit before answer: nothing is said before the store has what was said; and how much one front holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.find import find_record
from pneumoserve.archive.references import References
from pneumoserve.archive.store import Lock, ObjectStore, S3Settings
from pneumoserve.archive.writer import ArchiveWriter
from pneumoserve.front.callers import Callers
from pneumoserve.front.errors import CallError
from pneumoserve.front.service import Refusal, Service
from pneumoserve.front.wire import Call
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.scorer import Score
from pneumoserve.release import Release
from pneumoserve.release.schema import ReleaseManifest
from tests import films

FILM = films.sample_films()[0].read_bytes()


class HeldStore(ObjectStore):
    """A store that takes nothing below a prefix until it is let go, and notes the order of what it took."""

    def __init__(self, settings: S3Settings, prefix: str) -> None:
        super().__init__(settings)
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


class Models:
    """TorchServe's part: the same score for every film."""

    ready = True

    async def score(self, *_: Any) -> Score:
        return Score(0.999, 6.9, {"engine": "none"}, chest_probability=1.0)


def release() -> Release:
    facts = json.loads((REFERENCE_RUN / "run.json").read_bytes())
    manifest = ReleaseManifest.model_validate({**facts, "schema": "pneumoserve.release/2", "files": {}})
    return Release(Path(), "0" * 12, "0" * 64, manifest, "nobody")


@contextlib.asynccontextmanager
async def serving(store: ObjectStore) -> AsyncIterator[Service]:
    archive = ArchiveWriter(store, Ed25519PrivateKey.generate(), "0" * 12)
    await archive.start()
    if isinstance(store, HeldStore):
        assert await asyncio.to_thread(store.opened.wait, 30)
    try:
        yield Service(release(), Models(), archive, References(b"k" * 32), Callers(None), 1)  # type: ignore[arg-type]
    finally:
        await archive.close()


async def said_only_after_it_is_stored(store: HeldStore, saying: asyncio.Task[Any]) -> Any:
    try:
        assert await asyncio.to_thread(store.asked.wait, 30)
        # Long enough for whoever does not wait for the store.
        done, _ = await asyncio.wait({saying}, timeout=1)
        assert not done
    finally:
        store.let_go.set()
    return await saying


@pytest.mark.parametrize("prefix", ["images/", "records/"])
async def test_nothing_is_answered_before_it_is_stored(prefix: str, s3_server: S3Settings) -> None:
    store = HeldStore(s3_server, prefix)
    async with serving(store) as service:
        asked = asyncio.create_task(service.answer("pneumonia", Call([FILM], "v1", "plain")))
        (answer,) = await said_only_after_it_is_stored(store, asked)
        assert store.taken == ["images", "records"]
        record = find_record(ObjectStore(s3_server), answer.prediction_id)
        assert record is not None
        assert record.image is not None
        assert ObjectStore(s3_server).get(record.image.stored_key)


async def test_nothing_is_refused_before_it_is_stored(s3_server: S3Settings) -> None:
    store = HeldStore(s3_server, "records/")
    async with serving(store) as service:

        async def refused() -> str:
            with pytest.raises(Refusal) as caught:
                await service.answer("pneumonia", Call([b"no film"], "v1", "plain"))
            return caught.value.prediction_id

        prediction_id = await said_only_after_it_is_stored(store, asyncio.create_task(refused()))
        assert find_record(ObjectStore(s3_server), prediction_id) is not None


@pytest.mark.parametrize(("calls", "size"), [(256, 0), (8, 64 * 1024 * 1024)])
async def test_a_full_front_says_429_until_a_call_ends(calls: int, size: int, s3_server: S3Settings) -> None:
    async with serving(ObjectStore(s3_server)) as service:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(calls):
                await held.enter_async_context(service.admitted(size))
            with pytest.raises(CallError) as caught:
                await held.enter_async_context(service.admitted(1))
            assert caught.value.status == 429
            assert caught.value.retry_after
        async with service.admitted(1):
            pass
