"""JPEG and JPEG-LS streams: their headers and limits, and the copy that may be kept, without decoding them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from pneumoserve.imaging.metadata import ImageError

LOSSLESS: Final = 0xC3
JPEG_LS: Final = 0xF7

# A scan of a few bytes costs a progressive decoder a pass over the whole film. Encoders write some ten, optimisers up
# to some thirty; libjpeg-turbo advises a limit of at most 1,000 (LJT-01-004), at which a film of 40 MP takes 30 s.
MAX_SCANS: Final = 64
MAX_SEGMENTS: Final = 2_000

_SOI: Final = b"\xff\xd8"
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_FRAME_HEADERS: Final = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
# Frame headers, Huffman and arithmetic tables, scans, quantization tables, restart intervals, JPEG-LS parameters: what
# decodes the pixels.
_LSE: Final = 0xF8
_DECODED: Final = {*range(0xC0, 0xD0), _SOS, 0xDB, 0xDD, JPEG_LS, _LSE} - {0xC8}
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
# A marker that begins a segment or ends the stream. Stuffed zeros, fill bytes, restart markers and junk are none: a
# zero taken for a marker would keep what follows.
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# In a JPEG-LS scan a byte below 0x80 after 0xFF is data (ITU-T T.87 A.1).
_JPEG_LS_MARKER: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")


@dataclass(frozen=True)
class Jpeg:
    """A stream by its headers. `copy` holds the same coded pixels and no text; `process` is the SOF marker's code.

    `orientation` is the EXIF one (1..8), as the copy has it too.
    """

    copy: bytes
    process: int
    width: int
    height: int
    precision: int
    components: int
    orientation: int


def read_jpeg(data: bytes, *, bare: bool = False) -> Jpeg:
    """Read the headers of a JPEG or JPEG-LS stream and make the copy that may be kept.

    The copy is free of comments, thumbnails, profiles, junk between segments and bytes after the end. Of EXIF it keeps
    the orientation, unless it is `bare`: then no application segment stays. A copy of the copy is the copy.

    Raises:
        ImageError: 400 damaged or against the limits, 415 where further pictures follow.
    """
    try:
        return _Reader(data, bare).read()
    except (IndexError, struct.error) as error:
        raise ImageError(400, _DAMAGED) from error


_DAMAGED: Final = "The JPEG is damaged or cut short; send the complete file."


class _Reader:
    """One walk over the segments of a stream."""

    def __init__(self, data: bytes, bare: bool) -> None:
        self._data = data
        self._bare = bare
        self._out = [_SOI]
        self._frame: tuple[int, int, int, int, int] | None = None
        self._orientation = 1
        self._scans = 0
        self._kept_once: set[int] = set()

    def read(self) -> Jpeg:
        at = 2
        for _ in range(MAX_SEGMENTS):
            marker, at = self._next_marker(at)
            if marker == _EOI:
                return self._finish()
            at = self._read_segment(marker, at)
        raise ImageError(400, f"The JPEG has more than {MAX_SEGMENTS} segments; save it anew without metadata.")

    def _next_marker(self, at: int) -> tuple[int, int]:
        """The next marker at or after `at` and where its body starts."""
        found = _MARKER.search(self._data, at)
        if found is None:
            raise ImageError(400, _DAMAGED)
        return self._data[found.start() + 1], found.end()

    def _read_segment(self, marker: int, start: int) -> int:
        """Take over what may be kept of a segment, and of the scan behind it; where they end."""
        (length,) = struct.unpack_from(">H", self._data, start)
        end = start + length
        if marker == _SOI[1] or length < 2 or end > len(self._data):
            raise ImageError(400, _DAMAGED)
        body = self._data[start + 2 : end]
        if marker in _FRAME_HEADERS:
            self._read_frame_header(marker, body)
        kept = self._keep(marker, body)
        if kept is not None:
            self._out.append(struct.pack(">BBH", 0xFF, marker, len(kept) + 2) + kept)
        return self._read_scan(end) if marker == _SOS else end

    def _read_frame_header(self, marker: int, body: bytes) -> None:
        if self._frame is not None:
            raise ImageError(400, "The JPEG has several frame headers; save it anew.")
        precision, height, width, components = struct.unpack_from(">BHHB", body)
        self._frame = marker, width, height, precision, components

    def _read_scan(self, start: int) -> int:
        if self._frame is None:
            raise ImageError(400, _DAMAGED)
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise ImageError(400, f"The JPEG has more than {MAX_SCANS} scans; save it as a baseline JPEG.")
        marker = _JPEG_LS_MARKER if self._frame[0] == JPEG_LS else _MARKER
        found = marker.search(self._data, start)
        if found is None:
            raise ImageError(400, _DAMAGED)
        self._out.append(self._data[start : found.start()])
        return found.start()

    def _keep(self, marker: int, body: bytes) -> bytes | None:
        if marker == _LSE and body[:1] != b"\x01":
            # Mapping tables, or another size than the frame header's (T.87 C.2.4.1).
            raise ImageError(415, "The JPEG-LS stream has a mapping table or an extended size; write it without.")
        if marker in _DECODED:
            return body
        return None if self._bare or marker in self._kept_once else self._keep_of_application(marker, body)

    def _keep_of_application(self, marker: int, body: bytes) -> bytes | None:
        if marker == _APP0 and body.startswith(b"JFIF\x00") and len(body) >= 14:
            self._kept_once.add(marker)
            # Version and density, the thumbnail cut off.
            return body[:12] + b"\x00\x00"
        if marker == _APP1 and body.startswith(b"Exif\x00\x00"):
            self._kept_once.add(marker)
            self._orientation = _exif_orientation(body)
            return None if self._orientation == 1 else _orientation_segment(self._orientation)
        if marker == _APP2 and body.startswith(b"MPF\x00"):
            raise ImageError(415, "The file holds several frames; send one film a file.")
        if marker == _APP14 and body.startswith(b"Adobe"):
            self._kept_once.add(marker)
            # Adobe's colour transform decides how the components are read.
            return body[:12]
        return None

    def _finish(self) -> Jpeg:
        if self._frame is None or not self._scans:
            raise ImageError(400, _DAMAGED)
        process, width, height, precision, components = self._frame
        return Jpeg(
            copy=b"".join((*self._out, b"\xff\xd9")),
            process=process,
            width=width,
            height=height,
            precision=precision,
            components=components,
            orientation=self._orientation,
        )


def _orientation_segment(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + struct.pack(">H", 1) + entry + b"\x00\x00\x00\x00"


def _exif_orientation(body: bytes) -> int:
    """The orientation (1..8) in the first directory of an EXIF segment, TIFF 6.0 layout; 1 where it has none.

    It is a SHORT by the standard; one of another type is ignored, as browsers do.
    """
    tiff = body[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * index)
            if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return 1
    return 1
