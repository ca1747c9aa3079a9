"""What a caller calls a study or a patient: kept as a keyed hash, so that records can be joined and nobody named."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Final, Literal

from pneumoserve.release.schema import Sha256

_SHORTEST_KEY: Final = 32


class ReferenceKeyError(ValueError):
    """A file that holds no key for references; the text says what to do."""


class References:
    """HMAC-SHA-256 (RFC 2104) under one key. Without a key, identifiers as short as these could be tried out."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path) -> References:
        """The key of a file, all its bytes.

        Raises:
            ReferenceKeyError: there is none, or it is short.
        """
        try:
            key = path.read_bytes().strip()
        except OSError:
            key = b""
        if len(key) < _SHORTEST_KEY:
            raise ReferenceKeyError(
                f"{path.name} holds no key for study and patient references; put at least {_SHORTEST_KEY} random "
                "bytes there, and keep them: with another key, the same study is another one."
            )
        return cls(key)

    def hashed(self, kind: Literal["study", "patient"], reference: str | None) -> Sha256 | None:
        """The hash of a reference in hex; None of none."""
        if reference is None:
            return None
        return hmac.new(self._key, f"{kind}\0{reference}".encode(), hashlib.sha256).hexdigest()
