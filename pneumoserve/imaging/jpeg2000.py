"""JPEG 2000 codestreams (ITU-T T.800): headers, limits, and the copy that may be kept, without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pneumoserve.imaging.metadata import ImageError

# What a decoder allocates follows from the headers alone, at some 6 kB a tile, 100 bytes a precinct and 200 bytes a
# code-block. A film of 40 megapixels in tiles of 128 x 128 has 2,440 of them; in code-blocks of 16 x 16, 208,000.
MAX_TILES: Final = 4_096
MAX_PRECINCTS: Final = 65_536
MAX_CODE_BLOCKS: Final = 262_144
# Layers times precincts is the number of packets.
MAX_PACKETS: Final = 1_048_576
MAX_SEGMENTS: Final = 20_000

_SOC, _SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_PPM, _PPT = 0xFF60, 0xFF61
# SIZ, capabilities, coding style, quantization, region of interest, progression order: what decodes the pixels.
# Comments (COM) go. So do lists of lengths (TLM, PLM, PLT), which decoders do not need and the copy would belie.
_DECODED: Final = {0xFF50, _SIZ, _COD, _COC, 0xFF56, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F}
_BOXES: Final = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_DAMAGED: Final = "The DICOM object's JPEG 2000 codestream is damaged or cut short; send the complete file."


@dataclass(frozen=True)
class Codestream:
    """A codestream of one component by its header. `copy` holds the same coded pixels and no comment."""

    copy: bytes
    width: int
    height: int
    precision: int


def read_codestream(data: bytes) -> Codestream:
    """Read the header of a codestream, alone or in JP2 boxes, and make the copy that may be kept: the bare codestream.

    A copy of the copy is the copy.

    Raises:
        ImageError: 400 damaged or against the limits, 415 more than one component, or subsampled.
    """
    try:
        return _Reader(_unwrap(data)).read()
    except (IndexError, struct.error) as error:
        raise ImageError(400, _DAMAGED) from error


def _unwrap(data: bytes) -> bytes:
    """The codestream of a JP2 file (T.800 Annex I), or the data themselves.

    DICOM wants the bare codestream, but some devices write the file. A palette would change what it decodes to.
    """
    if not data.startswith(_BOXES):
        return data
    at = 0
    for _ in range(MAX_SEGMENTS):
        length, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = at + length if length else len(data)
        if end < start or end > len(data):
            break
        if name == b"jp2h" and (b"pclr" in data[start:end] or b"cmap" in data[start:end]):
            raise ImageError(415, "The DICOM object's JPEG 2000 file has a palette; send the film in gray.")
        if name == b"jp2c":
            return data[start:end]
        at = end
    raise ImageError(400, _DAMAGED)


class _Reader:
    """One walk over the marker segments of a codestream."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._segments = 0
        self._size = (0, 0)
        self._tile = (0, 0)
        self._tiles = 0

    def read(self) -> Codestream:
        data = self._data
        if struct.unpack_from(">HH", data) != (_SOC, _SIZ):
            raise ImageError(400, _DAMAGED)
        precision = self._read_size(4)
        head, at = self._read_header(2, _SOT)
        out = [data[:2], head]
        while struct.unpack_from(">H", data, at)[0] == _SOT:
            header, body, at = self._read_tile_part(at)
            out += header, data[body:at]
            if len(data) - at < 2:
                # Without an end the codestream is whole all the same if its last tile-part is.
                break
        if len(out) == 2:
            raise ImageError(400, _DAMAGED)
        out.append(struct.pack(">H", _EOC))
        return Codestream(copy=b"".join(out), width=self._size[0], height=self._size[1], precision=precision)

    def _read_size(self, at: int) -> int:
        """Take over SIZ (A.5.1), whose length is at `at`; the precision."""
        _, _, x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, components = struct.unpack_from(
            ">HHIIIIIIIIH", self._data, at
        )
        if components != 1:
            raise ImageError(415, "The DICOM object's JPEG 2000 codestream is not in gray (one component).")
        depth, step_x, step_y = struct.unpack_from(">BBB", self._data, at + 38)
        if (step_x, step_y) != (1, 1):
            raise ImageError(415, "The DICOM object's JPEG 2000 codestream is subsampled; send it in full resolution.")
        if not (x0 < x1 and y0 < y1 and tile_width and tile_height and tile_x0 <= x0 and tile_y0 <= y0):
            raise ImageError(400, _DAMAGED)
        self._size = x1 - x0, y1 - y0
        self._tile = min(tile_width, x1 - x0), min(tile_height, y1 - y0)
        self._tiles = _ceil(x1 - tile_x0, tile_width) * _ceil(y1 - tile_y0, tile_height)
        if self._tiles > MAX_TILES:
            raise ImageError(400, f"The DICOM object's JPEG 2000 codestream has more than {MAX_TILES} tiles.")
        return int(depth & 0x7F) + 1

    def _read_header(self, at: int, until: int) -> tuple[bytes, int]:
        """What may be kept of the marker segments from `at` on, and where the marker `until` stands behind them."""
        out: list[bytes] = []
        while True:
            (marker,) = struct.unpack_from(">H", self._data, at)
            if marker == until:
                return b"".join(out), at
            (length,) = struct.unpack_from(">H", self._data, at + 2)
            self._count_segment()
            end = at + 2 + length
            if length < 2 or end > len(self._data) or marker < 0xFF00:
                raise ImageError(400, _DAMAGED)
            if marker in (_PPM, _PPT):
                raise ImageError(415, "The DICOM object's JPEG 2000 codestream has packed headers; write it without.")
            if marker in (_COD, _COC):
                self._check_style(marker, self._data[at + 4 : end])
            if marker in _DECODED:
                out.append(self._data[at:end])
            at = end

    def _read_tile_part(self, at: int) -> tuple[bytes, int, int]:
        """The header to keep of the tile-part at `at` (A.4.2), where its data begin, and where they end."""
        self._count_segment()
        _, length, index, size, part, parts = struct.unpack_from(">HHHIBB", self._data, at)
        head, data_at = self._read_header(at + 12, _SOD)
        body = data_at + 2
        end = at + size if size else self._data.find(b"\xff\xd9", body)
        if length != 10 or not body <= end <= len(self._data):
            raise ImageError(400, _DAMAGED)
        kept = 12 + len(head) + 2 + end - body
        return (
            struct.pack(">HHHIBB", _SOT, length, index, kept, part, parts) + head + struct.pack(">H", _SOD),
            body,
            end,
        )

    def _count_segment(self) -> None:
        self._segments += 1
        if self._segments > MAX_SEGMENTS:
            raise ImageError(400, f"The DICOM object's JPEG 2000 codestream has more than {MAX_SEGMENTS} segments.")

    def _check_style(self, marker: int, body: bytes) -> None:
        """Hold the precincts, packets and code-blocks that a coding style (A.6.1, A.6.2) makes to the limits."""
        layers = struct.unpack_from(">H", body, 2)[0] if marker == _COD else 1
        style, at = body[0 if marker == _COD else 1], 5 if marker == _COD else 2
        levels, block_width, block_height = body[at], (body[at + 1] & 15) + 2, (body[at + 2] & 15) + 2
        if levels > 32 or block_width > 10 or block_height > 10 or block_width + block_height > 12:
            raise ImageError(400, _DAMAGED)
        precincts = body[at + 5 : at + 6 + levels] if style & 1 else b"\xff" * (levels + 1)
        if len(precincts) != levels + 1:
            raise ImageError(400, _DAMAGED)
        counts = list(self._count(levels, precincts, block_width, block_height))
        all_precincts = self._tiles * sum(count for count, _ in counts)
        blocks = self._tiles * sum(count for _, count in counts)
        if all_precincts > MAX_PRECINCTS or blocks > MAX_CODE_BLOCKS or layers * all_precincts > MAX_PACKETS:
            raise ImageError(
                400,
                "The DICOM object's JPEG 2000 codestream is cut into too many parts; write it with default settings.",
            )

    def _count(self, levels: int, precincts: bytes, block_width: int, block_height: int) -> Iterator[tuple[int, int]]:
        """Precincts and code-blocks of a tile at each resolution, coarsest first."""
        for resolution, exponents in enumerate(precincts):
            width, height = (_ceil(side, 1 << (levels - resolution)) for side in self._tile)
            wide, high = exponents & 15, exponents >> 4
            # Below the coarsest resolution a precinct spans three bands of half its size.
            halved = min(resolution, 1)
            yield (
                _ceil(width, 1 << wide) * _ceil(height, 1 << high),
                _ceil(width, 1 << min(block_width, max(wide - halved, 0)))
                * _ceil(height, 1 << min(block_height, max(high - halved, 0))),
            )


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
