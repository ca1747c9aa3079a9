"""Verifying the whole archive: seals, roll-ups, segments and films, each against what signed it or what it is named.

Bodies are streamed and never held together. What is held grows with what there is: some 100 bytes a film that a record
names, and some 300 a segment whose own object is still there, which is short beside its roll-up.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final

from pneumoserve.archive.films import IMAGES, image_digest, image_key
from pneumoserve.archive.seal import stored_images
from pneumoserve.archive.seals import (
    ROLLUPS,
    Head,
    SealedRollup,
    Seals,
    read_seals,
    rollup_key,
    rollup_number,
    split_segments,
)
from pneumoserve.archive.segment import RECORDS, Fault, Place, Segment, SegmentError, read_segment, verified_segment
from pneumoserve.archive.store import NotFoundError, ObjectStore
from pneumoserve.archive.walk import (
    Crew,
    Finding,
    Findings,
    Held,
    Kind,
    held_below,
    in_order,
    overwritten,
    patiently,
)
from pneumoserve.release.schema import Sha256, digest_of
from pneumoserve.release.signing import Trust

_THREADS: Final = 16
_AHEAD: Final = 32
# Roll-ups are large: 32 MiB.
_ROLLUPS_AHEAD: Final = 1
_KINDS: Final[dict[Fault, Kind]] = {
    "cut": "cut",
    "unreadable": "altered",
    "misplaced": "reordered",
    "unknown_signer": "wrong_signer",
    "altered": "altered",
}
_SEALED: Final = 1
_WANTED: Final = 2

Told = Callable[[str, int], None]


@dataclass(frozen=True)
class Summary:
    """What was verified.

    `expired` are segments that only their roll-up holds, as it should be; `unsealed_rollups` were left by sealers that
    were stopped, `unnamed_images`, which no record names, by fronts that were stopped.
    """

    seals: int
    last_seal: int
    last_seal_time: str | None
    last_seal_hash: Sha256 | None
    rollups: int
    unsealed_rollups: int
    segments: int
    sealed_segments: int
    expired: int
    records: int
    writers: int
    images: int
    unnamed_images: int
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """The archive is as it was written where nothing was found."""

    findings: tuple[Finding, ...]
    summary: Summary


@dataclass
class _Link:
    """Where the walk along one writer's chain stands; `ended`: nothing may follow."""

    sequence: int = 0
    hash: Sha256 | None = None
    ended: bool = False

    def to(self, segment: Segment) -> None:
        """Go on by a segment that is as it should be."""
        self.sequence, self.hash = segment.header.sequence, segment.hash
        self.ended = segment.header.last


def verify(store: ObjectStore, writers: Trust, sealers: Trust, now: datetime, told: Told) -> Verdict:
    """Walk everything; `told` hears what is being walked, and how many objects were verified.

    Raises:
        StoreError: the store does not answer.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as threads:
        return _Walk(store, writers, sealers, now, told, threads).run()


class _Walk:
    def __init__(
        self,
        store: ObjectStore,
        writers: Trust,
        sealers: Trust,
        now: datetime,
        told: Told,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._writers = writers
        # A key that was revoked since may sign nothing more, but what was sealed before that was signed in time.
        self._writers_once = Trust(writers.keys, frozenset(), frozenset())
        self._sealers = sealers
        self._now = now
        self._told = told
        self._threads = threads
        self._crew = Crew(threads, 4 * _THREADS)
        self._findings = Findings()
        self._images: dict[bytes, int] = {}
        self._raw: dict[str, tuple[str, ...]] = {}
        self._deleted: set[str] = set()
        self._links: dict[str, _Link] = defaultdict(_Link)
        self._gone: dict[str, list[str]] = defaultdict(list)
        # Sequences whose roll-up cannot be read, by writer: their own objects are all that is left to look at.
        self._lost: dict[str, list[range]] = defaultdict(list)
        self._count: dict[str, int] = defaultdict(int)
        # Whether a roll-up is gone after its time, and its segments with it.
        self._outlived = False

    def run(self) -> Verdict:
        started = time.perf_counter()
        seals = read_seals(self._store, self._sealers, self._threads, self._findings)
        rollups = {held.key: held for held in held_below(self._store, ROLLUPS)}
        self._list_segments()
        present = {place.writer for key in self._raw if (place := Place.of(key))}
        self._walk_rollups(seals, rollups)
        self._compare_heads(seals, present)
        self._report_gone(present)
        self._look_at_unsealed_rollups(seals, rollups)
        self._walk_segments(seals.heads)
        self._walk_images()
        summary = Summary(
            seals=seals.count,
            last_seal=seals.number,
            last_seal_time=seals.time,
            last_seal_hash=seals.digest,
            rollups=len(seals.rollups),
            unsealed_rollups=self._count["unsealed_rollups"],
            segments=self._count["segments"],
            sealed_segments=self._count["sealed_segments"],
            expired=self._count["expired"],
            records=self._count["records"],
            writers=len(self._links.keys() | seals.heads.keys()),
            images=self._count["images"],
            unnamed_images=self._count["unnamed_images"],
            seconds=round(time.perf_counter() - started, 3),
        )
        return Verdict(tuple(self._findings.sorted()), summary)

    # Listing

    def _list_segments(self) -> None:
        for held in held_below(self._store, RECORDS):
            if Place.of(held.key) is None:
                self._findings.add("added", held.key, "records/ holds nothing but segments", sealed=False)
                continue
            if held.deleted:
                self._deleted.add(held.key)
            if held.there:
                self._raw[held.key] = held.others
                self._tell("segments listed")

    # Roll-ups, and the sealed segments in them

    def _walk_rollups(self, seals: Seals, rollups: dict[str, Held]) -> None:
        def read(sealed: SealedRollup) -> bytes | None:
            held = rollups.get(sealed.rollup.key)
            return self._body(sealed.rollup.key) if held and held.there else None

        for sealed, body in in_order(self._threads, seals.rollups, read, _ROLLUPS_AHEAD):
            held = rollups.pop(sealed.rollup.key, None)
            if not self._whole(sealed, held, body) or body is None:
                seals.lost = True
                continue
            for part in split_segments(body):
                self._walk_sealed(sealed, part, seals.lost)
        self._crew.finish()

    def _whole(self, sealed: SealedRollup, held: Held | None, body: bytes | None) -> bool:
        """Whether a roll-up's bytes are those that its seal names; tells what is not as it should be."""
        key = sealed.rollup.key
        if (held is None or not held.there) and sealed.until is not None and sealed.until < self._now:
            self._outlived = True
            return False
        if held is not None and held.deleted:
            self._findings.add("delete_marker", key, "a delete marker hides a roll-up, or hid it once", sealed=True)
        if held is None:
            self._findings.add("removed", key, "a seal names this roll-up, and it is not there", sealed=True)
            return False
        if held.there and body is None:
            self._findings.add("unreadable", key, "the store does not give it out", sealed=True)
        if body is None:
            return False
        if overwritten(self._store, key, held.others):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=True)
        if digest_of(body) != sealed.rollup.sha256:
            self._findings.add("altered", key, "its bytes are not those that its seal names", sealed=True)
            return False
        return True

    def _walk_sealed(self, sealed: SealedRollup, part: bytes, lost: bool) -> None:
        """One segment of a whole roll-up, and its own object."""
        segment = read_segment(part)
        try:
            verified_segment(part, self._writers_once)
        except SegmentError as error:
            kind, sentence = _KINDS[error.fault], f"a segment in it, {segment.header.place.key}: {error}"
            self._findings.add(kind, sealed.rollup.key, sentence, sealed=True)
        place = segment.header.place
        link = self._links[place.writer]
        if place.sequence > link.sequence + 1:
            missing = range(link.sequence + 1, place.sequence)
            self._lost[place.writer].append(missing)
            if not lost:
                self._findings.add("removed", _name(place.writer, missing), "its seal left it out", sealed=True)
        elif place.sequence <= link.sequence or segment.header.previous != link.hash:
            self._findings.add("broken_chain", place.key, "it does not follow the segment before it", sealed=True)
        link.to(segment)
        self._counted(segment, _SEALED | (_WANTED if sealed.until is None or sealed.until > self._now else 0))
        self._count["sealed_segments"] += 1
        self._own_object(place.key, segment, segment.header.time + sealed.segment_days > self._now)

    def _own_object(self, key: str, segment: Segment, wanted: bool) -> None:
        """A sealed segment's own object: it equals what was sealed, or its time is over."""
        others = self._raw.pop(key, None)
        deleted = key in self._deleted
        self._deleted.discard(key)
        if others is None and not wanted:
            self._count["expired"] += 1
        elif deleted:
            self._findings.add("delete_marker", key, "a delete marker hides a segment, or hid it once", sealed=True)
        elif others is None:
            self._gone[segment.header.writer].append(key)
        if others is not None:
            self._crew.do(partial(self._compare, key, others, segment.hash, wanted))

    def _compare(self, key: str, others: tuple[str, ...], expected: Sha256, wanted: bool) -> None:
        """In a thread: whether a sealed segment's own object holds what was sealed."""
        if overwritten(self._store, key, others):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=True)
            return
        body = self._body(key)
        if body is None:
            # A lifecycle rule may have removed it at this moment.
            if wanted:
                self._findings.add("unreadable", key, "the store does not give it out", sealed=True)
        elif digest_of(body) != expected:
            kind, sentence = self._difference(body, key)
            self._findings.add(kind, key, f"its bytes are not those that were sealed: {sentence}", sealed=True)
        self._tell("segments")

    def _difference(self, body: bytes, key: str) -> tuple[Kind, str]:
        """How bytes differ from the segment that belongs at a key."""
        try:
            segment = verified_segment(body, self._writers_once)
        except SegmentError as error:
            return _KINDS[error.fault], str(error)
        if segment.header.place.key != key:
            return "reordered", f"it holds the segment that belongs to {segment.header.place.key}"
        return "altered", "it holds another segment, which a trusted writer signed"

    def _compare_heads(self, seals: Seals, present: set[str]) -> None:
        """The seals' heads against what the roll-ups hold."""
        for writer, head in seals.heads.items():
            link = self._links[writer]
            if link.sequence == 0 and writer not in present and not self._outlived:
                sentence = f"{head.sequence} segments of it were sealed, and none is there"
                self._findings.add("missing_writer", writer, sentence, sealed=True)
            if link.sequence < head.sequence:
                missing = range(link.sequence + 1, head.sequence + 1)
                self._lost[writer].append(missing)
                if not seals.lost:
                    sentence = "its seal names it, and no roll-up holds it"
                    self._findings.add("removed", _name(writer, missing), sentence, sealed=True)
                self._links[writer] = _Link(head.sequence, head.hash, ended=head.closed == "ended")
            elif link.sequence == head.sequence and link.hash != head.hash:
                sentence = "the last segment sealed is not the one that the seal names"
                self._findings.add(
                    "broken_chain", _name(writer, range(head.sequence, head.sequence + 1)), sentence, True
                )

    def _report_gone(self, present: set[str]) -> None:
        """Sealed segments whose own objects are gone too early: one finding where nothing of a writer is there."""
        for writer, keys in self._gone.items():
            if writer not in present:
                sentence = f"of its segments, {len(keys)} should be there and none is; their roll-ups hold them"
                self._findings.add("missing_writer", writer, sentence, sealed=True)
                continue
            for key in keys:
                self._findings.add("removed", key, "it is gone too early; its roll-up holds it", sealed=True)

    def _look_at_unsealed_rollups(self, seals: Seals, rollups: dict[str, Held]) -> None:
        """Roll-ups that no seal names: a stopped sealer's hold signed segments and nothing else."""
        for key, held in rollups.items():
            number = rollup_number(key)
            if not held.there:
                self._findings.add("delete_marker", key, "a delete marker stands where no seal names anything", False)
            elif number is not None and number <= seals.number + 1 and self._left_by_sealer(key, number):
                self._count["unsealed_rollups"] += 1
            else:
                self._findings.add("added", key, "no seal names it, and no sealer left it", sealed=False)

    def _left_by_sealer(self, key: str, number: int) -> bool:
        body = self._body(key)
        if body is None or rollup_key(key[13:23], number, int(key[33:37]), digest_of(body)) != key:
            return False
        try:
            for part in split_segments(body):
                verified_segment(part, self._writers_once)
        except ValueError:
            return False
        return True

    # Segments that no roll-up holds

    def _walk_segments(self, heads: dict[str, Head]) -> None:
        found = sorted(place for key in self._raw if (place := Place.of(key)))
        hidden = {place for key in self._deleted - self._raw.keys() if (place := Place.of(key))}
        bodies = in_order(self._threads, found, lambda place: self._body(place.key), _AHEAD)
        missing: list[tuple[str, range]] = []
        for writer, group in groupby(bodies, lambda each: each[0].writer):
            missing += self._walk_writer(writer, group, heads.get(writer), hidden)
        for key in self._deleted:
            place = Place.of(key)
            head = heads.get(place.writer) if place else None
            sealed = place is not None and head is not None and place.sequence <= head.sequence
            if not (sealed and self._outlived):
                self._findings.add("delete_marker", key, "a delete marker hides a segment, or hid it once", sealed)
        self._report_missing(missing)

    def _walk_writer(
        self, writer: str, group: Iterable[tuple[Place, bytes | None]], head: Head | None, hidden: set[Place]
    ) -> list[tuple[str, range]]:
        """One writer's segments in their order; returns which are missing between them."""
        link = self._links[writer]
        # Those that a delete marker hides, or that are not what they should be, have findings of their own.
        gone = {place.sequence for place in hidden if place.writer == writer}
        missing: list[tuple[str, range]] = []
        for place, body in group:
            if head is not None and place.sequence <= head.sequence:
                self._look_at_lost(place, body)
                continue
            segment = self._as_signed(place, body, self._writers, sealed=False)
            if segment is None:
                gone.add(place.sequence)
                continue
            between = range(link.sequence + 1, place.sequence)
            missing += [(writer, part) for part in _without(between, gone)]
            self._follow(segment, link, after_gap=bool(between))
        return missing

    def _look_at_lost(self, place: Place, body: bytes | None) -> None:
        """A segment from before its writer's head that is in no roll-up that could be read."""
        if not any(place.sequence in lost for lost in self._lost[place.writer]):
            sentence = "its writer's sealed chain has no such segment here"
            self._findings.add("added", place.key, sentence, sealed=False)
            return
        segment = self._as_signed(place, body, self._writers_once, sealed=True)
        if segment is not None:
            self._counted(segment, _SEALED | _WANTED)

    def _follow(self, segment: Segment, link: _Link, after_gap: bool) -> None:
        """Whether a segment that was signed goes on where its writer's chain had come to."""
        place = segment.header.place
        if link.ended:
            self._findings.add("continued", place.key, "its writer's chain had ended before it", sealed=False)
        elif place.sequence == link.sequence:
            self._findings.add("added", place.key, "its writer has another segment of this number", sealed=False)
        else:
            if not after_gap and segment.header.previous != link.hash:
                self._findings.add("broken_chain", place.key, "it does not follow the segment before it", sealed=False)
            link.to(segment)
            self._counted(segment, _WANTED)

    def _as_signed(self, place: Place, body: bytes | None, trust: Trust, sealed: bool) -> Segment | None:
        """The segment at its place, None where something is wrong with it."""
        key = place.key
        if overwritten(self._store, key, self._raw[key]):
            self._findings.add("overwritten", key, "it has versions of different bytes", sealed=sealed)
        if body is None:
            self._findings.add("unreadable", key, "the store does not give it out", sealed=sealed)
            return None
        try:
            segment = verified_segment(body, trust)
        except SegmentError as error:
            self._findings.add(_KINDS[error.fault], key, str(error), sealed=sealed)
            return None
        if segment.header.place != place:
            right = segment.header.place
            twice = (right.writer, right.sequence) == (place.writer, place.sequence) and right.key in self._raw
            sentence = f"it holds the segment that belongs to {right.key}"
            self._findings.add("added" if twice else "reordered", key, sentence, sealed=sealed)
            return None
        return segment

    def _report_missing(self, missing: list[tuple[str, range]]) -> None:
        """Gaps in the chains of writers; a listing is not of one moment, so what came meanwhile is no gap."""
        if not missing:
            return
        since: dict[str, set[int]] = {writer: set() for writer, _ in missing}
        for held in held_below(self._store, RECORDS):
            place = Place.of(held.key)
            if place is not None and place.writer in since:
                since[place.writer].add(place.sequence)
        for writer, between in missing:
            for part in _without(between, since[writer]):
                sentence = "it is missing before a later segment of its writer"
                self._findings.add("removed", _name(writer, part), sentence, sealed=False)

    # Films

    def _walk_images(self) -> None:
        for held in held_below(self._store, IMAGES):
            digest = image_digest(held.key)
            if digest is None:
                self._findings.add("added", held.key, "images/ holds nothing but films by their digest", sealed=False)
                continue
            named = self._images.pop(digest, None)
            if named is None:
                self._count["unnamed_images"] += 1
            sealed = bool(named and named & _SEALED)
            may_be_gone = self._outlived if named is None else not named & _WANTED
            if held.deleted and not may_be_gone:
                self._findings.add("delete_marker", held.key, "a delete marker hides a film, or hid it once", sealed)
            if held.there:
                self._count["images"] += 1
                self._crew.do(partial(self._hash_image, held, digest, sealed))
        self._crew.finish()
        for digest, named in self._images.items():
            if named & _WANTED:
                key = image_key(digest.hex())
                sentence = "a record names this film, and it is not there"
                self._findings.add("missing_image", key, sentence, sealed=bool(named & _SEALED))

    def _hash_image(self, held: Held, digest: bytes, sealed: bool) -> None:
        """In a thread: whether a film is the one that it is named after."""
        if overwritten(self._store, held.key, held.others):
            self._findings.add("overwritten", held.key, "it has versions of different bytes", sealed)
            return
        try:
            found = patiently(self._store, partial(self._store.digest, held.key))
        except NotFoundError:
            found = None
        if found is None:
            self._findings.add("unreadable", held.key, "the store does not give it out", sealed)
        elif found != digest.hex():
            self._findings.add("altered", held.key, "its bytes have another digest than its name", sealed)
        self._tell("films")

    # Common

    def _body(self, key: str) -> bytes | None:
        try:
            return patiently(self._store, partial(self._store.get, key))
        except NotFoundError:
            return None

    def _counted(self, segment: Segment, named: int) -> None:
        self._count["segments"] += 1
        self._count["records"] += len(segment.lines)
        self._tell("records", len(segment.lines))
        place = segment.header.place
        try:
            keys = list(stored_images(segment))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._findings.add("altered", place.key, "an entry in it is not one", sealed=bool(named & _SEALED))
            return
        for key in keys:
            digest = image_digest(key)
            if digest is None:
                self._findings.add("missing_image", key, "a record names it, and no film has such a key", sealed=True)
            else:
                self._images[digest] = self._images.get(digest, 0) | named

    def _tell(self, what: str, count: int = 1) -> None:
        self._told(what, count)


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


def _name(writer: str, sequences: range) -> str:
    """What to call segments whose day and release nobody knows any more."""
    first = f"{writer}-{sequences.start:08d}.jsonl"
    return first if len(sequences) == 1 else f"{first} to {sequences.stop - 1:08d}.jsonl"
