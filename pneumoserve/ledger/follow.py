"""Following a ledger while it is written: each look reads what is new, whatever the day already holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from pneumoserve.ledger.segment import RECORDS, Segment, SegmentKey
from pneumoserve.ledger.source import SegmentSource, Spans

# A store's clock may be behind ours by this much; what is older than a window's start need not be read.
_SLACK: Final = timedelta(minutes=5)


class Follower:
    """The segments of one release since a moment. A writer's come in order: a look goes on behind its last.

    The first look reads what was sealed since then, for some of it may have expired.
    """

    def __init__(self, source: SegmentSource, release: str, since: datetime) -> None:
        self._source = source
        self._release = release
        self._since = since.astimezone(UTC)
        self._last: dict[tuple[str, str], str] = {}
        self._rolled_up: Spans | None = None

    def look(self) -> Iterator[list[Segment]]:
        """What is new, in groups. A group that is not taken, or cannot be read, comes again with the next look.

        Raises:
            StoreError: the store does not answer.
        """
        if self._rolled_up is None:
            rolled_up, segments = self._read_rollups()
            yield segments
            self._rolled_up = rolled_up
        for day in self._days():
            last, places = self._list_new(day, self._rolled_up)
            yield list(self._source.read_own(places))
            self._last.update(last)

    def _read_rollups(self) -> tuple[Spans, list[Segment]]:
        """What the roll-ups hold that were made since then."""
        places, segments = Spans(), list[Segment]()
        for segment in self._source.read_rollups(self._source.list_rollups(self._since.date())):
            places.add(segment.header.segment_key)
            if segment.header.release == self._release:
                segments.append(segment)
        return places, segments

    def _days(self) -> Iterator[str]:
        day, today = self._since.date(), datetime.now(UTC).date()
        while day <= today:
            yield day.isoformat()
            day += timedelta(days=1)

    def _list_new(self, day: str, rolled_up: Spans) -> tuple[dict[tuple[str, str], str], list[SegmentKey]]:
        """Segments of a day that were not read yet, and the last key of each writer with them."""
        folder = f"{RECORDS}date={day}/release={self._release}/"
        last: dict[tuple[str, str], str] = {}
        places: list[SegmentKey] = []
        behind: str | None = ""
        while behind is not None:
            start, behind = behind, None
            for item in self._source.store.list(folder, after=start):
                place = SegmentKey.parse(item.key)
                if place is None or item.key <= start:
                    continue
                known = self._last.get((day, place.writer), "")
                if item.key <= known:
                    behind = known
                    break
                last[day, place.writer] = item.key
                if item.last_modified >= self._since - _SLACK and not rolled_up.hold(place):
                    places.append(place)
        return last, places
