"""PNG files as byte streams, and gray values of any depth as 8-bit pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from pneumoserve.imaging.metadata import ImageError

# Encoders write pixels in chunks of 8 KiB or more; a file of 32 MiB has some 4,000 of these.
MAX_CHUNKS: Final = 16_384

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_DAMAGED: Final = "The PNG is damaged or cut short; send the complete file."
_HEADER_BYTES: Final = 13
_PALETTE: Final = 3
_BLOCK_PIXELS: Final = 1 << 20
_MAX_LEVEL: Final = 65_535

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_Pixel = TypeVar("_Pixel", np.uint8, np.uint16)
ReadRows = Callable[[int, int], Codes]
Values = Callable[[Codes], npt.NDArray[Any]]


def spread(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale values of any range linearly to 0..255 by their own minimum and maximum."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def to_levels(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint16], float, float]:
    """Values as whole numbers from 0 to 65535, with `base` and `step`: each value is about base + step * its number.

    Whole numbers that fit stay as they are; if some are negative all are moved. Others are spread.
    """
    wide = values.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    base, step = min(low, 0.0), 1.0
    if high - base > _MAX_LEVEL or not (wide == np.rint(wide)).all():
        base, step = low, (high - low) / _MAX_LEVEL or 1.0
    return np.rint((wide - base) / step).astype(np.uint16), base, step


def map_to_gray(read_rows: ReadRows, width: int, height: int, values_of: Values) -> npt.NDArray[np.uint8]:
    """Pixels of shape [height, width]: the values that codes stand for, spread over 0..255 by those that occur.

    `read_rows(top, bottom)` gives the codes of some rows. Each code that occurs is computed once, so a film of 40
    megapixels needs no floating-point numbers of its size.
    """
    codes = find_codes(read_rows, width, height)
    return map_codes(read_rows, width, height, codes, spread(values_of(codes)))


def find_codes(read_rows: ReadRows, width: int, height: int) -> npt.NDArray[np.uint16]:
    """The codes that occur, each once, in rising order."""
    occurs = np.zeros(1 << 16, dtype=np.bool_)
    for top, bottom in _blocks(width, height):
        occurs[read_rows(top, bottom)] = True
    return np.flatnonzero(occurs).astype(np.uint16)


def map_codes(
    read_rows: ReadRows, width: int, height: int, codes: npt.NDArray[np.uint16], values: npt.NDArray[_Pixel]
) -> npt.NDArray[_Pixel]:
    """Pixels of shape [height, width]: of each of the `codes` the value at its place in `values`."""
    table = np.zeros(1 << 16, dtype=values.dtype)
    table[codes] = values
    pixels = np.empty((height, width), dtype=values.dtype)
    for top, bottom in _blocks(width, height):
        pixels[top:bottom] = table[read_rows(top, bottom)]
    return pixels


def _blocks(width: int, height: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


@dataclass(frozen=True)
class Png:
    """A PNG by its header. `copy` holds the same coded pixels and nothing else."""

    copy: bytes
    width: int
    height: int


def read_png(data: bytes) -> Png:
    """Read the header of a PNG and make the copy that may be kept, free of text, profiles and bytes after the end.

    Transparency is not kept: a gray film has none. A copy of the copy is the copy.

    Raises:
        ImageError: 400 damaged or against the limits, 415 an animation.
    """
    try:
        return _read_png(data)
    except (IndexError, struct.error) as error:
        raise ImageError(400, _DAMAGED) from error


def _read_png(data: bytes) -> Png:
    length, name, width, height, _, color = struct.unpack_from(">I4sIIBB", data, len(_SIGNATURE))
    if (length, name) != (_HEADER_BYTES, b"IHDR"):
        raise ImageError(400, _DAMAGED)
    kept = {b"IDAT", b"PLTE"} if color == _PALETTE else {b"IDAT"}
    at = len(_SIGNATURE) + 12 + _HEADER_BYTES
    out = [data[:at]]
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name == b"IEND":
            # An end of our own: a file's may have a body, which no decoder reads.
            return Png(copy=b"".join((*out, _END)), width=width, height=height)
        if end > len(data) or name == b"IHDR":
            raise ImageError(400, _DAMAGED)
        if name == b"acTL" and struct.unpack_from(">I", data, at + 8)[0] > 1:
            raise ImageError(415, "The file holds several frames; send one film a file.")
        if name in kept:
            out.append(data[at:end])
        at = end
    raise ImageError(400, f"The PNG has more than {MAX_CHUNKS} chunks; save it anew.")
