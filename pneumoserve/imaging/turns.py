"""Whose film is decoded next, and what a call has used of its budget."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from pneumoserve.imaging.metadata import DisplayImage, ImageError, PreparedImage

# What one call may ask for in sum.
CALL_PIXELS: Final = 80_000_000
CALL_SECONDS: Final = 20.0


@dataclass
class Budget:
    """What the films of one call have used; `caller` is who pays, None for a caller without a name."""

    caller: str | None = None
    pixels: int = 0
    seconds: float = 0.0

    def refusal(self) -> ImageError | None:
        """Why no further film of the call is decoded; None where it may be."""
        if self.pixels > CALL_PIXELS:
            return ImageError(
                413,
                f"The call's films have more than {CALL_PIXELS // 1_000_000} megapixels in sum; send fewer a call.",
            )
        if self.seconds > CALL_SECONDS:
            return ImageError(413, "The call's films take too long to decode; send fewer or smaller films a call.")
        return None


@dataclass
class Job:
    """One film on its way: `queued` by the monotonic clock, its pixels counted so far, kills of its worker so far.

    The future has a PreparedImage, or a DisplayImage where the film is `shown` to people.
    """

    data: bytes
    budget: Budget
    future: Future[Any]
    shown: bool = False
    queued: float = field(default_factory=time.monotonic)
    pixels: int = 0
    kills: int = 0

    @property
    def payer(self) -> str | int:
        """Whose turn it takes: a call of a caller without a name counts as a caller of its own."""
        return id(self.budget) if self.budget.caller is None else self.budget.caller

    def settle(self, outcome: PreparedImage | DisplayImage | ImageError) -> None:
        """Give the caller the outcome, unless nobody waits for it any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, ImageError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class FairQueue:
    """The next job is that of the caller with the fewest films in work; of these, of the one that has used the least.

    Start-time fair queueing: use is counted in seconds, and a caller that comes starts where the others stand, so
    that neither rest nor work of long ago gives or takes a turn. Not thread-safe.
    """

    def __init__(self) -> None:
        self._waiting: dict[str | int, deque[Job]] = {}
        self._working: dict[str | int, int] = {}
        self._used: dict[str | int, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, job: Job) -> None:
        """Let a job wait for its turn."""
        payer = job.payer
        self._used[payer] = max(self._used.get(payer, 0.0), self._now)
        self._waiting.setdefault(payer, deque()).append(job)

    def take(self) -> Job | None:
        """The next job, None where none waits; `finish` must follow."""
        if not self._waiting:
            return None
        payer = min(self._waiting, key=lambda each: (self._working.get(each, 0), self._used[each]))
        jobs = self._waiting[payer]
        job = jobs.popleft()
        if not jobs:
            del self._waiting[payer]
        self._working[payer] = self._working.get(payer, 0) + 1
        self._now = max(self._now, self._used[payer])
        return job

    def finish(self, job: Job, seconds: float) -> None:
        """Count what a job has used, and forget callers whose use no longer matters."""
        payer = job.payer
        self._used[payer] += seconds
        self._working[payer] -= 1
        if not self._working[payer]:
            del self._working[payer]
        for each in [each for each, used in self._used.items() if self._is_past(each, used)]:
            del self._used[each]

    def _is_past(self, payer: str | int, used: float) -> bool:
        if payer in self._waiting or payer in self._working:
            return False
        # A call without a caller's name does not come again.
        return isinstance(payer, int) or used <= self._now
