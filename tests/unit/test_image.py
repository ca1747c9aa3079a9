"""Image intake: what is accepted, what is refused before decoding, and what is kept."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumoserve.imaging import MAX_BYTES, Facts, ImageError, LargeFilm
from pneumoserve.imaging.dicom import read_device
from pneumoserve.imaging.prepare import prepare
from tests.support import dicoms, films


def status_of(data: bytes) -> int:
    with pytest.raises(ImageError) as caught:
        prepare(data)
    return caught.value.status


def test_a_film_becomes_224_gray_pixels_with_digests() -> None:
    data = films.sample_films()[0].read_bytes()
    film = prepare(data)
    assert film.pixels.shape == (224, 224)
    assert film.pixels.dtype == np.uint8
    assert film.format == "jpeg"
    assert prepare(data).pixels_sha256 == film.pixels_sha256
    assert film.pixels.std() > 10


def test_png_of_the_same_pixels_is_the_same_film() -> None:
    image = films.film_image()
    png = prepare(films.encoded(image, "PNG"))
    rgb = prepare(films.encoded(image.convert("RGB"), "PNG"))
    assert png.pixels_sha256 == rgb.pixels_sha256


def test_16_bit_png_is_spread_over_its_own_range() -> None:
    shallow = np.asarray(films.film_image(), dtype=np.uint16)
    twelve_bits = films.encoded(Image.fromarray(shallow * 16), "PNG")
    eight_bits = films.encoded(
        Image.fromarray(((shallow - shallow.min()) * (255 / np.ptp(shallow))).round().astype("u1")), "PNG"
    )
    difference = np.abs(prepare(twelve_bits).pixels.astype(int) - prepare(eight_bits).pixels)
    assert difference.max() <= 1


def test_chest_dicom_is_upright_gray_and_tells_its_facts() -> None:
    film = prepare(films.CHEST_DICOM.read_bytes())
    assert (film.width, film.height) == (1841, 1955)
    assert film.facts == Facts(modality="CR", body_part="CHEST", view_position="PA", age_years=64.0, sex="F")
    # MONOCHROME1 inverted: the air beside the patient is dark, the spine bright.
    assert film.pixels[100, 105:120].mean() > film.pixels[100, 60:80].mean()


def test_leg_dicom_says_it_is_no_chest() -> None:
    assert prepare(films.LEG_DICOM.read_bytes()).facts.body_part == "EXTREMITY"


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "003Y"}, 3.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "099Y"}, 90.0),
        ({"PatientAge": "360D"}, 0.92),
        ({"PatientAge": "051W"}, 0.92),
        ({"PatientAge": "052W"}, 0.92),
        ({"PatientAge": "365D"}, 1.0),
        ({"PatientAge": "035M"}, 2.92),
        ({"PatientAge": "047M"}, 3.0),
        ({"PatientAge": "", "PatientBirthDate": "20000131", "StudyDate": "20010130"}, 0.92),
        ({"PatientAge": "", "PatientBirthDate": "20000101", "StudyDate": "20040701"}, 4.0),
        ({"PatientAge": "", "PatientBirthDate": "", "StudyDate": "20040701"}, None),
        ({"PatientAge": "young", "PatientBirthDate": "2000-01-01"}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_age(attributes: dict[str, str], years: float | None) -> None:
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    film = prepare(films.written(dataset))
    assert film.facts.age_years == years
    assert prepare(film.stored).facts == film.facts


@pytest.mark.parametrize(
    ("attributes", "device"),
    [
        ({"Manufacturer": "Maker", "ManufacturerModelName": "DR 7"}, "Maker DR 7"),
        ({"ManufacturerModelName": "DR\n<7>" + 80 * "x"}, "DR?<7>" + 58 * "x"),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_device_is_what_it_calls_itself(attributes: dict[str, str], device: str | None) -> None:
    assert read_device(dicoms.film("explicit", dicoms.scene(8), 8, **attributes)) == device


def chest_with(keyword: str, vr: str, *without: str) -> bytes:
    """The chest film with a name in an attribute, and without some others."""
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    for unwanted in without:
        del dataset[unwanted]
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, vr, 10, b"MUSTERMANN", 0, False, True)
    return films.written(dataset)


CODED = ("BodyPartExamined", "ViewPosition", "PatientSex", "VOILUTFunction", "PresentationLUTShape",
         "BurnedInAnnotation", "LossyImageCompression")  # fmt: skip


@pytest.mark.parametrize("keyword", CODED)
def test_a_name_in_a_coded_field_goes_nowhere(keyword: str) -> None:
    film = prepare(chest_with(keyword, "CS", "WindowCenter", "WindowWidth"))
    assert b"MUSTERMANN" not in film.stored
    assert pydicom.dcmread(io.BytesIO(film.stored))[keyword].value == "OTHER"
    assert "MUSTERMANN" not in str(film.facts)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_a_name_for_a_spacing_is_left_out(keyword: str) -> None:
    film = prepare(chest_with(keyword, "DS"))
    assert keyword not in pydicom.dcmread(io.BytesIO(film.stored))
    assert film.pixels_sha256 == prepare(films.CHEST_DICOM.read_bytes()).pixels_sha256


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("keyword", ["RescaleSlope", "WindowCenter", "SmallestImagePixelValue"])
def test_a_name_for_a_number_that_pixels_need_is_refused(keyword: str) -> None:
    assert status_of(chest_with(keyword, "LO")) == 400


def test_a_window_of_an_unknown_function_is_refused() -> None:
    assert status_of(chest_with("VOILUTFunction", "CS")) == 400


def jpeg_segment(marker: int) -> bytes:
    jpeg = films.encoded(films.film_image(), "JPEG")
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", 12) + b"MUSTERMANN" + jpeg[2:]


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with_chunk(name: bytes, before: bytes) -> bytes:
    png = films.encoded(films.film_image(), "PNG")
    at = png.index(before) - 4
    return png[:at] + png_chunk(name, b"MUSTERMANN") + png[at:]


HIDDEN = {
    **{f"jpeg segment {marker:x}": lambda marker=marker: jpeg_segment(marker) for marker in (0xDC, 0xE0, 0xED, 0xFE)},
    "jpeg stuffed zero": lambda: films.jpeg_with_texts().replace(b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\x00\xff\xe0", 1),
    "png transparency": lambda: png_with_chunk(b"tRNS", b"IDAT"),
    "png private chunk": lambda: png_with_chunk(b"prVt", b"IDAT"),
    "png end": lambda: png_with_chunk(b"IEND", b"IEND"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_name_where_no_decoder_looks_is_not_stored(name: str) -> None:
    film = prepare(HIDDEN[name]())
    assert b"mustermann" not in film.stored.lower()
    assert prepare(film.stored).pixels_sha256 == film.pixels_sha256


@pytest.mark.parametrize("make", [films.jpeg_with_texts, films.png_with_texts, films.dicom_with_texts])
def test_what_is_stored_shows_the_same_pixels_and_no_patient(make: object) -> None:
    data = make()  # type: ignore[operator]
    assert any(word.encode() in data for word in films.PLANTED)
    film = prepare(data)
    again = prepare(film.stored)
    assert again.pixels_sha256 == film.pixels_sha256
    assert again.stored_sha256 == film.stored_sha256
    for word in films.PLANTED:
        assert word.encode() not in film.stored


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed_and_kept(orientation: int) -> None:
    film = prepare(films.jpeg_with_texts(orientation))
    assert prepare(film.stored).pixels_sha256 == film.pixels_sha256
    upright = prepare(films.jpeg_with_texts()).pixels
    assert (orientation == 1) == bool(np.array_equal(film.pixels, upright))


def test_sample_films_keep_their_pixels_when_stored() -> None:
    for path in [*films.sample_films(), *(films.SAMPLE / "originals").rglob("*.jpeg")]:
        film = prepare(path.read_bytes())
        assert prepare(film.stored).pixels_sha256 == film.pixels_sha256, path.name


def test_progressive_jpeg_is_kept_scan_by_scan() -> None:
    film = prepare(films.encoded(films.film_image(), "JPEG", progressive=True))
    assert prepare(film.stored).pixels_sha256 == film.pixels_sha256


def dicom_without_pixels() -> bytes:
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    del dataset.PixelData
    return films.written(dataset)


def dicom_of_another_class() -> bytes:
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    return films.written(dataset)


def dicom_deflated() -> bytes:
    """A bomb in the small: 300 MB of zeros, deflated, where the limit is 32 MiB."""
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    dataset.PixelData = bytes(300_000_000)
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return films.written(dataset)


def dicom_with_a_lying_header() -> bytes:
    """A J2K stream that claims 30000 x 30000 inside an object that claims 1841 x 1955."""
    data = films.CHEST_DICOM.read_bytes()
    at = data.index(b"\xff\x4f\xff\x51")
    return data[: at + 8] + struct.pack(">II", 30000, 30000) + data[at + 16 :]


def png_header_of(width: int, height: int) -> bytes:
    """A PNG that claims a size of its own; the claim alone must be enough to refuse it."""
    png = films.encoded(films.film_image(), "PNG")
    return png[:8] + png_chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def animated(kind: str) -> bytes:
    frames = [films.film_image(), films.film_image().rotate(90)]
    return films.encoded(frames[0], kind, save_all=True, append_images=frames[1:])


REFUSED = {
    "empty": (lambda: b"", 400),
    "text": (lambda: b"not an image", 415),
    "html": (lambda: b"<!doctype html><html></html>", 415),
    "truncated jpeg": (lambda: films.jpeg_of(600, 600)[:2000], 400),
    "jpeg magic alone": (lambda: b"\xff\xd8\xff\xe0", 400),
    "truncated png": (lambda: films.encoded(films.film_image(), "PNG")[:4000], 400),
    "54 megapixels": (lambda: films.jpeg_of(8572, 6304), 413),
    "900 megapixels": (lambda: png_header_of(30000, 30000), 413),
    "33 MiB": (lambda: b"\xff\xd8\xff" + bytes(MAX_BYTES), 413),
    "too small": (lambda: films.jpeg_of(10, 600), 400),
    "cmyk": (lambda: films.encoded(films.film_image().convert("CMYK"), "JPEG"), 415),
    "animated gif": (lambda: animated("GIF"), 415),
    "animated png": (lambda: animated("PNG"), 415),
    "tiff": (lambda: films.encoded(films.film_image(), "TIFF"), 415),
    "dicom without pixels": (dicom_without_pixels, 400),
    "dicom of another class": (dicom_of_another_class, 415),
    "dicom deflated": (dicom_deflated, 415),
    "dicom cut short": (lambda: films.CHEST_DICOM.read_bytes()[:100_000], 400),
    "dicom whose stream is huge": (dicom_with_a_lying_header, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, status = REFUSED[name]
    assert status_of(make()) == status


def test_a_large_jpeg_2000_is_refused_on_demand_at_fewer_pixels() -> None:
    coded = dicoms.frame("jpeg 2000", dicoms.scene(8), 8)
    with pytest.raises(LargeFilm):
        prepare(dicoms.wrapped("jpeg 2000", coded, (3000, 3000), 8, 8), refuse_large=True)
    with pytest.raises(ImageError):
        prepare(dicoms.wrapped("jpeg-ls", coded, (3000, 3000), 8, 8), refuse_large=True)
    with pytest.raises(LargeFilm):
        prepare(dicoms.wrapped("jpeg-ls", coded, (4000, 4000), 8, 8), refuse_large=True)


def test_a_large_film_is_refused_on_demand_before_it_is_decoded() -> None:
    with pytest.raises(LargeFilm) as caught:
        prepare(png_header_of(4000, 4000), refuse_large=True)
    assert caught.value.pixels == 16_000_000
    assert not isinstance(caught.value, ImageError)


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_are_refused_or_decoded_never_anything_else(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([films.jpeg_with_texts(), films.png_with_texts()]))
    at = data.draw(st.integers(2, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :]
    try:
        film = prepare(bad)
    except ImageError as error:
        assert error.status in (400, 413, 415)
    else:
        assert prepare(film.stored).pixels_sha256 == film.pixels_sha256
