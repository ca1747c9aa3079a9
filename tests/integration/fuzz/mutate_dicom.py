"""Changes that know DICOM: elements, sequences, fragments, and the codestream inside a frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.integration.fuzz.mutate_raster import J2K_MUTATORS, JPEG_MUTATORS, Mutator, edit_boxes
from tests.integration.fuzz.seeds import BIG, IMPLICIT, PATIENT, SYNTAXES
from tests.integration.fuzz.spots import pick_number, without_patient

_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_VRS: Final = (*sorted(_LONG_VRS), b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT",
               b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US", b"ZZ", b"\0\0")  # fmt: skip
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_SYNTAX: Final = 0x00020010
# Samples, photometric interpretation, frames, rows, columns, aspect, bits allocated, stored, high bit, representation.
_PIXEL_FACTS: Final = (0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
                       0x00280102, 0x00280103, 0x00280106, 0x00280107, 0x00280120)  # fmt: skip
# Window, intercept, slope, functions, LUTs, and what else decides how pixels are shown.
_SHOWN: Final = (0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00283002, 0x00283006, 0x20500020)
_FACTS: Final = (0x00080016, 0x00080060, 0x00180015, 0x00185101, 0x00101010, 0x00100040, 0x00100030, 0x00080020,
                 0x00280301, 0x00282110, 0x00280030, 0x00181164, 0x00280034)  # fmt: skip
_TEXTS: Final = (
    b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"1e-320", b"1e999", b"0", b"-0", b"", b" ", b"-1", b"1\\2\\3", b"\\",
    b"0x10", b"1_0", b"\xd9\xa1", b"9" * 16, b"9" * 5000, b"051W", b"360D", b"999Y", b"YES", b"MONOCHROME1", b"RGB",
    b"PALETTE COLOR", b"YBR_FULL", b"SIGMOID", b"\x1b$B", b"\xff\xfe", PATIENT,
)  # fmt: skip


@dataclass(frozen=True)
class Element:
    """Where an element's parts stand: it starts at `start`, its value at `value`, and ends before `end`."""

    tag: int
    start: int
    length_at: int
    length_size: int
    value: int
    end: int


@dataclass(frozen=True)
class Layout:
    """How a file writes numbers and elements behind its meta group."""

    order: str
    implicit: bool

    def tag(self, data: bytes, at: int) -> int:
        group, element = struct.unpack_from(f"{self.order}HH", data, at)
        return group << 16 | element

    def packed(self, tag: int) -> bytes:
        return struct.pack(f"{self.order}HH", tag >> 16, tag & 0xFFFF)

    def element(self, tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
        """An element as bytes, of a length that may be false."""
        length = len(value) if length is None else length
        if self.implicit:
            return self.packed(tag) + struct.pack(f"{self.order}I", length) + value
        if vr in _LONG_VRS:
            return self.packed(tag) + vr + b"\0\0" + struct.pack(f"{self.order}I", length) + value
        return self.packed(tag) + vr + struct.pack(f"{self.order}H", length % 65536) + value

    def item(self, value: bytes, length: int | None = None) -> bytes:
        """A sequence's item, or a fragment."""
        count = len(value) if length is None else length
        return self.packed(_ITEM) + struct.pack(f"{self.order}I", count) + value


_META: Final = Layout("<", implicit=False)


def read_elements(data: bytes) -> tuple[list[Element], Layout]:
    """All elements, items and delimiters in the order of the file, as far as they can be followed."""
    meta = list(_walk(data, 132, _META, meta=True))
    syntax = next(
        (data[each.value : each.end].rstrip(b"\0 ").decode("latin-1") for each in meta if each.tag == _SYNTAX), ""
    )
    layout = Layout(">" if syntax == BIG else "<", implicit=syntax == IMPLICIT)
    return meta + list(_walk(data, meta[-1].end if meta else 132, layout)), layout


def _walk(data: bytes, at: int, layout: Layout, *, meta: bool = False) -> Iterator[Element]:
    """Sequences and items are entered: their contents come as elements of their own."""
    while at + 8 <= len(data):
        tag = layout.tag(data, at)
        if meta and tag >> 16 != 2:
            return
        delimiter = tag in (_ITEM, _ITEM_END, _SEQUENCE_END)
        vr = data[at + 4 : at + 6]
        if layout.implicit or delimiter or vr in _LONG_VRS:
            length_at, size = (at + 4, 4) if layout.implicit or delimiter else (at + 8, 4)
        else:
            length_at, size = at + 6, 2
        if length_at + size > len(data):
            return
        length = int.from_bytes(data[length_at : length_at + size], "big" if layout.order == ">" else "little")
        value = length_at + size
        # Fragments are items too; their bytes are no elements, but nothing is lost if some are taken for such.
        entered = length == _UNDEFINED or (delimiter and not _is_fragment(data, value)) or vr == b"SQ"
        end = value if entered else min(value + length, len(data))
        yield Element(tag, at, length_at, size, value, end)
        at = end


def _is_fragment(data: bytes, at: int) -> bool:
    return data[at : at + 2] in (b"\xff\xd8", b"\xff\x4f", b"\0\0") or data[at + 1 : at + 4] == b"\0\0\0"


def _with_elements(change: Callable[[bytes, list[Element], Layout, Random], bytes]) -> Mutator:
    def mutate(data: bytes, rng: Random) -> bytes:
        elements, layout = read_elements(data)
        return change(data, elements, layout, rng) if elements else data

    mutate.__name__ = change.__name__.lstrip("_")
    return mutate


def _pick(elements: list[Element], rng: Random, tags: tuple[int, ...]) -> Element:
    return rng.choice([each for each in elements if each.tag in tags] or elements)


def _edit_length(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    each = _pick(elements, rng, (_PIXEL_DATA, _ITEM, 0x00283006)) if rng.random() < 0.3 else rng.choice(elements)
    size, right = each.length_size, each.end - each.value
    length = rng.choice((right + 1, right + 2, right - 1, right - 2, 0, _UNDEFINED, pick_number(rng, size)))
    packed = (length % 256**size).to_bytes(size, "big" if layout.order == ">" else "little")
    return data[: each.length_at] + packed + data[each.length_at + size :]


def _edit_vr(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    at = rng.choice(elements).start + 4
    return data[:at] + rng.choice(_VRS) + data[at + 2 :]


def _edit_tag(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    other = rng.choice(
        (rng.choice(elements).tag, *_PIXEL_FACTS, *_SHOWN, _ITEM_END, _SEQUENCE_END, 0x00091001, 0x60003000)
    )
    at = rng.choice(elements).start
    return data[:at] + layout.packed(other) + data[at + 4 :]


def _edit_pixel_fact(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    each = _pick(elements, rng, _PIXEL_FACTS)
    if each.end - each.value != 2:
        return _edit_text(data, elements, layout, rng)
    return data[: each.value] + struct.pack(f"{layout.order}H", pick_number(rng, 2)) + data[each.end :]


def _edit_text(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """Another text where a number, a code, an age or a window stands, its length kept right."""
    each = _pick(elements, rng, rng.choice((_SHOWN, _FACTS, _PIXEL_FACTS)))
    text = rng.choice(_TEXTS)
    text += b" " * (len(text) % 2)
    vr = data[each.start + 4 : each.start + 6]
    return data[: each.start] + layout.element(each.tag, vr, text) + data[each.end :]


def _add_shown(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """An element that decides how pixels are shown, in front of what comes behind it."""
    tag = rng.choice((*_SHOWN, 0x00280004, 0x00280006, 0x00280301, 0x00280034, 0x00280121))
    text = rng.choice(_TEXTS)
    vr = rng.choice((b"DS", b"CS", b"US", b"LO", b"IS", b"FD"))
    at = next((each.start for each in elements if each.tag > tag), len(data))
    return data[:at] + layout.element(tag, vr, text + b" " * (len(text) % 2)) + data[at:]


def _edit_syntax(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """The same bytes under another transfer syntax."""
    each = _pick(elements, rng, (_SYNTAX,))
    name = rng.choice((*SYNTAXES, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.110", "1.2.3", "")).encode()
    return data[: each.start] + _META.element(_SYNTAX, b"UI", name + b"\0" * (len(name) % 2)) + data[each.end :]


def _delete_element(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    each = rng.choice(elements)
    return data[: each.start] + data[each.end :]


def _move_element(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """A copy of an element elsewhere: twice the same, out of order, behind the pixels, inside an item."""
    copy, goal = rng.choice(elements), rng.choice(elements)
    block = without_patient(data[copy.start : copy.end])
    at = rng.choice((goal.start, goal.end, len(data)))
    return data[:at] + block * rng.choice((1, 1, 1, 2, 1000 if len(block) < 100 else 2)) + data[at:]


def _insert_many(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """Many elements, items or levels where one or none is."""
    at = rng.choice(elements).start if rng.random() < 0.7 else len(data)
    count = rng.choice((1, 10, 100, 5000))
    end = layout.item(b"")[4:]
    close = layout.packed(_ITEM_END) + end + layout.packed(_SEQUENCE_END) + end
    opening = layout.element(0x00091002, b"SQ", layout.item(b"", _UNDEFINED), _UNDEFINED)
    new = rng.choice((
        b"".join(layout.element(0x00090000 + 0x1000 + index, b"LO", b"") for index in range(count)),
        layout.element(0x00091001, b"SQ", layout.item(b"") * count + layout.packed(_SEQUENCE_END) + end, _UNDEFINED),
        layout.element(0x00091001, b"SQ", layout.item(b"") * count),
        opening * min(count, 1000) + close * min(count, 1000),
        opening * count,
        layout.element(0x00091003, b"UN", layout.item(layout.element(0x00100010, b"PN", PATIENT + b"\0")), _UNDEFINED),
        layout.element(0x00104000, b"LT", PATIENT + b"\0"),
        layout.element(0x60003000, b"OW", PATIENT + b"\0"),
    ))  # fmt: skip
    return data[:at] + new + data[at:]


def _frame(data: bytes, elements: list[Element]) -> Element | None:
    """The longest fragment of an encapsulated frame."""
    pixels = next((index for index, each in enumerate(elements) if each.tag == _PIXEL_DATA), len(elements))
    fragments = [each for each in elements[pixels + 1 :] if each.tag == _ITEM]
    return max(fragments, key=lambda each: each.end - each.value, default=None)


def _edit_frame(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """The codestream changed by a mutator of its own; the fragment's length stays right."""
    each = _frame(data, elements)
    if each is None:
        return _edit_pixel_fact(data, elements, layout, rng)
    frame = data[each.value : each.end]
    if frame.startswith(b"\xff\x4f"):
        frame = rng.choice(J2K_MUTATORS)(frame, rng)
    elif frame.startswith(b"\0\0\0\x0c"):
        at = max(frame.find(b"\xff\x4f\xff\x51"), 0)
        frame = edit_boxes(frame, rng) if rng.random() < 0.6 else frame[:at] + rng.choice(J2K_MUTATORS)(frame[at:], rng)
    elif frame.startswith(b"\xff\xd8"):
        frame = rng.choice(JPEG_MUTATORS)(frame, rng)
    else:
        frame = _edit_rle(frame, rng)
    return _with_frame(data, each, layout, [frame])


def _with_frame(data: bytes, each: Element, layout: Layout, fragments: list[bytes]) -> bytes:
    items = b"".join(layout.item(part + b"\0" * (len(part) % 2)) for part in fragments)
    return data[: each.start] + items + data[each.end :]


def _edit_rle(frame: bytes, rng: Random) -> bytes:
    """RLE (PS3.5 annex G): number of segments, offsets, runs alone, literals cut short."""
    if len(frame) < 66:
        return frame
    at, slot = 64 + rng.randrange(len(frame) - 64), 4 * rng.randint(1, 4)
    return rng.choice((
        struct.pack("<I", pick_number(rng, 4)) + frame[4:],
        frame[:slot] + struct.pack("<I", rng.choice((pick_number(rng, 4), len(frame)))) + frame[slot + 4 :],
        frame[:at] + bytes((rng.choice((0, 127, 128, 129, 255)),)) + frame[at + 1 :],
        frame[:64] + b"\x81\x55" * rng.choice((100, 20_000)),
        frame[:at],
        frame[:at] + rng.randbytes(8) + frame[at:],
    ))  # fmt: skip


def _edit_fragments(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """The frame in pieces, with empty ones, with a tail, or twice; or another film's codestream in its place."""
    each = _frame(data, elements)
    if each is None:
        return _move_element(data, elements, layout, rng)
    frame = data[each.value : each.end]
    middle = rng.randrange(len(frame) + 1) & ~1
    pairs = [frame[at : at + 2] for at in range(0, len(frame), 2)]
    fragments = rng.choice((
        [frame[:middle], frame[middle:]], pairs, [frame, b""], [b"", frame], [frame, without_patient(frame)],
        [frame + PATIENT + b"\0"], [frame, PATIENT], [], [b""] * 3000 + [frame], [frame[:-1]],
    ))  # fmt: skip
    return _with_frame(data, each, layout, fragments)


def _edit_offset_table(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """The basic offset table, which stands in front of the fragments."""
    each = _frame(data, elements)
    first = next((item for item in elements if each and item.tag == _ITEM and item.end == each.start), None)
    if first is None:
        return data
    table = rng.choice(
        (b"", struct.pack("<I", 0), struct.pack("<2I", 0, pick_number(rng, 4)), rng.randbytes(5), bytes(4000))
    )
    length = rng.choice((None, None, pick_number(rng, 4)))
    return data[: first.start] + layout.item(table, length) + data[first.end :]


_SIZES: Final = ((36, 41), (35, 40), (72, 80), (1, 1440), (40, 36), (500, 600), (1000, 1200), (65_535, 65_535))
_LARGE_SIZES: Final = ((3000, 4000), (6320, 6320), (40_000, 1000), (65_500, 610))


def _edit_both_sizes(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """Another size, in the object and in the codestream alike: no check of one against the other sees it."""
    rows, columns = rng.choice(_SIZES if rng.random() < 0.9 else _LARGE_SIZES)
    out = _set_short(_set_short(data, elements, layout, 0x00280010, rows), elements, layout, 0x00280011, columns)
    at = _sof_at(out)
    if at is not None:
        return out[: at + 5] + struct.pack(">HH", rows, columns) + out[at + 9 :]
    at = out.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return out
    out = out[: at + 8] + struct.pack(">II", columns, rows) + out[at + 16 :]
    return out if rng.random() < 0.5 else out[: at + 24] + struct.pack(">II", columns, rows) + out[at + 32 :]


def _edit_both_depths(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """Other bits a sample and another sign, in the object and in the codestream alike."""
    bits, signed = rng.choice((1, 2, 7, 8, 9, 10, 12, 14, 15, 16, 17, 32, 38)), rng.randrange(2)
    out = data
    for tag, value in ((0x00280100, 8 if bits <= 8 else 16 if bits <= 16 else 32), (0x00280101, bits),
                       (0x00280102, bits - 1), (0x00280103, signed)):  # fmt: skip
        out = _set_short(out, elements, layout, tag, value)
    at = _sof_at(out)
    if at is not None:
        return out[: at + 4] + bytes((bits,)) + out[at + 5 :]
    at = out.find(b"\xff\x4f\xff\x51")
    return out if at < 0 else out[: at + 42] + bytes((bits - 1 + 128 * signed,)) + out[at + 43 :]


def _set_short(data: bytes, elements: list[Element], layout: Layout, tag: int, value: int) -> bytes:
    each = next((each for each in elements if each.tag == tag and each.end - each.value == 2), None)
    return data if each is None else data[: each.value] + struct.pack(f"{layout.order}H", value) + data[each.end :]


def _sof_at(data: bytes) -> int | None:
    """Where the frame header of a JPEG or JPEG-LS inside the object stands."""
    start = data.find(b"\xff\xd8\xff")
    found = [at for code in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7) if (at := data.find(bytes((0xFF, code, 0)), start)) >= 0]
    return min(found) if start >= 0 and found else None


def _edit_native_pixels(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """Pixels cut, stretched, or with the patient's name behind them, their length right."""
    each = _pick(elements, rng, (_PIXEL_DATA,))
    if each.end == each.value:
        return _edit_fragments(data, elements, layout, rng)
    pixels = data[each.value : each.end]
    pixels = rng.choice(
        (pixels[:-2], pixels[: len(pixels) // 2], pixels * 2, pixels + PATIENT + b"\0", b"", bytes(len(pixels)))
    )
    vr = data[each.start + 4 : each.start + 6]
    return data[: each.start] + layout.element(each.tag, vr, pixels) + data[each.end :]


def _edit_lut(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """A table's descriptor or its data, too long, too short, or with the patient's name in it."""
    each = _pick(elements, rng, (0x00283002, 0x00283006))
    if each.tag == 0x00283002:
        numbers = [
            rng.choice((256, 0, 1, 65535, 16, 8, 12, pick_number(rng, 2))) for _ in range(rng.choice((3, 3, 3, 2, 6)))
        ]
        value = struct.pack(f"{layout.order}{len(numbers)}H", *numbers)
    else:
        table = data[each.value : each.end]
        value = rng.choice((table + PATIENT + b"\0", table[: len(table) // 2], b"", table * 3, bytes(131_072)))
    vr = data[each.start + 4 : each.start + 6]
    return data[: each.start] + layout.element(each.tag, vr, value) + data[each.end :]


def _edit_preamble(data: bytes, elements: list[Element], layout: Layout, rng: Random) -> bytes:
    """The patient's name in the preamble, or no or a false meta group."""
    first = next((each.start for each in elements if each.tag >> 16 > 2), len(data))
    return rng.choice((
        PATIENT.ljust(128, b"\0") + data[128:],
        data[:132] + data[first:],
        data[:132] + data[132:first] * 2 + data[first:],
        data[:132] + _META.element(0x00020000, b"UL", struct.pack("<I", pick_number(rng, 4))) + data[144:],
    ))  # fmt: skip


DICOM_MUTATORS: Final = tuple(
    _with_elements(change)
    for change in (
        _edit_length, _edit_length, _edit_vr, _edit_tag, _edit_pixel_fact, _edit_pixel_fact, _edit_text, _edit_text,

        _add_shown, _edit_syntax, _delete_element, _move_element, _insert_many, _edit_frame, _edit_frame, _edit_frame,
        _edit_frame, _edit_fragments, _edit_both_sizes, _edit_both_depths,
        _edit_offset_table, _edit_native_pixels, _edit_lut, _edit_preamble,
    )
)  # fmt: skip
