"""When to try again what did not work."""

from __future__ import annotations

import time
from typing import Final

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


class Backoff:
    """Twice as long after each failure in a row, from 1 s to 1 min."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def seconds(self) -> float:
        """Seconds until the next try; 0 where one is due."""
        return max(0.0, self._until - time.monotonic())

    def wait(self, at_least: float = 0.0) -> None:
        """A try did not work; the next one is due in so many seconds `at_least`."""
        own = min(_FIRST_SECONDS * 2**self._failures, _LONGEST_SECONDS)
        self._until = time.monotonic() + max(own, at_least)
        self._failures += 1
