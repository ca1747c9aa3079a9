"""The one reader of what is on record; that a segment is an object of its own or lies in a roll-up, it alone knows.

What a seal vouches for is read first, and counts where an object of the same writer and number holds other bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Final

from pneumoserve.canonical import digest_of
from pneumoserve.ledger.by_day import ByDay
from pneumoserve.ledger.follow import Follower
from pneumoserve.ledger.listing import find_segment_keys, is_of, list_partitions, list_segments
from pneumoserve.ledger.scan import Finding, Findings
from pneumoserve.ledger.search import Search
from pneumoserve.ledger.segment import Segment, SegmentKey
from pneumoserve.ledger.source import Mentions, SegmentSource, Spans
from pneumoserve.signing import Trust
from pneumoserve.store import NotFoundError, Store

# The clocks of writer and sealer may put one moment into two days.
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Batch:
    """Segments to be taken together, each with where it belongs; None in the place of one that is not to be believed.

    `key` is that of an object which never changes: once all of its batches were taken whole, up to the one that is
    `last`, it need not be asked for again. None where more may come.
    """

    key: str | None
    segments: Iterator[tuple[SegmentKey, Segment | None]]
    last: bool = True


@dataclass(frozen=True)
class Located:
    """A segment, the key of the object that holds it, and whether a seal vouches for it."""

    segment: Segment
    key: str
    sealed: bool


class Reader:
    """Reads one ledger. `report` gets each object that is passed over, once; `findings` are all of them.

    A key that was revoked counts for what a seal vouches for, which it signed in time, as in a verification.
    """

    def __init__(
        self, store: Store, writers: Trust, sealers: Trust, report: Callable[[Finding], None] = lambda _: None
    ) -> None:
        self.store = store
        self._source = SegmentSource(store, writers, sealers, report)

    @property
    def findings(self) -> Findings:
        """What was passed over so far."""
        return self._source.findings

    def segments(
        self,
        since: datetime | None = None,
        release: str | None = None,
        roles: tuple[str, ...] = ("",),
        mentions: Mentions = lambda _: True,
    ) -> Iterator[Segment]:
        """Segments of days from `since` on, of one release or all, by writers whose names begin with a role.

        Sealed ones come first, then those that no seal holds. Of the latter, those that `mentions` says no to are not
        even verified.

        Raises:
            StoreError: the store does not answer.
        """
        day = "" if since is None else since.date().isoformat()
        first = None if since is None else since.date() - _DAY
        rolled_up = Spans()
        # All of them, whatever they mention: an object of the same writer and number counts no more.
        for segment in self._source.read_rollups(self._source.list_rollups(first), roles):
            place = segment.header.segment_key
            rolled_up.add(place)
            if place.date >= day and is_of(place, release, roles):
                yield segment
        found = list_segments(self.store, None if since is None else since.date(), release, roles)
        left = (place for place in found if not rolled_up.hold(place))
        yield from self._source.read_own(left, mentions)

    def search(
        self,
        moments: Mapping[str, datetime],
        mentions: Mentions,
        take: Callable[[Segment], None],
        found: Collection[str],
    ) -> None:
        """Give `take` segments that `mentions` says yes to, until all names of `moments` are among those `found`.

        What was written about the moment of a name is read first (`Search` says in which order).

        Raises:
            StoreError: the store does not answer.
        """
        if moments:
            Search(self._source, moments, mentions, take, found).run()

    def follow(self, release: str, since: datetime) -> Follower:
        """What comes to be on record of a release from a moment on, look by look."""
        return Follower(self._source, release, since)

    def by_day(self) -> ByDay:
        """What is on record day by day, the newest first.

        Raises:
            StoreError: the store does not answer.
        """
        return ByDay(self._source)

    def batches(
        self,
        first: date | None,
        is_done: Callable[[str], bool],
        is_new: Callable[[SegmentKey], bool] = lambda _: True,
        read: Mapping[str, int] = MappingProxyType({}),
    ) -> Iterator[Batch]:
        """All segments of days from `first` on, to be gone through once: what seals vouch for comes first.

        What `is_done` says yes to, by a batch's key, is left out. Of segments in batches without a key, only those are
        read that `is_new` says yes to. Up to the sequence that `read` names, by `SegmentKey.line`, they are not even
        listed where that saves time.

        Raises:
            StoreError: the store does not answer.
        """
        rollups = [rollup for rollup in self._source.list_rollups(first) if not is_done(rollup.key)]
        for rollup in rollups:
            yield Batch(rollup.key, _with_keys(self._source.read_sealed([rollup])), last=False)
        for rollup in rollups:
            yield Batch(rollup.key, _with_keys(self._source.read_unsealed([rollup])))
        for places in list_partitions(self.store, first, read):
            yield Batch(None, self._source.read_each(list(filter(is_new, places))))

    def locate(self, writer: str, sequence: int) -> Located | None:
        """A writer's segment of a number, and what holds it: its own object, as long as that is there.

        Raises:
            StoreError: the store does not answer.
        """
        sealed = self._source.find_sealed(writer, sequence)
        if sealed is not None:
            rollup, segment = sealed
            own = segment.header.segment_key.key
            return Located(segment, own if self._holds(own, segment) else rollup.key, sealed=True)
        for place, own_segment in self._source.read_each(find_segment_keys(self.store, writer, sequence)):
            if own_segment is not None:
                return Located(own_segment, place.key, sealed=False)
        return None

    def find_last_sealing(self) -> str | None:
        """When the newest seal was made (RFC 3339, UTC); None where no trusted sealer has made one.

        Raises:
            StoreError: the store does not answer.
        """
        return self._source.find_last_sealing()

    def _holds(self, key: str, segment: Segment) -> bool:
        try:
            return digest_of(self.store.get(key)) == segment.hash
        except NotFoundError:
            return False


def _with_keys(segments: Iterator[Segment]) -> Iterator[tuple[SegmentKey, Segment]]:
    return ((segment.header.segment_key, segment) for segment in segments)
