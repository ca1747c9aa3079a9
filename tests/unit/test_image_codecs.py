"""Pixels of DICOM films in every transfer syntax, and frames whose own header says otherwise than the object."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import openjpeg.utils
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from pneumoserve.imaging import ImageError, PreparedImage
from pneumoserve.imaging.prepare import prepare
from tests.support import dicoms

DEPTHS = [(8, False), (8, True), (10, False), (12, False), (12, True), (16, False), (16, True)]
SHOWN = [
    {},
    {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "1.5", "RescaleIntercept": "-7"},
    {"WindowCenter": "100", "WindowWidth": "90"},
    {"WindowCenter": "100", "WindowWidth": "90", "VOILUTFunction": "SIGMOID"},
]
WORD = b"ZQPATIENT^DOE^JOHN 19700101"


def film_and_copy(data: bytes) -> PreparedImage:
    """A film that is the same when its stored copy is prepared."""
    film = prepare(data)
    again = prepare(film.stored)
    assert again.pixels_sha256 == film.pixels_sha256
    assert again.stored == film.stored
    assert again.facts == film.facts
    return film


def status_of(data: bytes) -> int:
    with pytest.raises(ImageError) as caught:
        prepare(data)
    return caught.value.status


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("kind", [*dicoms.LOSSLESS, "implicit", "big endian"])
def test_lossless_syntaxes_give_the_values_that_were_coded(kind: str, bits: int, signed: bool) -> None:
    values = dicoms.scene(bits, signed)
    for shown in SHOWN:
        wanted = prepare(dicoms.film("explicit", values, bits, signed, **shown))
        assert film_and_copy(dicoms.film(kind, values, bits, signed, **shown)).pixels_sha256 == wanted.pixels_sha256


def test_the_mapping_by_codes_is_that_of_pydicom_and_the_range() -> None:
    values = dicoms.scene(12, True)
    data = dicoms.film("explicit", values, 12, True, RescaleSlope="2", RescaleIntercept="5", WindowCenter="7",
                       WindowWidth="3000")  # fmt: skip
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = shown.min(), shown.max()
    gray = Image.fromarray(np.rint((shown - low) * (255.0 / (high - low))).astype(np.uint8))
    wanted = np.asarray(gray.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(prepare(data).pixels, wanted)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg 12 bit"])
def test_lossy_jpeg_gives_what_libjpeg_turbo_decodes(kind: str) -> None:
    bits = 8 if kind == "jpeg" else 12
    coded = dicoms.frame(kind, dicoms.scene(bits), bits)
    decoded = np.asarray(Image.open(io.BytesIO(coded))) if bits == 8 else imagecodecs.jpeg8_decode(coded)
    wanted = prepare(dicoms.film("explicit", decoded.astype(np.int32), bits))
    assert film_and_copy(dicoms.film(kind, dicoms.scene(bits), bits)).pixels_sha256 == wanted.pixels_sha256


@pytest.mark.parametrize("kind", ["jpeg-ls near", "jpeg 2000 lossy"])
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
def test_other_lossy_syntaxes_give_nearly_the_values(kind: str, bits: int, signed: bool) -> None:
    # A near value in two's complement may wrap around; pictures do not touch the ends of their range.
    values = dicoms.scene(bits, signed) // 2
    wanted = prepare(dicoms.film("explicit", values, bits, signed)).pixels.astype(int)
    assert np.abs(film_and_copy(dicoms.film(kind, values, bits, signed)).pixels - wanted).mean() < 4


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_of_the_other_sign_is_read_as_the_object_says(signed: bool) -> None:
    values = dicoms.scene(12, signed)
    codes = values & 0xFFF
    other = codes if signed else np.where(codes >= 0x800, codes - 0x1000, codes)
    coded = dicoms.frame("jpeg 2000", other, 12, not signed)
    film = film_and_copy(dicoms.wrapped("jpeg 2000", coded, values.shape, 12, 16, signed))
    assert film.pixels_sha256 == prepare(dicoms.film("explicit", values, 12, signed)).pixels_sha256


def test_jpeg_2000_in_jp2_boxes_is_the_codestream_in_them() -> None:
    values = dicoms.scene(12)
    coded = dicoms.frame("jpeg 2000", values, 12)
    text = struct.pack(">I4s", 8 + len(WORD), b"xml ") + WORD
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + text + struct.pack(">I4s", 8 + len(coded), b"jp2c") + coded
    film = film_and_copy(dicoms.wrapped("jpeg 2000", boxes, values.shape, 12, 16))
    assert film.stored == prepare(dicoms.film("jpeg 2000", values, 12)).stored


def test_fragments_are_joined() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicoms.film("jpeg-ls", dicoms.scene(12), 12)))
    whole = prepare(dicoms.film("jpeg-ls", dicoms.scene(12), 12))
    coded = dicoms.frame("jpeg-ls", dicoms.scene(12), 12)
    coded += b"\0" * (len(coded) % 2)
    item = b"\xfe\xff\x00\xe0"
    parts = [coded[at : at + 100] for at in range(0, len(coded), 100)]
    dataset.PixelData = item + bytes(4) + b"".join(item + struct.pack("<I", len(part)) + part for part in parts)
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset)
    assert film_and_copy(out.getvalue()).stored == whole.stored


def segment(marker: int) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(WORD)) + WORD


def hide(kind: str, coded: bytes) -> bytes:
    """A frame with a name everywhere a decoder does not look."""
    if not kind.startswith("jpeg 2000"):
        return coded[:2] + segment(0xFE) + segment(0xE1) + coded[2:] + WORD
    at = coded.index(b"\xff\x90")
    part = bytearray(coded[at:-2])
    part[12:12] = segment(0x64)
    part[6:10] = struct.pack(">I", len(part))
    return coded[:at] + segment(0x64) + bytes(part) + b"\xff\xd9" + WORD


def test_a_name_behind_an_rle_frame_is_refused() -> None:
    coded = dicoms.frame("rle", dicoms.scene(8), 8)
    assert status_of(dicoms.wrapped("rle", coded + WORD, (67, 91), 8, 8)) == 400


@pytest.mark.parametrize("kind", [kind for kind in dicoms.SYNTAXES if kind not in (*dicoms.NATIVE, "rle")])
def test_a_name_in_a_frame_is_not_stored(kind: str) -> None:
    bits = 8 if kind == "jpeg" else 12
    values = dicoms.scene(bits)
    coded = hide(kind, dicoms.frame(kind, values, bits))
    film = film_and_copy(dicoms.wrapped(kind, coded, values.shape, bits, 8 if bits == 8 else 16))
    assert b"ZQPATIENT" not in film.stored
    assert film.pixels_sha256 == prepare(dicoms.film(kind, values, bits)).pixels_sha256


@pytest.mark.parametrize("kind", dicoms.NATIVE)
@pytest.mark.parametrize("bits", [8, 12])
def test_a_name_behind_native_pixels_is_not_stored(kind: str, bits: int) -> None:
    values = dicoms.scene(bits)
    coded = dicoms.frame(kind, values, bits)
    padded = coded + b"\0" * (len(coded) % 2) + WORD
    film = film_and_copy(dicoms.wrapped(kind, padded, values.shape, bits, 8 if bits == 8 else 16))
    assert b"ZQPATIENT" not in film.stored
    assert film.pixels_sha256 == prepare(dicoms.film(kind, values, bits)).pixels_sha256


@pytest.mark.parametrize("kind", [kind for kind in dicoms.SYNTAXES if kind not in dicoms.NATIVE and kind != "rle"])
def test_a_frame_of_another_size_is_refused(kind: str) -> None:
    bits = 8 if kind == "jpeg" else 12
    coded = dicoms.frame(kind, dicoms.scene(bits), bits)
    assert status_of(dicoms.wrapped(kind, coded, (66, 91), bits, 8 if bits == 8 else 16)) == 400
    assert status_of(dicoms.wrapped(kind, coded, (91, 67), bits, 8 if bits == 8 else 16)) == 400


@pytest.mark.parametrize("kind", ["jpeg 12 bit", "jpeg lossless", "jpeg-ls", "jpeg 2000"])
def test_a_frame_of_more_bits_than_allocated_is_refused(kind: str) -> None:
    coded = dicoms.frame(kind, dicoms.scene(12), 12)
    assert status_of(dicoms.wrapped(kind, coded, (67, 91), 8, 8)) == 400


@pytest.mark.parametrize("extension", [b"\x04\x04\x00\x01\x00\x00\x00\x01\x00\x00", b"\x02\x01\x01\x00"])
def test_a_jpeg_ls_frame_with_another_size_or_a_mapping_is_refused(extension: bytes) -> None:
    coded = dicoms.frame("jpeg-ls", dicoms.scene(8), 8)
    lse = struct.pack(">BBH", 0xFF, 0xF8, 2 + len(extension)) + extension
    assert status_of(dicoms.wrapped("jpeg-ls", coded[:2] + lse + coded[2:], (67, 91), 8, 8)) == 415


def test_a_frame_of_three_components_is_refused() -> None:
    out = io.BytesIO()
    Image.new("RGB", (91, 67)).save(out, "JPEG")
    assert status_of(dicoms.wrapped("jpeg", out.getvalue(), (67, 91), 8, 8)) == 415
    coded = openjpeg.utils.encode_array(np.zeros((67, 91, 3), np.uint8), photometric_interpretation=1)
    assert status_of(dicoms.wrapped("jpeg 2000", coded, (67, 91), 8, 8)) == 415


@pytest.mark.parametrize(("named", "coded_as"), [("jpeg", "jpeg lossless"), ("jpeg lossless", "jpeg"),
                                                 ("jpeg-ls", "jpeg"), ("jpeg 2000", "jpeg"), ("jpeg", "jpeg 2000"),
                                                 ("rle", "jpeg")])  # fmt: skip
def test_a_frame_of_another_syntax_is_refused(named: str, coded_as: str) -> None:
    coded = dicoms.frame(coded_as, dicoms.scene(8), 8)
    assert status_of(dicoms.wrapped(named, coded, (67, 91), 8, 8)) in (400, 415)


@pytest.mark.parametrize("kind", dicoms.SYNTAXES)
def test_a_frame_that_is_cut_short_is_refused(kind: str) -> None:
    bits = 8 if kind == "jpeg" else 12
    coded = dicoms.frame(kind, dicoms.scene(bits), bits)[:-400]
    assert status_of(dicoms.wrapped(kind, coded, (67, 91), bits, 8 if bits == 8 else 16)) == 400
