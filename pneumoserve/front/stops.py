"""Whether the release that this front serves is stopped: looked up in the store every half minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pneumoserve.front import metrics
from pneumoserve.records import StopBook, Stopping
from pneumoserve.release import Release
from pneumoserve.signing import KeyFileError
from pneumoserve.store import Store, StoreError

_LOOK_SECONDS: Final = 30.0
# Until it is known for the first time, nothing is answered.
_FIRST_LOOK_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


@dataclass
class Served:
    """The release that answers, and the id of the stop that stands over it, if any.

    `known` is False until a first look has shown whether there is one.
    """

    release: Release
    stop: str | None = None
    known: bool = True


class StopWatch:
    """Keeps `served` up to what the store says, by a task of the running event loop.

    `stopping` reads anew whose word counts. Where a look fails, what the last one showed goes on to hold.
    """

    def __init__(self, served: Served, store: Store, stopping: Callable[[], Stopping]) -> None:
        self._served = served
        self._book = StopBook(store, served.release.id)
        self._stopping = stopping
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        served.known = False

    async def start(self) -> None:
        """Look once, then every half minute."""
        await self.look()
        self._task = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Take what the store says now."""
        try:
            standing = await asyncio.to_thread(lambda: self._book.list_standing(self._stopping()))
        except (StoreError, KeyFileError) as error:
            if not self._failing:
                _log.warning("whether the release is stopped cannot be looked up (%s)", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        stop = standing[0].stop_id if standing else None
        if stop != self._served.stop:
            _log.warning("the release is stopped by %s" if stop else "the release is resumed%s", stop or "")
        self._served.stop, self._served.known = stop, True
        metrics.RELEASE_STOPPED.set(stop is not None)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS if self._served.known else _FIRST_LOOK_SECONDS)
            await self.look()
