"""The sealer: verifies what is new of every writer, keeps it in roll-ups, and says so in a seal.

The seal is written last. A sealer that is stopped before leaves roll-ups that no seal names, which count for nothing;
the next one starts over. Of two sealers at once one writes the seal, the other starts over after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Literal

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pneumoserve
from pneumoserve.archive.read import places
from pneumoserve.archive.seals import Head, Rollup, Seal, Seals, read_seals, rollup_key, seal_key, signed_seal
from pneumoserve.archive.segment import Place, Segment, SegmentError, key_id_of, verified_segment
from pneumoserve.archive.store import Lock, NotFoundError, ObjectStore, StoreError
from pneumoserve.archive.walk import Crew, Findings, in_order, patiently
from pneumoserve.ids import time_text
from pneumoserve.release.schema import Sha256, digest_of
from pneumoserve.release.signing import Trust

# Where nothing is said: films and their records are kept for ten years in many countries.
DEFAULT_LOCK_DAYS: Final = 3650
# Below the design's 64 MiB: a sealer holds two of them, and `archive verify` three.
_PART_BYTES: Final = 32 << 20
_THREADS: Final = 16
_AHEAD: Final = 32
_TRIES: Final = 5


class SealerError(RuntimeError):
    """The sealer could not seal; the text says what to do."""


@dataclass(frozen=True)
class SealSettings:
    """How to seal. `lock_days` None: ten years where the bucket has object lock, else none.

    `segment_days` is for how long sealed segments stay beside their roll-ups; a segment gone earlier is a finding.
    """

    lock_days: int | None = None
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    segment_days: int = 7
    abandoned_days: int = 7


@dataclass(frozen=True)
class SealReport:
    """What was sealed; `number` and `hash` are None where nothing was new. `problems`: a sentence by key."""

    number: int | None
    hash: Sha256 | None
    segments: int
    records: int
    rollups: tuple[str, ...]
    open: int
    closed: dict[str, str]
    lock_days: int
    bucket_has_lock: bool
    problems: dict[str, str]


def stored_images(segment: Segment) -> Iterator[str]:
    """The keys of the films that a segment's records name.

    Raises:
        ValueError: an entry is no JSON object.
    """
    for line in segment.lines:
        image = orjson.loads(line).get("image")
        if image is not None:
            yield image["stored_key"]


def seal(
    store: ObjectStore, key: Ed25519PrivateKey, writers: Trust, sealers: Trust, now: datetime, settings: SealSettings
) -> SealReport:
    """Seal all that is new.

    Raises:
        StoreError: the store does not answer; nothing was sealed.
        SealerError: the chain of seals is damaged, or the settings do not fit the bucket.
    """
    if key_id_of(key) not in sealers.keys:
        raise SealerError("The sealer's key is not among the trusted sealers; add its public key to that folder.")
    locked = store.has_lock()
    if settings.lock_days and not locked:
        raise SealerError("The bucket has no object lock, which is chosen when it is made; give --lock-days 0.")
    if settings.lock_days is None:
        settings = replace(settings, lock_days=DEFAULT_LOCK_DAYS if locked else 0)
    for _ in range(_TRIES):
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="seal") as threads:
            findings = Findings()
            seals = read_seals(store, sealers, threads, findings)
            if findings:
                first = findings.sorted()[0]
                raise SealerError(
                    f"The chain of seals is damaged ({first.key}: {first.sentence}); nothing is sealed after that. "
                    "`pneumoserve archive verify` shows all of it."
                )
            report = _Sealing(store, key, writers, now, settings, seals, threads).run(locked)
        if report is not None:
            return report
    raise SealerError("Other sealers were faster each time; let one sealer run.")


@dataclass
class _Sealing:
    """One try."""

    store: ObjectStore
    key: Ed25519PrivateKey
    writers: Trust
    now: datetime
    settings: SealSettings
    seals: Seals
    threads: ThreadPoolExecutor

    def __post_init__(self) -> None:
        self._number = self.seals.number + 1
        self._heads = dict(self.seals.heads)
        self._new: dict[str, Head] = {}
        self._problems: dict[str, str] = {}
        self._stuck: set[str] = set()
        self._gaps: dict[str, str] = {}
        self._images: set[str] = set()
        self._part = _Part()
        self._rollups: list[Rollup] = []

    def run(self, locked: bool) -> SealReport | None:
        """Seal; None where another sealer wrote this seal first."""
        self._take(places(self.store))
        gaps, self._gaps = self._gaps, {}
        if gaps:
            # A listing is not of one moment: what seemed to be missing may only have been written meanwhile.
            for writer, key in gaps.items():
                self._stuck.remove(writer)
                del self._problems[key]
            self._take([place for place in places(self.store) if place.writer in gaps])
        self._flush()
        self._close_abandoned()
        self._lock_images()
        digest = None
        if self._new:
            digest = self._write()
            if digest is None:
                return None
        return SealReport(
            number=self._number if digest else None,
            hash=digest,
            segments=sum(rollup.segments for rollup in self._rollups),
            records=sum(rollup.records for rollup in self._rollups),
            rollups=tuple(rollup.key for rollup in self._rollups),
            open=sum(head.closed is None for head in self._heads.values()),
            closed={writer: head.closed for writer, head in self._new.items() if head.closed},
            lock_days=self._lock_days,
            bucket_has_lock=locked,
            problems=self._problems,
        )

    @property
    def _lock_days(self) -> int:
        return self.settings.lock_days or 0

    @property
    def _lock(self) -> Lock | None:
        return Lock(self.now + timedelta(days=self._lock_days), self.settings.lock_mode) if self._lock_days else None

    def _take(self, found: list[Place]) -> None:
        """Verify what is new, in each writer's order, and keep it."""
        new = [place for place in found if place.sequence > self._sequence(place.writer)]
        for place, body in in_order(self.threads, new, self._body, _AHEAD):
            if place.writer in self._stuck:
                continue
            try:
                segment = self._verified(place, body)
                self._images.update(stored_images(segment))
            except (SegmentError, ValueError) as error:
                self._stuck.add(place.writer)
                self._problems[place.key] = str(error)
                continue
            head = Head(
                sequence=place.sequence,
                hash=segment.hash,
                opened=segment.header.opened,
                closed="ended" if segment.header.last else None,
            )
            self._heads[place.writer] = self._new[place.writer] = head
            if self._part.size + len(body) > _PART_BYTES:
                self._flush()
            self._part.add(body, len(segment.lines))

    def _body(self, place: Place) -> bytes:
        try:
            # Bytes that the store does not give out are no segment.
            return patiently(self.store, partial(self.store.get, place.key)) or b""
        except NotFoundError:
            return b""

    def _sequence(self, writer: str) -> int:
        head = self._heads.get(writer)
        return head.sequence if head else 0

    def _verified(self, place: Place, body: bytes) -> Segment:
        """The segment that follows its writer's head.

        Raises:
            SegmentError: it does not.
        """
        segment = verified_segment(body, self.writers)
        head = self._heads.get(place.writer)
        if segment.header.place != place:
            raise SegmentError("misplaced", f"it holds the segment that belongs to {segment.header.place.key}")
        if head is not None and head.closed == "ended":
            raise SegmentError("misplaced", "its writer's chain had ended before it")
        if place.sequence == self._sequence(place.writer):
            raise SegmentError("misplaced", "its writer has another segment of this number")
        if place.sequence != self._sequence(place.writer) + 1:
            self._gaps[place.writer] = place.key
            raise SegmentError("misplaced", f"segment {self._sequence(place.writer) + 1} of its writer is not there")
        if segment.header.previous != (head.hash if head else None):
            raise SegmentError("misplaced", "it does not follow the segment before it")
        return segment

    def _flush(self) -> None:
        """Write what was kept as a roll-up."""
        part, self._part = self._part, _Part()
        if not part.segments:
            return
        body = b"".join(part.bodies)
        digest = digest_of(body)
        key = rollup_key(self.now.astimezone(UTC).date().isoformat(), self._number, len(self._rollups) + 1, digest)
        self.store.put(key, body, "application/x-ndjson", self._lock)
        self._rollups.append(Rollup(key=key, sha256=digest, segments=part.segments, records=part.records))

    def _close_abandoned(self) -> None:
        """Expect nothing more of writers that said nothing for days, unless something of theirs waits that is bad."""
        patience = timedelta(days=self.settings.abandoned_days)
        for writer, head in self._heads.items():
            silent = self.now - datetime.fromisoformat(head.opened)
            if head.closed is None and silent > patience and writer not in self._stuck:
                self._new[writer] = head.model_copy(update={"closed": "abandoned"})
        self._heads.update(self._new)

    def _lock_images(self) -> None:
        lock = self._lock
        if lock is None:
            return
        crew = Crew(self.threads, 2 * _THREADS)
        for image in self._images:
            crew.do(partial(self._lock_image, image, lock))
        crew.finish()

    def _lock_image(self, image: str, lock: Lock) -> None:
        try:
            self.store.lengthen(image, lock)
        except NotFoundError:
            self._problems[image] = "a record names this film, and it is not there"

    def _write(self) -> Sha256 | None:
        """Write the seal, and return its hash; None where there is one of this number."""
        still_open = {
            writer: head
            for writer, head in self._heads.items()
            if writer in self._new or self.seals.heads[writer].closed is None
        }
        made = Seal(
            number=self._number,
            previous=self.seals.digest,
            time=time_text(self.now),
            heads=still_open,
            rollups=tuple(self._rollups),
            segment_days=self.settings.segment_days,
            lock_days=self._lock_days,
            software=pneumoserve.__version__,
            key_id=key_id_of(self.key),
            signature="",
        )
        body = signed_seal(made, self.key)
        try:
            self.store.create(seal_key(self._number), body, "application/json", self._lock)
        except StoreError as error:
            # Its outcome may be unclear: what is there now decides.
            unclear: StoreError | None = error
        else:
            unclear = None
        try:
            # A store that knows no conditions would have let a second sealer write over the first.
            ours = self.store.get(seal_key(self._number)) == body
        except NotFoundError:
            raise unclear or StoreError("The store lost the seal it took; check it, then seal again.") from None
        return digest_of(body) if ours else None


@dataclass
class _Part:
    """A roll-up that is being filled; sizes in bytes."""

    bodies: list[bytes] = field(default_factory=list)
    size: int = 0
    segments: int = 0
    records: int = 0

    def add(self, body: bytes, records: int) -> None:
        self.bodies.append(body)
        self.size += len(body)
        self.segments += 1
        self.records += records
