"""The sealer: verifies what is new of every writer, keeps it in roll-ups, and says so in a seal.

It goes past what is no seal below seals/, and past a writer whose next segment is bad, and reports both.

The seal is written last. A sealer that is stopped before leaves roll-ups that no seal names, which count for nothing;
the next one starts over. Of two sealers at once one writes the seal, the other starts over after it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pneumoserve
from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text
from pneumoserve.ledger.acknowledgements import Acknowledgements
from pneumoserve.ledger.attachments import Ledger
from pneumoserve.ledger.chain import Position, late_sentence, missing_segments
from pneumoserve.ledger.copies import copy_seals
from pneumoserve.ledger.scan import BoundedExecutor, Finding, Findings, ordered_map, retry
from pneumoserve.ledger.seals import (
    Head,
    Rollup,
    Seal,
    Seals,
    read_seals,
    rollup_key,
    seal_key,
    sign_seal,
    stamp_key,
)
from pneumoserve.ledger.segment import (
    RECORDS,
    Segment,
    SegmentError,
    SegmentKey,
    check_place,
    key_id_of,
    verify_segment,
)
from pneumoserve.ledger.timestamps import TimeStampError, ask_for_stamp
from pneumoserve.store import Lock, NotFoundError, StoreError

# For who says nothing else: medical records are kept for ten years in many countries.
DEFAULT_LOCK_DAYS: Final = 3650
# Below the design's 64 MiB: a sealer holds two of them, and `archive verify` three.
_PART_BYTES: Final = 32 << 20
_THREADS: Final = 16
_AHEAD: Final = 32
_TRIES: Final = 5


class SealerError(PneumoserveError):
    """The sealer could not seal; the text says what to do."""


@dataclass(frozen=True)
class SealSettings:
    """How to seal. `lock_days` is for how long the seal, its roll-ups and their images are locked; 0: not at all.

    `stamp_url` is a time-stamping authority's, `copy_to` a folder that gets a copy of each seal; both are asked for
    what the last seals lack, whether or not there is a new one.
    `segment_days` is for how long sealed segments stay beside their roll-ups; a segment gone earlier is a finding.
    """

    lock_days: int = 0
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    segment_days: int = 7
    abandoned_days: int = 7
    stamp_url: str | None = None
    copy_to: Path | None = None


@dataclass(frozen=True)
class SealReport:
    """What was sealed; `number` and `hash` are None where nothing was new. `problems`: a sentence by key.

    `acknowledged` are problems that somebody signed to know of, each with that reason. `late`: writers that are new and
    say that they are old, each with a sentence; a journal that was found late is one, and so is a made-up past.
    """

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
    acknowledged: dict[str, str]
    late: dict[str, str]


def seal(ledger: Ledger, key: Ed25519PrivateKey, now: datetime, settings: SealSettings) -> SealReport:
    """Seal all that is new.

    Raises:
        StoreError: the store does not answer; nothing was sealed.
        SealerError: no seal can be read, though there are some, or the settings do not fit the bucket.
    """
    store, sealers = ledger.store, ledger.sealers
    if key_id_of(key) not in sealers.keys:
        raise SealerError("The sealer's key is not among the trusted sealers; add its public key to that folder.")
    locked = store.has_lock()
    if settings.lock_days and not locked:
        raise SealerError("The bucket has no object lock, which is chosen when it is made; give --lock-days 0.")
    for _ in range(_TRIES):
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="seal") as threads:
            findings = Findings()
            seals = read_seals(store, sealers, threads, findings)
            known = Acknowledgements(store, sealers, findings)
            _check_chain(seals, known.split(findings)[0])
            faults = {finding.key: finding.sentence for finding in findings.sorted()}
            sealing = _Sealing(ledger, key, now, settings, seals, threads, known, faults)
            report = sealing.run(locked)
        if report is not None:
            return replace(report, problems={**report.problems, **sealing.publish()})
    raise SealerError("Other sealers were faster each time; let one sealer run.")


def _check_chain(seals: Seals, findings: tuple[Finding, ...]) -> None:
    """Refuse to go on where seals are there and none counts, or where the trusted keys may be the wrong ones.

    Raises:
        SealerError: it is so.
    """
    unknown = seals.lost and any(finding.kind == "wrong_signer" for finding in findings)
    if (unknown or (seals.occupied and not seals.digests)) and findings:
        first = findings[0]
        raise SealerError(
            f"The chain of seals cannot be read ({first.key}: {first.sentence}), so nothing is sealed. Look whether "
            "all sealers' keys are trusted; `pneumoserve archive verify` shows all of it. What cannot be mended, "
            "`pneumoserve archive acknowledge`."
        )


@dataclass
class _Sealing:
    """One try."""

    ledger: Ledger
    key: Ed25519PrivateKey
    now: datetime
    settings: SealSettings
    seals: Seals
    threads: ThreadPoolExecutor
    known: Acknowledgements
    # What is wrong with the chain of seals: a sentence by key.
    faults: dict[str, str]

    def __post_init__(self) -> None:
        self.store = self.ledger.store
        self._number = self.seals.next_number
        self._heads = dict(self.seals.heads)
        self._new: dict[str, Head] = {}
        self._problems: dict[str, str] = dict(self.faults)
        # Segments that are missing before one that waits, as `archive verify` calls them.
        self._missing: dict[str, str] = {}
        self._late: dict[str, str] = {}
        self._stuck: set[str] = set()
        self._gaps: dict[str, str] = {}
        self._part = _Part()
        self._rollups: list[Rollup] = []

    def run(self, locked: bool) -> SealReport | None:
        """Seal; None where another sealer wrote this seal first."""
        self._take(self._list_new())
        gaps, self._gaps = self._gaps, {}
        if gaps:
            # A listing is not of one moment: what seemed to be missing may only have been written meanwhile.
            for writer, key in gaps.items():
                self._stuck.remove(writer)
                del self._problems[key]
            self._take([place for place in self._list_new() if place.writer in gaps])
        self._flush()
        self._close_abandoned()
        digest = None
        if self._new:
            digest = self._write()
            if digest is None:
                return None
        acknowledged = {key: reason for key in self._problems if (reason := self._reason(key)) is not None}
        return SealReport(
            number=self._number if digest else None,
            hash=digest,
            segments=sum(rollup.segments for rollup in self._rollups),
            records=sum(rollup.records for rollup in self._rollups),
            rollups=tuple(rollup.key for rollup in self._rollups),
            open=sum(head.closed is None for head in self._heads.values()),
            closed={writer: head.closed for writer, head in self._new.items() if head.closed},
            lock_days=self.settings.lock_days,
            bucket_has_lock=locked,
            problems={key: sentence for key, sentence in self._problems.items() if key not in acknowledged},
            acknowledged=acknowledged,
            late=self._late,
        )

    def publish(self) -> dict[str, str]:
        """Have the last seal stamped, and copy what is not copied; what went wrong, by key."""
        problems: dict[str, str] = {}
        number = self.seals.number
        if self.settings.stamp_url is not None and number and number not in self.seals.stamps:
            try:
                stamp = ask_for_stamp(self.settings.stamp_url, self.store.get(seal_key(number)))
                self.store.put(stamp_key(number), stamp, "application/timestamp-reply", self._lock)
                self.seals.stamps.add(number)
            except (TimeStampError, NotFoundError) as error:
                problems[stamp_key(number)] = str(error)
        if self.settings.copy_to is not None:
            try:
                copy_seals(self.store, self.seals, self.settings.copy_to)
            except OSError as error:
                problems[str(self.settings.copy_to)] = f"no seal can be copied there ({error.strerror})"
        return problems

    def _reason(self, key: str) -> str | None:
        """Why a problem was acknowledged, None where it was not."""
        missing = self._missing.get(key)
        return self.known.reason(key) or (self.known.reason(missing) if missing else None)

    @property
    def _lock(self) -> Lock | None:
        days = self.settings.lock_days
        return Lock(self.now + timedelta(days=days), self.settings.lock_mode) if days else None

    def _list_new(self) -> list[SegmentKey]:
        """Where segments stand that are not sealed, each writer's in order; only these are held.

        Hourly seals look at the last days; the first one of a day at all, for journals that were found late.
        """
        last = self.seals.moment
        after = ""
        if last is not None and last.date() == self.now.astimezone(UTC).date():
            after = f"{RECORDS}date={last.date() - timedelta(days=self.settings.abandoned_days + 1)}"
        found = (place for item in self.store.list(RECORDS, after) if (place := SegmentKey.parse(item.key)))
        return sorted(place for place in found if place.sequence > self._position(place.writer).sequence)

    def _take(self, new: list[SegmentKey]) -> None:
        """Verify what is new, in each writer's order, and keep it."""
        for place, body in ordered_map(self.threads, new, self._body, _AHEAD):
            if place.writer in self._stuck:
                continue
            try:
                segment = self._check(place, body)
                attached = set(self.ledger.attachments.keys_in(segment))
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
            if (sentence := late_sentence(segment, self.seals.moment)) is not None:
                self._late[place.writer] = sentence
            self._heads[place.writer] = self._new[place.writer] = head
            if self._part.size + len(body) > _PART_BYTES:
                self._flush()
            self._part.add(body, len(segment.lines), attached)

    def _body(self, place: SegmentKey) -> bytes:
        try:
            # Bytes that the store does not give out are no segment.
            return retry(self.store, partial(self.store.get, place.key)) or b""
        except NotFoundError:
            return b""

    def _position(self, writer: str) -> Position:
        head = self._heads.get(writer)
        return head.position if head else Position()

    def _check(self, place: SegmentKey, body: bytes) -> Segment:
        """The segment that follows its writer's head.

        Raises:
            SegmentError: it does not.
        """
        segment = verify_segment(body, self.ledger.writers)
        check_place(segment, place)
        position = self._position(place.writer)
        fault = position.check(segment)
        if fault is None:
            return segment
        if fault.kind == "removed":
            self._gaps[place.writer] = place.key
            self._missing[place.key] = missing_segments(place.writer, position.missing_before(place.sequence))
        raise SegmentError("misplaced", fault.sentence)

    def _flush(self) -> None:
        """Write what was kept as a roll-up, and lock what its lines mention."""
        part, self._part = self._part, _Part()
        if not part.segments:
            return
        body = b"".join(part.bodies)
        digest = digest_of(body)
        key = rollup_key(self.now.astimezone(UTC).date().isoformat(), self._number, len(self._rollups) + 1, digest)
        self.store.put(key, body, "application/x-ndjson", self._lock)
        self._rollups.append(Rollup(key=key, sha256=digest, segments=part.segments, records=part.records))
        self._lock_all(part.attached)

    def _close_abandoned(self) -> None:
        """Expect nothing more of writers that said nothing for days, unless something of theirs waits that is bad."""
        patience = timedelta(days=self.settings.abandoned_days)
        for writer, head in self._heads.items():
            silent = self.now - datetime.fromisoformat(head.opened)
            if head.closed is None and silent > patience and writer not in self._stuck:
                self._new[writer] = head.model_copy(update={"closed": "abandoned"})
        self._heads.update(self._new)

    def _lock_all(self, keys: set[str]) -> None:
        lock = self._lock
        if lock is None:
            return
        executor = BoundedExecutor(self.threads, 2 * _THREADS)
        for key in keys:
            executor.submit(partial(self._lock_one, key, lock))
        executor.finish()

    def _lock_one(self, key: str, lock: Lock) -> None:
        try:
            self.store.extend_lock(key, lock)
        except NotFoundError:
            self._problems[key] = self.ledger.attachments.missing_sentence

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
            lock_days=self.settings.lock_days,
            software=pneumoserve.__version__,
            key_id=key_id_of(self.key),
            signature="",
        )
        body = sign_seal(made, self.key)
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
        if not ours:
            return None
        self.seals.take(made, body)
        return self.seals.digest


@dataclass
class _Part:
    """A roll-up that is being filled; sizes in bytes."""

    bodies: list[bytes] = field(default_factory=list)
    size: int = 0
    segments: int = 0
    records: int = 0
    attached: set[str] = field(default_factory=set)

    def add(self, body: bytes, records: int, attached: set[str]) -> None:
        self.bodies.append(body)
        self.attached |= attached
        self.size += len(body)
        self.segments += 1
        self.records += records
