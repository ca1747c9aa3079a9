"""The two forms in which the store holds segments: within a roll-up, and as objects of their own.

What is given out a trusted writer signed. What nobody trusted signed is passed over and reported: to find out what
happened to it is the verification's task, which walks the chains and seals whole. Nothing here follows them, so that
nothing here notices what is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain
from typing import Final, Literal

from pneumoserve.canonical import digest_of
from pneumoserve.ledger.listing import list_days
from pneumoserve.ledger.scan import KINDS, Finding, Findings, ordered_map
from pneumoserve.ledger.seals import (
    ROLLUPS,
    SEALS,
    Seal,
    SealError,
    rollup_number,
    seal_key,
    seal_number,
    split_segments,
    verify_seal,
)
from pneumoserve.ledger.segment import Segment, SegmentError, SegmentKey, check_place, read_segment, verify_segment
from pneumoserve.signing import Trust
from pneumoserve.store import NotFoundError, Store

_READERS: Final = 16
# Roll-ups are large: one is read while the one before it is looked through.
_ROLLUPS_AHEAD: Final = 1
# What a seal says of a roll-up: its bytes are as named; nothing, as it names others; there is no seal, or its bytes are
# others; it has no writer that was asked for, and was not read.
Standing = Literal["sealed", "left", "doubtful", "passed"]
# Whether bytes of a segment, not yet verified, are worth a closer look.
Mentions = Callable[[bytes], bool]


@dataclass(frozen=True)
class StoredRollup:
    """A roll-up as a listing shows it: the number of its seal, and when it was written, as the store says."""

    key: str
    number: int
    written: datetime


@dataclass
class Spans:
    """Sequences by writer. Most come in order, so that little is held."""

    _of: dict[str, list[range]] = field(default_factory=dict)

    def add(self, place: SegmentKey) -> None:
        """Take a segment's sequence."""
        self.add_range(place.writer, range(place.sequence, place.sequence + 1))

    def add_range(self, writer: str, taken: range) -> None:
        """Take several of a writer's."""
        spans = self._of.setdefault(writer, [])
        first, stop = taken.start, taken.stop
        begin = bisect_right(spans, first, key=lambda span: span.start)
        if begin and spans[begin - 1].stop >= first:
            begin -= 1
            first = spans[begin].start
        end = begin
        while end < len(spans) and spans[end].start <= stop:
            stop = max(stop, spans[end].stop)
            end += 1
        spans[begin:end] = [range(first, stop)]

    def hold(self, place: SegmentKey) -> bool:
        """Whether a segment's sequence was taken."""
        spans = self._of.get(place.writer, [])
        at = bisect_right(spans, place.sequence, key=lambda span: span.start)
        return bool(at) and place.sequence in spans[at - 1]


class SegmentSource:
    """Reads segments of one ledger. `report` gets each object that is passed over, once; `findings` are all of them.

    A key that was revoked counts for what a seal vouches for, which it signed in time, as in `archive verify`.
    """

    def __init__(
        self, store: Store, writers: Trust, sealers: Trust, report: Callable[[Finding], None] = lambda _: None
    ) -> None:
        self.store = store
        self._writers = writers
        self._writers_once = Trust(writers.keys, frozenset(), frozenset())
        self._sealers = sealers
        self._report_to = report
        self.findings = Findings()
        self._seals: dict[int, Seal | None] = {}
        self._standings: dict[str, Standing] = {}

    def list_rollups(self, first: date | None = None, last: date | None = None) -> list[StoredRollup]:
        """The roll-ups that were made from day `first` to day `last`, in the order of their seals.

        Raises:
            StoreError: the store does not answer.
        """
        found = (
            StoredRollup(item.key, number, item.last_modified)
            for item in list_days(self.store, ROLLUPS, first, last)
            if (number := rollup_number(item.key)) is not None
        )
        return sorted(found, key=lambda rollup: (rollup.number, rollup.key))

    def read_rollups(self, rollups: Sequence[StoredRollup], roles: tuple[str, ...] = ("",)) -> Iterator[Segment]:
        """The segments of roll-ups: those that seals vouch for, then the others, one for each place of a chain.

        Raises:
            StoreError: the store does not answer.
        """
        taken = Spans()
        for segment in chain(self.read_sealed(rollups, roles=roles), self.read_unsealed(rollups, roles=roles)):
            if not taken.hold(segment.header.segment_key):
                taken.add(segment.header.segment_key)
                yield segment

    def read_sealed(
        self, rollups: Iterable[StoredRollup], mentions: Mentions = lambda _: True, roles: tuple[str, ...] = ("",)
    ) -> Iterator[Segment]:
        """The segments of roll-ups that seals vouch for, in their order.

        A roll-up counts by the seal that names its digest; that one seal is verified, not the chain it is part of. A
        roll-up that its seal does not name is what a stopped sealer left, and says nothing. Segments that `mentions`
        says no to are not even verified.

        Raises:
            StoreError: the store does not answer.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as threads:
            wanted = self._select(threads, rollups, roles)
            for rollup, body in ordered_map(threads, wanted, lambda each: self._body(each.key), _ROLLUPS_AHEAD):
                if body is not None and self._find_standing(rollup, body) == "sealed":
                    yield from self._in_rollup(rollup, body, self._writers_once, mentions, roles)

    def read_unsealed(
        self, rollups: Iterable[StoredRollup], mentions: Mentions = lambda _: True, roles: tuple[str, ...] = ("",)
    ) -> Iterator[Segment]:
        """The segments of the other roll-ups, each by its own signature: their seals are gone, or their bytes differ.

        Raises:
            StoreError: the store does not answer.
        """
        for rollup in rollups:
            if self._standings.get(rollup.key, "doubtful") == "doubtful":
                body = self._body(rollup.key)
                if body is not None and self._find_standing(rollup, body) == "doubtful":
                    yield from self._in_rollup(rollup, body, self._writers, mentions, roles)

    def find_sealed(self, writer: str, sequence: int) -> tuple[StoredRollup, Segment] | None:
        """A writer's segment of a number in the roll-up whose seal vouches for it, None where there is none.

        Raises:
            StoreError: the store does not answer.
        """
        for rollup in self._rollups_with(writer, sequence):
            for segment in self.read_sealed([rollup], lambda body: writer.encode() in body, (writer,)):
                if (segment.header.writer, segment.header.sequence) == (writer, sequence):
                    return rollup, segment
        return None

    def _rollups_with(self, writer: str, sequence: int) -> list[StoredRollup]:
        """The roll-ups of the first seal that a writer had come so far by, in the order of their seals."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as threads:
            rollups = ordered_map(threads, self.list_rollups(), lambda each: self.seal(each.number), _READERS)
            found: list[StoredRollup] = []
            for rollup, seal in rollups:
                if found and rollup.number != found[0].number:
                    break
                head = None if seal is None else seal.heads.get(writer)
                if head is not None and head.sequence >= sequence:
                    found.append(rollup)
        return found

    def _select(
        self, threads: Executor, rollups: Iterable[StoredRollup], roles: tuple[str, ...]
    ) -> Iterator[StoredRollup]:
        """The roll-ups that have a seal, which names all writers in them, and may hold segments of those asked for."""
        for rollup, seal in ordered_map(threads, rollups, lambda each: self.seal(each.number), _READERS):
            if seal is not None and any(writer.startswith(roles) for writer in seal.heads):
                yield rollup
            elif seal is not None:
                self._standings.setdefault(rollup.key, "passed")

    def _find_standing(self, rollup: StoredRollup, body: bytes) -> Standing:
        """What its seal says of a roll-up."""
        seal = self.seal(rollup.number)
        digest = None if seal is None else {each.key: each.sha256 for each in seal.rollups}.get(rollup.key)
        if seal is None:
            standing: Standing = "doubtful"
        elif digest is None:
            standing = "left"
        elif digest == digest_of(body):
            standing = "sealed"
        else:
            self._report(Finding(rollup.key, "altered", "its bytes are not those that its seal names", sealed=True))
            standing = "doubtful"
        self._standings[rollup.key] = standing
        return standing

    def _in_rollup(
        self, rollup: StoredRollup, body: bytes, trust: Trust, mentions: Mentions, roles: tuple[str, ...]
    ) -> Iterator[Segment]:
        sealed = trust is self._writers_once
        try:
            for part in filter(mentions, split_segments(body)):
                try:
                    segment = verify_segment(part, trust) if _is_by(part, roles) else None
                except SegmentError as error:
                    self._report(Finding(rollup.key, KINDS[error.fault], f"a segment in it: {error}", sealed))
                else:
                    if segment is not None:
                        yield segment
        except ValueError:
            self._report(Finding(rollup.key, "altered", "it is no roll-up", sealed))

    def read_own(self, wanted: Iterable[SegmentKey], mentions: Mentions = lambda _: True) -> Iterator[Segment]:
        """The segments that objects of their own hold, each at its place and signed by a trusted key; see `read_each`.

        Raises:
            StoreError: the store does not answer.
        """
        return (segment for _, segment in self.read_each(wanted, mentions) if segment is not None)

    def read_each(
        self, wanted: Iterable[SegmentKey], mentions: Mentions = lambda _: True
    ) -> Iterator[tuple[SegmentKey, Segment | None]]:
        """Places in the order asked for, each with its segment; None where there is none to believe.

        None too where `mentions` says no, and then it is not even verified. Several are read at once, few are held.

        Raises:
            StoreError: the store does not answer.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as threads:
            for place, body in ordered_map(threads, wanted, lambda each: self._body(each.key), 2 * _READERS):
                yield place, None if body is None or not mentions(body) else self._at_its_place(place, body)

    def _at_its_place(self, place: SegmentKey, body: bytes) -> Segment | None:
        try:
            segment = verify_segment(body, self._writers)
            check_place(segment, place)
        except SegmentError as error:
            self._report(Finding(place.key, KINDS[error.fault], str(error), sealed=False))
            return None
        return segment

    def _body(self, key: str) -> bytes | None:
        """An object's bytes, None where it has expired since it was listed."""
        try:
            return self.store.get(key)
        except NotFoundError:
            return None

    def seal(self, number: int) -> Seal | None:
        """A seal that a trusted sealer signed; None where there is none."""
        if number not in self._seals:
            self._seals[number] = self._read_seal(number)
        return self._seals[number]

    def find_last_sealing(self) -> str | None:
        """When the newest seal was made that a trusted sealer signed; None where there is none.

        Raises:
            StoreError: the store does not answer.
        """
        known = max((number for number, seal in self._seals.items() if seal is not None), default=0)
        listed = (seal_number(item.key) for item in self.store.list(SEALS, after=seal_key(known)))
        numbers = sorted({known, *(number for number in listed if number is not None)} - {0}, reverse=True)
        return next((seal.time for seal in map(self.seal, numbers) if seal is not None), None)

    def _read_seal(self, number: int) -> Seal | None:
        key = seal_key(number)
        body = self._body(key)
        if body is None:
            return None
        try:
            seal = verify_seal(body, self._sealers)
        except SealError as error:
            self._report(Finding(key, error.kind, str(error), sealed=True))
            return None
        if seal.number != number:
            self._report(Finding(key, "reordered", f"it holds seal {seal.number}", sealed=True))
            return None
        return seal

    def _report(self, finding: Finding) -> None:
        if self.findings.add(finding.kind, finding.key, finding.sentence, finding.sealed):
            self._report_to(finding)


def _is_by(body: bytes, roles: tuple[str, ...]) -> bool:
    """Whether a segment's writer has a role, unverified."""
    return roles == ("",) or read_segment(body).header.writer.startswith(roles)
