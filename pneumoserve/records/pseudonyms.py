"""What a caller calls a study or a patient: kept as a keyed hash, so that records can be joined and nobody named."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Literal, overload

from pneumoserve.canonical import Sha256
from pneumoserve.errors import PneumoserveError
from pneumoserve.signing import SHORTEST_SECRET, read_secret

# What is hashed: the same text is another hash as each of them.
Kind = Literal["study", "patient", "idempotency", "request", "answer", "instance", "report"]


class ReferenceKeyError(PneumoserveError, ValueError):
    """A file that holds no key for references; the text says what to do."""


class Pseudonyms:
    """HMAC-SHA-256 (RFC 2104) under one key. Without a key, identifiers as short as these could be tried out."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Pseudonyms:
        """The key of a file, all its bytes.

        Raises:
            ReferenceKeyError: there is none, or it is short.
        """
        key = read_secret(path)
        if key is None:
            raise ReferenceKeyError(
                f"{path.name} holds no key for study and patient references; put at least {SHORTEST_SECRET} random "
                "bytes there, and keep them: with another key, the same study is another one."
            )
        return cls(key)

    @overload
    def hash(self, kind: Kind, reference: str) -> Sha256: ...

    @overload
    def hash(self, kind: Kind, reference: None) -> None: ...

    def hash(self, kind: Kind, reference: str | None) -> Sha256 | None:
        """The pseudonym of a reference in hex; None of none."""
        if reference is None:
            return None
        return hmac.new(self._key, f"{kind}\0{reference}".encode(), hashlib.sha256).hexdigest()
