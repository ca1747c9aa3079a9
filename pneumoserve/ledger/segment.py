"""Segments: signed, chained groups of entries, one object each.

A segment is lines of canonical JSON. The first is its header: which writer's, its place in the writer's chain, and the
hash of the segment before it. Then come the entries, one a line. The last holds an ed25519 signature over every byte
before it. A segment's hash is the SHA-256 of all its bytes, so a chain is changed nowhere without being changed to its
end (the construction of Haber and Stornetta 1991).
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.signing import Trust, key_id

RECORDS: Final = "records/"
_KEY: Final = re.compile(
    r"records/date=(?P<date>\d{4}-\d\d-\d\d)/release=(?P<release>[0-9a-f]{12})/"
    r"(?P<writer>[a-z0-9-]+-[0-9a-f]{8})-(?P<sequence>\d{8})\.jsonl"
)

Fault = Literal["cut", "unreadable", "misplaced", "unknown_signer", "altered"]


class SegmentError(PneumoserveError, ValueError):
    """Bytes that are no segment, or not the one they claim to be; `fault` names why."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, order=True, slots=True)
class SegmentKey:
    """What a segment is kept under. `date` is YYYY-MM-DD in UTC, `sequence` counts from 1."""

    writer: str
    sequence: int
    date: str
    release: str

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{RECORDS}date={self.date}/release={self.release}/{self.writer}-{self.sequence:08d}.jsonl"

    @property
    def line(self) -> str:
        """What all segments of its writer, day and release have in common: their keys grow with the sequence."""
        return f"{self.date}/{self.release}/{self.writer}"

    @classmethod
    def parse(cls, key: str) -> SegmentKey | None:
        """What an object's key names, None where it is no segment's."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        # A listing may be of a million keys, and of few writers, days and releases.
        writer, date, release = (sys.intern(match[name]) for name in ("writer", "date", "release"))
        return cls(writer, int(match["sequence"]), date, release)


class Header(BaseModel):
    """A segment's first line. `previous` is the hash of the writer's segment before it, None for its first."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.segment/1"] = Field(default="pneumoserve.segment/1", alias="schema")
    writer: str
    sequence: int = Field(ge=1)
    date: str
    release: str
    opened: str = Field(description="when it was made: RFC 3339, UTC, milliseconds")
    count: int = Field(ge=0, description="how many entries it holds")
    previous: Sha256 | None
    last: bool = Field(description="whether the writer ends here")
    software: str = Field(description="the version of pneumoserve that wrote it")
    key_id: str

    @property
    def segment_key(self) -> SegmentKey:
        """Where it belongs."""
        return SegmentKey(self.writer, self.sequence, self.date, self.release)

    @property
    def time(self) -> datetime:
        """`opened` as a moment."""
        return datetime.fromisoformat(self.opened)


@dataclass(frozen=True)
class Segment:
    """A segment that was read; `lines` are its entries as bytes, `hash` is over the whole object."""

    header: Header
    lines: tuple[bytes, ...]
    hash: Sha256


def sign_segment(header: Header, lines: Sequence[bytes], key: Ed25519PrivateKey) -> bytes:
    """The bytes of a segment: header, entries, signature."""
    body = b"".join(line + b"\n" for line in (canonical_json(header), *lines))
    return body + _signature_line(key.sign(body))


def read_segment(body: bytes) -> Segment:
    """A segment's parts, unverified but for their count.

    Raises:
        SegmentError: it is no segment, or was cut.
    """
    if not body.endswith(b"\n"):
        raise SegmentError("cut", "its last line is not whole")
    lines = body[:-1].split(b"\n")
    try:
        header = Header.model_validate_json(lines[0])
    except ValidationError:
        raise SegmentError("unreadable", "it has no header that this version reads") from None
    if len(lines) != header.count + 2:
        raise SegmentError("cut", f"it holds {len(lines) - 2} entries and a signature, its header says {header.count}")
    return Segment(header, tuple(lines[1:-1]), digest_of(body))


def verify_segment(body: bytes, trust: Trust) -> Segment:
    """A segment whose bytes a trusted key signed.

    Raises:
        SegmentError: it is no segment, was cut or altered, or its signer is not trusted.
    """
    segment = read_segment(body)
    key = trust.keys.get(segment.header.key_id)
    if key is None or segment.header.key_id in trust.revoked_keys:
        raise SegmentError("unknown_signer", f"it is signed by {segment.header.key_id}, which is not trusted")
    signed = body[: body.rindex(b"\n", 0, -1) + 1]
    try:
        key.verify(_signature(body[len(signed) :]), signed)
    except InvalidSignature:
        raise SegmentError("altered", "its signature does not fit its bytes") from None
    return segment


def check_place(segment: Segment, place: SegmentKey) -> None:
    """See that a segment is the one that belongs at a key.

    Raises:
        SegmentError: it belongs elsewhere.
    """
    right = segment.header.segment_key
    if right != place:
        raise SegmentError("misplaced", f"it holds the segment that belongs to {right.key}")


def _signature(line: bytes) -> bytes:
    try:
        signature = base64.b64decode(orjson.loads(line)["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise SegmentError("altered", "it ends in no signature") from None
    # Base64 has spare bits at its end, and JSON other ways to write the same: one signature has one form.
    if line != _signature_line(signature):
        raise SegmentError("altered", "its signature is not in the form that it was written in")
    return signature


def _signature_line(signature: bytes) -> bytes:
    return canonical_json({"signature": base64.b64encode(signature).decode()}) + b"\n"


def key_id_of(key: Ed25519PrivateKey) -> str:
    """The id of a private key's public half."""
    return key_id(key.public_key())
