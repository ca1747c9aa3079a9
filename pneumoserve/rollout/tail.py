"""Following the archive while calls come in: each look reads what is new, whatever the day already holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from pneumoserve.archive.read import parse_entry, read_lines
from pneumoserve.archive.record import Record
from pneumoserve.archive.segment import RECORDS, Place
from pneumoserve.archive.store import ObjectStore
from pneumoserve.ids import time_text

# A store's clock may be behind ours by this much; what is older than a window's start need not be read.
_SLACK: Final = timedelta(minutes=5)


class Tail:
    """The records of one release since a moment. A writer's segments come in order: a look goes on behind its last."""

    def __init__(self, store: ObjectStore, release: str, since: datetime) -> None:
        self._store = store
        self._release = release
        self._since = since.astimezone(UTC)
        self._last: dict[tuple[str, str], str] = {}
        self._records: list[Record] = []

    def read(self) -> list[Record]:
        """All of them so far.

        Raises:
            StoreError: the store does not answer; the next look reads what this one did not.
            ValueError: an entry cannot be read.
        """
        first = time_text(self._since)
        for day in self._days():
            last, places = self._new(day)
            found = [
                entry
                for _, lines in read_lines(self._store, places)
                for entry in map(parse_entry, lines)
                if isinstance(entry, Record) and entry.time >= first
            ]
            self._records += found
            self._last.update(last)
        return list(self._records)

    def _days(self) -> Iterator[str]:
        day, today = self._since.date(), datetime.now(UTC).date()
        while day <= today:
            yield day.isoformat()
            day += timedelta(days=1)

    def _new(self, day: str) -> tuple[dict[tuple[str, str], str], list[Place]]:
        """Segments of a day that were not read yet, and the last key of each writer with them."""
        folder = f"{RECORDS}date={day}/release={self._release}/"
        last: dict[tuple[str, str], str] = {}
        places: list[Place] = []
        behind: str | None = ""
        while behind is not None:
            start, behind = behind, None
            for item in self._store.list(folder, after=start):
                place = Place.of(item.key)
                if place is None or item.key <= start:
                    continue
                known = self._last.get((day, place.writer), "")
                if item.key <= known:
                    behind = known
                    break
                last[day, place.writer] = item.key
                if item.last_modified >= self._since - _SLACK:
                    places.append(place)
        return last, places
