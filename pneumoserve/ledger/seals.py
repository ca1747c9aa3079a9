"""Seals: the sealer's own chain, which says how far each writer's chain had come, and where its segments are kept.

A seal is one object of canonical JSON, signed with the sealer's key, holding the hash of the seal before it. It names
the roll-ups it made: objects that hold whole segments, byte for byte, one after the other. A roll-up no seal names is
what a sealer left that was stopped, and says nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, count
from typing import Final, Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.ledger.chain import Position
from pneumoserve.ledger.scan import Findings, Kind, ListedObject, has_other_bytes, list_versions, ordered_map, retry
from pneumoserve.signing import Trust
from pneumoserve.store import NotFoundError, Store

SEALS: Final = "seals/"
ROLLUPS: Final = "rollups/"
_SEAL_KEY: Final = re.compile(r"seals/(\d{8})\.json")
_STAMP_KEY: Final = re.compile(r"seals/(\d{8})\.tsr")
_ROLLUP_KEY: Final = re.compile(r"rollups/date=\d{4}-\d\d-\d\d/(\d{8})-\d{4}-([0-9a-f]{12})\.jsonl")
_AHEAD: Final = 32


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Head(_Strict):
    """How far a writer had come: its last sealed segment, and whether more is expected of it."""

    sequence: int = Field(ge=1)
    hash: Sha256 = Field(description="of the segment's bytes")
    opened: str = Field(description="when the segment was made, as its header says")
    closed: Literal["ended", "abandoned"] | None = Field(
        description="ended: the writer said so; abandoned: it said nothing for days, and may still come back"
    )

    @property
    def position(self) -> Position:
        """Where the writer's chain goes on."""
        return Position(self.sequence, self.hash, ended=self.closed == "ended")


class Rollup(_Strict):
    """An object of whole segments, one after the other, a writer's in their order."""

    key: str
    sha256: Sha256
    segments: int
    records: int = Field(description="entries of all kinds")


class Seal(_Strict):
    """`heads` names every writer that was open before this seal, or is new; those closed by earlier seals are left out.

    Days count from when a segment was made, and for roll-ups and films from the seal; 0 lock days promise no end.
    """

    schema_: Literal["pneumoserve.seal/1"] = Field(default="pneumoserve.seal/1", alias="schema")
    number: int = Field(ge=1)
    previous: Sha256 | None = Field(description="SHA-256 of the seal before it, null for the first")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    heads: dict[str, Head] = Field(description="by writer")
    rollups: tuple[Rollup, ...] = Field(description="those that this seal made")
    segment_days: int = Field(ge=0, description="for how long a sealed segment's own object stays beside its roll-up")
    lock_days: int = Field(ge=0, description="for how long roll-ups, and films their records name, are locked")
    software: str = Field(description="the version of pneumoserve that sealed")
    key_id: str
    signature: str = Field(description="base64, ed25519 over this object's canonical JSON without `signature`")

    @property
    def key(self) -> str:
        """The object's key."""
        return seal_key(self.number)

    @property
    def moment(self) -> datetime:
        """`time` as a moment."""
        return datetime.fromisoformat(self.time)


class SealError(PneumoserveError, ValueError):
    """Bytes that are no seal, or not one to trust; `kind` names why."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def seal_key(number: int) -> str:
    """Where a seal stands."""
    return f"{SEALS}{number:08d}.json"


def seal_number(key: str) -> int | None:
    """The number of the seal that stands at a key, None where the key is no seal's."""
    match = _SEAL_KEY.fullmatch(key)
    return int(match[1]) if match else None


def stamp_key(number: int) -> str:
    """Where a seal's time stamp stands."""
    return f"{SEALS}{number:08d}.tsr"


def rollup_key(date: str, number: int, part: int, digest: Sha256) -> str:
    """Where a roll-up stands. Its digest is in the key, so that two sealers at once never write to the same one."""
    return f"{ROLLUPS}date={date}/{number:08d}-{part:04d}-{digest[:12]}.jsonl"


def rollup_number(key: str) -> int | None:
    """The number of the seal that a roll-up was made for, None where the key is no roll-up's."""
    match = _ROLLUP_KEY.fullmatch(key)
    return int(match[1]) if match else None


def split_segments(rollup: bytes) -> Iterator[bytes]:
    """The segments of a roll-up, as bytes.

    Raises:
        ValueError: it is none.
    """
    start = 0
    while start < len(rollup):
        end = rollup.index(b"\n", start)
        header = orjson.loads(rollup[start:end])
        if not isinstance(header, dict) or not isinstance(header.get("count"), int):
            raise ValueError("a roll-up is segments, and each begins with its header")
        for _ in range(header["count"] + 1):
            end = rollup.index(b"\n", end + 1)
        yield rollup[start : end + 1]
        start = end + 1


def sign_seal(seal: Seal, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a seal; its signature is made here."""
    signature = base64.b64encode(key.sign(_payload(seal))).decode()
    return canonical_json(seal.model_copy(update={"signature": signature}))


def verify_seal(body: bytes, trust: Trust) -> Seal:
    """A seal that a trusted sealer signed.

    Raises:
        SealError: it is none, or was altered.
    """
    try:
        seal = Seal.model_validate_json(body)
    except ValidationError:
        raise SealError("altered", "it is no seal that this version reads") from None
    key = trust.keys.get(seal.key_id)
    if key is None or seal.key_id in trust.revoked_keys:
        raise SealError("wrong_signer", f"it is signed by {seal.key_id}, which is no trusted sealer")
    try:
        signature = base64.b64decode(seal.signature, validate=True)
        key.verify(signature, _payload(seal))
    except (binascii.Error, InvalidSignature):
        raise SealError("altered", "its signature does not fit its bytes") from None
    # The same content can be written in other ways, and base64 has spare bits: a seal has one form.
    if canonical_json(seal) != body or base64.b64encode(signature).decode() != seal.signature:
        raise SealError("altered", "it is not in the form that it was written in")
    return seal


def _payload(seal: Seal) -> bytes:
    return canonical_json(seal.model_dump(mode="json", by_alias=True, exclude={"signature"}))


@dataclass(frozen=True)
class SealedRollup:
    """A roll-up with what its seal promises: until when it stays (None: for ever), and its segments' own objects.

    `after` is when the seal before it was made, None for the first one.
    """

    rollup: Rollup
    number: int
    until: datetime | None
    segment_days: timedelta
    after: datetime | None


@dataclass
class Seals:
    """The chain of seals as it was read: its last seal, and what all of them say together.

    `lost`: a seal of the chain is gone, and what it named with it. `digests` are the seals' SHA-256 by their numbers,
    `occupied` the numbers at whose keys the store holds anything, or held it once, `stamps` those of seals that have a
    time stamp.
    """

    number: int = 0
    digest: Sha256 | None = None
    time: str | None = None
    lost: bool = False
    heads: dict[str, Head] = field(default_factory=dict)
    rollups: list[SealedRollup] = field(default_factory=list)
    digests: dict[int, Sha256] = field(default_factory=dict)
    moments: dict[int, datetime] = field(default_factory=dict)
    occupied: set[int] = field(default_factory=set)
    stamps: set[int] = field(default_factory=set)

    def take(self, seal: Seal, body: bytes) -> None:
        """Go on by one seal."""
        until = seal.moment + timedelta(days=seal.lock_days) if seal.lock_days else None
        days, after = timedelta(days=seal.segment_days), self.moment
        self.number, self.digest, self.time = seal.number, digest_of(body), seal.time
        self.digests[seal.number], self.moments[seal.number] = self.digest, seal.moment
        self.heads.update(seal.heads)
        self.rollups += [SealedRollup(rollup, seal.number, until, days, after) for rollup in seal.rollups]

    @property
    def moment(self) -> datetime | None:
        """When the last seal was made."""
        return self.moments.get(self.number)

    @property
    def next_number(self) -> int:
        """The first number after the last seal at whose key nothing is: what is no seal there may be locked."""
        return next(number for number in count(self.number + 1) if number not in self.occupied)

    def compare(self, number: int, digest: Sha256, findings: Findings) -> None:
        """Look for a seal that somebody kept the SHA-256 of."""
        if self.digests.get(number) == digest:
            return
        if number > self.number:
            sentence = f"the seals end at {self.number}, before this one that was kept elsewhere"
            findings.add("cut", seal_key(number), sentence, sealed=True)
        else:
            findings.add("altered", seal_key(number), "it is not the seal that was kept elsewhere", sealed=True)


def read_seals(store: Store, trust: Trust, threads: Executor, findings: Findings) -> Seals:
    """Read and verify the whole chain; whatever is wrong with it goes to `findings`, and the rest is read on.

    Where an object was put over a seal, or a delete marker hides it, the version that is the seal counts.

    Raises:
        StoreError: the store does not answer.
    """
    seals = Seals()
    versions = list_versions(store, SEALS)
    for listed, body in ordered_map(threads, versions, lambda each: _get_present(store, each), _AHEAD):
        number, stamp = seal_number(listed.key), _STAMP_KEY.fullmatch(listed.key)
        if stamp is not None and listed.there:
            seals.stamps.add(int(stamp[1]))
            continue
        if number is None:
            findings.add("added", listed.key, "seals/ holds nothing but seals and their time stamps", sealed=False)
            continue
        seals.occupied.add(number)
        _report_versions(store, listed, body, findings)
        found = _choose(store, listed, body, number, seals.digest, trust)
        if isinstance(found, SealError):
            findings.add(found.kind, listed.key, str(found), sealed=found.kind != "wrong_signer")
        elif found is not None:
            _report_gap(seals, found[0], findings)
            seals.take(*found)
    return seals


def _report_gap(seals: Seals, seal: Seal, findings: Findings) -> None:
    """Whether a seal follows the last one; numbers between that were never seals are no gap."""
    if seal.previous == seals.digest:
        return
    for number in range(seals.number + 1, seal.number):
        seals.lost = True
        findings.add("removed", seal_key(number), "a seal is missing from the chain", sealed=True)
    if seal.number == seals.number + 1:
        findings.add("broken_chain", seal.key, "it does not follow the seal before it", sealed=True)


def _get_present(store: Store, listed: ListedObject) -> bytes | None:
    is_read = listed.there and seal_number(listed.key) is not None
    return _ask(store, partial(store.get, listed.key)) if is_read else None


def _ask(store: Store, read: Callable[[], bytes]) -> bytes | None:
    try:
        return retry(store, read)
    except NotFoundError:
        return None


def _report_versions(store: Store, listed: ListedObject, body: bytes | None, findings: Findings) -> None:
    if listed.deleted:
        findings.add("delete_marker", listed.key, "a delete marker hides a seal, or hid it once", sealed=True)
    if listed.there and body is None:
        findings.add("unreadable", listed.key, "the store does not give it out", sealed=True)
    elif has_other_bytes(store, listed.key, listed.others):
        findings.add("overwritten", listed.key, "it has versions of different bytes", sealed=True)


def _choose(
    store: Store, listed: ListedObject, body: bytes | None, number: int, previous: Sha256 | None, trust: Trust
) -> tuple[Seal, bytes] | SealError | None:
    """The seal of a number: of the versions that are one, that which follows the last seal, else the newest.

    Else what is wrong with the newest version; None where no bytes are there.
    """
    chosen: tuple[Seal, bytes] | None = None
    fault: SealError | None = None
    earlier = (_ask(store, partial(store.get, listed.key, version)) for version in listed.earlier)
    for each in chain([body], earlier):
        if each is None:
            continue
        try:
            seal = verify_seal(each, trust)
        except SealError as error:
            fault = fault or error
            continue
        if seal.number != number:
            fault = fault or SealError("reordered", f"it holds seal {seal.number}")
        elif seal.previous == previous:
            return seal, each
        else:
            chosen = chosen or (seal, each)
    return chosen or fault
