"""Frames of DICOM objects in each transfer syntax: the copy that may be kept, and the codes of the pixels.

A compressed frame is decoded only after its own header was read here and fits the object's: a codec allocates what the
stream says. The codec is fixed for each syntax, so that an extra package changes no pixel.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt
from openjpeg import decode as decode_jpeg2000  # type: ignore[attr-defined]
from PIL import Image

from pneumoserve.imaging.jpeg import JPEG_LS, LOSSLESS, Jpeg, read_jpeg
from pneumoserve.imaging.jpeg2000 import read_codestream
from pneumoserve.imaging.metadata import ImageError
from pneumoserve.imaging.raster import Codes

NATIVE_SYNTAXES: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
JPEG2000_SYNTAXES: Final = frozenset({
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",  # High-Throughput
})  # fmt: skip
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_RLE: Final = "1.2.840.10008.1.2.5"
# The processes that a syntax may hold. Progressive frames are none of DICOM's any more, but were.
_PROCESSES: Final[dict[str, frozenset[int]]] = {
    "1.2.840.10008.1.2.4.50": frozenset({0xC0, 0xC1, 0xC2}),
    "1.2.840.10008.1.2.4.51": frozenset({0xC0, 0xC1, 0xC2}),
    "1.2.840.10008.1.2.4.57": frozenset({LOSSLESS}),
    "1.2.840.10008.1.2.4.70": frozenset({LOSSLESS}),
    "1.2.840.10008.1.2.4.80": frozenset({JPEG_LS}),
    "1.2.840.10008.1.2.4.81": frozenset({JPEG_LS}),
}
ACCEPTED_SYNTAXES: Final = NATIVE_SYNTAXES | JPEG2000_SYNTAXES | {_RLE} | _PROCESSES.keys()

# Bytes that an RLE segment may decode to beyond its pixels; encoders pad.
_RLE_SLACK: Final = 64


@dataclass(frozen=True)
class Shape:
    """What an object says of its pixels; `vr` is the pixel element's."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    vr: str

    @property
    def native_bytes(self) -> int:
        """The size of the uncompressed pixels."""
        return self.rows * self.columns * self.bits_allocated // 8


def copy_frame(data: bytes, syntax: str, shape: Shape) -> bytes:
    """Hold a frame to what the object says of it, and copy what may be kept: the coded pixels and nothing else.

    A copy of the copy is the copy.

    Raises:
        ImageError: 400 damaged or of another size, 415 of a form that is not accepted.
    """
    if syntax in NATIVE_SYNTAXES:
        size = shape.native_bytes
        if len(data) < size:
            raise ImageError(400, "The DICOM object's pixel data is cut short; send the complete file.")
        return data[: size + size % 2].ljust(size + size % 2, b"\0")
    if syntax == _RLE:
        return _encode_rle(_decode_rle(data, shape))
    if syntax in JPEG2000_SYNTAXES:
        stream = read_codestream(data)
        _check_fit(shape, stream.width, stream.height, stream.precision)
        return stream.copy
    jpeg = read_jpeg(data, bare=True)
    if jpeg.components != 1:
        raise ImageError(415, "The DICOM object's JPEG frame is not in gray (one component).")
    if jpeg.process not in _PROCESSES[syntax]:
        raise ImageError(415, "The DICOM object's JPEG frame is of another process than its transfer syntax says.")
    _check_fit(shape, jpeg.width, jpeg.height, jpeg.precision)
    return jpeg.copy


def decode_frame(data: bytes, syntax: str, shape: Shape) -> tuple[Codes, int]:
    """The codes of the pixels in a copied frame, of shape [rows, columns], and how many bits of a code count.

    Codes are the bits as they stand, whatever sign they are meant to have.
    """
    bits = shape.bits_stored
    if syntax in NATIVE_SYNTAXES:
        codes = _decode_native(data, syntax, shape)
    elif syntax == _RLE:
        codes = _join_planes(_decode_rle(data, shape))
    elif syntax in JPEG2000_SYNTAXES:
        bits = read_codestream(data).precision
        codes = decode_jpeg2000(data, j2k_format=0)
    else:
        header = read_jpeg(data, bare=True)
        bits = header.precision if header.process == JPEG_LS else bits
        codes = _decode_jpeg(data, header)
    return codes.view(f"u{codes.dtype.itemsize}").reshape(shape.rows, shape.columns), bits


def _check_fit(shape: Shape, width: int, height: int, precision: int) -> None:
    if (width, height) != (shape.columns, shape.rows):
        raise ImageError(400, "The DICOM object's compressed frame does not have the size that its header says.")
    if not 2 <= precision <= shape.bits_allocated:
        raise ImageError(400, "The DICOM object's compressed frame has more bits than its header says.")


def _decode_native(data: bytes, syntax: str, shape: Shape) -> Codes:
    little = syntax != _BIG_ENDIAN
    if shape.bits_allocated == 16:
        codes = np.frombuffer(data, "<u2" if little else ">u2")
    elif not little and shape.vr == "OW":
        # Bytes that were written as words are swapped in pairs.
        codes = np.frombuffer(data, "u2").byteswap().view(np.uint8)
    else:
        codes = np.frombuffer(data, np.uint8)
    return codes[: shape.rows * shape.columns].astype(codes.dtype.newbyteorder("="), copy=False)


def _decode_jpeg(data: bytes, header: Jpeg) -> Codes:
    if header.process == JPEG_LS:
        return np.frombuffer(jpeg_ls.decode_from_buffer(data), np.uint8 if header.precision <= 8 else "<u2")
    if header.process == LOSSLESS or header.precision > 8:
        return imagecodecs.jpeg8_decode(data)
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image)


def _decode_rle(data: bytes, shape: Shape) -> list[npt.NDArray[np.uint8]]:
    """The planes of an RLE frame (PS3.5 annex G), most significant byte first, each flat."""
    count, *offsets = struct.unpack_from("<16I", data)
    if count != shape.bits_allocated // 8:
        raise ImageError(400, "The DICOM object's RLE frame has another number of segments than its header says.")
    ends = [*offsets[1:count], len(data)]
    pixels = shape.rows * shape.columns
    planes: list[npt.NDArray[np.uint8]] = []
    for start, end in zip(offsets, ends, strict=False):
        if not 64 <= start <= end <= len(data):
            raise ImageError(400, "The DICOM object's RLE frame is damaged; send the complete file.")
        # The size of the output is given, so that a segment of nothing but runs cannot fill the memory.
        plane = imagecodecs.packbits_decode(data[start:end], out=bytearray(pixels + _RLE_SLACK))
        if len(plane) < pixels:
            raise ImageError(400, "The DICOM object's pixel data is cut short; send the complete file.")
        planes.append(np.frombuffer(plane, np.uint8)[:pixels])
    return planes


def _join_planes(planes: list[npt.NDArray[np.uint8]]) -> Codes:
    if len(planes) == 1:
        return planes[0]
    codes = planes[0].astype(np.uint16)
    codes <<= 8
    codes |= planes[1]
    return codes


def _encode_rle(planes: list[npt.NDArray[np.uint8]]) -> bytes:
    """An RLE frame: written anew, since decoders do not tell where the runs end and what else begins."""
    segments = [bytes(imagecodecs.packbits_encode(plane)) for plane in planes]
    padded = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    offsets = [64 + sum(len(segment) for segment in padded[:index]) for index in range(len(padded))]
    return struct.pack("<16I", len(padded), *offsets, *[0] * (15 - len(padded))) + b"".join(padded)
