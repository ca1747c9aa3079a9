"""Sound small films in every encoding that is accepted, made by code; each names a patient wherever its format can."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt
import piexif
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from tests.support import dicoms

# No stored copy may hold it. Its first word is what is looked for: a copy cut in two is a leak too.
PATIENT: Final = b"ZQPATIENT^DOE^JOHN 19700101"
PATIENT_WORD: Final = b"ZQPATIENT"

ROWS, COLUMNS = 36, 40
_TEXT: Final = PATIENT.decode()
_FILM_CLASS: Final = UID("1.2.840.10008.5.1.4.1.1.1.1")
IMPLICIT, EXPLICIT, BIG = UID("1.2.840.10008.1.2"), UID("1.2.840.10008.1.2.1"), UID("1.2.840.10008.1.2.2")
RLE: Final = UID("1.2.840.10008.1.2.5")
JPEG_BASELINE, JPEG_EXTENDED = UID("1.2.840.10008.1.2.4.50"), UID("1.2.840.10008.1.2.4.51")
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = UID("1.2.840.10008.1.2.4.57"), UID("1.2.840.10008.1.2.4.70")
JPEG_LS, JPEG_LS_NEAR = UID("1.2.840.10008.1.2.4.80"), UID("1.2.840.10008.1.2.4.81")
JPEG_2000_LOSSLESS, JPEG_2000 = UID("1.2.840.10008.1.2.4.90"), UID("1.2.840.10008.1.2.4.91")
HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K = (UID(f"1.2.840.10008.1.2.4.{number}") for number in (201, 202, 203))
SYNTAXES: Final = (
    IMPLICIT, EXPLICIT, BIG, RLE, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS,
    JPEG_LS_NEAR, JPEG_2000_LOSSLESS, JPEG_2000, HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K,
)  # fmt: skip


def film(bits: int = 8, *, signed: bool = False) -> npt.NDArray[Any]:
    """A picture of ROWS x COLUMNS with soft and hard edges, the whole range of `bits` in use."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    values = (np.sin(x / 5.0) + np.cos(y / 7.0) + 2) / 4
    values[8:20, 10:24] = 1 - values[8:20, 10:24]
    scaled = np.rint(values * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    return scaled.astype(np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"))


@cache
def seeds() -> dict[str, bytes]:
    """All seeds by name, in a fixed order."""
    return dict((*_jpegs(), *_pngs(), *_dicoms()))


def _jpegs() -> Iterator[tuple[str, bytes]]:
    gray = Image.fromarray(film())
    red = Image.merge("RGB", (gray, gray.rotate(180), gray))
    exif = piexif.dump({"0th": {piexif.ImageIFD.Artist: PATIENT, piexif.ImageIFD.Orientation: 6}})
    xmp = b'<x:xmpmeta><r:Description tiff:Orientation="3" dc:title="' + PATIENT + b'"/></x:xmpmeta>'
    icc = b"\x00" * 128 + PATIENT
    for name, image, options in (
        ("baseline", gray, {"comment": PATIENT}),
        ("progressive", gray, {"progressive": True, "comment": PATIENT}),
        ("restart", gray, {"restart_marker_blocks": 2}),
        ("progressive-restart", gray, {"progressive": True, "restart_marker_blocks": 3}),
        ("rgb", red, {"subsampling": 0, "icc_profile": icc}),
        ("rgb-420", red, {"subsampling": 2, "comment": PATIENT}),
        ("rgb-progressive", red, {"progressive": True}),
        ("rgb-kept", red, {"keep_rgb": True}),
        ("exif", gray, {"exif": exif}),
        ("xmp", gray, {"xmp": xmp}),
        ("cmyk", gray.convert("CMYK"), {}),
    ):
        yield f"jpeg-{name}", _saved(image, **options) + PATIENT
    for name, bits, predictor in (("lossless", 8, 1), ("12-bit", 12, None)):
        yield f"jpeg-{name}", _jpeg(film(bits), bits, predictor)


def _saved(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def _jpeg(values: npt.NDArray[Any], bits: int, predictor: int | None = None) -> bytes:
    lossless = {"lossless": True, "predictor": predictor} if predictor else {}
    depth = {"bitspersample": bits} if bits > 8 else {}
    return bytes(imagecodecs.jpeg8_encode(values, level=90, **depth, **lossless))


_PNG_COLORS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples a pixel by color type (W3C PNG, table 8)
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _pngs() -> Iterator[tuple[str, bytes]]:
    for color, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
        for depth in depths:
            yield f"png-color{color}-{depth}", png(color, depth)
    for color, depth in ((0, 1), (0, 8), (0, 16), (3, 4), (6, 8)):
        yield f"png-interlaced-color{color}-{depth}", png(color, depth, interlaced=True)


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its sum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(color: int, depth: int, *, interlaced: bool = False) -> bytes:
    """A PNG of any color type and depth, with text chunks and a tail that name a patient."""
    header = struct.pack(">IIBBBBB", COLUMNS, ROWS, depth, color, 0, 0, int(interlaced))
    rows = b"".join(_png_rows(_PNG_COLORS[color] * depth, interlaced))
    palette = chunk(b"PLTE", bytes(at % 256 for at in range(3 * 2**depth))) if color == 3 else b""
    texts = (
        chunk(b"tEXt", b"Author\0" + PATIENT)
        + chunk(b"zTXt", b"Title\0\0" + zlib.compress(PATIENT))
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PATIENT)
        + chunk(b"eXIf", piexif.dump({"0th": {piexif.ImageIFD.Artist: PATIENT}})[6:])
    )
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + texts + pixels + chunk(b"IEND", b"") + PATIENT


def _png_rows(bits: int, interlaced: bool) -> Iterator[bytes]:
    """Filter byte and samples of each row; which values they are matters to no decoder."""
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        width, height = -(-(COLUMNS - x) // across), -(-(ROWS - y) // down)
        for row in range(height):
            yield bytes([row % 5]) + bytes((5 * at + 3 * row) % 256 for at in range(-(-width * bits // 8)))


def _dicoms() -> Iterator[tuple[str, bytes]]:
    for name, syntax, bits, options in (
        ("implicit", IMPLICIT, 12, {}),
        ("implicit-undefined", IMPLICIT, 8, {"undefined": True}),
        ("explicit-8", EXPLICIT, 8, {}),
        ("explicit-16", EXPLICIT, 16, {}),
        ("explicit-signed", EXPLICIT, 12, {}),
        ("explicit-inverted", EXPLICIT, 10, {"photometric": "MONOCHROME1"}),
        ("explicit-undefined", EXPLICIT, 8, {"undefined": True}),
        ("explicit-voi-lut", EXPLICIT, 8, {"voi": True}),
        ("explicit-modality-lut", EXPLICIT, 8, {"modality": True}),
        ("big-endian", BIG, 16, {}),
    ):
        yield f"dicom-{name}", dicom(film(bits, signed=name.endswith("signed")), syntax, bits, None, **options)
    for name, syntax, bits, signed, encode in _COMPRESSED:
        values = film(bits, signed=signed)
        yield f"dicom-{name}", dicom(values, syntax, bits, encode(values, bits))


def _j2k(values: npt.NDArray[Any], bits: int, *, box: str = "j2k", lossy: bool = False) -> bytes:
    how = {"level": 40} if lossy else {"level": 0, "reversible": True}
    stream = imagecodecs.jpeg2k_encode(values, codecformat=box, bitspersample=bits, **how)
    return _commented_j2k(bytes(stream))


def _jpeg_ls(values: npt.NDArray[Any], near: int = 0) -> bytes:
    return bytes(jpeg_ls.encode_array(values, lossy_error=near))


def _tiled_j2k(values: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG2000", no_jp2=True, tile_size=(16, 16), num_resolutions=2)
    return _commented_j2k(out.getvalue())


def _commented_j2k(stream: bytes) -> bytes:
    """With a COM marker segment (T.800 A.9.2) behind SIZ, where it is a bare codestream."""
    if not stream.startswith(b"\xff\x4f\xff\x51"):
        return stream
    at = 4 + struct.unpack_from(">H", stream, 4)[0]
    return stream[:at] + b"\xff\x64" + struct.pack(">HH", len(PATIENT) + 4, 1) + PATIENT + stream[at:]


def _commented(stream: bytes) -> bytes:
    """A JPEG with a comment and an application segment behind SOI."""
    segment = struct.pack(">H", len(PATIENT) + 2) + PATIENT
    return stream[:2] + b"\xff\xfe" + segment + b"\xff\xe1" + segment + stream[2:]


_Encode = Callable[[npt.NDArray[Any], int], bytes]
_COMPRESSED: Final[tuple[tuple[str, UID, int, bool, _Encode], ...]] = (
    ("rle-8", RLE, 8, False, lambda v, b: rle(v)),
    ("rle-16", RLE, 16, False, lambda v, b: rle(v)),
    ("rle-signed", RLE, 12, True, lambda v, b: rle(v)),
    ("jpeg-baseline", JPEG_BASELINE, 8, False, lambda v, b: _commented(_saved(Image.fromarray(v)))),
    ("jpeg-extended-8", JPEG_EXTENDED, 8, False, lambda v, b: _commented(_saved(Image.fromarray(v)))),
    ("jpeg-extended-12", JPEG_EXTENDED, 12, False, lambda v, b: _commented(_jpeg(v, b))),
    ("jpeg-lossless-8", JPEG_LOSSLESS, 8, False, lambda v, b: _commented(_jpeg(v, b, 4))),
    ("jpeg-lossless-12", JPEG_LOSSLESS, 12, False, lambda v, b: _commented(_jpeg(v, b, 6))),
    ("jpeg-sv1-8", JPEG_LOSSLESS_SV1, 8, False, lambda v, b: _commented(_jpeg(v, b, 1))),
    ("jpeg-sv1-12", JPEG_LOSSLESS_SV1, 12, False, lambda v, b: _commented(_jpeg(v, b, 1))),
    ("jpeg-sv1-16", JPEG_LOSSLESS_SV1, 16, False, lambda v, b: _commented(_jpeg(v, b, 1))),
    ("jpeg-ls-8", JPEG_LS, 8, False, lambda v, b: _commented(_jpeg_ls(v))),
    ("jpeg-ls-16", JPEG_LS, 16, False, lambda v, b: _commented(_jpeg_ls(v))),
    ("jpeg-ls-near", JPEG_LS_NEAR, 8, False, lambda v, b: _commented(_jpeg_ls(v, near=2))),
    ("j2k-lossless-8", JPEG_2000_LOSSLESS, 8, False, _j2k),
    ("j2k-lossless-12", JPEG_2000_LOSSLESS, 12, False, _j2k),
    ("j2k-lossless-signed", JPEG_2000_LOSSLESS, 16, True, _j2k),
    ("j2k-tiled", JPEG_2000_LOSSLESS, 8, False, lambda v, b: _tiled_j2k(v)),
    ("j2k-lossy", JPEG_2000, 12, False, lambda v, b: _j2k(v, b, lossy=True)),
    ("j2k-boxed", JPEG_2000, 8, False, lambda v, b: _j2k(v, b, box="jp2")),
    ("htj2k-lossless", HTJ2K_LOSSLESS, 8, False,
     lambda v, b: _commented_j2k(bytes(imagecodecs.htj2k_encode(v, level=0, reversible=True)))),
    ("htj2k-lossy", HTJ2K, 16, False, lambda v, b: _commented_j2k(bytes(imagecodecs.htj2k_encode(v, level=0.01)))),
)  # fmt: skip


def dicom(
    values: npt.NDArray[Any],
    syntax: UID,
    bits: int,
    frame: bytes | None,
    *,
    undefined: bool = False,
    photometric: str = "MONOCHROME2",
    voi: bool = False,
    modality: bool = False,
) -> bytes:
    """A digital X-ray as a file, native or around a compressed `frame`; the patient is named in and around it."""
    order = ">" if syntax == BIG else "<"
    coded = values.astype(values.dtype.newbyteorder(order)).tobytes() if frame is None else frame
    native, signed = frame is None, values.dtype.kind == "i"
    stated = {"SOPClassUID": _FILM_CLASS, "SOPInstanceUID": UID("1.2.3.4"), "Modality": "DX", "ViewPosition": "PA",
              "NumberOfFrames": "1", "PhotometricInterpretation": photometric}  # fmt: skip
    mapping: dict[str, Any] = {"RescaleIntercept": "-1.5", "RescaleSlope": "2"}
    if modality:
        mapping = {"ModalityLUTSequence": Sequence([_lut(syntax)])}
    window: dict[str, Any] = {"WindowCenter": ["120", "90.5"], "WindowWidth": ["200", "180"],
                              "WindowCenterWidthExplanation": [_TEXT, "BONE"]}  # fmt: skip
    if voi:
        window = {"VOILUTSequence": Sequence([_lut(syntax)])}
    attributes = stated | mapping | window
    allocated = 8 * values.itemsize
    dataset = dicoms.make_dataset(
        syntax, coded, values.shape, bits, allocated, native=native, signed=signed, **attributes
    )
    _add_patient(dataset, undefined)
    if frame is None and values.itemsize == 1:
        dataset["PixelData"].VR = "OB"
    dataset.add_new(0xFFFCFFFC, "OB", PATIENT + b"\0")
    dataset.file_meta.MediaStorageSOPClassUID = _FILM_CLASS
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.file_meta.ImplementationClassUID = UID("1.2.3")
    return dicoms.write(dataset)


def _add_patient(dataset: Dataset, undefined: bool) -> None:
    dataset.PatientName = dataset.PatientID = dataset.ImageComments = _TEXT
    dataset.PatientAge, dataset.PatientSex = "003Y", "F"
    dataset.PixelSpacing = ["0.14", "0.14"]
    dataset.StudyDate, dataset.PatientBirthDate = "20240102", "20210101"
    dataset.private_block(0x0099, "ZQ", create=True).add_new(0x01, "LO", _TEXT)
    item = Dataset()
    item.PatientID = _TEXT
    item.OtherPatientNames = _TEXT
    item.is_undefined_length_sequence_item = undefined
    dataset.OtherPatientIDsSequence = Sequence([item])
    dataset["OtherPatientIDsSequence"].is_undefined_length = undefined


def _lut(syntax: UID) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    item.LUTExplanation = _TEXT
    item.add_new("ModalityLUTType", "LO", _TEXT)
    table = (np.arange(256) ** 2).astype(np.uint16)
    item.add_new("LUTData", "OW", table.astype(">u2" if syntax == BIG else "<u2").tobytes())
    return item


def rle(values: npt.NDArray[Any]) -> bytes:
    """An RLE frame (PS3.5 annex G): one segment a byte plane, the most significant first."""
    planes = values.view(np.uint8).reshape(*values.shape, values.itemsize)
    segments = [_packed_bits(planes[:, :, plane]) for plane in reversed(range(values.itemsize))]
    starts = [64 + sum(len(segment) for segment in segments[:index]) for index in range(len(segments))]
    header = struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def _packed_bits(plane: npt.NDArray[np.uint8]) -> bytes:
    """Each row as runs of equal bytes, and as literals where there are none."""
    out = bytearray()
    for row in plane:
        at = 0
        while at < len(row):
            run = 1
            while at + run < len(row) and row[at + run] == row[at] and run < 128:
                run += 1
            out += bytes((257 - run, row[at])) if run > 1 else bytes((0, row[at]))
            at += run
    return bytes(out + b"\0" * (len(out) % 2))
