"""Finding what the archive holds of a prediction, by its id alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from pneumoserve.archive.label import Label
from pneumoserve.archive.read import days, lines_of, parse_entry, read_bodies, read_lines, rolled_up
from pneumoserve.archive.record import Record
from pneumoserve.archive.seals import split_segments
from pneumoserve.archive.segment import RECORDS, Place
from pneumoserve.archive.store import ObjectStore, StoredObject
from pneumoserve.ids import time_of

# How far the clocks of front and store may lie apart, and how long a record usually waits to be written.
_SKEW: Final = timedelta(minutes=5)
# A record that waited in a journal, or whose front's clock jumped, is looked for in the days beside its own.
_DAY: Final = timedelta(days=1)
# A sealer that was off for longer than this is looked into before records are.
_SEALED_WITHIN: Final = timedelta(days=31)
_ID: Final = re.compile(rb'"prediction_id":"([0-9a-f-]{36})"')
_LISTERS: Final = 16

LABEL_WRITERS: Final = "label-"


def find_record(store: ObjectStore, prediction_id: str) -> Record | None:
    """The record of a prediction, None where the store has none.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    return find_records(store, [prediction_id]).get(prediction_id)


def find_records(store: ObjectStore, prediction_ids: Collection[str]) -> dict[str, Record]:
    """The records of predictions that the store has, by id.

    An id carries its time: the segments written about then are read first, which is nearly always enough; then, for
    all ids that are missing, every other segment of those days, and the roll-ups of the month after.

    Raises:
        ValueError: one is no prediction id.
        StoreError: the store does not answer.
    """
    made = {each: time_of(each) for each in prediction_ids}
    listed: dict[str, list[StoredObject]] = {}
    found: dict[str, Record] = {}

    def segments(about: datetime, around: timedelta) -> list[StoredObject]:
        dates = sorted({(about + offset).date().isoformat() for offset in (-around, timedelta(0), around)})
        for date in dates:
            if date not in listed:
                listed[date] = list(store.list(f"{RECORDS}date={date}/"))
        return list(chain.from_iterable(listed[date] for date in dates))

    read: set[Place] = set()
    for each, about in made.items():
        if each not in found:
            near = reading_order(segments(about, _SKEW), about, _SKEW)
            found |= _search(store, near, read, made.keys() - found.keys(), {each})
    missing = made.keys() - found.keys()
    others = chain.from_iterable(reading_order(segments(made[each], _DAY), made[each]) for each in sorted(missing))
    found |= _search(store, list(dict.fromkeys(others)), read, missing, missing)
    return found | _search_rolled_up(store, {each: made[each] for each in missing if each not in found})


def reading_order(
    segments: Iterable[StoredObject], about: datetime, within: timedelta = timedelta.max
) -> Sequence[Place]:
    """The places of segments that were written `within` that time of a moment, the nearest first."""
    placed = [(abs(item.last_modified - about), place) for item in segments if (place := Place.of(item.key))]
    return [place for away, place in sorted(placed) if away <= within]


def _search(
    store: ObjectStore, order: Sequence[Place], read: set[Place], wanted: Collection[str], until: Collection[str]
) -> dict[str, Record]:
    """The records among `wanted` in segments, read in their order until all of `until` are found.

    `read` are those that were looked through for all of `wanted` before; they are passed over, the others added.
    """
    found: dict[str, Record] = {}
    if not until:
        return found
    for place, body in read_bodies(store, [place for place in order if place not in read]):
        read.add(place)
        # Parsing every record would cost more than finding the one.
        if any(name.decode() in wanted for name in _ID.findall(body)):
            found |= _records(body, wanted)
        if all(each in found for each in until):
            break
    return found


def _search_rolled_up(store: ObjectStore, made: dict[str, datetime]) -> dict[str, Record]:
    """The records of predictions whose segments have expired since they were sealed."""
    found: dict[str, Record] = {}
    if not made:
        return found
    for body in rolled_up(store, (min(made.values()) - _DAY).date(), (max(made.values()) + _SEALED_WITHIN).date()):
        if any(name.decode() in made for name in _ID.findall(body)):
            for segment in split_segments(body):
                found |= _records(segment, made)
        if len(found) == len(made):
            break
    return found


def _records(body: bytes, wanted: Collection[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for line in lines_of(body):
        if not any(name.decode() in wanted for name in _ID.findall(line)):
            continue
        try:
            entry = parse_entry(line)
        except ValueError:
            # Damaged, or of another version: `archive verify` is who tells.
            continue
        if isinstance(entry, Record):
            found[entry.prediction_id] = entry
    return found


def labels_of(store: ObjectStore, prediction_id: str) -> list[Label]:
    """What became known of a prediction afterwards, the first statement first.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    first = (time_of(prediction_id) - _DAY).date()

    def of_day(day: str) -> list[Place]:
        # Labels have writers of their own, so that all records need not be listed to find them.
        partitions = store.folders(f"{RECORDS}date={day}/")
        keys = chain.from_iterable(store.list(f"{partition}{LABEL_WRITERS}") for partition in partitions)
        return [place for item in keys if (place := Place.of(item.key))]

    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list") as threads:
        places = list(chain.from_iterable(threads.map(of_day, days(store, first))))
    wanted = prediction_id.encode()
    lines = chain.from_iterable(of_segment for _, of_segment in read_lines(store, places))
    entries = (parse_entry(line) for line in lines if wanted in line)
    labels = [entry for entry in entries if isinstance(entry, Label) and entry.prediction_id == prediction_id]
    return sorted(labels, key=lambda label: label.label_id)
