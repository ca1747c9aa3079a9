"""The step of what is sealed: roll-ups against their seals, segments in them, and the objects still beside them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.ledger.chain import Position, missing_segments
from pneumoserve.ledger.scan import KINDS, Kind, ListedObject, ordered_map
from pneumoserve.ledger.seals import SealedRollup, Seals, rollup_key, rollup_number, split_segments
from pneumoserve.ledger.segment import Segment, SegmentError, read_segment, verify_segment
from pneumoserve.ledger.verification.context import SEALED, WANTED, Context, OwnObjects

# Roll-ups are large: 32 MiB.
_ROLLUPS_AHEAD: Final = 1


@dataclass
class SealedChains:
    """How far each writer's chain is sealed.

    `lost`: sequences whose roll-up cannot be read, by writer; their own objects are all that is left to look at.
    `outlived`: whether a roll-up is gone after its time, and its segments with it.
    """

    positions: dict[str, Position] = field(default_factory=lambda: defaultdict(Position))
    lost: dict[str, list[range]] = field(default_factory=lambda: defaultdict(list))
    outlived: bool = False


class SealedStep:
    """Takes from `own` and `rollups` what seals vouch for."""

    def __init__(self, context: Context, seals: Seals, own: OwnObjects, rollups: dict[str, ListedObject]) -> None:
        self._context = context
        self._findings = context.findings
        self._seals = seals
        self._own = own
        self._present = own.writers()
        self._rollups = rollups
        self._chains = SealedChains()
        # Own objects that are gone too early, by writer.
        self._gone: dict[str, list[str]] = defaultdict(list)

    def run(self) -> SealedChains:
        """Walk all roll-ups that seals name, then compare with the seals' heads."""
        for sealed, body in ordered_map(self._context.threads, self._seals.rollups, self._read, _ROLLUPS_AHEAD):
            listed = self._rollups.pop(sealed.rollup.key, None)
            if not self._is_whole(sealed, listed, body) or body is None:
                self._seals.lost = True
                continue
            for part in split_segments(body):
                self._walk(sealed, part)
        self._context.executor.finish()
        self._compare_heads()
        self._report_gone()
        return self._chains

    def _read(self, sealed: SealedRollup) -> bytes | None:
        listed = self._rollups.get(sealed.rollup.key)
        return self._context.get(sealed.rollup.key) if listed and listed.there else None

    def _is_whole(self, sealed: SealedRollup, listed: ListedObject | None, body: bytes | None) -> bool:
        """Whether a roll-up's bytes are those that its seal names; finds what is not as it should be."""
        key = sealed.rollup.key
        if (listed is None or not listed.there) and sealed.until is not None and sealed.until < self._context.now:
            self._chains.outlived = True
            return False
        if listed is not None and listed.deleted:
            self._findings.add("delete_marker", key, "a delete marker hides a roll-up, or hid it once", sealed=True)
        if listed is None:
            self._findings.add("removed", key, "a seal names this roll-up, and it is not there", sealed=True)
            return False
        if listed.there and body is None:
            self._findings.add("unreadable", key, "the store does not give it out", sealed=True)
        if body is None:
            return False
        if self._context.is_overwritten(key, listed.others):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=True)
        if digest_of(body) != sealed.rollup.sha256:
            self._findings.add("altered", key, "its bytes are not those that its seal names", sealed=True)
            return False
        return True

    def _walk(self, sealed: SealedRollup, part: bytes) -> None:
        """One segment of a whole roll-up, its place in its writer's chain, and its own object."""
        segment = read_segment(part)
        place = segment.header.segment_key
        try:
            verify_segment(part, self._context.writers_once)
        except SegmentError as error:
            sentence = f"a segment in it, {place.key}: {error}"
            self._findings.add(KINDS[error.fault], sealed.rollup.key, sentence, sealed=True)
        position = self._chains.positions[place.writer]
        fault = position.check(segment)
        if fault is not None and fault.kind == "removed":
            missing = position.missing_before(place.sequence)
            self._lose(place.writer, missing, "its seal left it out")
        elif fault is not None:
            self._findings.add("broken_chain", place.key, fault.sentence, sealed=True)
        position.move_to(segment)
        self._context.note_late(segment, sealed.after)
        wanted = sealed.until is None or sealed.until > self._context.now
        self._context.count(segment, SEALED | (WANTED if wanted else 0))
        self._context.counts["sealed_segments"] += 1
        self._check_own_object(segment, segment.header.time + sealed.segment_days > self._context.now)

    def _lose(self, writer: str, missing: range, sentence: str) -> None:
        self._chains.lost[writer].append(missing)
        # Where a seal or a roll-up is gone, that is the finding.
        if not self._seals.lost:
            self._findings.add("removed", missing_segments(writer, missing), sentence, sealed=True)

    def _check_own_object(self, segment: Segment, wanted: bool) -> None:
        """A sealed segment's own object: it equals what was sealed, or its time is over."""
        key = segment.header.segment_key.key
        others = self._own.present.pop(key, None)
        deleted = key in self._own.deleted
        self._own.deleted.discard(key)
        if others is None and not wanted:
            self._context.counts["expired"] += 1
        elif deleted:
            self._findings.add("delete_marker", key, "a delete marker hides a segment, or hid it once", sealed=True)
        elif others is None:
            self._gone[segment.header.writer].append(key)
        if others is not None:
            self._context.executor.submit(partial(self._compare, key, others, segment.hash, wanted))

    def _compare(self, key: str, others: tuple[str, ...], expected: Sha256, wanted: bool) -> None:
        """In a thread: whether a sealed segment's own object holds what was sealed."""
        if self._context.is_overwritten(key, others):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=True)
            return
        body = self._context.get(key)
        if body is None:
            # A lifecycle rule may have removed it at this moment.
            if wanted:
                self._findings.add("unreadable", key, "the store does not give it out", sealed=True)
        elif digest_of(body) != expected:
            kind, sentence = self._find_difference(body, key)
            self._findings.add(kind, key, f"its bytes are not those that were sealed: {sentence}", sealed=True)
        self._context.progress("segments", 1)

    def _find_difference(self, body: bytes, key: str) -> tuple[Kind, str]:
        """How bytes differ from the segment that belongs at a key."""
        try:
            segment = verify_segment(body, self._context.writers_once)
        except SegmentError as error:
            return KINDS[error.fault], str(error)
        if segment.header.segment_key.key != key:
            return "reordered", f"it holds the segment that belongs to {segment.header.segment_key.key}"
        return "altered", "it holds another segment, which a trusted writer signed"

    def _compare_heads(self) -> None:
        """The seals' heads against what the roll-ups hold; chains go on from the heads."""
        for writer, head in self._seals.heads.items():
            position = self._chains.positions[writer]
            if position.sequence == 0 and writer not in self._present and not self._chains.outlived:
                sentence = f"{head.sequence} segments of it were sealed, and none is there"
                self._findings.add("missing_writer", writer, sentence, sealed=True)
            if position.sequence < head.sequence:
                missing = position.missing_before(head.sequence + 1)
                self._lose(writer, missing, "its seal names it, and no roll-up holds it")
                self._chains.positions[writer] = head.position
            elif position.sequence == head.sequence and position.hash != head.hash:
                name = missing_segments(writer, range(head.sequence, head.sequence + 1))
                sentence = "the last segment sealed is not the one that the seal names"
                self._findings.add("broken_chain", name, sentence, sealed=True)

    def _report_gone(self) -> None:
        """Own objects that are gone too early: one finding where nothing of a writer is there."""
        for writer, keys in self._gone.items():
            if writer not in self._present:
                sentence = f"of its segments, {len(keys)} should be there and none is; their roll-ups hold them"
                self._findings.add("missing_writer", writer, sentence, sealed=True)
                continue
            for key in keys:
                self._findings.add("removed", key, "it is gone too early; its roll-up holds it", sealed=True)


def check_leftover_rollups(context: Context, seals: Seals, rollups: dict[str, ListedObject]) -> None:
    """Roll-ups that no seal names: a stopped sealer's hold signed segments and nothing else."""
    # The next seal's number, or the one after what stands in its place.
    next_ones = (seals.number + 1, seals.next_number)
    for key, listed in rollups.items():
        number = rollup_number(key)
        expected = number is not None and (number <= seals.number or number in next_ones)
        if not listed.there:
            sentence = "a delete marker stands where no seal names anything"
            context.findings.add("delete_marker", key, sentence, sealed=False)
        elif number is not None and expected and _is_left_by_sealer(context, key, number):
            context.counts["unsealed_rollups"] += 1
        else:
            context.findings.add("added", key, "no seal names it, and no sealer left it", sealed=False)


def _is_left_by_sealer(context: Context, key: str, number: int) -> bool:
    body = context.get(key)
    if body is None or rollup_key(key[13:23], number, int(key[33:37]), digest_of(body)) != key:
        return False
    try:
        for part in split_segments(body):
            verify_segment(part, context.writers_once)
    except ValueError:
        return False
    return True
