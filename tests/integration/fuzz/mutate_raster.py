"""Changes that know JPEG (JPEG-LS among it), JPEG 2000 and PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from tests.integration.fuzz.seeds import PATIENT, chunk
from tests.integration.fuzz.spots import pick_number, without_patient

Mutator = Callable[[bytes, Random], bytes]

_MUCH_TEXT: Final = zlib.compress(bytes(2_000_000))
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Segment:
    """A marker segment: `body` is what its length counts (None: a bare marker), `data` what follows up to the next."""

    marker: int
    body: bytes | None
    data: bytes = b""
    length: int | None = None  # where it shall say another one than its body has

    def __bytes__(self) -> bytes:
        if self.body is None:
            return bytes((0xFF, self.marker)) + self.data
        length = len(self.body) + 2 if self.length is None else self.length
        return bytes((0xFF, self.marker)) + struct.pack(">H", length % 65536) + self.body + self.data


_BARE: Final = {0x01, *range(0xD0, 0xDA), 0x4F, 0x93}  # TEM, RSTn, SOI, EOI; of JPEG 2000 SOC and SOD
_EOC: Final = 0xD9
_SOS, _SOF, _JPEG_LS = 0xDA, (*range(0xC0, 0xC4), *range(0xC5, 0xC8), 0xF7), 0xF7
_SIZ, _SOT = 0x51, 0x90


def split_segments(data: bytes) -> list[Segment]:
    """The marker segments of a JPEG or of a JPEG 2000 codestream; what cannot be read is the last one's data."""
    found: list[Segment] = []
    at = 0
    while at + 2 <= len(data) and data[at] == 0xFF:
        marker, start = data[at + 1], at + 2
        if marker in _BARE:
            body, end = None, start
        else:
            end = start + (struct.unpack_from(">H", data, start)[0] if start + 2 <= len(data) else 2)
            body, end = data[start + 2 : end], min(max(end, start + 2), len(data))
        at = _next_marker(data, end)
        found.append(Segment(marker, body, data[end:at]))
    return found


def _next_marker(data: bytes, at: int) -> int:
    while (at := data.find(b"\xff", at)) >= 0:
        if at + 1 < len(data) and data[at + 1] not in (0x00, 0xFF, *range(0xD0, 0xD8)):
            return at
        at += 1
    return len(data)


def _join(segments: list[Segment]) -> bytes:
    return b"".join(bytes(segment) for segment in segments)


def _with_segments(change: Callable[[list[Segment], Random], None]) -> Mutator:
    def mutate(data: bytes, rng: Random) -> bytes:
        segments = split_segments(data)
        if len(segments) < 3:
            return data
        change(segments, rng)
        return _join(segments)

    mutate.__name__ = change.__name__.lstrip("_")
    return mutate


def _set_body_number(segment: Segment, rng: Random, fields: tuple[tuple[int, int], ...] = ()) -> Segment:
    """With one number of its body set: one of `fields` (offset, size), or any."""
    body = segment.body or b""
    if not body:
        return segment
    at, size = rng.choice(fields) if fields and rng.random() < 0.8 else (rng.randrange(len(body)), rng.choice((1, 2)))
    old = int.from_bytes(body[at : at + size], "big")
    value = rng.choice((pick_number(rng, size), old + rng.choice((-2, -1, 1, 2)))) % 256**size
    return replace(segment, body=body[:at] + value.to_bytes(size, "big") + body[at + size :])


def _pick(segments: list[Segment], rng: Random, markers: tuple[int, ...]) -> int:
    return rng.choice([at for at, each in enumerate(segments) if each.marker in markers] or range(len(segments)))


def _edit_frame_header(segments: list[Segment], rng: Random) -> None:
    at = _pick(segments, rng, _SOF)
    fields = ((0, 1), (1, 2), (3, 2), (5, 1), (6, 1), (7, 1), (8, 1))
    segments[at] = _set_body_number(segments[at], rng, fields)


def _edit_scan_header(segments: list[Segment], rng: Random) -> None:
    at = _pick(segments, rng, (_SOS,))
    body = segments[at].body or b""
    last = len(body)
    segments[at] = _set_body_number(segments[at], rng, tuple((max(0, last - back), 1) for back in (1, 2, 3, 4, 5)))


def _edit_table(segments: list[Segment], rng: Random) -> None:
    at = _pick(segments, rng, (0xC4, 0xDB, 0xDD, 0xCC, 0xF8, 0x5C, 0x5D, 0x53))
    segments[at] = _set_body_number(segments[at], rng)


def _edit_length(segments: list[Segment], rng: Random) -> None:
    at = rng.randrange(len(segments))
    right = len(segments[at].body or b"") + 2
    segments[at] = replace(segments[at], length=rng.choice((right - 1, right + 1, right + 5, 0, 1, 2, 0xFFFF)))


def _edit_marker(segments: list[Segment], rng: Random) -> None:
    at = rng.randrange(len(segments))
    marker = rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC9, 0xCA, 0xCC, 0xD0, 0xD8, 0xD9, 0xDA, 0xDC, 0xDE,
                         0xF7, 0xF8, 0x4F, 0x51, 0x52, 0x90, 0x93, rng.randrange(256)))  # fmt: skip
    segments[at] = replace(segments[at], marker=marker)


def _delete_segment(segments: list[Segment], rng: Random) -> None:
    del segments[rng.randrange(len(segments))]


def _repeat_segment(segments: list[Segment], rng: Random) -> None:
    """Often once, now and then a hundred times: scans and tables that come again are work for a decoder."""
    at = rng.randrange(len(segments))
    copy = replace(segments[at], body=segments[at].body and without_patient(segments[at].body))
    copies = rng.choice((1, 1, 1, 2, 10, 100))
    segments[at + 1 : at + 1] = [copy] * copies


def _swap_segments(segments: list[Segment], rng: Random) -> None:
    one, two = rng.randrange(len(segments)), rng.randrange(len(segments))
    segments[one], segments[two] = segments[two], segments[one]


_APPLICATIONS: Final = (b"", b"JFIF\0", b"Exif\0\0II*\0\x08\0\0\0", b"Adobe\0d", b"ICC_PROFILE\0\x01\x01",
                        b"http://ns.adobe.com/xap/1.0/\0")  # fmt: skip


def _insert_text(segments: list[Segment], rng: Random) -> None:
    """A comment or application segment that names the patient."""
    marker = rng.choice((0xFE, *range(0xE0, 0xF0)))
    start = rng.choice(_APPLICATIONS)
    new = Segment(marker, start + rng.randbytes(rng.randrange(20)) + PATIENT)
    segments[(at := rng.randrange(1, len(segments))) : at] = [new] * rng.choice((1, 1, 1, 3, 300))


def _insert_marker(segments: list[Segment], rng: Random) -> None:
    """Fill bytes, restart markers, an early end, a second start."""
    new = rng.choice((
        Segment(0xFF, None, b"\xff" * rng.choice((1, 2, 50))), Segment(0xD0 + rng.randrange(8), None),
        Segment(_EOC, None), Segment(0xD8, None), Segment(0xDD, b"\0" + bytes([rng.randrange(9)])),
        Segment(0x01, None), Segment(0xDC, struct.pack(">H", rng.choice((36, 0, 1, 72, 65535)))),
    ))  # fmt: skip
    segments.insert(rng.randrange(1, len(segments) + 1), new)


def _edit_entropy(segments: list[Segment], rng: Random) -> None:
    """Bits of the coded pixels, markers and stuffed zeros among them."""
    at = max(range(len(segments)), key=lambda index: len(segments[index].data))
    data = bytearray(segments[at].data)
    for _ in range(rng.randint(1, 4) if data else 0):
        spot = rng.randrange(len(data))
        data[spot : spot + rng.choice((0, 1, 2))] = rng.choice(
            (b"\xff\x00", b"\xff\xd1", b"\xff", b"\xff\xff\x00", b"\x00" * 9, rng.randbytes(2))
        )
    segments[at] = replace(segments[at], data=bytes(data))


JPEG_MUTATORS: Final = tuple(
    _with_segments(change)
    for change in (
        _edit_frame_header, _edit_frame_header, _edit_scan_header, _edit_scan_header, _edit_table, _edit_table,
        _edit_length, _edit_marker, _delete_segment, _repeat_segment, _swap_segments, _insert_text, _insert_marker,
        _edit_entropy, _edit_entropy,
    )
)  # fmt: skip


def _edit_size(segments: list[Segment], rng: Random) -> None:
    """SIZ (T.800 A.5.1): profile, grid, offsets, tiles, components with their bits and steps."""
    at = _pick(segments, rng, (_SIZ,))
    fields = ((0, 2), *((2 + 4 * index, 4) for index in range(8)), (34, 2), (36, 1), (37, 1), (38, 1))
    segments[at] = _set_body_number(segments[at], rng, fields)


def _edit_components(segments: list[Segment], rng: Random) -> None:
    """SIZ with as many components as it says."""
    at = _pick(segments, rng, (_SIZ,))
    body = segments[at].body or b""
    if len(body) < 37:
        return
    count = rng.choice((0, 2, 3, 4, 16, 100, 1000))
    segments[at] = replace(segments[at], body=body[:34] + struct.pack(">H", count) + body[36:39] * count)


def _edit_tiles(segments: list[Segment], rng: Random) -> None:
    """A grid of many tiles, or one far from the origin."""
    at = _pick(segments, rng, (_SIZ,))
    body = bytearray(segments[at].body or b"")
    if len(body) < 34:
        return
    field = rng.choice((18, 22))
    struct.pack_into(">I", body, field, rng.choice((1, 2, 3, 7, 2**31, 2**32 - 1)))
    segments[at] = replace(segments[at], body=bytes(body))


def _edit_coding(segments: list[Segment], rng: Random) -> None:
    """COD and QCD (T.800 A.6): progression, layers, transform, levels, code-blocks, precincts."""
    at = _pick(segments, rng, (0x52, 0x5C))
    segments[at] = _set_body_number(segments[at], rng, (*((index, 1) for index in range(10)), (2, 2)))


def _edit_tile_part(segments: list[Segment], rng: Random) -> None:
    """SOT (T.800 A.4.2): tile, length, part, parts."""
    at = _pick(segments, rng, (_SOT,))
    segments[at] = _set_body_number(segments[at], rng, ((0, 2), (2, 4), (6, 1), (7, 1)))


def _insert_coding(segments: list[Segment], rng: Random) -> None:
    """Marker segments that the encoder left out: COC, QCC, RGN, POC, PPM, PPT, TLM, PLT, CRG, COM, CAP."""
    marker = rng.choice((0x53, 0x5D, 0x5E, 0x5F, 0x60, 0x61, 0x55, 0x58, 0x63, 0x64, 0x50, 0x59, 0x74, 0x78))
    body = rng.choice((rng.randbytes(rng.choice((1, 3, 7, 20))), bytes(7)))
    segments.insert(rng.randrange(1, len(segments) + 1), Segment(marker, body))


def _insert_j2k_text(segments: list[Segment], rng: Random) -> None:
    """A comment that names the patient, in the main header: behind it, it would stand among the coded pixels."""
    header_end = next((at for at, each in enumerate(segments) if each.marker == _SOT), 1)
    segments.insert(rng.randint(1, max(1, header_end)), Segment(0x64, b"\0\1" + PATIENT))


J2K_MUTATORS: Final = tuple(
    _with_segments(change)
    for change in (
        _edit_size, _edit_size, _edit_size, _edit_components, _edit_tiles, _edit_coding, _edit_coding,
        _edit_tile_part, _insert_coding, _insert_j2k_text, _edit_table,
        _edit_length, _edit_marker, _delete_segment, _repeat_segment,
        _swap_segments, _edit_entropy, _edit_entropy,
    )
)  # fmt: skip


def edit_boxes(data: bytes, rng: Random) -> bytes:
    """The boxes around a codestream (T.800 annex I): a length, a type, a box left out or doubled."""
    at, starts = 0, []
    while at + 8 <= len(data):
        starts.append(at)
        length = struct.unpack_from(">I", data, at)[0]
        at += length if length >= 8 else len(data)
    if not starts:
        return data
    at = rng.choice(starts)
    end = at + max(8, struct.unpack_from(">I", data, at)[0])
    long_length = rng.choice((16, 0, 2**63, end))
    return rng.choice((
        data[:at] + struct.pack(">I", pick_number(rng, 4)) + data[at + 4 :],
        data[: at + 4] + rng.choice((b"jp2c", b"jp2h", b"ihdr", b"uuid", b"free")) + data[at + 8 :],
        data[:at] + data[end:],
        data[:end] + data[at:end] + data[end:],
        data[: at + 8] + rng.randbytes(1) + data[at + 9 :],
        data[:at] + b"\0\0\0\x01" + data[at + 4 : at + 8] + struct.pack(">Q", long_length) + data[at + 8 :],
    ))  # fmt: skip


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _with_chunks(change: Callable[[list[tuple[bytes, bytes]], Random], None]) -> Mutator:
    """Sums are made right again, but for one time in eight."""

    def mutate(data: bytes, rng: Random) -> bytes:
        chunks = _chunks(data)
        if not chunks:
            return data
        change(chunks, rng)
        out = _PNG_START + b"".join(chunk(name, body) for name, body in chunks)
        return out if rng.random() < 0.875 else out[:-6] + rng.randbytes(1) + out[-5:]

    mutate.__name__ = change.__name__.lstrip("_")
    return mutate


def _named(chunks: list[tuple[bytes, bytes]], name: bytes, rng: Random) -> int:
    return rng.choice([at for at, each in enumerate(chunks) if each[0] == name] or range(len(chunks)))


def _edit_header(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    at = _named(chunks, b"IHDR", rng)
    body = chunks[at][1]
    offset, size = rng.choice(((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)))
    value = rng.choice((pick_number(rng, size), rng.randrange(20)))
    chunks[at] = (chunks[at][0], body[:offset] + value.to_bytes(size, "big") + body[offset + size :])


def _edit_rows(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    """The samples themselves, packed again: filters, too few, too many."""
    whole = b"".join(body for name, body in chunks if name == b"IDAT")
    try:
        rows = zlib.decompress(whole)
    except zlib.error:
        return
    at = rng.randrange(len(rows) + 1)
    rows = rng.choice((rows[:at] + rng.randbytes(1) + rows[at + 1 :], rows[:at], rows + bytes(1000), bytes(200_000)))
    _replace_data(chunks, [zlib.compress(rows)])


def _replace_data(chunks: list[tuple[bytes, bytes]], bodies: list[bytes]) -> None:
    at = next((index for index, each in enumerate(chunks) if each[0] == b"IDAT"), len(chunks))
    chunks[:] = [each for each in chunks if each[0] != b"IDAT"]
    chunks[at:at] = [(b"IDAT", body) for body in bodies]


def _edit_deflated(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    at = _named(chunks, b"IDAT", rng)
    body = bytearray(chunks[at][1] or b"\0")
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    chunks[at] = (chunks[at][0], bytes(body))


def _split_data(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    """Pixels in many chunks, empty ones among them."""
    whole = b"".join(body for name, body in chunks if name == b"IDAT")
    step = rng.choice((1, 7, 100))
    empty = [b""] * rng.choice((0, 1, 100, 5000))
    _replace_data(chunks, [*empty, *(whole[at : at + step] for at in range(0, len(whole), step)), *empty[:1]])


def _delete_chunk(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    del chunks[rng.randrange(len(chunks))]


def _repeat_chunk(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    at = rng.randrange(len(chunks))
    name, body = chunks[at]
    chunks[at:at] = [(name, without_patient(body))] * rng.choice((1, 1, 2, 500))


def _swap_chunks(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    one, two = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    chunks[one], chunks[two] = chunks[two], chunks[one]


def _insert_chunk(chunks: list[tuple[bytes, bytes]], rng: Random) -> None:
    new = rng.choice((
        (b"tEXt", b"Comment\0" + PATIENT), (b"zTXt", b"Comment\0\0" + zlib.compress(PATIENT)),
        (b"zTXt", b"Comment\0\0" + _MUCH_TEXT), (b"iCCP", b"x\0\0" + zlib.compress(PATIENT)),
        (b"eXIf", b"II*\0" + rng.randbytes(20)), (b"acTL", struct.pack(">II", rng.choice((1, 2, 10**6)), 0)),
        (b"PLTE", rng.randbytes(rng.choice((0, 3, 4, 768, 900)))),
        (b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 6, 300)))),
        (b"fcTL", rng.randbytes(26)), (b"fdAT", rng.randbytes(30)), (b"gAMA", rng.randbytes(4)),
        (b"pHYs", rng.randbytes(9)),
        (b"IEND", PATIENT), (b"IHDR", rng.randbytes(13)), (b"sBIT", rng.randbytes(4)), (rng.randbytes(4), PATIENT),
    ))  # fmt: skip
    chunks.insert(rng.randrange(len(chunks) + 1), new)


def edit_chunk_length(data: bytes, rng: Random) -> bytes:
    """A length that is not its chunk's."""
    at, starts = len(_PNG_START), []
    while at + 12 <= len(data):
        starts.append(at)
        at += 12 + struct.unpack_from(">I", data, at)[0]
    if not starts:
        return data
    at = rng.choice(starts)
    old = struct.unpack_from(">I", data, at)[0]
    return data[:at] + struct.pack(">I", rng.choice((old + 1, old - 1, pick_number(rng, 4))) % 2**32) + data[at + 4 :]


PNG_MUTATORS: Final = (
    edit_chunk_length,
    *(
        _with_chunks(change)
        for change in (
            _edit_header, _edit_header, _edit_header, _edit_rows, _edit_rows, _edit_deflated, _split_data,
            _delete_chunk, _repeat_chunk, _swap_chunks, _insert_chunk, _insert_chunk,
        )
    ),
)  # fmt: skip
