"""Where mutators strike, and with which numbers."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.integration.fuzz.seeds import PATIENT_WORD

NUMBERS: Final = (
    0, 1, 2, 3, 4, 7, 8, 12, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 1000, 4095, 4096, 6320,
    16383, 16384, 32767, 32768, 40_000, 65_499, 65_500, 65_534, 65_535, 65_536, 99_999,
    2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1,
)  # fmt: skip


def pick_position(data: bytes, rng: Random) -> int:
    """An offset, in the film's first 700 bytes more often than not: there stand most headers."""
    return rng.randrange(min(len(data), 700) if rng.random() < 0.5 else len(data)) if data else 0


def pick_number(rng: Random, size: int) -> int:
    """A number of `size` bytes: an edge of some range, small, or any."""
    return rng.choice((rng.choice(NUMBERS), rng.randrange(70), rng.randrange(256**size))) % 256**size


def without_patient(data: bytes) -> bytes:
    """The bytes with the patient's name made harmless, its length kept."""
    return data.replace(PATIENT_WORD, b"NOPATIENT")
