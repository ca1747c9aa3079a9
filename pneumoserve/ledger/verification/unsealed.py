"""The step of what no seal vouches for yet: segments that are objects of their own, along each writer's chain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby

from pneumoserve.ledger.chain import Position, missing_segments
from pneumoserve.ledger.scan import KINDS, list_versions, ordered_map
from pneumoserve.ledger.seals import Seals
from pneumoserve.ledger.segment import RECORDS, Segment, SegmentError, SegmentKey, verify_segment
from pneumoserve.ledger.verification.context import AHEAD, SEALED, WANTED, Context, OwnObjects
from pneumoserve.ledger.verification.sealed import SealedChains
from pneumoserve.signing import Trust

# Segments that are missing before a later one of their writer.
_Gap = tuple[str, range]


class UnsealedStep:
    """Goes on along each chain from where it is sealed. `own` are the objects that the step before has left."""

    def __init__(self, context: Context, seals: Seals, own: OwnObjects, chains: SealedChains) -> None:
        self._context = context
        self._findings = context.findings
        self._seals = seals
        self._own = own
        self._chains = chains

    def run(self) -> None:
        """Walk all writers, then find what is hidden, and what is missing."""
        found = sorted(place for key in self._own.present if (place := SegmentKey.parse(key)))
        bodies = ordered_map(self._context.threads, found, lambda place: self._context.get(place.key), AHEAD)
        hidden = self._find_hidden()
        gaps: list[_Gap] = []
        for writer, group in groupby(bodies, lambda each: each[0].writer):
            gaps += self._walk_writer(writer, group, hidden[writer])
        self._report_hidden()
        self._report_gaps(gaps)

    def _find_hidden(self) -> dict[str, set[int]]:
        """The sequences that a delete marker hides, by writer."""
        hidden: dict[str, set[int]] = defaultdict(set)
        for key in self._own.deleted - self._own.present.keys():
            if (place := SegmentKey.parse(key)) is not None:
                hidden[place.writer].add(place.sequence)
        return hidden

    def _walk_writer(
        self, writer: str, group: Iterable[tuple[SegmentKey, bytes | None]], hidden: set[int]
    ) -> list[_Gap]:
        """One writer's segments in their order; returns which are missing between them."""
        head, position = self._seals.heads.get(writer), self._chains.positions[writer]
        # Those that a delete marker hides, or that are not what they should be, have findings of their own.
        gone = set(hidden)
        gaps: list[_Gap] = []
        for place, body in group:
            if head is not None and place.sequence <= head.sequence:
                self._check_lost(place, body)
                continue
            segment = self._check_signed(place, body, self._context.ledger.writers, sealed=False)
            if segment is None:
                gone.add(place.sequence)
                continue
            gaps += [(writer, part) for part in _without(position.missing_before(place.sequence), gone)]
            self._context.note_late(segment, self._seals.moment)
            self._follow(segment, position)
        return gaps

    def _check_lost(self, place: SegmentKey, body: bytes | None) -> None:
        """A segment from before its writer's head that is in no roll-up that could be read."""
        if not any(place.sequence in lost for lost in self._chains.lost[place.writer]):
            sentence = "its writer's sealed chain has no such segment here"
            self._findings.add("added", place.key, sentence, sealed=False)
            return
        segment = self._check_signed(place, body, self._context.writers_once, sealed=True)
        if segment is not None:
            self._context.count(segment, SEALED | WANTED)

    def _follow(self, segment: Segment, position: Position) -> None:
        """Whether a segment that was signed goes on where its writer's chain had come to."""
        fault = position.check(segment)
        # What is missing before it is no fault of its own.
        if fault is not None and fault.kind != "removed":
            self._findings.add(fault.kind, segment.header.segment_key.key, fault.sentence, sealed=False)
            if fault.kind != "broken_chain":
                return
        position.move_to(segment)
        self._context.count(segment, WANTED)

    def _check_signed(self, place: SegmentKey, body: bytes | None, trust: Trust, sealed: bool) -> Segment | None:
        """The segment at its place, None where something is wrong with it."""
        key = place.key
        if self._context.is_overwritten(key, self._own.present[key]):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=sealed)
        if body is None:
            self._findings.add("unreadable", key, "the store does not give it out", sealed=sealed)
            return None
        try:
            segment = verify_segment(body, trust)
        except SegmentError as error:
            self._findings.add(KINDS[error.fault], key, str(error), sealed=sealed)
            return None
        if segment.header.segment_key != place:
            right = segment.header.segment_key
            twice = (right.writer, right.sequence) == (place.writer, place.sequence)
            added = twice and right.key in self._own.present
            sentence = f"it holds the segment that belongs to {right.key}"
            self._findings.add("added" if added else "reordered", key, sentence, sealed=sealed)
            return None
        return segment

    def _report_hidden(self) -> None:
        for key in self._own.deleted:
            place = SegmentKey.parse(key)
            head = self._seals.heads.get(place.writer) if place else None
            sealed = place is not None and head is not None and place.sequence <= head.sequence
            if not (sealed and self._chains.outlived):
                self._findings.add("delete_marker", key, "a delete marker hides a segment, or hid it once", sealed)

    def _report_gaps(self, gaps: list[_Gap]) -> None:
        """What is missing in chains; a listing is not of one moment, so what came meanwhile is no gap."""
        if not gaps:
            return
        since: dict[str, set[int]] = {writer: set() for writer, _ in gaps}
        for listed in list_versions(self._context.ledger.store, RECORDS):
            place = SegmentKey.parse(listed.key)
            if place is not None and place.writer in since:
                since[place.writer].add(place.sequence)
        for writer, between in gaps:
            for part in _without(between, since[writer]):
                sentence = "it is missing before a later segment of its writer"
                self._findings.add("removed", missing_segments(writer, part), sentence, sealed=False)


def _without(between: range, gone: set[int]) -> Iterator[range]:
    """The parts of a range that are not in a set."""
    start: int | None = None
    for number in between:
        if number in gone and start is not None:
            yield range(start, number)
            start = None
        elif number not in gone and start is None:
            start = number
    if start is not None:
        yield range(start, between.stop)
