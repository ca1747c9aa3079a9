"""Seals: the sealer's own chain, which says how far each writer's chain had come, and where its segments are kept.

A seal is one object of canonical JSON, signed with the sealer's key, holding the hash of the seal before it. It names
the roll-ups it made: objects that hold whole segments, byte for byte, one after the other. A roll-up no seal names is
what a sealer left that was stopped, and says nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.archive.store import NotFoundError, ObjectStore
from pneumoserve.archive.walk import Findings, Held, Kind, held_below, in_order, overwritten, patiently
from pneumoserve.release.schema import Sha256, canonical_json, digest_of
from pneumoserve.release.signing import Trust

SEALS: Final = "seals/"
ROLLUPS: Final = "rollups/"
_SEAL_KEY: Final = re.compile(r"seals/(\d{8})\.json")
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


class SealError(ValueError):
    """Bytes that are no seal, or not one to trust; `kind` names why."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def seal_key(number: int) -> str:
    """Where a seal stands."""
    return f"{SEALS}{number:08d}.json"


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


def signed_seal(seal: Seal, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a seal; its signature is made here."""
    signature = base64.b64encode(key.sign(_signed_part(seal))).decode()
    return canonical_json(seal.model_copy(update={"signature": signature}))


def verified_seal(body: bytes, trust: Trust) -> Seal:
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
        key.verify(signature, _signed_part(seal))
    except (binascii.Error, InvalidSignature):
        raise SealError("altered", "its signature does not fit its bytes") from None
    # The same content can be written in other ways, and base64 has spare bits: a seal has one form.
    if canonical_json(seal) != body or base64.b64encode(signature).decode() != seal.signature:
        raise SealError("altered", "it is not in the form that it was written in")
    return seal


def _signed_part(seal: Seal) -> bytes:
    return canonical_json(seal.model_dump(mode="json", by_alias=True, exclude={"signature"}))


@dataclass(frozen=True)
class SealedRollup:
    """A roll-up with what its seal promises: until when it stays (None: for ever), and its segments' own objects."""

    rollup: Rollup
    number: int
    until: datetime | None
    segment_days: timedelta


@dataclass
class Seals:
    """The chain of seals as it was read: its last seal, and what all of them say together."""

    number: int = 0
    digest: Sha256 | None = None
    time: str | None = None
    count: int = 0
    lost: bool = False
    heads: dict[str, Head] = field(default_factory=dict)
    rollups: list[SealedRollup] = field(default_factory=list)

    def take(self, seal: Seal, body: bytes) -> None:
        """Go on by one seal."""
        until = seal.moment + timedelta(days=seal.lock_days) if seal.lock_days else None
        days = timedelta(days=seal.segment_days)
        self.number, self.digest, self.time = seal.number, digest_of(body), seal.time
        self.count += 1
        self.heads.update(seal.heads)
        self.rollups += [SealedRollup(rollup, seal.number, until, days) for rollup in seal.rollups]


def read_seals(store: ObjectStore, trust: Trust, threads: Executor, findings: Findings) -> Seals:
    """Read and verify the whole chain; whatever is wrong with it goes to `findings`, and the rest is read on.

    Raises:
        StoreError: the store does not answer.
    """
    seals = Seals()
    for held, body in in_order(threads, held_below(store, SEALS), lambda each: _body_of(store, each), _AHEAD):
        seal = _judged(store, held, body, trust, findings)
        if seal is None or body is None:
            continue
        for number in range(seals.number + 1, seal.number):
            seals.lost = True
            findings.add("removed", seal_key(number), "a seal is missing from the chain", sealed=True)
        if seal.number == seals.number + 1 and seal.previous != seals.digest:
            findings.add("broken_chain", held.key, "it does not follow the seal before it", sealed=True)
        seals.take(seal, body)
    return seals


def _body_of(store: ObjectStore, held: Held) -> bytes | None:
    if not held.there:
        return None
    try:
        return patiently(store, partial(store.get, held.key))
    except NotFoundError:
        return None


def _judged(store: ObjectStore, held: Held, body: bytes | None, trust: Trust, findings: Findings) -> Seal | None:
    """The seal at a key, None where there is none to go by."""
    match = _SEAL_KEY.fullmatch(held.key)
    if match is None:
        findings.add("added", held.key, "seals/ holds nothing but seals", sealed=False)
        return None
    if held.deleted:
        findings.add("delete_marker", held.key, "a delete marker hides a seal, or hid it once", sealed=True)
    if body is None:
        if held.there:
            findings.add("unreadable", held.key, "the store does not give it out", sealed=True)
        return None
    if overwritten(store, held.key, held.others):
        findings.add("overwritten", held.key, "it has versions of different bytes", sealed=True)
    try:
        seal = verified_seal(body, trust)
    except SealError as error:
        findings.add(error.kind, held.key, str(error), sealed=error.kind != "wrong_signer")
        return None
    if seal.number != int(match[1]):
        findings.add("reordered", held.key, f"it holds seal {seal.number}", sealed=True)
        return None
    return seal
