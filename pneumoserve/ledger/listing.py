"""Where segments lie that are objects of their own. What they hold gives `reader` out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from itertools import chain
from types import MappingProxyType
from typing import Final

from pneumoserve.ledger.scan import ordered_map
from pneumoserve.ledger.segment import RECORDS, SegmentKey
from pneumoserve.store import Store, StoredObject

# Days whose listings are held at once.
_LISTERS: Final = 4
# Names of single segments that are asked for at once.
_FINDERS: Final = 16
# Keys that a store lists at once. A new listing behind what was read costs less than to list more of it than this.
_PAGE: Final = 1000


def list_segments(
    store: Store,
    since: date | None = None,
    release: str | None = None,
    roles: tuple[str, ...] = ("",),
    until: date | None = None,
) -> list[SegmentKey]:
    """The keys of all segments of days from `since` to `until`, of one release or all, each writer's in order.

    `roles` are what the names of their writers begin with.

    Raises:
        StoreError: the store does not answer.
    """

    def list_day(day: str) -> list[SegmentKey]:
        folder = f"{RECORDS}date={day}/"
        if release is not None:
            partitions = [f"{folder}release={release}/"]
        elif roles == ("",):
            partitions = [folder]
        else:
            # Of few writers: not all segments need be listed.
            partitions = list(store.folders(folder))
        prefixes = (f"{partition}{role}" for partition in partitions for role in roles)
        return _parse(chain.from_iterable(map(store.list, prefixes)))

    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list") as threads:
        wanted = days(store, RECORDS, since, until)
        found = [place for _, of_day in ordered_map(threads, wanted, list_day, _LISTERS) for place in of_day]
    return sorted(place for place in found if is_of(place, release, roles))


def list_partitions(
    store: Store, first: date | None = None, read: Mapping[str, int] = MappingProxyType({})
) -> Iterator[list[SegmentKey]]:
    """The keys of all segments of days from `first` on, those of one day and release together.

    `read` says up to which sequence a writer's were read, by `SegmentKey.line`; those are left out.

    Raises:
        StoreError: the store does not answer.
    """
    for day in days(store, RECORDS, first):
        for partition in store.folders(f"{RECORDS}date={day}/"):
            yield list(_list_unread(store, partition, read))


def _list_unread(store: Store, partition: str, read: Mapping[str, int]) -> Iterator[SegmentKey]:
    behind: str | None = ""
    while behind is not None:
        start, behind = behind, None
        for item in store.list(partition, after=start):
            place = SegmentKey.parse(item.key)
            if place is None:
                continue
            last = read.get(place.line, 0)
            if place.sequence > last:
                yield place
            elif last - place.sequence > _PAGE:
                behind = replace(place, sequence=last).key
                break


def find_segment_keys(store: Store, writer: str, sequence: int) -> Iterator[SegmentKey]:
    """The keys that name a writer's segment of a number, of whatever day and release.

    Raises:
        StoreError: the store does not answer.
    """
    name = f"{writer}-{sequence:08d}.jsonl"

    def find(day: str) -> list[SegmentKey]:
        partitions = store.folders(f"{RECORDS}date={day}/")
        return _parse(chain.from_iterable(store.list(f"{partition}{name}") for partition in partitions))

    with ThreadPoolExecutor(_FINDERS, thread_name_prefix="list") as threads:
        for _, found in ordered_map(threads, days(store, RECORDS), find, _FINDERS):
            yield from found


def list_days(store: Store, prefix: str, first: date | None = None, last: date | None = None) -> Iterator[StoredObject]:
    """What lies below `<prefix>date=YYYY-MM-DD/` of the days from `first` to `last`, in order.

    Raises:
        StoreError: the store does not answer.
    """
    # Not by a key to start after: some stores pass over all of a folder whose name such a key is.
    wanted = (f"{prefix}date={day}/" for day in days(store, prefix, first, last))
    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list") as threads:
        for _, found in ordered_map(threads, wanted, lambda folder: list(store.list(folder)), _LISTERS):
            yield from found


def days(store: Store, prefix: str, first: date | None = None, last: date | None = None) -> list[str]:
    """The days (YYYY-MM-DD, UTC) from `first` to `last` that have a folder below a prefix, the first one first.

    Raises:
        StoreError: the store does not answer.
    """
    since, until = (day.isoformat() if day else "" for day in (first, last))
    found = (folder.removeprefix(f"{prefix}date=").rstrip("/") for folder in store.folders(prefix))
    return [day for day in found if day >= since and (not until or day <= until)]


def is_of(place: SegmentKey, release: str | None, roles: tuple[str, ...]) -> bool:
    """Whether a segment is of a release, or of any, and its writer's name begins with a role."""
    return release in (None, place.release) and place.writer.startswith(roles)


def _parse(found: Iterator[StoredObject]) -> list[SegmentKey]:
    return [place for item in found if (place := SegmentKey.parse(item.key)) is not None]
