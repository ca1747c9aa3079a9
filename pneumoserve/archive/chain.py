"""One writer's chain: each segment holds the hash of the one before it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pneumoserve
from pneumoserve.archive.segment import Header, Place, key_id_of, seal_segment
from pneumoserve.ids import time_text
from pneumoserve.release.schema import Sha256, digest_of


def writer_name(role: str = "") -> str:
    """A name for this process start: `<host>-<8 hex>`, with a role before it where one is given."""
    told = f"{role}-{socket.gethostname()}" if role else socket.gethostname()
    host = re.sub(r"[^a-z0-9-]", "-", told.lower())[:40].strip("-") or "host"
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

    def next(self, lines: Sequence[bytes], date: str, release: str, last: bool = False) -> tuple[Place, bytes]:
        """The next segment and its place; `lines` are canonical JSON without line ends."""
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
        body = seal_segment(header, lines, self._key)
        self._previous = digest_of(body)
        return header.place, body
