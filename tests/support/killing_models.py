"""Killing what scores films while callers wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence


async def kill_under_load(
    ask: Callable[[bytes], Awaitable[float]], films: Sequence[bytes], kill: Callable[[], None]
) -> None:
    """Kill three times, with a caller for each film; every call must be answered as it was before."""
    wanted = {film: await ask(film) for film in films}
    answered = 0
    stop = asyncio.Event()

    async def load(film: bytes) -> None:
        nonlocal answered
        while not stop.is_set():
            assert await ask(film) == wanted[film]
            answered += 1

    async def answers_more(count: int) -> None:
        target = answered + count
        while answered < target:
            await asyncio.sleep(0.01)

    # A lost request ends the group at once.
    async with asyncio.TaskGroup() as group:
        for film in films:
            group.create_task(load(film))
        for _ in range(3):
            await answers_more(8)
            kill()
            await answers_more(20)
        stop.set()
