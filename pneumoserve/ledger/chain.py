"""One writer's chain: each segment holds the hash of the one before it.

`Chain` makes it, `Position` follows it: whoever walks a chain asks it whether a segment comes next, and if not, why.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pneumoserve
from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.ids import time_text
from pneumoserve.ledger.segment import Header, Segment, SegmentKey, key_id_of, sign_segment

# A writer may begin while a seal is made, and clocks differ; a journal waits for longer.
_LATE: Final = timedelta(days=1)


def writer_name(role: str = "") -> str:
    """A name for this process start: `<host>-<8 hex>`, with a role before it where one is given."""
    named = f"{role}-{socket.gethostname()}" if role else socket.gethostname()
    host = re.sub(r"[^a-z0-9-]", "-", named.lower())[:40].strip("-") or "host"
    return f"{host}-{os.urandom(4).hex()}"


def now_text() -> str:
    """This moment: RFC 3339, UTC, milliseconds."""
    return time_text(datetime.now(UTC))


class Chain:
    """Makes a writer's segments, one after the other."""

    def __init__(self, key: Ed25519PrivateKey, writer: str) -> None:
        self.writer = writer
        self._key = key
        self._sequence = 0
        self._previous: Sha256 | None = None

    def next(self, lines: Sequence[bytes], date: str, release: str, last: bool = False) -> tuple[SegmentKey, bytes]:
        """The next segment and where it belongs; `lines` are canonical JSON without line ends."""
        self._sequence += 1
        header = Header(
            writer=self.writer,
            sequence=self._sequence,
            date=date,
            release=release,
            opened=now_text(),
            count=len(lines),
            previous=self._previous,
            last=last,
            software=pneumoserve.__version__,
            key_id=key_id_of(self._key),
        )
        body = sign_segment(header, lines, self._key)
        self._previous = digest_of(body)
        return header.segment_key, body


@dataclass(frozen=True)
class ChainFault:
    """Why a segment does not come next.

    `continued`: the chain had ended. `added`: there is another of this number. `removed`: one before it is missing.
    `broken_chain`: it holds another hash than that of the one before it.
    """

    kind: Literal["continued", "added", "removed", "broken_chain"]
    sentence: str


@dataclass
class Position:
    """How far a writer's chain was followed; `ended`: nothing may follow."""

    sequence: int = 0
    hash: Sha256 | None = None
    ended: bool = False

    def check(self, segment: Segment) -> ChainFault | None:
        """What is wrong with a segment as the next one; None where it comes next."""
        header = segment.header
        if self.ended:
            return ChainFault("continued", "its writer's chain had ended before it")
        if header.sequence <= self.sequence:
            return ChainFault("added", "its writer has another segment of this number")
        if header.sequence != self.sequence + 1:
            return ChainFault("removed", f"segment {self.sequence + 1} of its writer is not there")
        if header.previous != self.hash:
            return ChainFault("broken_chain", "it does not follow the segment before it")
        return None

    def missing_before(self, sequence: int) -> range:
        """The sequences between here and a later segment."""
        return range(self.sequence + 1, sequence)

    def move_to(self, segment: Segment) -> None:
        """Go on from a segment, whatever was wrong with it."""
        self.sequence, self.hash = segment.header.sequence, segment.hash
        self.ended = segment.header.last


def missing_segments(writer: str, sequences: range) -> str:
    """What to call segments whose day and release nobody knows any more."""
    first = f"{writer}-{sequences.start:08d}.jsonl"
    return first if len(sequences) == 1 else f"{first} to {sequences.stop - 1:08d}.jsonl"


def late_sentence(segment: Segment, sealed: datetime | None) -> str | None:
    """What to say of a writer's first segment that the seal made at `sealed` did not see, though it says it is older.

    None where nothing is to be said, and of all other segments.
    """
    header = segment.header
    if header.sequence != 1 or sealed is None or header.time > sealed - _LATE:
        return None
    return f"it says that it began at {header.opened}, and the seal of {time_text(sealed)} did not see it"
