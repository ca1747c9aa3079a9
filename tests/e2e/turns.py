"""Turns of tests that share one node, where several workers run them side by side.

Most tests run beside others. One that takes away what all stand on, such as the API server, waits until no other test
runs, and lets none begin meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


class Turns:
    """Locks of one worker, in a folder that all workers of a run share; without a folder there is only one worker."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._locks: tuple[IO[str], IO[str]] | None = None

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        """A test's turn while others may run too."""
        if self._folder is None:
            yield
            return
        with (self._folder / "gate").open("w") as gate, (self._folder / "room").open("w") as room:
            self._locks = gate, room
            self._enter(fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A part of a test's turn while no other test runs."""
        self._enter(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._enter(fcntl.LOCK_SH)

    def _enter(self, kind: int) -> None:
        """Leave the room and enter it by the gate: who waits for it to be empty stands there, so that nobody passes."""
        if self._locks is None:
            return
        gate, room = self._locks
        fcntl.flock(room, fcntl.LOCK_UN)
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(room, kind)
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)


def once(folder: Path, name: str, make: Callable[[], str]) -> str:
    """What the first worker made, or makes now, for all workers that share a folder."""
    made = folder / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(make())
    return made.read_text()
