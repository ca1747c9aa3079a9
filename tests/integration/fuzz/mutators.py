"""Changes to a film: blind ones of bytes, and ones that know the format they break.

Each takes the bytes and a source of chance and gives other bytes; the same chance gives the same bytes. What a mutator
moves or copies is rid of the patient's name first: moved into the pixels, no reader could tell it from them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from tests.integration.fuzz.mutate_dicom import DICOM_MUTATORS
from tests.integration.fuzz.mutate_raster import J2K_MUTATORS, JPEG_MUTATORS, PNG_MUTATORS, Mutator
from tests.integration.fuzz.seeds import seeds
from tests.integration.fuzz.spots import NUMBERS, pick_position, without_patient


def make_mutant(number: int) -> tuple[str, bytes]:
    """The seed's name and the bytes of mutant `number`; every number is another mutant of the seeds in turn."""
    names = list(seeds())
    name = names[number % len(names)]
    return name, mutate(seeds()[name], Random(number))


def film_of(name: str) -> bytes:
    """The bytes of a film by its name: a mutant's number, or a file's path."""
    return make_mutant(int(name))[1] if name.isdigit() else Path(name).read_bytes()


def mutate(data: bytes, rng: Random) -> bytes:
    """One to four changes, of the film's own format more often than not."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(_mutators_of(data) if rng.random() < 0.7 else BYTE_MUTATORS)(data, rng)
    return data


def _mutators_of(data: bytes) -> tuple[Mutator, ...]:
    if data[128:132] == b"DICM":
        return DICOM_MUTATORS
    if data.startswith(b"\x89PNG"):
        return PNG_MUTATORS
    if data.startswith(b"\xff\x4f\xff\x51"):
        return J2K_MUTATORS
    return JPEG_MUTATORS if data.startswith(b"\xff\xd8") else BYTE_MUTATORS


def flip_bits(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[pick_position(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_byte(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    out[pick_position(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return bytes(out)


def set_number(data: bytes, rng: Random) -> bytes:
    """A number of 2 or 4 bytes, in either order."""
    size, at = rng.choice((2, 4)), pick_position(data, rng)
    order = rng.choice(("little", "big"))
    value = rng.choice((rng.choice(NUMBERS), int.from_bytes(data[at : at + size], order) + rng.randint(-4, 4)))
    return data[:at] + (value % 256**size).to_bytes(size, order) + data[at + size :]


def delete_block(data: bytes, rng: Random) -> bytes:
    at, length = _block(data, rng)
    return data[:at] + data[at + length :]


def repeat_block(data: bytes, rng: Random) -> bytes:
    at, length = _block(data, rng)
    copies = rng.choice((1, 1, 2, 8, 200 if length < 200 else 3))
    return data[: at + length] + without_patient(data[at : at + length]) * copies + data[at + length :]


def insert_bytes(data: bytes, rng: Random) -> bytes:
    at = pick_position(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 3, 8, 64, 1000))) + data[at:]


def splice(data: bytes, rng: Random) -> bytes:
    """Put a block of another seed in place of one of this film's."""
    other = without_patient(rng.choice(list(seeds().values())))
    at, length = _block(data, rng)
    start, size = _block(other, rng)
    return data[:at] + other[start : start + size] + data[at + length :]


def swap_blocks(data: bytes, rng: Random) -> bytes:
    bare = without_patient(data)
    first, second, third = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return bare[:first] + bare[second:third] + bare[first:second] + bare[third:]


def cut_end(data: bytes, rng: Random) -> bytes:
    return data[: max(1, len(data) - rng.choice((1, 2, 16, rng.randrange(len(data)))))]


def add_tail(data: bytes, rng: Random) -> bytes:
    return data + rng.choice(
        (b"\0", b"\0" * 1000, rng.randbytes(100), without_patient(data), zlib.compress(bytes(100)))
    )


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    at = pick_position(data, rng)
    return at, min(len(data) - at, rng.choice((1, 2, 4, 8, 16, 64, rng.randrange(1, len(data) + 1))))


BYTE_MUTATORS: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (
    flip_bits, flip_bits, set_byte, set_number, set_number, delete_block, repeat_block, insert_bytes, splice,
    swap_blocks, cut_end, add_tail,
)  # fmt: skip
