"""Walking a ledger: objects with their versions, work done ahead, and what is found."""

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

from pneumoserve.ledger.segment import Fault
from pneumoserve.store import NotFoundError, Store, StoredVersion, StoreError

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
    "wrong_time",
]
# What a fault of a segment is called among findings.
KINDS: Final[dict[Fault, Kind]] = {
    "cut": "cut",
    "unreadable": "altered",
    "misplaced": "reordered",
    "unknown_signer": "wrong_signer",
    "altered": "altered",
}
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

    def add(self, kind: Kind, key: str, sentence: str, sealed: bool) -> bool:
        """Take it, unless there is one for this object; whether it was taken."""
        with self._lock:
            count = len(self._found)
            self._found.setdefault(key, Finding(key, kind, sentence, sealed))
            return len(self._found) > count

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __len__(self) -> int:
        return len(self._found)

    def sorted(self) -> list[Finding]:
        """All of them, in the order of their keys."""
        return sorted(self._found.values())


@dataclass(frozen=True)
class ListedObject:
    """What the store holds at one key. `others` are versions that are not the present bytes, by their ETags.

    `there`: the present version has bytes. `deleted`: a delete marker stands or stood there. `earlier` are all versions
    with bytes that are not the present one, the newest first.
    """

    key: str
    size: int
    there: bool
    deleted: bool
    others: tuple[str, ...]
    earlier: tuple[str, ...]


def list_versions(store: Store, prefix: str) -> Iterator[ListedObject]:
    """All keys below a prefix, those that only a delete marker stands for included.

    Raises:
        StoreError: the store does not answer.
    """
    for key, versions in groupby(store.versions(prefix), lambda version: version.key):
        yield _summarise(key, list(versions))


def _summarise(key: str, versions: list[StoredVersion]) -> ListedObject:
    present = next((version for version in versions if version.latest), versions[0])
    there = present.etag is not None
    earlier = [version for version in versions if version.etag is not None and version is not present]
    return ListedObject(
        key=key,
        size=present.size,
        there=there,
        deleted=any(version.etag is None for version in versions),
        others=tuple(version.version for version in earlier if version.etag != present.etag) if there else (),
        earlier=tuple(version.version for version in earlier),
    )


def has_other_bytes(store: Store, key: str, others: Iterable[str]) -> bool:
    """Whether other versions hold other bytes: an ETag also depends on how an object was sent or encrypted.

    Raises:
        StoreError: the store does not answer.
    """
    others = list(others)
    if not others:
        return False
    present = retry(store, partial(store.digest, key))
    return any(retry(store, partial(store.digest, key, each)) != present for each in others)


def retry(store: Store, read: Callable[[], _Result]) -> _Result | None:
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


def ordered_map(
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


class BoundedExecutor:
    """Does work in any order, a bounded number of pieces at a time; the first fault is raised in the end."""

    def __init__(self, threads: Executor, at_once: int) -> None:
        self._threads = threads
        self._at_once = at_once
        self._pending: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Take on a piece of work; waits while too many are under way."""
        self._pending.append(self._threads.submit(work))
        while len(self._pending) > self._at_once:
            self._pending.popleft().result()

    def finish(self) -> None:
        """Wait for all of it."""
        while self._pending:
            self._pending.popleft().result()
