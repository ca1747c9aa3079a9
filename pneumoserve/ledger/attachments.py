"""Objects that lines mention: each is kept once, at a key that the SHA-256 of its bytes makes.

What a line is, only its owner knows, so that a ledger is given the function that finds the keys in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pneumoserve.canonical import Sha256
from pneumoserve.ledger.segment import Segment
from pneumoserve.signing import Trust
from pneumoserve.store import Store

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Attachments:
    """A kind of such objects: below which prefix they lie, what one is called, and which keys a line mentions.

    `find_keys` raises ValueError where a line is none.
    """

    prefix: str
    noun: str
    find_keys: Callable[[bytes], Iterable[str]]

    @property
    def missing_sentence(self) -> str:
        """What to say of one that is not there."""
        return f"a record names this {self.noun}, and it is not there"

    def key(self, digest: Sha256) -> str:
        """Where an object is kept, by the digest of its bytes."""
        return f"{self.prefix}sha256/{digest[:2]}/{digest}"

    def digest(self, key: str) -> bytes | None:
        """The digest that an object's key names, None where it is no such key."""
        name = key.rpartition("/")[2]
        return bytes.fromhex(name) if _DIGEST.fullmatch(name) and key == self.key(name) else None

    def keys_in(self, segment: Segment) -> Iterator[str]:
        """The keys that a segment's lines mention.

        Raises:
            ValueError: a line is none.
        """
        for line in segment.lines:
            yield from self.find_keys(line)


@dataclass(frozen=True)
class Ledger:
    """One ledger in a store: whose signatures count in it, and what its lines mention."""

    store: Store
    writers: Trust
    sealers: Trust
    attachments: Attachments
