"""Small calls that cost a naive decoder minutes or gigabytes. As a program: what each costs `prepare`, as JSON."""

from __future__ import annotations

import json
import re
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np

from pneumoserve.imaging import MAX_BYTES, ImageError
from pneumoserve.imaging.prepare import prepare
from tests.support import dicoms, films

_ROOM: Final = MAX_BYTES - 100_000
_ITEM: Final = b"\xfe\xff\x00\xe0"
_NOBODY: Final = (67, 91)


def _jpeg(**options: object) -> bytes:
    return films.encoded(films.film_image(), "JPEG", **options)


def _before_scan(inserted: bytes) -> bytes:
    jpeg = _jpeg()
    return jpeg[:2] + inserted + jpeg[2:]


def _in_scan(inserted: bytes) -> bytes:
    return _jpeg()[:-2] + inserted + b"\xff\xd9"


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again (LJT-01-004)."""
    jpeg = _jpeg(progressive=True)
    at = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[at:-2] * min(count, _ROOM // (len(jpeg) - at)) + b"\xff\xd9"


def _exif_in_pieces() -> bytes:
    return _before_scan((b"\xff\xe1\x00\x09Exif\x00\x00A") * (4_000_000 // 11))


def _exif_directories() -> bytes:
    """As many full EXIF segments as fit, without an orientation."""
    tiff = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5_000) + bytes(60_000)
    segment = struct.pack(">BBH", 0xFF, 0xE1, 2 + len(tiff)) + tiff
    return _before_scan(segment * (_ROOM // len(segment)))


def _png(chunk: bytes) -> bytes:
    png = films.encoded(films.film_image(), "PNG")
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk * (_ROOM // len(chunk)) + png[at:]


def _dicom(kind: str = "explicit", bits: int = 8) -> bytes:
    return dicoms.film(kind, dicoms.scene(bits), bits)


def _sequence(content: bytes) -> bytes:
    return dicoms.with_element(
        _dicom(), dicoms.empty_element(0x00091001, b"SQ") + content + b"\xfe\xff\xdd\xe0" + bytes(4)
    )


def _implicit_elements() -> bytes:
    data = _dicom("implicit")
    at = data.index(b"\x28\x00\x02\x00\x02\x00\x00\x00")
    return data[:at] + b"\x09\x00\x01\x10\x00\x00\x00\x00" * (_ROOM // 8) + data[at:]


def _deep(depth: int) -> bytes:
    opening = (dicoms.empty_element(0x00091001, b"SQ") + _ITEM + b"\xff\xff\xff\xff") * depth
    return dicoms.with_element(_dicom(), opening)


def _rle_of_runs() -> bytes:
    """Each pair of bytes becomes 128."""
    coded = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (_ROOM // 2)
    return dicoms.wrapped("rle", coded, _NOBODY, 8, 8)


def _fragments() -> bytes:
    data = _dicom("jpeg-ls")
    at = data.index(_ITEM + b"\x04\0\0\0") + 12
    return data[:at] + (_ITEM + bytes(4)) * (_ROOM // 8) + data[at:]


def _codestream(offset: int, value: bytes) -> bytes:
    """A JPEG 2000 film of 6,000 x 6,000 with other bytes `offset` behind the start of its SIZ or COD."""
    coded = bytearray(dicoms.frame("jpeg 2000", dicoms.scene(8), 8))
    coded[8:16] = coded[24:32] = struct.pack(">II", 6000, 6000)
    cod = coded.index(b"\xff\x52")
    at = offset if offset < 1000 else cod + offset - 1000
    coded[at : at + len(value)] = value
    return dicoms.wrapped("jpeg 2000", bytes(coded), (6000, 6000), 8, 8)


def _components() -> bytes:
    """SIZ of 100 components, as in dicom_j2k_100comp_40mp.bin."""
    coded = dicoms.frame("jpeg 2000", dicoms.scene(8), 8)
    siz = b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 38 + 300, 0, 6000, 6000, 0, 0, 6000, 6000, 0, 0, 100)
    return dicoms.wrapped("jpeg 2000", siz + b"\x07\x01\x01" * 100 + coded[45:], (6000, 6000), 8, 8)


def _tile_parts() -> bytes:
    coded = dicoms.frame("jpeg 2000", dicoms.scene(8), 8)
    at = coded.index(b"\xff\x90")
    part = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14, 0, 0, 0xFF93)
    return dicoms.wrapped("jpeg 2000", coded[:at] + part * (_ROOM // len(part)) + coded[at:], _NOBODY, 8, 8)


def _lut(data: bytes) -> bytes:
    item = b"\x28\x00\x02\x30US\x06\x00\x00\x01\x00\x00\x10\x00"
    item += dicoms.empty_element(0x00283006, b"OW", len(data)) + data
    sequence = dicoms.empty_element(0x00283010, b"SQ", len(item) + 8) + _ITEM + struct.pack("<I", len(item)) + item
    film = _dicom()
    at = film.index(b"\xe0\x7f\x10\x00")
    return film[:at] + sequence + film[at:]


def _noisy_rle() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, 12_000_000, dtype=np.uint8)
    coded = bytes(imagecodecs.packbits_encode(noise))
    return dicoms.wrapped(
        "rle", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x80" * 10_000_000 + coded, (3000, 4000), 8, 8
    )


REFUSED: Final[dict[str, Callable[[], bytes]]] = {
    "jpeg of 8 million empty segments": lambda: _before_scan(b"\xff\xe5\x00\x02" * (_ROOM // 4)),
    "jpeg of exif in pieces": _exif_in_pieces,
    "jpeg of 308 scans": lambda: _scans(308),
    "jpeg of as many scans as fit": lambda: _scans(_ROOM),
    "png of 2.7 million empty chunks": lambda: _png(b"\0\0\0\0IDAT\x35\xaf\x06\x1e"),
    "dicom of 4 million empty items": lambda: _sequence((_ITEM + bytes(4)) * (_ROOM // 8)),
    "dicom of 4 million empty elements": _implicit_elements,
    "dicom of 100,000 sequences in each other": lambda: _deep(100_000),
    "dicom of 65 sequences in each other": lambda: _deep(65),
    "dicom of 4 million fragments": _fragments,
    "rle of runs": _rle_of_runs,
    "jpeg 2000 of 100 components": _components,
    "jpeg 2000 of 36 million tiles": lambda: _codestream(24, struct.pack(">II", 1, 1)),
    "jpeg 2000 of 65,535 layers": lambda: _codestream(1000 + 6, b"\xff\xff") ,
    "jpeg 2000 of code-blocks of 4 x 4": lambda: _codestream(1000 + 10, b"\0\0"),
    "jpeg 2000 of 2 million tile-parts": _tile_parts,
    "lut of 30 MB": lambda: _lut(b"ZQPATIENT " * 3_000_000),
    "lut of text": lambda: _lut((b"ZQPATIENT^DOE^JOHN 19700101 " * 20)[:512]),
}  # fmt: skip
ACCEPTED: Final[dict[str, Callable[[], bytes]]] = {
    "jpeg of exif directories": _exif_directories,
    "jpeg of stuffed zeros": lambda: _in_scan(b"\xff\x00" * (_ROOM // 2)),
    "jpeg of fill bytes": lambda: _before_scan(b"\xff" * _ROOM),
    "jpeg of zeros between segments": lambda: _before_scan(b"\xff\xe5\x00\x02" + bytes(_ROOM)),
    "png of one huge text": lambda: _png(struct.pack(">I4s", _ROOM - 12, b"tEXt") + bytes(_ROOM - 8)),
    "dicom of a huge private element": lambda: dicoms.with_element(
        _dicom(), dicoms.empty_element(0x00091001, b"OB", _ROOM) + bytes(_ROOM)
    ),
    "dicom of a huge tail": lambda: _dicom() + bytes(_ROOM),
    "rle of noise and 10 million no-ops": _noisy_rle,
}


def _peak_mib() -> float:
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak
    return int(peak[1]) / 1024


def main() -> None:
    """Measure each: its HTTP status (200: accepted), seconds of CPU and the peak of memory in MiB."""
    results = {}
    prepare(_jpeg()), prepare(_dicom("jpeg 2000"))
    for name, make in {**REFUSED, **ACCEPTED}.items():
        data = make()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of making it
        began = time.process_time()
        try:
            prepare(data)
            status = 200
        except ImageError as error:
            status = error.status
        results[name] = {"status": status, "seconds": time.process_time() - began, "mib": _peak_mib()}
        del data
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
