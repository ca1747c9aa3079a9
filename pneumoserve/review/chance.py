"""Chance that can be checked later: a keyed hash decides, and the key is published once nothing hangs on it any more.

Nobody without the key can tell beforehand which study is drawn, and nobody with it can draw otherwise: its SHA-256 is
on record with each draw.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Final, Literal

from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.signing import SHORTEST_SECRET, read_secret

NUMBERS: Final = 2.0**256


class ChanceKeyError(PneumoserveError, ValueError):
    """A file that holds no key for draws; the text says what to do."""

    exit_code = 2


class Chance:
    """HMAC-SHA-256 under one key, as a number from 0 to 1 for each study."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Chance:
        """The key of a file, all its bytes but white space at both ends.

        Raises:
            ChanceKeyError: there is none, or it is short.
        """
        key = read_secret(path)
        if key is None:
            raise ChanceKeyError(
                f"{path.name} holds no key for draws; put at least {SHORTEST_SECRET} random bytes there, and keep them "
                "secret until you publish them."
            )
        return cls(key)

    @property
    def key_id(self) -> Sha256:
        """SHA-256 of the key: it commits to the key, and tells nothing of it."""
        return digest_of(self._key)

    def draws(self, purpose: Literal["sample", "second_reading"], case_id: str, probability: float) -> bool:
        """Whether a study is drawn; of a higher probability, all that a lower one draws, and more."""
        return self.number(purpose, case_id) < probability * NUMBERS

    def number(self, purpose: Literal["sample", "second_reading"], case_id: str) -> int:
        """The number of a study, from 0 to `NUMBERS`; studies with the lowest ones are drawn."""
        digest = hmac.digest(self._key, f"{purpose}\0{case_id}".encode(), hashlib.sha256)
        return int.from_bytes(digest)
