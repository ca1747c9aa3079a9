"""Walking the archive: objects with their versions, work done ahead, and what is found."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, Literal, TypeVar

from pneumoserve.archive.store import NotFoundError, ObjectStore, StoredVersion, StoreError

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5

Kind = Literal[
    "added",
    "altered",
    "broken_chain",
    "continued",
    "cut",
    "delete_marker",
    "missing_image",
    "missing_writer",
    "overwritten",
    "removed",
    "reordered",
    "unreadable",
    "wrong_signer",
]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it was written. `sealed`: whether a seal vouches for what was there."""

    key: str
    kind: Kind
    sentence: str
    sealed: bool


class Findings:
    """What was found so far, one finding an object; threads may add to it."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}
        self._lock = threading.Lock()

    def add(self, kind: Kind, key: str, sentence: str, sealed: bool) -> None:
        """Take it, unless there is one for this object."""
        with self._lock:
            self._found.setdefault(key, Finding(key, kind, sentence, sealed))

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __len__(self) -> int:
        return len(self._found)

    def sorted(self) -> list[Finding]:
        """All of them, in the order of their keys."""
        return sorted(self._found.values())


@dataclass(frozen=True)
class Held:
    """What the store holds at one key. `others` are versions that are not the present bytes, by their ETags."""

    key: str
    size: int
    there: bool
    deleted: bool
    others: tuple[str, ...]


def held_below(store: ObjectStore, prefix: str) -> Iterator[Held]:
    """All keys below a prefix, those that only a delete marker stands for included.

    Raises:
        StoreError: the store does not answer.
    """
    for key, versions in groupby(store.versions(prefix), lambda version: version.key):
        yield _held(key, list(versions))


def _held(key: str, versions: list[StoredVersion]) -> Held:
    present = next((version for version in versions if version.latest), versions[0])
    others = tuple(
        version.version
        for version in versions
        if version.etag is not None and version is not present and version.etag != present.etag
    )
    deleted = any(version.etag is None for version in versions)
    there = present.etag is not None
    return Held(key, present.size, there, deleted, others if there else ())


def overwritten(store: ObjectStore, key: str, others: Iterable[str]) -> bool:
    """Whether other versions hold other bytes: an ETag also depends on how an object was sent or encrypted.

    Raises:
        StoreError: the store does not answer.
    """
    others = list(others)
    if not others:
        return False
    present = patiently(store, partial(store.digest, key))
    return any(patiently(store, partial(store.digest, key, each)) != present for each in others)


def patiently(store: ObjectStore, read: Callable[[], _Result]) -> _Result | None:
    """What `read` gives, asked again where the store stumbles; None where it answers, but not for this object.

    Raises:
        NotFoundError: there is no such object.
        StoreError: the store is away.
    """
    for attempt in range(_TRIES):
        try:
            return read()
        except NotFoundError:
            raise
        except StoreError:
            time.sleep(_PAUSE_SECONDS * attempt)
    store.check()
    return None


def in_order(
    threads: Executor, items: Iterable[_Item], work: Callable[[_Item], _Result], ahead: int
) -> Iterator[tuple[_Item, _Result]]:
    """Items with what `work` makes of them, in their order; at most `ahead` are worked on before they are asked for."""
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    for item in items:
        waiting.append((item, threads.submit(work, item)))
        if len(waiting) > ahead:
            first, result = waiting.popleft()
            yield first, result.result()
    while waiting:
        first, result = waiting.popleft()
        yield first, result.result()


class Crew:
    """Work in any order, a bounded number of pieces at a time; the first fault is raised in the end."""

    def __init__(self, threads: Executor, at_once: int) -> None:
        self._threads = threads
        self._at_once = at_once
        self._pending: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        """Take on a piece of work; waits while too many are under way."""
        self._pending.append(self._threads.submit(work))
        while len(self._pending) > self._at_once:
            self._pending.popleft().result()

    def finish(self) -> None:
        """Wait for all of it."""
        while self._pending:
            self._pending.popleft().result()
