"""Searching a ledger for what was written about known moments, the likeliest places first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from pneumoserve.ledger.segment import RECORDS, Segment, SegmentKey
from pneumoserve.ledger.source import Mentions, SegmentSource, StoredRollup
from pneumoserve.store import StoredObject

# How far the clocks of writer and store may lie apart, and how long a line usually waits to be written.
_SKEW: Final = timedelta(minutes=5)
# What waited in a journal, or whose writer's clock jumped, is looked for in the days beside its own.
_DAY: Final = timedelta(days=1)
# For how long after its moment something is looked for in what was sealed.
_SEALED_WITHIN: Final = timedelta(days=31)
# The first seal after a moment may have been under way before it, and the skew may add another.
_SEALS: Final = 3


class Search:
    """One search: whatever is read is looked through for all that is missing, and read once.

    For each name, what the first seals after its moment hold is read first, then the segments written about then, which
    is nearly always enough. Then, for all names that are missing, comes whatever was sealed within a month, and every
    other segment of the days beside their own.
    """

    def __init__(
        self,
        source: SegmentSource,
        moments: Mapping[str, datetime],
        mentions: Mentions,
        take: Callable[[Segment], None],
        found: Collection[str],
    ) -> None:
        self._source = source
        self._moments = moments
        self._mentions = mentions
        self._take = take
        self._found = found
        self._listed: dict[str, list[StoredObject]] = {}
        self._read: set[SegmentKey | StoredRollup] = set()
        first, last = min(moments.values()) - _DAY, max(moments.values()) + _SEALED_WITHIN
        self._rollups = source.list_rollups(first.date(), last.date())

    def run(self) -> None:
        """Search until all are found, or nothing is left to read."""
        for each, about in self._moments.items():
            self._read_sealed(self._list_soon_after(about - _SKEW), {each})
            if each not in self._found:
                self._read_own(order_by_time(self._segments(about, _SKEW), about, _SKEW), {each})
        self._read_sealed(self._rollups, self._moments)
        missing = [each for each in sorted(self._moments) if each not in self._found]
        orders = (order_by_time(self._segments(self._moments[each], _DAY), self._moments[each]) for each in missing)
        self._read_own(dict.fromkeys(chain.from_iterable(orders)), missing)
        if missing:
            for segment in self._source.read_unsealed(self._rollups, self._mentions):
                self._take(segment)

    def _has(self, names: Collection[str]) -> bool:
        return all(each in self._found for each in names)

    def _list_soon_after(self, moment: datetime) -> list[StoredRollup]:
        """The roll-ups of the first seals after a moment; the store's clock is a hint, no more."""
        after = [rollup for rollup in self._rollups if rollup.written >= moment]
        numbers = list(dict.fromkeys(rollup.number for rollup in after))[:_SEALS]
        return [rollup for rollup in after if rollup.number in numbers]

    def _segments(self, about: datetime, around: timedelta) -> list[StoredObject]:
        """Segments of the days about a moment."""
        near = sorted({(about + offset).date().isoformat() for offset in (-around, timedelta(0), around)})
        for day in near:
            if day not in self._listed:
                self._listed[day] = list(self._source.store.list(f"{RECORDS}date={day}/"))
        return list(chain.from_iterable(self._listed[day] for day in near))

    def _read_sealed(self, rollups: Iterable[StoredRollup], until: Collection[str]) -> None:
        """Read roll-ups in their order until all of `until` are found."""
        for rollup in rollups:
            if self._has(until):
                return
            if rollup not in self._read:
                self._read.add(rollup)
                for segment in self._source.read_sealed([rollup], self._mentions):
                    self._take(segment)

    def _read_own(self, order: Iterable[SegmentKey], until: Collection[str]) -> None:
        """The same with segments that are objects of their own."""
        new = [place for place in order if place not in self._read]
        if self._has(until):
            return
        for place, segment in self._source.read_each(new, self._mentions):
            self._read.add(place)
            if segment is not None:
                self._take(segment)
                if self._has(until):
                    return


def order_by_time(
    segments: Iterable[StoredObject], about: datetime, within: timedelta = timedelta.max
) -> Sequence[SegmentKey]:
    """Segments that were written `within` that time of a moment, the nearest first."""
    placed = [(abs(item.last_modified - about), place) for item in segments if (place := SegmentKey.parse(item.key))]
    return [place for away, place in sorted(placed) if away <= within]
