"""The client of the models' workers, against workers that misbehave."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
from prometheus_client import REGISTRY

from pneumoserve.front import workers
from pneumoserve.front.errors import CallError
from pneumoserve.front.workers import Workers
from pneumoserve.models.exchange import GREETING, socket_of
from pneumoserve.models.scorer import Score
from pneumoserve.names import DETECTOR, TYPER

PROFILE: dict[str, str | int] = {"engine": "none", "engine_version": "1"}
TOLD: dict[str, str | int] = {**PROFILE, "server": "inprocess"}
REQUEST_BYTES = 1 + 224 * 224

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def film(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.full((224, 224), number, dtype=np.uint8)


async def read_request(reader: asyncio.StreamReader) -> tuple[int, int]:
    """The number of the model, and the value of the film's pixels."""
    request = await reader.readexactly(REQUEST_BYTES)
    assert len(set(request[1:])) == 1
    return request[0], request[1]


async def answer(writer: asyncio.StreamWriter, value: int) -> None:
    text = orjson.dumps(dataclasses.asdict(Score(value / 256, float(value), PROFILE, 0.5, Score(0.75, 1.0, PROFILE))))
    # In two parts, as a socket may give it.
    whole = struct.pack("!I", len(text)) + text
    writer.write(whole[:10])
    await writer.drain()
    await asyncio.sleep(0)
    writer.write(whole[10:])


async def serve_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    while True:
        _, value = await read_request(reader)
        await answer(writer, value)


@asynccontextmanager
async def listening(path: Path, behaviour: Behaviour) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[Workers]:
    models = Workers(folder)
    models.start()
    try:
        yield models
    finally:
        await models.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def shown(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"pneumoserve_{name}", labels) or 0.0


async def test_films_at_once_each_get_their_own_score(tmp_path: Path) -> None:
    before = shown("engine_seconds_count", model=DETECTOR)
    first, second = (listening(socket_of(tmp_path, number), serve_well) for number in (0, 1))
    async with first, second, client(tmp_path) as models:
        scores = await asyncio.gather(*(models.score(DETECTOR, film(number)) for number in range(100)))
        assert models.ready
        await until(lambda: shown("engine_workers", model=TYPER) == 2)
    assert [score.logit for score in scores] == list(range(100))
    assert scores[0] == Score(0.0, 0.0, TOLD, 0.5, Score(0.75, 1.0, TOLD))
    assert shown("engine_seconds_count", model=DETECTOR) == before + 100
    # The typer's score came with the detector's.
    for model in (DETECTOR, TYPER):
        assert shown("engine_info", model=model, engine="none", engine_version="1") == 1


async def test_each_model_has_its_number(tmp_path: Path) -> None:
    asked: list[int] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while True:
            number, value = await read_request(reader)
            asked.append(number)
            await answer(writer, value)

    async with listening(socket_of(tmp_path, 0), note), client(tmp_path) as models:
        for model in (DETECTOR, TYPER):
            await models.score(model, film(1))
    assert asked == [0, 1]


@pytest.mark.parametrize("misdeed", ["hangs up", "hangs up in the middle", "freezes"])
async def test_what_a_lost_worker_held_is_sent_again(
    misdeed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_STALL_SECONDS", 0.3)
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.1)
    connections = 0

    async def fail_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await serve_well(reader, writer)
        writer.write(GREETING)
        await read_request(reader)
        if misdeed == "freezes":
            await asyncio.sleep(60)
        if misdeed == "hangs up in the middle":
            writer.write(struct.pack("!I", 100) + b"{")
            await writer.drain()

    retries = shown("backend_retries_total")
    async with listening(socket_of(tmp_path, 0), fail_once), client(tmp_path) as models, asyncio.timeout(10):
        scores = await asyncio.gather(*(models.score(DETECTOR, film(number)) for number in range(8)))
    assert [score.logit for score in scores] == list(range(8))
    assert connections == 2
    # It had been sent two.
    assert shown("backend_retries_total") == retries + 2


async def test_a_film_that_ends_each_worker_is_refused_and_its_neighbours_are_not(tmp_path: Path) -> None:
    async def die_of_7(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while True:
            _, value = await read_request(reader)
            if value == 7:
                return
            await answer(writer, value)

    async with listening(socket_of(tmp_path, 0), die_of_7), client(tmp_path) as models, asyncio.timeout(10):
        found = await asyncio.gather(
            *(models.score(DETECTOR, film(number)) for number in range(16)), return_exceptions=True
        )
    (error,) = (each for each in found if not isinstance(each, Score))
    assert isinstance(error, CallError)
    assert error.status == 503
    assert isinstance(found[7], CallError)
    assert [each.logit for each in found if isinstance(each, Score)] == [n for n in range(16) if n != 7]


async def test_without_workers_a_film_is_refused_and_nothing_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.05)
    async with client(tmp_path / "none") as models, asyncio.timeout(10):
        with pytest.raises(CallError) as refused:
            await models.score(DETECTOR, film(1))
        assert refused.value.status == 503
        assert not models.ready
        assert shown("engine_waiting", model=DETECTOR) == 0


async def test_a_worker_is_ready_when_it_greets_as_this_version_does(tmp_path: Path) -> None:
    loaded, greetings = asyncio.Event(), iter([b"models 0\n", GREETING])

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = next(greetings)
        await loaded.wait()
        writer.write(greeting)
        if greeting != GREETING:
            assert await reader.read() == b""
            return
        await reader.read()

    async with listening(socket_of(tmp_path, 0), greet), client(tmp_path) as models:
        await asyncio.sleep(0.05)
        assert not models.ready
        loaded.set()
        await until(lambda: models.ready)
        assert next(greetings, None) is None


async def test_a_caller_that_goes_takes_no_other_ones_answer(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def hesitate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while True:
            _, value = await read_request(reader)
            asked.set()
            await go_on.wait()
            await answer(writer, value)

    async with listening(socket_of(tmp_path, 0), hesitate), client(tmp_path) as models, asyncio.timeout(10):
        gone = asyncio.create_task(models.score(DETECTOR, film(1)))
        others = [asyncio.create_task(models.score(DETECTOR, film(number))) for number in (2, 3, 4)]
        await asked.wait()
        gone.cancel()
        # It has not been sent yet.
        others.pop().cancel()
        go_on.set()
        assert [(await each).logit for each in others] == [2, 3]
