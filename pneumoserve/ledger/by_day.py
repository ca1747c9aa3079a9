"""Reading a ledger day by day, the newest first: who wants the last entries need not wait for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Final

from pneumoserve.ledger.listing import days, list_segments
from pneumoserve.ledger.scan import ordered_map
from pneumoserve.ledger.seals import ROLLUPS, Head
from pneumoserve.ledger.segment import RECORDS, Segment
from pneumoserve.ledger.source import Mentions, SegmentSource, Spans, StoredRollup

# Around midnight, and between the clocks of writer and sealer, one moment may be of two days.
_DAY: Final = timedelta(days=1)
# For how long after its day a segment is looked for in what was sealed; its own object is found however late it was.
_SEALED_WITHIN: Final = timedelta(days=31)
_READERS: Final = 16


class ByDay:
    """The segments of a ledger by their day. What a seal vouches for comes first, and counts.

    Of the roll-ups only those are read whose seals say that they may hold segments of the day.
    """

    def __init__(self, source: SegmentSource) -> None:
        """Look on which days there are roll-ups.

        Raises:
            StoreError: the store does not answer.
        """
        self._source = source
        self._rolled_up_on = {day for name in days(source.store, ROLLUPS) if (day := _parse_day(name))}
        self._rollups: dict[date, list[StoredRollup]] = {}
        # The days of what a roll-up holds, by its key, once it was read.
        self._held: dict[str, set[str]] = {}

    def days(self, since: date | None = None, until: date | None = None) -> list[date]:
        """The days that may have segments, the newest first.

        Raises:
            StoreError: the store does not answer.
        """
        found = {day for name in days(self._source.store, RECORDS) if (day := _parse_day(name))}
        for day in self._rolled_up_on:
            found |= {day - timedelta(days=before) for before in range(-1, _SEALED_WITHIN.days + 1)}
        return sorted((day for day in found if _is_between(day, since, until)), reverse=True)

    def segments(self, day: date, release: str | None = None, mentions: Mentions = lambda _: True) -> Iterator[Segment]:
        """The segments of one day, of one release or all; those that `mentions` says no to may be left out.

        Raises:
            StoreError: the store does not answer.
        """
        rolled_up = Spans()
        for segment in self._read_rollups(self._find_rollups(day)):
            place = segment.header.segment_key
            if not rolled_up.hold(place):
                rolled_up.add(place)
                if place.date == day.isoformat() and release in (None, place.release):
                    yield segment
        own = list_segments(self._source.store, day, release, until=day)
        yield from self._source.read_own((place for place in own if not rolled_up.hold(place)), mentions)

    def _read_rollups(self, rollups: list[StoredRollup]) -> Iterator[Segment]:
        """Their segments, those that seals vouch for first; it is noted of which days they are."""
        for read in (self._source.read_sealed, self._source.read_unsealed):
            for rollup in rollups:
                held = set()
                for segment in read([rollup]):
                    held.add(segment.header.date)
                    yield segment
                self._held[rollup.key] = self._held.get(rollup.key, set()) | held

    def _find_rollups(self, day: date) -> list[StoredRollup]:
        made_on = sorted(each for each in self._rolled_up_on if day - _DAY <= each <= day + _SEALED_WITHIN)
        listed = [rollup for each in made_on for rollup in self._list(each)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as threads:
            asked = ordered_map(threads, listed, lambda rollup: self._may_hold(rollup, day), _READERS)
            return sorted((rollup for rollup, may in asked if may), key=lambda rollup: (rollup.number, rollup.key))

    def _list(self, day: date) -> list[StoredRollup]:
        if day not in self._rollups:
            self._rollups[day] = self._source.list_rollups(day, day)
        return self._rollups[day]

    def _may_hold(self, rollup: StoredRollup, day: date) -> bool:
        """Whether a roll-up was not read yet, and its seal does not say that it holds no segment of a day."""
        if rollup.key in self._held:
            return day.isoformat() in self._held[rollup.key]
        seal = self._source.seal(rollup.number)
        before = self._source.seal(rollup.number - 1) if rollup.number > 1 else None
        if seal is None:
            return True
        heads = {} if before is None else before.heads
        return any(_may_be_of(day, heads.get(writer), head) for writer, head in seal.heads.items())


def _may_be_of(day: date, before: Head | None, head: Head) -> bool:
    """Whether what a writer wrote between two seals may be of a day."""
    if before is not None and before.sequence == head.sequence:
        return False
    last = datetime.fromisoformat(head.opened).date()
    if before is not None:
        first: date | None = datetime.fromisoformat(before.opened).date()
    else:
        # When a new writer began is known where it wrote one segment, as whoever labels does.
        first = last if head.sequence == 1 else None
    return _is_between(day, None if first is None else first - _DAY, last + _DAY)


def _is_between(day: date, since: date | None, until: date | None) -> bool:
    return (since is None or day >= since) and (until is None or day <= until)


def _parse_day(name: str) -> date | None:
    """None of a folder that is no day's: anybody may have made it."""
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None
