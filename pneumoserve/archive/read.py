"""Reading the archive: segments by place, entries in the order they were written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from itertools import chain
from typing import Final

import orjson

from pneumoserve.archive.label import Label
from pneumoserve.archive.reading import ReadingRequest
from pneumoserve.archive.record import Record
from pneumoserve.archive.seals import ROLLUPS, split_segments
from pneumoserve.archive.segment import RECORDS, Place, SegmentError, read_segment
from pneumoserve.archive.store import ObjectStore
from pneumoserve.archive.walk import in_order
from pneumoserve.rollout.records import RolloutEvent

Entry = Record | Label | ReadingRequest | RolloutEvent
_SCHEMAS: Final[dict[str, type[Record] | type[Label] | type[ReadingRequest] | type[RolloutEvent]]] = {
    "pneumoserve.record/1": Record,
    "pneumoserve.record/2": Record,
    "pneumoserve.record/3": Record,
    "pneumoserve.record/4": Record,
    "pneumoserve.label/1": Label,
    "pneumoserve.reading/1": ReadingRequest,
    "pneumoserve.rollout/1": RolloutEvent,
}
_READERS: Final = 16
# rollups/date=YYYY-MM-DD/…
_ROLLUP_DAY: Final = slice(13, 23)


def parse_entry(line: bytes) -> Entry:
    """An entry of any version that was ever written.

    Raises:
        ValueError: it is none.
    """
    kind = _SCHEMAS.get(orjson.loads(line).get("schema"))
    if kind is None:
        raise ValueError("an entry of a form that this version does not read; use the version that wrote it")
    return kind.model_validate_json(line)


def places(
    store: ObjectStore, since: datetime | None = None, release: str | None = None, roles: tuple[str, ...] = ("",)
) -> list[Place]:
    """The places of all segments of days from `since` on, of one release or all, each writer's in order.

    `roles` are what the names of their writers begin with.

    Raises:
        StoreError: the store does not answer.
    """
    day = "" if since is None else since.date().isoformat()
    found = (Place.of(item.key) for item in store.list(RECORDS))
    return sorted(place for place in found if place is not None and place.date >= day and _is_of(place, release, roles))


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
        yield from in_order(threads, wanted, lambda place: store.get(place.key), 2 * _READERS)


def rolled_up(store: ObjectStore, first: date | None = None, last: date | None = None) -> Iterator[bytes]:
    """Roll-ups that were made from day `first` to day `last`, in order.

    Raises:
        StoreError: the store does not answer.
    """
    from_day, to_day = (day.isoformat() if day else "" for day in (first, last))
    keys = (item.key for item in store.list(ROLLUPS))
    wanted = (key for key in keys if key[_ROLLUP_DAY] >= from_day and (not to_day or key[_ROLLUP_DAY] <= to_day))
    # They are large: one is read while the one before it is looked through.
    with ThreadPoolExecutor(1, thread_name_prefix="read") as threads:
        for _, body in in_order(threads, wanted, store.get, 1):
            yield body


def _is_of(place: Place, release: str | None, roles: tuple[str, ...]) -> bool:
    return release in (None, place.release) and place.writer.startswith(roles)


def _only_rolled_up(
    store: ObjectStore,
    apart: Iterable[Place],
    since: datetime | None,
    release: str | None,
    roles: tuple[str, ...],
) -> Iterator[tuple[Place, tuple[bytes, ...]]]:
    """The entries of segments whose own objects have expired; `apart` are those, of the same choice, that are there."""
    seen = set(apart)
    first = None if since is None else since.date()
    for rollup in rolled_up(store, first):
        for body in split_segments(rollup):
            segment = read_segment(body)
            place = segment.header.place
            if place in seen or not _is_of(place, release, roles):
                continue
            seen.add(place)
            yield place, segment.lines


def entries(
    store: ObjectStore, since: datetime | None = None, release: str | None = None, roles: tuple[str, ...] = ("",)
) -> Iterator[Entry]:
    """All entries made at or after `since`, chosen as by `places`; those that only roll-ups still hold come last.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry is of a form that this version does not read, or damaged.
    """
    apart = places(store, since, release, roles)
    for _, lines in chain(read_lines(store, apart), _only_rolled_up(store, apart, since, release, roles)):
        for line in lines:
            entry = parse_entry(line)
            if since is None or datetime.fromisoformat(entry.time) >= since:
                yield entry
