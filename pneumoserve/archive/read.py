"""Reading the archive: segments by place, entries in the order they were written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, datetime
from typing import Final

import orjson

from pneumoserve.archive.label import Label
from pneumoserve.archive.record import Record
from pneumoserve.archive.segment import RECORDS, Place, SegmentError, read_segment
from pneumoserve.archive.store import ObjectStore

Entry = Record | Label
_SCHEMAS: Final[dict[str, type[Record] | type[Label]]] = {
    "pneumoserve.record/1": Record,
    "pneumoserve.record/2": Record,
    "pneumoserve.label/1": Label,
}
_READERS: Final = 16


def parse_entry(line: bytes) -> Entry:
    """An entry of any version that was ever written.

    Raises:
        ValueError: it is none.
    """
    kind = _SCHEMAS.get(orjson.loads(line).get("schema"))
    if kind is None:
        raise ValueError("an entry of a form that this version does not read; use the version that wrote it")
    return kind.model_validate_json(line)


def places(store: ObjectStore, since: datetime | None = None, release: str | None = None) -> list[Place]:
    """The places of all segments of days from `since` on, of one release or all, each writer's in order.

    Raises:
        StoreError: the store does not answer.
    """
    day = "" if since is None else since.date().isoformat()
    found = (Place.of(item.key) for item in store.list(RECORDS))
    return sorted(
        place for place in found if place is not None and place.date >= day and release in (None, place.release)
    )


def days(store: ObjectStore, since: date | None = None) -> list[str]:
    """The days (YYYY-MM-DD, UTC) from `since` on that have segments, the first one first.

    Raises:
        StoreError: the store does not answer.
    """
    first = "" if since is None else since.isoformat()
    found = (folder.removeprefix(f"{RECORDS}date=").rstrip("/") for folder in store.folders(RECORDS))
    return [day for day in found if day >= first]


def lines_of(body: bytes) -> tuple[bytes, ...]:
    """The entries of a segment; those written before segments had headers are entries alone."""
    try:
        return read_segment(body).lines
    except SegmentError:
        return tuple(line for line in body.splitlines() if line.startswith(b"{") and b'"schema":"pneumoserve.' in line)


def read_lines(store: ObjectStore, wanted: Iterable[Place]) -> Iterator[tuple[Place, tuple[bytes, ...]]]:
    """The entries of segments as bytes, in the order asked for; several are read at once.

    Raises:
        StoreError: the store does not answer.
    """
    for place, body in read_bodies(store, wanted):
        yield place, lines_of(body)


def read_bodies(store: ObjectStore, wanted: Iterable[Place]) -> Iterator[tuple[Place, bytes]]:
    """Segments as they are stored, in the order asked for; several are read at once, few are held.

    Raises:
        StoreError: the store does not answer.
    """
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as threads:
        ahead: deque[tuple[Place, Future[bytes]]] = deque()
        for place in wanted:
            ahead.append((place, threads.submit(store.get, place.key)))
            if len(ahead) > 2 * _READERS:
                first, body = ahead.popleft()
                yield first, body.result()
        for first, body in ahead:
            yield first, body.result()


def entries(store: ObjectStore, since: datetime | None = None, release: str | None = None) -> Iterator[Entry]:
    """All entries made at or after `since`, of one release or all.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry is of a form that this version does not read.
    """
    for _, lines in read_lines(store, places(store, since, release)):
        for line in lines:
            entry = parse_entry(line)
            if since is None or datetime.fromisoformat(entry.time) >= since:
                yield entry
