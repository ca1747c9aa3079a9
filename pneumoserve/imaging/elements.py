"""The data elements of a DICOM file (PS3.5 section 7), found by a bounded walk before any library reads them.

pydicom reads a file whole, at 10 to 20 µs an element or item, so that 32 MiB of empty ones hold it for a minute. Here
the elements asked for are picked out by their lengths. What nests in the others is passed over, or walked where it has
no length.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from pneumoserve.imaging.metadata import ImageError

# A film has some hundreds of elements and items. dcmtk's own limit of depth is 64.
MAX_ELEMENTS: Final = 20_000
MAX_DEPTH: Final = 64
# Attributes of a film are numbers and codes of a few bytes.
MAX_VALUE_BYTES: Final = 1_024

PIXEL_DATA: Final = 0x7FE00010
_TRANSFER_SYNTAX: Final = 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_DAMAGED: Final = "The DICOM object is damaged or cut short; send the complete file."


@dataclass(frozen=True)
class Element:
    """Where an element's value lies in the file; `length` is None where it is undefined, `vr` where it is implicit."""

    tag: int
    vr: str | None
    start: int
    length: int | None


@dataclass(frozen=True)
class Encoding:
    """How a data set is written."""

    implicit: bool
    little_endian: bool


@dataclass(frozen=True)
class File:
    """A file's transfer syntax, where its data set begins, its encoding, and the elements that were asked for.

    `elements` has the last of each tag.
    """

    data: bytes
    syntax: str
    begin: int
    encoding: Encoding
    elements: dict[int, Element]

    def value(self, element: Element, limit: int = MAX_VALUE_BYTES) -> bytes:
        """The bytes of an element of defined length.

        Raises:
            ImageError: 400 where it is longer than `limit`.
        """
        if element.length is None or element.length > limit:
            raise ImageError(400, "An attribute of the DICOM object is far too long; correct it.")
        return self.data[element.start : element.start + element.length]


def read_file(data: bytes, tags: Collection[int]) -> File:
    """Find the elements with these tags, on the top level and up to the pixels.

    Raises:
        ImageError: 400 damaged or against the limits, 415 deflated.
    """
    try:
        syntax, at = _read_meta(data)
        if syntax == _DEFLATED:
            # It would be inflated whole, to any size, before a limit could be checked.
            raise ImageError(415, "Deflated DICOM objects are not accepted; send another transfer syntax.")
        encoding = Encoding(implicit=not _has_vr(data, at), little_endian=syntax != _BIG_ENDIAN)
        elements = {}
        for element in _Walk(data, encoding).elements(at, len(data), 0):
            if element.tag in tags:
                elements[element.tag] = element
            if element.tag == PIXEL_DATA:
                break
    except (struct.error, UnicodeDecodeError) as error:
        raise ImageError(400, _DAMAGED) from error
    return File(data, syntax, at, encoding, elements)


def read_first_item(file: File, sequence: Element, tags: Collection[int]) -> dict[int, Element]:
    """The elements with these tags in the first item of a sequence; none where it is empty.

    Raises:
        ImageError: 400 damaged or against the limits.
    """
    try:
        end = len(file.data) if sequence.length is None else sequence.start + sequence.length
        if sequence.length == 0:
            return {}
        walk = _Walk(file.data, file.encoding)
        tag, length = walk.item(sequence.start)
        if tag == _SEQUENCE_END:
            return {}
        if tag != _ITEM:
            raise ImageError(400, _DAMAGED)
        end = end if length is None else min(end, sequence.start + 8 + length)
        return {each.tag: each for each in walk.elements(sequence.start + 8, end, 1) if each.tag in tags}
    except struct.error as error:
        raise ImageError(400, _DAMAGED) from error


def read_fragments(file: File, pixels: Element) -> list[bytes]:
    """The fragments of encapsulated pixels (PS3.5 A.4), without the offset table.

    Raises:
        ImageError: 400 damaged or against the limits.
    """
    try:
        spans = list(_Walk(file.data, file.encoding).fragments(pixels.start))
    except struct.error as error:
        raise ImageError(400, _DAMAGED) from error
    return [file.data[start:end] for start, end in spans[1:]]


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax in the file meta information (PS3.10 7.1), and where the data set begins."""
    syntax = ""
    walk = _Walk(data, Encoding(implicit=False, little_endian=True))
    for element in walk.elements(132, len(data), 0):
        if element.tag >> 16 != 2:
            break
        if element.tag == _TRANSFER_SYNTAX:
            value = data[element.start : element.start + min(element.length or 0, 64)]
            syntax = value.decode("ascii").rstrip("\0 ")
    return syntax, walk.last


def _has_vr(data: bytes, at: int) -> bool:
    """Whether the element at `at` states its value representation, whatever the transfer syntax promises."""
    vr = data[at + 4 : at + 6]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


class _Walk:
    """A walk over elements and items that counts them. `last` is where the last element that was looked at begins."""

    def __init__(self, data: bytes, encoding: Encoding) -> None:
        self._data = data
        self._implicit = encoding.implicit
        order = "<" if encoding.little_endian else ">"
        self._tag = struct.Struct(f"{order}HH")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}I")
        self._count = 0
        self.last = 0

    def elements(self, at: int, end: int, depth: int) -> Iterator[Element]:
        """The elements from `at` to `end`, or to the end of the item."""
        while at < end:
            self.last = at
            element = self._element(at)
            if element.tag in (_ITEM_END, _SEQUENCE_END):
                return
            yield element
            at = self._end_of(element, depth)

    def item(self, at: int) -> tuple[int, int | None]:
        """Tag and length of the item or delimiter at `at`."""
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise ImageError(
                400, f"The DICOM object has more than {MAX_ELEMENTS} elements and items; send the film alone."
            )
        group, number = self._tag.unpack_from(self._data, at)
        (length,) = self._long.unpack_from(self._data, at + 4)
        return group << 16 | number, None if length == _UNDEFINED else length

    def fragments(self, at: int) -> Iterator[tuple[int, int]]:
        """Begin and end of each fragment, the offset table first, up to the end of the sequence."""
        while True:
            tag, length = self.item(at)
            if tag == _SEQUENCE_END:
                return
            start = at + 8
            at = self._within(start + (length or 0))
            if tag != _ITEM or length is None:
                raise ImageError(400, _DAMAGED)
            yield start, at

    def _element(self, at: int) -> Element:
        tag, length = self.item(at)
        vr = self._data[at + 4 : at + 6]
        # Some writers fall back to implicit VR within a data set.
        if self._implicit or tag in (_ITEM_END, _SEQUENCE_END) or not _has_vr(self._data, at):
            return Element(tag, None, at + 8, length)
        if vr not in _LONG_VRS:
            return Element(tag, vr.decode(), at + 8, self._short.unpack_from(self._data, at + 6)[0])
        (long,) = self._long.unpack_from(self._data, at + 8)
        return Element(tag, vr.decode(), at + 12, None if long == _UNDEFINED else long)

    def _end_of(self, element: Element, depth: int) -> int:
        if element.length is not None:
            return self._within(element.start + element.length)
        if element.vr == "UN" and not self._implicit:
            # PS3.5 6.2.2: what is unknown and of undefined length is a sequence in implicit VR little endian.
            inner = _Walk(self._data, Encoding(implicit=True, little_endian=True))
            inner._count = self._count
            end = inner._end_of_sequence(element.start, depth + 1)
            self._count = inner._count
            return end
        return self._end_of_sequence(element.start, depth + 1)

    def _end_of_sequence(self, at: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ImageError(400, f"The DICOM object nests sequences more than {MAX_DEPTH} deep; send the film alone.")
        while True:
            tag, length = self.item(at)
            if tag == _SEQUENCE_END:
                return at + 8
            if tag != _ITEM:
                raise ImageError(400, _DAMAGED)
            if length is not None:
                at = self._within(at + 8 + length)
                continue
            for _ in self.elements(at + 8, len(self._data), depth):
                pass
            at = self._end_of_item()

    def _end_of_item(self) -> int:
        """Where the item ends whose delimiter was looked at last."""
        group, number = self._tag.unpack_from(self._data, self.last)
        if group << 16 | number != _ITEM_END:
            raise ImageError(400, _DAMAGED)
        return self.last + 8

    def _within(self, at: int) -> int:
        if at > len(self._data):
            raise ImageError(400, _DAMAGED)
        return at
