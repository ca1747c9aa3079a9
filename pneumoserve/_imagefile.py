"""What the decoders of `image` share, and JPEG and PNG files as byte streams: what may be kept of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_SOI: Final = b"\xff\xd8"
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_SOS: Final = 0xDA
_FRAME_HEADERS: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
_EOI: Final = 0xD9
# Frame headers, Huffman and arithmetic tables, scans, quantization tables, restart intervals: what decodes the pixels.
_DECODED: Final = {*range(0xC0, 0xD0), _SOS, 0xDB, 0xDD} - {0xC8}
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Transparency is not among them: a gray film has none.
_PNG_KEPT: Final = {b"IHDR", b"PLTE", b"IDAT"}
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class ImageError(ValueError):
    """A film that cannot be read; `status` is the HTTP status that fits, the text is safe to show."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Facts:
    """What a file says of the film, free of anything that names a person.

    `age_years` is the patient's age at the study in years; `None` where the file does not say. Attributes of
    free text are reduced to closed lists, so that a name typed into the wrong field goes nowhere.
    """

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None


def spread(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale values of any range linearly to 0..255 by their own minimum and maximum."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def reencode_free_of_text(data: bytes, kind: str) -> bytes:
    """The same compressed pixels without EXIF, comments, text chunks, profiles, thumbnails or trailing bytes.

    Only the EXIF orientation survives, since it says which side is up.

    Raises:
        ImageError: 400 where the file's structure cannot be walked.
    """
    try:
        return _jpeg(data) if kind == "jpeg" else _png(data)
    except (IndexError, struct.error) as error:
        raise ImageError(400, f"The {kind.upper()} is damaged or cut short; send the complete file.") from error


def jpeg_frame_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the frame header (SOFn, ITU-T T.81 B.2.2) of any JPEG process, None where there is none.

    Raises:
        struct.error: where the file ends before it.
    """
    at = 2
    while True:
        marker, start = _next_marker(data, at)
        if marker in (_EOI, _SOS):
            return None
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, start + 3)
            return width, height
        at = start if marker in _STANDALONE else start + struct.unpack_from(">H", data, start)[0]


def _jpeg(data: bytes) -> bytes:
    out = [_SOI]
    at = 2
    while True:
        marker, start = _next_marker(data, at)
        if marker == _EOI:
            out.append(b"\xff\xd9")
            return b"".join(out)
        if marker in _STANDALONE:
            out.append(bytes((0xFF, marker)))
            at = start
            continue
        (length,) = struct.unpack_from(">H", data, start)
        body = data[start + 2 : start + length]
        at = start + length
        kept = _kept_segment(marker, body)
        if kept is not None:
            out.append(bytes((0xFF, marker)) + struct.pack(">H", len(kept) + 2) + kept)
        if marker == _SOS:
            end = _end_of_scan(data, at)
            out.append(data[at:end])
            at = end


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    """The next marker at or after `at` and where its body starts; a missing end counts as EOI.

    Fill bytes, junk and stuffed zeros are skipped, as decoders do: a zero taken for a marker would keep what follows.
    """
    while (at := data.find(b"\xff", at)) >= 0:
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at < len(data) and data[at] != 0x00:
            return data[at], at + 1
    return _EOI, len(data)


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the entropy-coded bytes that start at `at` end: the next marker that is no restart marker."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != 0x00 and data[at + 1] != 0xFF and data[at + 1] not in _STANDALONE:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _kept_segment(marker: int, body: bytes) -> bytes | None:
    if marker == _APP0:
        # JFIF: version and density, the thumbnail cut off.
        return body[:12] + b"\x00\x00" if body.startswith(b"JFIF\x00") and len(body) >= 14 else None
    if marker == _APP1:
        return _orientation_only(body)
    if marker == _APP14:
        # Adobe's colour transform decides how the components are read.
        return body[:12] if body.startswith(b"Adobe") else None
    return body if marker in _DECODED else None


def _orientation_only(body: bytes) -> bytes | None:
    orientation = _exif_orientation(body)
    if orientation is None or orientation == 1:
        return None
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + struct.pack(">H", 1) + entry + b"\x00\x00\x00\x00"


def _exif_orientation(body: bytes) -> int | None:
    """The orientation (1..8) in the first directory of an EXIF segment, TIFF 6.0 layout."""
    if not body.startswith(b"Exif\x00\x00"):
        return None
    tiff = body[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * index)
            if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return None
    return None


def _png(data: bytes) -> bytes:
    out = [_PNG_SIGNATURE]
    at = len(_PNG_SIGNATURE)
    while True:
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if name in _PNG_KEPT:
            out.append(data[at : at + 12 + length])
        at += 12 + length
        if name == b"IEND":
            # An end of our own: a file's may have a body, which no decoder reads.
            out.append(_PNG_END)
            return b"".join(out)
